//! How a claim ends.

use std::time::Duration;

use sendmail_core::{AdminOutcome, Clock, EntryState, MailEventKind, Timestamp, Verdict};

use crate::suite::QueueHarness;
use crate::suite::support::*;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

/// Catches a store that sends a delivered message again, at once, later or after a restart.
pub async fn settle_delivered_is_gone_for_good<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net", "b@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let events = deliver(&store, claim).await;
    let sent = of_kind(&events, MailEventKind::Sent);
    assert_eq!(recipients(&sent), ["a@example.net", "b@example.net"], "a sent-event for each");
    claim_none(&store, "it was delivered").await;
    assert!(entries_of(h, new.id).await.is_empty(), "it was delivered and has left the queue");
    h.kill(store).await;
    h.clock().advance(Duration::from_secs(3 * 86_400));
    let again = h.open().await;
    again.sweep().await.expect("a sweep");
    claim_none(&again, "it was delivered before the restart").await;
    assert_eq!(told(h, new.id, MailEventKind::Sent).await, sent, "the same is in the history");
}

/// Catches a store that mixes recipients up, or invents or forgets their events.
pub async fn settle_tells_each_recipients_fate<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net", "b@example.net", "c@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let results = vec![refused(), accepted(), deferred()];
    let replies: Vec<_> = results.iter().map(|(outcome, _)| outcome.reply().clone()).collect();
    let events = try_once(&store, claim, results, MINUTE).await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    use MailEventKind::{Deferred, Failed, Sent};
    assert_eq!(kinds, [Failed, Sent, Deferred], "one event for each, in the recipients' order");
    for ((event, recipient), reply) in events.iter().zip(new.envelope.recipients()).zip(replies) {
        assert_eq!(event.queue_id, Some(new.id));
        assert_eq!(event.message_id.as_ref(), Some(new.message.message_id()));
        assert_eq!(event.recipient.as_ref(), Some(recipient));
        assert_eq!((event.attempt, event.reply.as_ref()), (1, Some(&reply)));
    }
    let told = history_of(h, new.id).await;
    assert_eq!(told[told.len() - 3..], events, "the same is in the history, in the same order");
}

/// Catches a store that sends to everybody again because one was deferred.
pub async fn partial_settlement_keeps_only_the_remaining<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let to = ["a@example.net", "b@example.net", "c@example.net", "d@example.net"];
    queue(h, &store, &to).await;
    let claim = claim_one(&store, "it is published").await;
    let results = vec![accepted(), deferred(), refused(), deferred()];
    try_once(&store, claim, results, MINUTE).await;
    h.clock().advance(MINUTE);
    let other = h.open().await;
    let claim = claim_one(&other, "two were deferred").await;
    let left = remaining(&other, &claim).await;
    assert_eq!(left, ["b@example.net", "d@example.net"], "only they are still to be served");
}

/// Catches a store that deletes what was refused.
pub async fn failed_recipient_is_kept_in_failed<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    try_once(&store, claim, vec![refused()], MINUTE).await;
    h.clock().advance(HOUR);
    claim_none(&store, "it was refused for good").await;
    assert_kept_in_failed(h, &new, &["a@example.net"]).await;
}

/// Catches a store that deletes the message, with its refused recipient, because others got it.
pub async fn failed_is_kept_also_when_others_were_delivered<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net", "b@example.net", "c@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    try_once(&store, claim, vec![accepted(), refused(), deferred()], MINUTE).await;
    assert_kept_in_failed(h, &new, &["b@example.net"]).await;
    h.clock().advance(MINUTE);
    deliver(&store, claim_one(&store, "one was deferred").await).await;
    assert_kept_in_failed(h, &new, &["b@example.net"]).await;
}

/// Catches a store that deletes what ran out of time.
pub async fn expired_is_kept_in_failed<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let events = try_once(&store, claim, vec![(deferred().0, Verdict::Expire)], MINUTE).await;
    assert_eq!(events[0].kind, MailEventKind::Expired);
    h.clock().advance(HOUR);
    claim_none(&store, "it expired").await;
    assert_kept_in_failed(h, &new, &["a@example.net"]).await;
}

async fn assert_kept_in_failed<H: QueueHarness>(
    h: &H,
    new: &sendmail_core::NewMessage,
    given_up: &[&str],
) {
    let entries = entries_of(h, new.id).await;
    let failed: Vec<_> = entries.iter().filter(|entry| entry.state == EntryState::Failed).collect();
    assert_eq!(failed.len(), 1, "what was given up is kept with the failed mail: {entries:?}");
    let kept: Vec<_> = failed[0].recipients.iter().map(ToString::to_string).collect();
    assert_eq!(kept, given_up, "who was given up");
    let detail = h.admin().await.show(new.id).await.expect("it is there");
    assert_eq!(detail.content.as_deref(), Some(new.message.as_bytes()), "its bytes are kept");
}

