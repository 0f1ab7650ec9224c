//! Cases for a store that decides transactions: [`DecisionStore`] and [`DecisionLog`].
//!
//! The store answers `Some` to `decision_log` and `decision_store`. Recovery is spelled out in these
//! cases as whoever recovers does it: look for what is undecided, ask, publish or discard.

use std::sync::Arc;

use sendmail_core::{
    Clock, Decision, DecisionLog, DecisionStore, Discard, ErrorKind, NewMessage, QueueId,
    QueueStore, TransactionId,
};

use super::support::*;
use super::{Case, QueueHarness};

/// One test per case of the contracts of `DecisionStore` and `DecisionLog`, on a
/// [`QueueHarness`](crate::suite::QueueHarness): `decision_suite!(path::to::Harness)`.
#[macro_export]
macro_rules! decision_suite {
    ($harness:ty) => {
        $crate::__decision_cases! {
            __suite_tests; $harness, <$harness as $crate::suite::QueueHarness>::new
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __decision_cases {
    ($callback:ident; $($args:tt)*) => {
        $crate::$callback! { $($args)*; decision; [
            the_store_is_its_own_resource,
            proposed_is_invisible,
            decided_is_visible_until_forgotten,
            decided_and_published_is_claimed,
            decide_is_idempotent,
            an_unknown_transaction_cannot_be_decided,
            retracted_is_never_visible,
            an_undecided_proposal_of_a_live_owner_is_unfinished,
            an_undecided_proposal_of_a_dead_owner_is_aborted,
            aborted_is_final,
            a_fenced_id_cannot_be_proposed_afterwards,
            a_fenced_message_cannot_be_published_afterwards,
            a_written_message_of_a_live_owner_is_unfinished,
            a_crash_before_the_decision_leaves_nothing,
            a_crash_after_the_decision_is_rolled_forward,
            half_published_is_completed,
            publishing_alone_is_the_decision,
            other_transactions_are_left_alone,
            ids_of_another_queue_can_be_decided,
        ] }
    };
}

/// The cases as a table.
#[must_use]
pub fn cases<H: QueueHarness>() -> Vec<Case<H>> {
    crate::__decision_cases!(__suite_table;)
}

/// Catches a store that gives messages a name under which nobody finds it.
pub async fn the_store_is_its_own_resource<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    assert_eq!(decisions(&store).resource_id(), store.resource_id());
    assert_eq!(decision_log(&store).resource_id(), store.resource_id());
    let other = h.open().await;
    assert_eq!(other.resource_id(), store.resource_id(), "the name belongs to the queue");
}

/// Catches a store that takes a proposal for a decision.
pub async fn proposed_is_invisible<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let (_, ids) = proposed(h, &store, 3).await;
    claim_none(&store, "the transaction is only proposed").await;
    assert!(visible(&store, &ids).await.is_empty(), "the transaction is only proposed");
    assert!(visible(&h.open().await, &ids).await.is_empty(), "the transaction is only proposed");
}

/// Catches a store that forgets what it decided: when it publishes, sweeps or restarts.
pub async fn decided_is_visible_until_forgotten<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let (transaction, ids) = proposed(h, &store, 3).await;
    decide(&store, transaction).await;
    assert_eq!(visible(&store, &ids).await, ids, "the transaction is decided");
    let other = h.open().await;
    assert_eq!(visible(&other, &ids).await, ids, "another process asks");
    store.publish(&ids).await.expect("a decided transaction can be published");
    h.kill(store).await;
    other.sweep().await.expect("a sweep");
    assert_eq!(visible(&other, &ids).await, ids, "nobody has said that it may be forgotten");
    assert_eq!(fence(&other, ids[0]).await, Decision::Committed);
    for _ in 0..2 {
        decisions(&other).forget(&ids).await.expect("decisions can be forgotten, again and again");
    }
}

