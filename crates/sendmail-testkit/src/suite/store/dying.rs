//! What becomes of a claim whose worker dies.

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{
    AmbiguousPolicy, DeliveryOptions, EntryState, MailEventKind, NewMessage, QueueStore,
    Settlement, Step,
};

use crate::suite::support::*;
use crate::suite::{QueueHarness, skipped};

const MINUTE: Duration = Duration::from_secs(60);

/// Catches a store in which the mail of a dead worker waits for hours, or for ever.
// Proves: I12, F-claim-kill
pub async fn a_dead_workers_claims_are_free<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    for _ in 0..3 {
        queue(h, &doomed, &["a@example.net"]).await;
    }
    assert_eq!(claim_due(&doomed).await.0.len(), 3);
    let store = h.open().await;
    claim_none(&store, "their worker lives").await;
    die(h, doomed).await;
    let (claims, _) = claim_due(&store).await;
    assert_eq!(claims.len(), 3, "their worker is dead: the next claim brings them");
    assert!(claims.iter().all(|claim| claim.attempt == 1), "no attempt was begun");
}

/// Catches a store that takes claims from the living.
// Proves: I7
pub async fn a_live_workers_claims_are_not_free<H: QueueHarness>(h: &H) {
    let (store, doomed) = (h.open().await, h.open().await);
    queue(h, &store, &["a@example.net"]).await;
    let mine = claim_one(&store, "it is published").await;
    h.kill(doomed).await;
    let other = h.open().await;
    other.sweep().await.expect("a sweep");
    claim_none(&other, "its worker lives; another one died").await;
    deliver(&store, mine).await;
}

/// Catches a store that sends a second copy after a crash without saying so beforehand.
// Proves: I8, F-dot-kill
pub async fn handover_then_death_is_announced_before_the_next_claim<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let new = queue(h, &doomed, &["a@example.net", "b@example.net"]).await;
    let lost = claim_one(&doomed, "it is published").await;
    attempt(&doomed, &lost).await;
    die(h, doomed).await;
    let store = h.open().await;
    let (claim, events) = claim_one_with_events(&store, "its worker is dead").await;
    let announced = of_kind(&events, MailEventKind::PossibleDuplicate);
    assert_eq!(
        recipients(&announced),
        ["a@example.net", "b@example.net"],
        "each recipient is announced as a possible duplicate"
    );
    assert_eq!(told(h, new.id, MailEventKind::PossibleDuplicate).await, announced);
    let loaded = load(&store, &claim).await;
    assert_eq!(loaded.message, new.message, "the same bytes and Message-ID again");
    assert_eq!(loaded.envelope, new.envelope);
}

/// Catches a store in which two who take over both announce.
// Proves: I8
pub async fn a_death_is_announced_once<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let mut ids = Vec::new();
    for _ in 0..8 {
        ids.push(queue(h, &doomed, &["a@example.net"]).await.id);
    }
    for claim in claim_due(&doomed).await.0 {
        attempt(&doomed, &claim).await;
    }
    die(h, doomed).await;
    let mut takers = tokio::task::JoinSet::new();
    for number in 0..4 {
        let store = h.open().await;
        takers.spawn(take_over(store, number % 2 == 0));
    }
    let mut claimed = Vec::new();
    while let Some(ids) = takers.join_next().await {
        claimed.extend(ids.expect("a taker"));
    }
    claimed.sort();
    ids.sort();
    assert_eq!(claimed, ids, "each is taken over by one");
    for id in ids {
        let announced = told(h, id, MailEventKind::PossibleDuplicate).await;
        assert_eq!(announced.len(), 1, "one death, one recipient, one announcement");
    }
}

async fn take_over(store: Arc<dyn QueueStore>, sweeps: bool) -> Vec<sendmail_core::QueueId> {
    if sweeps {
        store.sweep().await.expect("a sweep");
    }
    let mut ids = Vec::new();
    loop {
        let (claims, _) = claim_due(&store).await;
        if claims.is_empty() {
            return ids;
        }
        for claim in claims {
            ids.push(claim.id);
            deliver(&store, claim).await;
        }
    }
}

/// Catches a store that announces, or serves, who was served for sure.
// Proves: I8
pub async fn only_the_remaining_are_announced<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let new = queue(h, &doomed, &["a@example.net", "b@example.net"]).await;
    let first = claim_one(&doomed, "it is published").await;
    try_once(&doomed, first, vec![accepted(), deferred()], MINUTE).await;
    h.clock().advance(MINUTE);
    let second = claim_one(&doomed, "one was deferred").await;
    attempt(&doomed, &second).await;
    die(h, doomed).await;
    let store = h.open().await;
    let claim = claim_one(&store, "its worker is dead").await;
    assert_eq!(remaining(&store, &claim).await, ["b@example.net"]);
    let announced = told(h, new.id, MailEventKind::PossibleDuplicate).await;
    assert_eq!(recipients(&announced), ["b@example.net"]);
}

