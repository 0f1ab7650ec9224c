//! Cases for a [`DecisionStore`] that is a database, whose transactions are somebody else's.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{Decision, DecisionStore, QueueId, ResourceId, Result, Timestamp};

use super::Case;
use crate::ManualClock;

/// How the suite gets at the database, and at transactions of an application in it.
#[async_trait]
pub trait ExternalHarness: Sized + Send + Sync + 'static {
    /// A database in which nothing was attached.
    async fn new() -> Self;

    /// Asks about the mail of `queue`, as one more process does.
    async fn store(&self, queue: &ResourceId) -> Arc<dyn DecisionStore>;

    /// Begins a transaction in which mail of `queue` is attached.
    async fn begin(&self, queue: &ResourceId) -> Box<dyn Owner>;

    /// Whether the database has one writer at a time, so that an open transaction is in the way of fences
    /// for other keys too.
    fn one_writer(&self) -> bool;

    /// Makes what is recorded until now look older by `age`, to the database's clock.
    async fn age(&self, age: Duration);

    /// How many records there are, whosesoever.
    async fn records(&self) -> usize;

    /// The clock that every store of this database was given.
    fn clock(&self) -> &ManualClock;
}

/// An application's transaction. Dropping it is as good as rolling it back.
#[async_trait]
pub trait Owner: Send {
    /// Attaches a message: leaves its marker, nothing else.
    async fn mark(&mut self, id: QueueId) -> Result<()>;

    /// Commits, however the application does.
    async fn commit(self: Box<Self>) -> Result<()>;

    /// Rolls back, and returns when that is done.
    async fn rollback(self: Box<Self>);
}

/// One test per case of the contract of [`DecisionStore`](sendmail_core::DecisionStore) for a database
/// whose transactions others commit, on an
/// [`ExternalHarness`](crate::suite::external::ExternalHarness):
/// `external_decision_suite!(path::to::Harness)`.
#[macro_export]
macro_rules! external_decision_suite {
    ($harness:ty) => {
        $crate::__external_cases! {
            __suite_tests; $harness,
            <$harness as $crate::suite::external::ExternalHarness>::new
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __external_cases {
    ($callback:ident; $($args:tt)*) => {
        $crate::$callback! { $($args)*; external; [
            what_is_open_is_unfinished,
            what_committed_is_committed,
            what_rolled_back_is_aborted,
            what_never_was_is_aborted,
            a_late_owner_cannot_commit,
            a_fence_is_final_for_every_process,
            a_commit_during_a_fence_is_told,
            a_rollback_during_a_fence_is_told,
            many_are_answered_in_order,
            an_open_transaction_keeps_no_other_back,
            those_who_ask_at_once_agree,
            thousands_can_be_visible,
            nothing_is_asked_for_nothing,
            forgetting_leaves_fences_and_others,
            what_is_forgotten_goes_within_a_minute,
            the_remembered_are_old_and_not_forgotten,
            fences_go_after_a_day,
            another_queue_is_left_alone,
        ] }
    };
}

/// The cases as a table.
#[must_use]
pub fn cases<H: ExternalHarness>() -> Vec<Case<H>> {
    crate::__external_cases!(__suite_table;)
}

/// Long enough for a lock to be waited for, and short enough for a test.
const SHORT: Duration = Duration::from_millis(50);
/// Longer than any case takes.
const LONG: Duration = Duration::from_secs(30);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Catches a store that takes "no marker is seen" for "rolled back".
pub async fn what_is_open_is_unfinished<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    let (id, mut owner) = (id(1), h.begin(&queue()).await);
    owner.mark(id).await.expect("a marker can be left");
    assert_eq!(visible(&*store, &[id]).await, [], "it is not committed");
    for _ in 0..2 {
        let answer = store.fence(id, SHORT).await.expect("an open transaction is no error");
        assert_eq!(answer, Decision::Unfinished);
    }
    owner.commit().await.expect("a fence that gave up is in nobody's way");
    assert_eq!(decided(&*store, id).await, Decision::Committed);
}

/// Catches a store that does not find what is there, or undoes it.
pub async fn what_committed_is_committed<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    let id = commit(h, &[id(1)]).await[0];
    for _ in 0..2 {
        assert_eq!(visible(&*store, &[id]).await, [id]);
        let answer = store.fence(id, Duration::ZERO).await.expect("nothing is to be waited for");
        assert_eq!(answer, Decision::Committed);
    }
}

/// Catches a store that keeps what was rolled back for ever, or sends it.
pub async fn what_rolled_back_is_aborted<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    let (id, mut owner) = (id(1), h.begin(&queue()).await);
    owner.mark(id).await.expect("a marker can be left");
    owner.rollback().await;
    assert_eq!(decided(&*store, id).await, Decision::Aborted);
    assert_eq!(visible(&*store, &[id]).await, [], "a tombstone is no marker");
}