/// Catches a store that loses one of several.
pub async fn decided_and_published_is_claimed<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let (transaction, ids) = proposed(h, &store, 4).await;
    decide(&store, transaction).await;
    store.publish(&ids).await.expect("a decided transaction can be published");
    assert_eq!(claimed_ids(&store).await, ids, "all of them, each once");
}

/// Catches a store that fails, or decides otherwise, when `decide` is repeated.
pub async fn decide_is_idempotent<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let (transaction, ids) = proposed(h, &store, 2).await;
    for _ in 0..2 {
        decide(&store, transaction).await;
    }
    assert_eq!(visible(&store, &ids).await, ids);
}

/// Catches a store that says "committed" about nothing.
pub async fn an_unknown_transaction_cannot_be_decided<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let transaction = TransactionId::mint(h.clock().now());
    let decided = decision_log(&store).decide(transaction).await;
    assert_eq!(decided.expect_err("it was never proposed").kind(), ErrorKind::Aborted);
}

/// Catches a store that commits what was withdrawn.
pub async fn retracted_is_never_visible<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let (transaction, ids) = proposed(h, &store, 2).await;
    store.discard(&ids, Discard::Aborted).await.expect("a discard");
    for _ in 0..2 {
        decision_log(&store).retract(transaction).await.expect("a proposal can be withdrawn");
    }
    let decided = decision_log(&store).decide(transaction).await;
    assert_eq!(decided.expect_err("it was withdrawn").kind(), ErrorKind::Aborted);
    assert!(visible(&store, &ids).await.is_empty(), "it was withdrawn");
    h.kill(store).await;
    let other = h.open().await;
    recover(&other).await;
    claim_none(&other, "it was withdrawn").await;
}

/// Catches a store in which recovery overtakes a live commit.
pub async fn an_undecided_proposal_of_a_live_owner_is_unfinished<H: QueueHarness>(h: &H) {
    let (store, other) = (h.open().await, h.open().await);
    let (transaction, ids) = proposed(h, &store, 2).await;
    for id in &ids {
        assert_eq!(fence(&other, *id).await, Decision::Unfinished, "its owner lives");
    }
    recover(&other).await;
    decide(&store, transaction).await;
    assert_eq!(fence(&other, ids[0]).await, Decision::Committed);
    store.publish(&ids).await.expect("a decided transaction can be published");
    assert_eq!(claimed_ids(&other).await, ids, "recovery has left it alone");
}

/// Catches a store that never decides about the dead.
pub async fn an_undecided_proposal_of_a_dead_owner_is_aborted<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let (_, ids) = proposed(h, &doomed, 2).await;
    h.kill(doomed).await;
    let store = h.open().await;
    for id in &ids {
        assert_eq!(fence(&store, *id).await, Decision::Aborted, "its owner is dead");
    }
    assert!(visible(&store, &ids).await.is_empty(), "it can never become visible");
}

/// Catches a store whose "aborted" can become "committed".
// Proves: I2
pub async fn aborted_is_final<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let (transaction, ids) = proposed(h, &doomed, 2).await;
    h.kill(doomed).await;
    let store = h.open().await;
    assert_eq!(fence(&store, ids[0]).await, Decision::Aborted, "its owner is dead");
    let decided = decision_log(&store).decide(transaction).await;
    assert_eq!(decided.expect_err("it was fenced off").kind(), ErrorKind::Aborted);
    for id in &ids {
        assert_eq!(fence(&store, *id).await, Decision::Aborted, "one falls, all fall");
    }
    assert!(visible(&store, &ids).await.is_empty(), "it was fenced off");
    recover(&store).await;
    claim_none(&store, "it was fenced off").await;
}

/// Catches a store whose fence holds only what is there already.
pub async fn a_fenced_id_cannot_be_proposed_afterwards<H: QueueHarness>(h: &H) {
    let (store, other) = (h.open().await, h.open().await);
    let id = QueueId::mint(h.clock().now());
    assert_eq!(fence(&other, id).await, Decision::Aborted, "nobody has proposed it");
    let transaction = TransactionId::mint(h.clock().now());
    let log = decision_log(&store);
    let committed = match log.propose(transaction, &[id]).await {
        Ok(()) => log.decide(transaction).await,
        Err(error) => Err(error),
    };
    assert!(committed.is_err(), "it was said to be aborted, and is committed now");
    assert!(visible(&other, &[id]).await.is_empty(), "aborted is final");
}

