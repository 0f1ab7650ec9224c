//! Who gets what, and when.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{
    ClaimToken, Clock, DeliveryOptions, EntryState, ErrorKind, MailEventKind, QueueStore, Release,
    Settlement, Step,
};

use crate::suite::support::*;
use crate::suite::{QueueHarness, skipped};

/// Catches a store that blocks, or fails, when there is nothing to do.
pub async fn an_empty_claim_when_nothing_is_due<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let claimed = store.claim(10).await.expect("an empty queue is no error");
    assert!(claimed.claims.is_empty() && claimed.events.is_empty(), "{claimed:?}");
}

/// Catches a store that hands out more than was asked for, or stops before all is handed out.
pub async fn a_claim_brings_at_most_max<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    for _ in 0..5 {
        queue(h, &store, &["a@example.net"]).await;
    }
    let mut ids = HashSet::new();
    for round in 0..5 {
        let claimed = store.claim(2).await.expect("a claim");
        assert!(claimed.claims.len() <= 2, "two were asked for, {} came", claimed.claims.len());
        if round < 3 {
            assert!(!claimed.claims.is_empty(), "an empty answer means that nothing is due");
        }
        ids.extend(claimed.claims.iter().map(|claim| claim.id));
    }
    assert_eq!(ids.len(), 5, "all of them come");
    assert!(store.claim(0).await.expect("a claim of nothing").claims.is_empty());
}

/// Catches a store in which two workers get one message.
pub async fn claims_are_exclusive_between_processes<H: QueueHarness>(h: &H) {
    let (store, other) = (h.open().await, h.open().await);
    queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    claim_none(&other, "another worker has it").await;
    deliver(&store, claim).await;
    claim_none(&other, "it was delivered").await;
}

/// Catches a store in which concurrent claims race.
pub async fn claim_of_many_never_doubles<H: QueueHarness>(h: &H) {
    const MESSAGES: usize = 60;
    let producer = h.open().await;
    for _ in 0..MESSAGES {
        queue(h, &producer, &["a@example.net"]).await;
    }
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        workers.spawn(claim_until_empty(h.open().await));
    }
    let mut all = Vec::new();
    while let Some(ids) = workers.join_next().await {
        all.extend(ids.expect("a worker"));
    }
    let distinct: HashSet<_> = all.iter().copied().collect();
    assert_eq!(all.len(), distinct.len(), "a message was handed out twice");
    assert_eq!(distinct.len(), MESSAGES, "a message was handed out to nobody");
}

/// What one worker gets; it delivers every other message and keeps the rest.
async fn claim_until_empty(store: Arc<dyn QueueStore>) -> Vec<sendmail_core::QueueId> {
    let mut ids = Vec::new();
    let mut kept = Vec::new();
    loop {
        let claimed = store.claim(7).await.expect("a claim");
        if claimed.claims.is_empty() {
            return ids;
        }
        for claim in claimed.claims {
            ids.push(claim.id);
            if ids.len() % 2 == 0 {
                deliver(&store, claim).await;
            } else {
                kept.push(claim);
            }
        }
    }
}

/// Catches a store that forgets attempts.
pub async fn attempts_are_counted<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    for expected in 1..=3 {
        let claim = claim_one(&store, "its time has come").await;
        assert_eq!(claim.attempt, expected, "the number of the attempt");
        let events = try_once(&store, claim, vec![deferred()], Duration::from_secs(60)).await;
        assert_eq!(events[0].attempt, expected, "the number of the attempt in its event");
        let entry = entries_of(h, new.id).await.remove(0);
        assert_eq!(entry.attempts, expected, "a list shows how many attempts there were");
        h.clock().advance(Duration::from_secs(60));
    }
}

/// Catches a store that lets a message pay for the relay's trouble.
pub async fn release_costs_no_attempt<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    for step in [None, Some(Step::Begin)] {
        let claim = claim_one(&store, "a released message is due at once").await;
        assert_eq!(claim.attempt, 1, "a release costs no attempt");
        load(&store, &claim).await;
        if let Some(step) = step {
            record(&store, &claim, step).await;
        }
        let events = settle(&store, claim, Settlement::Release(Release::NotAttempted)).await;
        assert!(events.is_empty(), "nothing has happened to it");
    }
    let claim = claim_one(&h.open().await, "a released message is anybody's").await;
    assert_eq!(claim.attempt, 1, "a release costs no attempt");
    assert_eq!(entries_of(h, new.id).await[0].attempts, 0);
}

/// Catches a store that lets anybody settle.
pub async fn tokens_are_checked<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let loaded = load(&store, &claim).await;
    let mut forged = copy(&claim);
    forged.token = ClaimToken(format!("{}x", claim.token.0));
    is_lease_lost(store.load(&forged).await, "load with a forged token");
    is_lease_lost(store.renew(&forged).await, "renew with a forged token");
    is_lease_lost(store.record(&forged, Step::Begin).await, "record with a forged token");
    let settlement = attempted(&loaded, vec![refused()], Duration::ZERO);
    let settled = store.settle(forged, settlement).await;
    is_lease_lost(settled.map_err(|unsettled| unsettled.error), "settle with a forged token");
    store.renew(&claim).await.expect("the claim is still its claimer's");
    deliver(&store, claim).await;
}