/// Catches a store that cannot answer about a transaction that never reached the database.
pub async fn what_never_was_is_aborted<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    assert_eq!(decided(&*store, id(1)).await, Decision::Aborted);
}

/// Catches a store that only looks: after its answer the transaction may commit.
pub async fn a_late_owner_cannot_commit<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    let id = id(1);
    assert_eq!(decided(&*store, id).await, Decision::Aborted);
    let mut owner = h.begin(&queue()).await;
    owner.mark(id).await.expect_err("the key is taken by the tombstone");
    // Whether this says that it failed is the driver's business.
    let _ = owner.commit().await;
    assert_eq!(visible(&*store, &[id]).await, []);
    assert_eq!(decided(&*store, id).await, Decision::Aborted);
}

/// Catches a store that remembers its fences by itself.
pub async fn a_fence_is_final_for_every_process<H: ExternalHarness>(h: &H) {
    let (one, two) = (h.store(&queue()).await, h.store(&queue()).await);
    assert_eq!(one.resource_id(), two.resource_id(), "they ask the same database");
    assert_eq!(decided(&*one, id(1)).await, Decision::Aborted);
    drop(one);
    assert_eq!(two.fence(id(1), Duration::ZERO).await.ok(), Some(Decision::Aborted));
}

/// Catches a fence that answers by what it saw before it waited.
pub async fn a_commit_during_a_fence_is_told<H: ExternalHarness>(h: &H) {
    let id = id(1);
    let mut owner = h.begin(&queue()).await;
    owner.mark(id).await.expect("a marker can be left");
    let store = h.store(&queue()).await;
    let waiting = tokio::spawn(async move { store.fence(id, LONG).await });
    tokio::task::yield_now().await;
    owner.commit().await.expect("a fence that waits does not hinder the commit");
    // Who waits may be told to ask again, and must not be told that it was rolled back.
    let answer = waiting.await.expect("the fence does not panic").expect("it is an answer");
    assert_ne!(answer, Decision::Aborted);
    assert_eq!(decided(&*h.store(&queue()).await, id).await, Decision::Committed);
}

/// Catches a fence that takes an owner for one that will commit.
pub async fn a_rollback_during_a_fence_is_told<H: ExternalHarness>(h: &H) {
    let id = id(1);
    let mut owner = h.begin(&queue()).await;
    owner.mark(id).await.expect("a marker can be left");
    let store = h.store(&queue()).await;
    let waiting = tokio::spawn(async move { store.fence(id, LONG).await });
    tokio::task::yield_now().await;
    owner.rollback().await;
    let answer = waiting.await.expect("the fence does not panic").expect("it is an answer");
    assert_ne!(answer, Decision::Committed);
    assert_eq!(decided(&*h.store(&queue()).await, id).await, Decision::Aborted);
}

/// Catches a store that mixes its answers up, or leaves some out.
pub async fn many_are_answered_in_order<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    let ids: Vec<QueueId> = (0..40).map(id).collect();
    let half: Vec<QueueId> = ids.iter().step_by(2).copied().collect();
    commit(h, &half).await;
    assert_eq!(store.fence(ids[1], LONG).await.ok(), Some(Decision::Aborted));
    let answers = store.fence_all(&ids, LONG).await;
    assert_eq!(answers.iter().map(|(id, _)| *id).collect::<Vec<_>>(), ids);
    for (index, (id, answer)) in answers.into_iter().enumerate() {
        let expected = if index % 2 == 0 { Decision::Committed } else { Decision::Aborted };
        assert_eq!(answer.expect("nothing is in the way"), expected, "{id}");
    }
    assert_eq!(visible(&*store, &ids).await, half);
}