/// Catches a store that cries wolf.
// Proves: I8, F-send-kill
pub async fn no_announcement_without_handover<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let new = queue(h, &doomed, &["a@example.net"]).await;
    let lost = claim_one(&doomed, "it is published").await;
    load(&doomed, &lost).await;
    record(&doomed, &lost, Step::Begin).await;
    die(h, doomed).await;
    let store = h.open().await;
    deliver(&store, claim_one(&store, "its worker is dead").await).await;
    store.sweep().await.expect("a sweep");
    let announced = told(h, new.id, MailEventKind::PossibleDuplicate).await;
    assert!(announced.is_empty(), "nothing was handed over: no copy can have gone out");
}

/// Catches a store that forgets a settlement with the process that made it.
// Proves: Q-delivered
pub async fn settled_then_death_is_not_sent_again<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let new = queue(h, &doomed, &["a@example.net"]).await;
    deliver(&doomed, claim_one(&doomed, "it is published").await).await;
    die(h, doomed).await;
    let store = h.open().await;
    store.sweep().await.expect("a sweep");
    claim_none(&store, "it was delivered and settled").await;
    assert!(told(h, new.id, MailEventKind::PossibleDuplicate).await.is_empty());
}

/// Catches a store that sends a second copy of a message that asked for none.
// Proves: Q-policy, F-dot-kill
pub async fn ambiguous_policy_hold_after_death<H: QueueHarness>(h: &H) {
    let new = handed_over_then_dead(h, AmbiguousPolicy::Hold).await;
    let store = h.open().await;
    claim_none(&store, "perhaps sent, and held by its own wish").await;
    store.sweep().await.expect("a sweep");
    claim_none(&store, "perhaps sent, and held by its own wish").await;
    assert_eq!(entries_of(h, new.id).await[0].state, EntryState::Held);
    assert!(!told(h, new.id, MailEventKind::Held).await.is_empty(), "nobody is told");
    let announced = told(h, new.id, MailEventKind::PossibleDuplicate).await;
    assert_eq!(recipients(&announced), ["a@example.net"], "an operator may let it be sent again");
    h.admin().await.release(new.id).await.expect("a release");
    is_due(&store, "an operator released it").await;
}

/// Catches a store that sends a second copy of a message that asked for none, or deletes it.
// Proves: Q-policy, F-dot-kill
pub async fn ambiguous_policy_drop_after_death<H: QueueHarness>(h: &H) {
    let new = handed_over_then_dead(h, AmbiguousPolicy::Drop).await;
    let store = h.open().await;
    claim_none(&store, "perhaps sent, and given up by its own wish").await;
    store.sweep().await.expect("a sweep");
    claim_none(&store, "perhaps sent, and given up by its own wish").await;
    assert_eq!(entries_of(h, new.id).await[0].state, EntryState::Failed);
    let failed = told(h, new.id, MailEventKind::Failed).await;
    assert_eq!(recipients(&failed), ["a@example.net"], "a failed-event for its recipient");
    let announced = told(h, new.id, MailEventKind::PossibleDuplicate).await;
    assert_eq!(recipients(&announced), ["a@example.net"], "an operator may let it be sent again");
}

async fn handed_over_then_dead<H: QueueHarness>(h: &H, policy: AmbiguousPolicy) -> NewMessage {
    let doomed = h.open().await;
    let mut options = DeliveryOptions::default();
    options.ambiguous = policy;
    let mut new = mail(h, &doomed, &["a@example.net"]);
    new.envelope = new.envelope.with_options(options);
    write(&doomed, &new).await;
    publish(&doomed, new.id).await;
    let lost = claim_one(&doomed, "it is published").await;
    attempt(&doomed, &lost).await;
    die(h, doomed).await;
    new
}