/// Catches a store in which a slow finisher publishes what recovery has fenced off.
// Proves: I2
pub async fn a_fenced_message_cannot_be_published_afterwards<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let new = mail(h, &doomed, &["a@example.net"]);
    write(&doomed, &new).await;
    h.kill(doomed).await;
    let store = h.open().await;
    assert_eq!(fence(&store, new.id).await, Decision::Aborted, "its owner is dead");
    // Whether it is told as an error does not matter; that nothing happens does.
    let _ = store.publish(&[new.id]).await;
    claim_none(&store, "it was said to be aborted, and is published now").await;
    recover(&store).await;
    claim_none(&store, "it was fenced off").await;
}

/// Catches a store in which recovery throws away what a live transaction has written.
pub async fn a_written_message_of_a_live_owner_is_unfinished<H: QueueHarness>(h: &H) {
    let (store, other) = (h.open().await, h.open().await);
    let new = mail(h, &store, &["a@example.net"]);
    write(&store, &new).await;
    assert_eq!(fence(&other, new.id).await, Decision::Unfinished, "its owner lives");
    recover(&other).await;
    publish(&store, new.id).await;
    is_due(&other, "recovery has left it alone").await;
}

/// Catches a store that commits half a transaction, or keeps it for ever.
// Proves: I2, F-prepare-kill
pub async fn a_crash_before_the_decision_leaves_nothing<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    proposed(h, &doomed, 3).await;
    h.kill(doomed).await;
    let store = h.open().await;
    recover(&store).await;
    claim_none(&store, "its owner died before the decision").await;
    assert!(store.undecided().await.expect("a list").is_empty(), "it is discarded whole");
}

/// Catches a store that loses committed mail.
// Proves: I1, F-decide-kill, F-publish-kill, I3, I20
pub async fn a_crash_after_the_decision_is_rolled_forward<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let (transaction, ids) = proposed(h, &doomed, 3).await;
    decide(&doomed, transaction).await;
    h.kill(doomed).await;
    let store = h.open().await;
    let report = store.sweep().await.expect("a sweep");
    assert_eq!(report.published, 3, "a sweep publishes what was decided, and counts it");
    assert_eq!(claimed_ids(&store).await, ids, "all of them, each once");
    assert!(store.undecided().await.expect("a list").is_empty(), "nothing is left");
}

/// Catches a store that takes the first published message for all of them.
// Proves: I1, F-publish-kill
pub async fn half_published_is_completed<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let (transaction, ids) = proposed(h, &doomed, 3).await;
    decide(&doomed, transaction).await;
    doomed.publish(&ids[..1]).await.expect("a decided message can be published");
    h.kill(doomed).await;
    let store = h.open().await;
    let first = claim_one(&store, "it was published").await;
    assert_eq!(first.id, ids[0]);
    deliver(&store, first).await;
    let report = store.sweep().await.expect("a sweep");
    assert_eq!(report.published, 2, "a sweep publishes the others");
    assert_eq!(claimed_ids(&store).await, ids[1..], "the others, and not the first again");
}

/// Catches a store that needs a proposal also for one message.
pub async fn publishing_alone_is_the_decision<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    h.kill(store).await;
    let other = h.open().await;
    recover(&other).await;
    assert_eq!(claim_one(&other, "it was published").await.id, new.id);
}