/// Catches a store that never tries again.
pub async fn retry_waits_for_its_time<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let due = h.clock().now().saturating_add(HOUR);
    let claim = claim_one(&store, "it is published").await;
    try_once(&store, claim, vec![deferred()], HOUR).await;
    let entry = entries_of(h, new.id).await.remove(0);
    assert_eq!((entry.state, entry.next_attempt), (EntryState::Deferred, Some(due)));
    h.kill(store).await;
    h.clock().advance(HOUR);
    let again = h.open().await;
    is_due(&again, "its time has come, and whoever deferred it is dead").await;
}

/// Catches a store that tries again at once.
pub async fn retry_not_earlier<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    try_once(&store, claim, vec![deferred()], HOUR).await;
    claim_none(&store, "it was just deferred").await;
    h.clock().advance(HOUR - Duration::from_millis(1));
    store.sweep().await.expect("a sweep");
    claim_none(&store, "it is due in a millisecond").await;
    claim_none(&h.open().await, "it is due in a millisecond").await;
}

/// Catches a store in which a clock that was wrong for a moment holds mail back for years.
// Proves: B-clock, I13
pub async fn clamped_when_the_clock_jumps_back<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let right = h.clock().now();
    queue(h, &store, &["a@example.net"]).await;
    h.clock().set(right.saturating_add(10 * 365 * 24 * HOUR));
    let claim = claim_one(&store, "it is published").await;
    try_once(&store, claim, vec![deferred()], HOUR).await;
    h.clock().set(Timestamp::from_millis(right.as_millis()));
    store.sweep().await.expect("a sweep");
    let (early, _) = claim_due(&store).await;
    if early.is_empty() {
        h.clock().advance(HOUR + MINUTE);
        store.sweep().await.expect("a sweep");
        is_due(&store, "its delay has passed; the rest was a mistake of the clock").await;
    }
}

/// Catches a store that sends what is held, or loses it.
pub async fn hold_verdict_keeps_until_released<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net", "b@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let events = try_once(&store, claim, vec![accepted(), unknown(Verdict::Hold)], MINUTE).await;
    assert_eq!(events[1].kind, MailEventKind::Held);
    h.clock().advance(HOUR);
    store.sweep().await.expect("a sweep");
    claim_none(&store, "it is held").await;
    assert_eq!(entries_of(h, new.id).await[0].state, EntryState::Held);
    let outcome = h.admin().await.release(new.id).await.expect("a release");
    assert!(matches!(outcome, AdminOutcome::Done(_)), "{outcome:?}");
    let claim = claim_one(&store, "it was released").await;
    assert_eq!(remaining(&store, &claim).await, ["b@example.net"]);
}

/// Catches a store that forgets the deferred recipient because another is held, or sends to the held.
pub async fn retry_beside_hold_loses_nobody<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net", "b@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    try_once(&store, claim, vec![deferred(), unknown(Verdict::Hold)], MINUTE).await;
    h.clock().advance(HOUR);
    let mut served = Vec::new();
    for round in 0..2 {
        for claim in claim_due(&store).await.0 {
            let these = remaining(&store, &claim).await;
            let held = these.iter().any(|recipient| recipient == "b@example.net");
            assert!(round > 0 || !held, "the held one is served before it is released");
            served.extend(these);
            deliver(&store, claim).await;
        }
        h.admin().await.release(new.id).await.expect("a release");
    }
    served.sort();
    assert_eq!(served, ["a@example.net", "b@example.net"], "each of them once");
}

/// Catches a store that sends a second copy without saying so.
pub async fn an_unknown_end_that_is_retried_is_a_possible_duplicate<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let events = try_once(&store, claim, vec![unknown(Verdict::Retry)], MINUTE).await;
    let kinds: Vec<_> = events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [MailEventKind::PossibleDuplicate]);
    h.clock().advance(MINUTE);
    let claim = claim_one(&store, "its time has come").await;
    assert_eq!(load(&store, &claim).await.message, new.message, "the same bytes again");
    let told = told(h, new.id, MailEventKind::PossibleDuplicate).await;
    assert_eq!(told, events, "it is announced once, before the second copy goes out");
}

/// Catches a store that settles twice when the first answer was lost.
pub async fn settle_twice_counts_once<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net", "b@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let again = copy(&claim);
    let loaded = attempt(&store, &claim).await;
    let settlement = attempted(&loaded, vec![accepted(), deferred()], MINUTE);
    settle(&store, claim, settlement.clone()).await;
    let before = history_of(h, new.id).await;
    if let Err(unsettled) = store.settle(again, settlement).await {
        is_lease_lost::<()>(Err(unsettled.error), "settling again");
    }
    assert_eq!(history_of(h, new.id).await, before, "the second settlement was told");
    h.clock().advance(MINUTE);
    let claim = claim_one(&store, "one was deferred").await;
    assert_eq!(claim.attempt, 2, "the attempt counts once");
    assert_eq!(remaining(&store, &claim).await, ["b@example.net"]);
}