/// Catches a store in which one poisonous message kills worker after worker.
// Proves: I12
pub async fn killed_three_workers_is_held<H: QueueHarness>(h: &H) {
    let first = h.open().await;
    let new = queue(h, &first, &["a@example.net"]).await;
    h.kill(first).await;
    for number in 1..=3 {
        let doomed = h.open().await;
        let lost = claim_one(&doomed, "it killed fewer than three").await;
        load(&doomed, &lost).await;
        record(&doomed, &lost, Step::Begin).await;
        die(h, doomed).await;
        let held = told(h, new.id, MailEventKind::Held).await;
        assert!(number == 3 || held.is_empty(), "it is held after {number}");
    }
    let store = h.open().await;
    let (claims, events) = claim_due(&store).await;
    assert!(claims.is_empty(), "three workers died with it: it is tried a fourth time");
    let held = of_kind(&events, MailEventKind::Held);
    assert_eq!(held.len(), 1, "an event tells that it is held");
    assert_eq!(told(h, new.id, MailEventKind::Held).await, held);
    assert_eq!(entries_of(h, new.id).await[0].state, EntryState::Held);
    h.admin().await.release(new.id).await.expect("a release");
    is_due(&store, "an operator released it").await;
}

/// Catches a store that blames a message for the death of a worker that had not touched it.
pub async fn deaths_before_the_attempt_hold_nothing<H: QueueHarness>(h: &H) {
    let first = h.open().await;
    queue(h, &first, &["a@example.net"]).await;
    h.kill(first).await;
    for _ in 0..4 {
        let doomed = h.open().await;
        let lost = claim_one(&doomed, "no attempt was ever begun").await;
        assert_eq!(lost.attempt, 1);
        load(&doomed, &lost).await;
        die(h, doomed).await;
    }
    is_due(&h.open().await, "no attempt was ever begun").await;
}

/// Catches a store that lets a late worker overwrite what its successor did.
// Proves: I7
pub async fn lease_lost_does_nothing<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let new = queue(h, &doomed, &["a@example.net"]).await;
    let stale = claim_one(&doomed, "it is published").await;
    let loaded = load(&doomed, &stale).await;
    record(&doomed, &stale, Step::Begin).await;
    die(h, doomed).await;
    let store = h.open().await;
    let fresh = claim_one(&store, "its worker is dead").await;
    assert_ne!(fresh.token, stale.token, "each claim has a token of its own");
    let before = history_of(h, new.id).await;
    is_lease_lost(store.load(&stale).await, "load with a stale token");
    is_lease_lost(store.renew(&stale).await, "renew with a stale token");
    is_lease_lost(store.record(&stale, Step::Begin).await, "record with a stale token");
    for settlement in [
        attempted(&loaded, vec![refused()], MINUTE),
        Settlement::Release(sendmail_core::Release::NotAttempted),
    ] {
        let settled = store.settle(copy(&stale), settlement).await;
        is_lease_lost(settled.map_err(|unsettled| unsettled.error), "settle with a stale token");
    }
    assert_eq!(history_of(h, new.id).await, before, "the stale worker's settlement was told");
    claim_none(&store, "the stale worker's release gave it away").await;
    deliver(&store, fresh).await;
}

/// Catches a leased store whose `renew` does nothing, or whose leases never end.
pub async fn renew_prolongs_a_lease<H: QueueHarness>(h: &H) {
    let (store, other) = (h.open().await, h.open().await);
    let Some(lease) = store.capabilities().lease else {
        return skipped("renew_prolongs_a_lease", "claims last as long as their worker");
    };
    queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    for _ in 0..3 {
        h.clock().advance(lease * 3 / 4);
        store.renew(&claim).await.expect("the lease has not ended");
        claim_none(&other, "the lease was renewed").await;
    }
    h.clock().advance(lease + Duration::from_millis(1));
    is_due(&other, "the lease has ended").await;
    is_lease_lost(store.renew(&claim).await, "renew after the lease has ended");
}

/// Catches a sweep that throws away, sends or doubles what it should leave alone.
// Proves: I20
pub async fn sweep_is_harmless<H: QueueHarness>(h: &H) {
    let (store, other) = (h.open().await, h.open().await);
    let written = mail(h, &store, &["a@example.net"]);
    write(&store, &written).await;
    queue(h, &store, &["b@example.net"]).await;
    let mine = claim_one(&store, "it is published").await;
    queue(h, &store, &["c@example.net"]).await;
    let (one, two) = tokio::join!(store.sweep(), other.sweep());
    for report in [one.expect("a sweep"), two.expect("a sweep beside another")] {
        assert!(report.events.is_empty(), "nothing has happened: {:?}", report.events);
        assert_eq!(report.published, 0, "nothing was decided");
    }
    assert_eq!(store.undecided().await.expect("a list").len(), 1, "its owner lives");
    let queued = claim_one(&other, "one is queued, one is claimed, one is only written").await;
    deliver(&other, queued).await;
    deliver(&store, mine).await;
    publish(&store, written.id).await;
    is_due(&store, "it was published after the sweep").await;
}