/// Catches a store in which one transaction that does not end keeps all others undecided.
pub async fn an_open_transaction_keeps_no_other_back<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    let done = commit(h, &[id(1)]).await[0];
    let (open, other, mut owner) = (id(2), id(3), h.begin(&queue()).await);
    owner.mark(open).await.expect("a marker can be left");
    let answers = store.fence_all(&[open, other, done], SHORT).await;
    let answers: Vec<_> = answers.into_iter().map(|(_, answer)| answer.ok()).collect();
    let expected = if h.one_writer() { Decision::Unfinished } else { Decision::Aborted };
    let expected = [Decision::Unfinished, expected, Decision::Committed].map(Some);
    assert_eq!(answers, expected);
    owner.rollback().await;
    assert_eq!(decided(&*store, other).await, Decision::Aborted);
}

/// Catches a store in which two who ask are told different things.
pub async fn those_who_ask_at_once_agree<H: ExternalHarness>(h: &H) {
    for commits in [true, false] {
        let id = id(if commits { 1 } else { 2 });
        let mut owner = h.begin(&queue()).await;
        owner.mark(id).await.expect("a marker can be left");
        let mut asking = Vec::new();
        for _ in 0..8 {
            let store = h.store(&queue()).await;
            asking.push(tokio::spawn(async move { decided(&*store, id).await }));
        }
        tokio::task::yield_now().await;
        if commits {
            owner.commit().await.expect("it is not fenced");
        } else {
            owner.rollback().await;
        }
        let expected = if commits { Decision::Committed } else { Decision::Aborted };
        for asked in asking {
            assert_eq!(asked.await.expect("nobody panics"), expected);
        }
    }
}

/// Catches a store whose statement has a limit that its callers do not know.
pub async fn thousands_can_be_visible<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    let ids: Vec<QueueId> = (0..1203).map(id).collect();
    let half: Vec<QueueId> = ids.iter().step_by(2).copied().collect();
    commit(h, &half).await;
    assert_eq!(visible(&*store, &ids).await, half);
}

/// Catches a store that makes a statement with an empty list.
pub async fn nothing_is_asked_for_nothing<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    assert_eq!(visible(&*store, &[]).await, []);
    assert!(store.fence_all(&[], SHORT).await.is_empty());
    store.forget(&[]).await.expect("nothing can be forgotten");
    assert_eq!(store.sweep().await.ok(), Some(0));
    assert_eq!(h.records().await, 0);
}

/// Catches a store that forgets a fence, after which a late owner could commit.
pub async fn forgetting_leaves_fences_and_others<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    let kept = commit(h, &[id(1)]).await[0];
    let fenced = id(2);
    assert_eq!(decided(&*store, fenced).await, Decision::Aborted);
    store.forget(&[fenced]).await.expect("it may be asked to");
    settle(h, &*store).await;
    assert_eq!(h.records().await, 2);
    assert_eq!(decided(&*store, kept).await, Decision::Committed);
    let mut owner = h.begin(&queue()).await;
    owner.mark(fenced).await.expect_err("the tombstone is still there");
}

/// Catches a store that keeps its markers for ever.
pub async fn what_is_forgotten_goes_within_a_minute<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    let ids: Vec<QueueId> = (0..250).map(id).collect();
    commit(h, &ids).await;
    for some in ids[1..].chunks(7) {
        store.forget(some).await.expect("they can be forgotten");
    }
    store.forget(&ids[1..3]).await.expect("twice is as good as once");
    settle(h, &*store).await;
    assert_eq!(h.records().await, 1);
    assert_eq!(visible(&*store, &ids).await, ids[..1]);
}