/// Catches a store that decides about more than it was asked.
pub async fn other_transactions_are_left_alone<H: QueueHarness>(h: &H) {
    let (store, doomed) = (h.open().await, h.open().await);
    let (ours, our_ids) = proposed(h, &store, 2).await;
    proposed(h, &doomed, 2).await;
    h.kill(doomed).await;
    let other = h.open().await;
    recover(&other).await;
    assert!(visible(&other, &our_ids).await.is_empty(), "it is still undecided");
    decide(&store, ours).await;
    store.publish(&our_ids).await.expect("a decided transaction can be published");
    assert_eq!(claimed_ids(&other).await, our_ids, "only the dead owner's mail is gone");
}

/// Catches a store that decides only about what it holds: a second queue may name it.
pub async fn ids_of_another_queue_can_be_decided<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let ours = mail(h, &store, &["a@example.net"]);
    write(&store, &ours).await;
    store.stage(&[ours.id]).await.expect("a written message can be staged");
    let theirs = QueueId::mint(h.clock().now());
    let ids = [ours.id, theirs];
    let transaction = TransactionId::mint(h.clock().now());
    let log = decision_log(&store);
    log.propose(transaction, &ids).await.expect("a proposal with an id of another queue");
    log.decide(transaction).await.expect("a proposed transaction can be decided");
    h.kill(store).await;
    let other = h.open().await;
    other.sweep().await.expect("a sweep");
    assert_eq!(visible(&other, &ids).await.len(), 2, "the other queue may ask");
    assert_eq!(fence(&other, theirs).await, Decision::Committed);
    assert_eq!(claimed_ids(&other).await, [ours.id]);
}

/// A transaction with `count` messages, up to its proposal.
async fn proposed<H: QueueHarness>(
    h: &H,
    store: &Arc<dyn QueueStore>,
    count: usize,
) -> (TransactionId, Vec<QueueId>) {
    let news: Vec<NewMessage> = (0..count).map(|_| mail(h, store, &["a@example.net"])).collect();
    let mut ids: Vec<QueueId> = news.iter().map(|new| new.id).collect();
    ids.sort();
    for new in &news {
        write(store, new).await;
    }
    store.stage(&ids).await.expect("written messages can be staged");
    let transaction = TransactionId::mint(h.clock().now());
    decision_log(store).propose(transaction, &ids).await.expect("a transaction can be proposed");
    (transaction, ids)
}

/// What recovery does, by the public traits alone.
async fn recover(store: &Arc<dyn QueueStore>) {
    for undecided in store.undecided().await.expect("a list") {
        if undecided.resource != *store.resource_id() {
            continue;
        }
        match fence(store, undecided.id).await {
            Decision::Committed => publish(store, undecided.id).await,
            Decision::Aborted => {
                store.discard(&[undecided.id], Discard::Fenced).await.expect("a discard");
            }
            Decision::Unfinished => {}
        }
    }
    store.sweep().await.expect("a sweep");
}

fn decision_log(store: &Arc<dyn QueueStore>) -> Arc<dyn DecisionLog> {
    store.decision_log().expect("this suite is for stores that decide transactions")
}

fn decisions(store: &Arc<dyn QueueStore>) -> Arc<dyn DecisionStore> {
    store.decision_store().expect("this suite is for stores that decide transactions")
}

async fn decide(store: &Arc<dyn QueueStore>, transaction: TransactionId) {
    decision_log(store).decide(transaction).await.expect("a proposed transaction can be decided");
}

async fn fence(store: &Arc<dyn QueueStore>, id: QueueId) -> Decision {
    decisions(store).fence(id, PATIENCE).await.expect("the store can be asked")
}

/// Sorted, as `proposed` sorts.
async fn visible(store: &Arc<dyn QueueStore>, ids: &[QueueId]) -> Vec<QueueId> {
    let mut visible = decisions(store).visible(ids).await.expect("the store can be asked");
    visible.sort();
    visible
}

async fn claimed_ids(store: &Arc<dyn QueueStore>) -> Vec<QueueId> {
    let (claims, _) = claim_due(store).await;
    let mut ids: Vec<QueueId> = claims.iter().map(|claim| claim.id).collect();
    ids.sort();
    ids
}