/// Catches a store that never tells that a message was queued, or tells it with every claim.
pub async fn queued_event_comes_with_first_claim<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let before = h.clock().now();
    let new = queue(h, &store, &["a@example.net"]).await;
    h.clock().advance(Duration::from_secs(10));
    let (claim, events) = claim_one_with_events(&store, "it is published").await;
    let queued = of_kind(&events, MailEventKind::Queued);
    assert_eq!(queued.len(), 1, "the first claim tells that it was queued");
    assert_eq!(queued[0].queue_id, Some(new.id));
    assert_eq!(queued[0].message_id.as_ref(), Some(new.message.message_id()));
    assert_eq!(queued[0].time, before, "with the time at which it was queued");
    release(&store, claim).await;
    let (_claim, events) = claim_one_with_events(&store, "it was released").await;
    assert!(of_kind(&events, MailEventKind::Queued).is_empty(), "it was queued once");
    assert_eq!(told(h, new.id, MailEventKind::Queued).await, queued, "the same is in the history");
}

/// Catches a store that sends before the time that the message names.
pub async fn not_before_is_respected<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let day = Duration::from_secs(86_400);
    let mut options = DeliveryOptions::default();
    options.not_before = Some(h.clock().now().saturating_add(day));
    let mut new = mail(h, &store, &["a@example.net"]);
    new.envelope = new.envelope.with_options(options);
    write(&store, &new).await;
    publish(&store, new.id).await;
    claim_none(&store, "it is not to be sent before tomorrow").await;
    h.clock().advance(day - Duration::from_millis(1));
    store.sweep().await.expect("a sweep");
    claim_none(&store, "it is not to be sent before tomorrow").await;
    h.clock().advance(Duration::from_millis(1));
    is_due(&store, "its time has come").await;
}

/// Catches a store that sends half a message, or lets one bad entry block the others.
pub async fn a_damaged_entry_is_set_aside_and_others_go_on<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let bad = queue(h, &store, &["a@example.net"]).await;
    let good = queue(h, &store, &["b@example.net"]).await;
    if !h.corrupt(bad.id).await {
        return skipped(
            "a_damaged_entry_is_set_aside_and_others_go_on",
            "the harness cannot corrupt",
        );
    }
    let mut events = Vec::new();
    let mut delivered = Vec::new();
    // A store may find the damage when it claims, or when it loads.
    for _ in 0..3 {
        let (claims, told) = claim_due(&store).await;
        events.extend(told);
        for claim in claims {
            match store.load(&claim).await {
                Ok(_) => {
                    delivered.push(claim.id);
                    deliver(&store, claim).await;
                }
                Err(error) => {
                    assert_eq!((claim.id, error.kind()), (bad.id, ErrorKind::Damaged), "{error}");
                }
            }
        }
    }
    events.extend(store.sweep().await.expect("a sweep").events);
    assert_eq!(delivered, [good.id], "the good one is delivered, and only that");
    let damaged = of_kind(&events, MailEventKind::Damaged);
    assert_eq!(damaged.len(), 1, "the damage is told once, by the next claim or sweep");
    assert!(
        h.log()
            .await
            .read(None, 100)
            .await
            .expect("a log")
            .events
            .iter()
            .any(|(_, event)| event.id == damaged[0].id),
        "the damage is in the history"
    );
    let states: Vec<_> = list(h, &Default::default()).await.iter().map(|e| e.state).collect();
    assert!(states.iter().all(|state| *state == EntryState::Failed), "it is kept for people");
}

/// Catches a store whose older version buries what a newer one wrote.
// Proves: B-unknown-format
pub async fn a_newer_format_is_put_back_untouched<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    queue(h, &store, &["b@example.net"]).await;
    if !h.make_unsupported(new.id).await {
        return skipped("a_newer_format_is_put_back_untouched", "the harness cannot write one");
    }
    let mut delivered = 0;
    for _ in 0..3 {
        for claim in claim_due(&store).await.0 {
            match store.load(&claim).await {
                Ok(_) => {
                    delivered += 1;
                    deliver(&store, claim).await;
                }
                Err(error) => {
                    assert_eq!(
                        (claim.id, error.kind()),
                        (new.id, ErrorKind::Unsupported),
                        "{error}"
                    );
                }
            }
        }
    }
    claim_none(&store, "it is not claimed again by a process that cannot read it").await;
    assert_eq!(delivered, 1, "the others go on");
    let reported = store.sweep().await.expect("a sweep").set_aside;
    let counted = h.admin().await.statistics().await.expect("numbers").set_aside;
    assert!(!reported.is_empty() || !counted.is_empty(), "nobody is told of it");
    let kinds: Vec<_> = history_of(h, new.id).await.iter().map(|event| event.kind).collect();
    let gone = [MailEventKind::Failed, MailEventKind::Damaged, MailEventKind::Removed];
    assert!(!kinds.iter().any(|kind| gone.contains(kind)), "it was buried: {kinds:?}");
}