/// Catches a store that reports what is being worked on, or what was forgotten already.
pub async fn the_remembered_are_old_and_not_forgotten<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    let old = commit(h, &[id(1), id(2), id(3), id(4)]).await;
    assert_eq!(decided(&*store, id(9)).await, Decision::Aborted);
    h.age(DAY / 24).await;
    commit(h, &[id(5)]).await;
    store.forget(&old[..1]).await.expect("it can be forgotten");
    let ask = async |limit| {
        let mut found = store.remembered(DAY / 48, limit).await.expect("it can be asked");
        found.sort();
        found
    };
    assert_eq!(ask(10).await, old[1..], "neither the new, nor the forgotten, nor a tombstone");
    assert_eq!(ask(2).await.len(), 2, "no more than asked for");
    settle(h, &*store).await;
    assert_eq!(ask(10).await, old[1..]);
}

/// Catches a store that removes a fence too early, or mail, or nothing.
pub async fn fences_go_after_a_day<H: ExternalHarness>(h: &H) {
    let store = h.store(&queue()).await;
    let mail = commit(h, &[id(1)]).await[0];
    for number in 10..30 {
        assert_eq!(decided(&*store, id(number)).await, Decision::Aborted);
    }
    h.age(DAY - Duration::from_secs(3600)).await;
    settle(h, &*store).await;
    assert_eq!(h.records().await, 21, "a day has not passed");
    h.age(Duration::from_secs(3601)).await;
    h.clock().advance(Duration::from_secs(61));
    assert_eq!(store.sweep().await.ok(), Some(20));
    assert_eq!(h.records().await, 1);
    assert_eq!(decided(&*store, mail).await, Decision::Committed);
}

/// Catches a store that judges or deletes what belongs to another queue in the same database.
pub async fn another_queue_is_left_alone<H: ExternalHarness>(h: &H) {
    let store = h.store(&other_queue()).await;
    let foreign = commit(h, &[id(1)]).await[0];
    let own = h.store(&queue()).await;
    assert_eq!(decided(&*own, id(2)).await, Decision::Aborted);
    assert_eq!(visible(&*store, &[foreign]).await, [], "it is not its mail");
    store.fence(foreign, SHORT).await.expect_err("nor its transaction");
    store.forget(&[foreign]).await.expect("it may be asked to");
    h.age(DAY * 2).await;
    assert_eq!(store.remembered(DAY, 10).await.ok(), Some(vec![]));
    settle(h, &*store).await;
    assert_eq!(h.records().await, 2, "the other queue's marker and tombstone");
    assert_eq!(own.remembered(DAY, 10).await.ok(), Some(vec![foreign]));
}

/// The queue whose mail it is about.
fn queue() -> ResourceId {
    "queue-of-the-suite".parse().expect("a valid name")
}

fn other_queue() -> ResourceId {
    "another-queue".parse().expect("a valid name")
}

/// Ids in the order of their numbers.
fn id(number: u16) -> QueueId {
    let mut bytes = *QueueId::mint(Timestamp::EPOCH).as_bytes();
    bytes[4..6].copy_from_slice(&number.to_be_bytes());
    bytes[8..].fill(0x80);
    QueueId::from_bytes(bytes)
}

async fn commit<H: ExternalHarness>(h: &H, ids: &[QueueId]) -> Vec<QueueId> {
    let mut owner = h.begin(&queue()).await;
    for id in ids {
        owner.mark(*id).await.expect("a marker can be left");
    }
    owner.commit().await.expect("nothing is in the way");
    ids.to_vec()
}

async fn visible(store: &dyn DecisionStore, ids: &[QueueId]) -> Vec<QueueId> {
    let mut found = store.visible(ids).await.expect("the database can be asked");
    found.sort();
    found
}

/// The answer that is not "ask again".
async fn decided(store: &dyn DecisionStore, id: QueueId) -> Decision {
    loop {
        match store.fence(id, SHORT).await {
            Ok(Decision::Unfinished) => tokio::task::yield_now().await,
            Ok(decision) => return decision,
            Err(error) => assert!(error.is_temporary(), "nothing is wrong: {error}"),
        }
    }
}

/// Lets the store carry out what it has put off.
async fn settle<H: ExternalHarness>(h: &H, store: &dyn DecisionStore) {
    h.clock().advance(Duration::from_secs(61));
    store.sweep().await.expect("nothing is in the way");
}
