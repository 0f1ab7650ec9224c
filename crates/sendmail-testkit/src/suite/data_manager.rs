//! Cases for [`DataManager`].

use async_trait::async_trait;
use sendmail_core::{DataManager, PrepareContext, Timestamp, TransactionId, Vote};

use super::Case;

/// How the suite gets at the data manager that it tests, and at what it does to the world.
#[async_trait]
pub trait DataManagerHarness: Sized + Send + Sync + 'static {
    /// A world in which nothing has been committed.
    async fn new() -> Self;

    /// A data manager of a new transaction, with nothing to do.
    async fn manager(&self) -> Box<dyn DataManager>;

    /// Gives it one more piece of work, as an application does.
    async fn work(&self, manager: &mut dyn DataManager);

    /// How many pieces of work have become visible to the world.
    async fn visible(&self) -> usize;

    /// Does what recovery does after a crash: nobody who dropped a data manager is alive any more.
    async fn recover(&self);

    /// What the data manager is prepared with: here, a transaction that nobody else decides.
    fn context(&self) -> PrepareContext {
        PrepareContext::new(TransactionId::mint(Timestamp::EPOCH), None)
    }
}

/// One test per case of the contract of [`DataManager`](sendmail_core::DataManager), on a
/// [`DataManagerHarness`](crate::suite::data_manager::DataManagerHarness):
/// `data_manager_suite!(path::to::Harness)`.
#[macro_export]
macro_rules! data_manager_suite {
    ($harness:ty) => {
        $crate::__data_manager_cases! {
            __suite_tests; $harness,
            <$harness as $crate::suite::data_manager::DataManagerHarness>::new
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __data_manager_cases {
    ($callback:ident; $($args:tt)*) => {
        $crate::$callback! { $($args)*; data_manager; [
            it_says_the_same_of_itself_always,
            work_is_invisible_before_the_commit,
            committed_is_visible,
            commit_is_repeatable,
            nothing_to_do_is_harmless,
            aborted_before_prepare_is_invisible,
            aborted_after_prepare_is_invisible,
            abort_is_idempotent,
            a_savepoint_takes_its_work_with_it,
            savepoints_nest,
            what_is_in_doubt_is_marked,
            what_was_rolled_back_is_not_marked,
            dropped_before_prepare_is_harmless,
            dropped_after_prepare_is_harmless,
            transactions_do_not_meet,
        ] }
    };
}

/// The cases as a table.
#[must_use]
pub fn cases<H: DataManagerHarness>() -> Vec<Case<H>> {
    crate::__data_manager_cases!(__suite_table;)
}

/// Catches a data manager that is another one after it was prepared.
pub async fn it_says_the_same_of_itself_always<H: DataManagerHarness>(h: &H) {
    let mut manager = with_work(h, 1).await;
    let says = |manager: &dyn DataManager| {
        let decides = manager.decision_store().map(|store| store.resource_id().clone());
        (manager.name().to_owned(), manager.order(), decides)
    };
    let before = says(manager.as_ref());
    assert!(!before.0.is_empty(), "it has a name");
    prepare(h, manager.as_mut()).await;
    assert_eq!(says(manager.as_ref()), before);
    manager.abort().await;
}

/// Catches a data manager that commits in `prepare`, or before.
pub async fn work_is_invisible_before_the_commit<H: DataManagerHarness>(h: &H) {
    let mut manager = with_work(h, 2).await;
    assert_eq!(h.visible().await, 0, "nothing was prepared yet");
    assert_eq!(prepare(h, manager.as_mut()).await, Vote::Yes, "there is something to commit");
    assert_eq!(h.visible().await, 0, "it is only prepared");
    manager.abort().await;
}

/// Catches a data manager that loses some of its work.
pub async fn committed_is_visible<H: DataManagerHarness>(h: &H) {
    let mut manager = with_work(h, 3).await;
    prepare(h, manager.as_mut()).await;
    manager.commit().await.expect("what was prepared can be committed");
    assert_eq!(h.visible().await, 3, "all of it is committed");
    drop(manager);
    h.recover().await;
    assert_eq!(h.visible().await, 3, "recovery changes nothing");
}

/// Catches a data manager that commits twice when it is asked twice.
pub async fn commit_is_repeatable<H: DataManagerHarness>(h: &H) {
    let mut manager = with_work(h, 2).await;
    prepare(h, manager.as_mut()).await;
    for _ in 0..3 {
        manager.commit().await.expect("a commit may be repeated");
    }
    assert_eq!(h.visible().await, 2, "committed three times, there once");
}

/// Catches a data manager that cannot take part without work.
pub async fn nothing_to_do_is_harmless<H: DataManagerHarness>(h: &H) {
    for commits in [true, false] {
        let mut manager = h.manager().await;
        let mut context = h.context();
        let vote = manager.prepare(&mut context).await.expect("nothing can be prepared");
        assert!(context.marks().is_empty(), "nothing is in doubt");
        if commits && vote == Vote::Yes {
            manager.commit().await.expect("nothing can be committed");
        } else {
            manager.abort().await;
        }
    }
    assert_eq!(h.visible().await, 0);
}

/// Catches a data manager whose work cannot be called off.
pub async fn aborted_before_prepare_is_invisible<H: DataManagerHarness>(h: &H) {
    let mut manager = with_work(h, 2).await;
    manager.abort().await;
    drop(manager);
    h.recover().await;
    assert_eq!(h.visible().await, 0, "it was aborted");
}

/// Catches a data manager that is committed by `prepare`, or by recovery.
pub async fn aborted_after_prepare_is_invisible<H: DataManagerHarness>(h: &H) {
    let mut manager = with_work(h, 2).await;
    prepare(h, manager.as_mut()).await;
    manager.abort().await;
    drop(manager);
    h.recover().await;
    assert_eq!(h.visible().await, 0, "it was aborted");
}

/// Catches a data manager that fails, or undoes more, when it is aborted again.
pub async fn abort_is_idempotent<H: DataManagerHarness>(h: &H) {
    let mut other = with_work(h, 1).await;
    let mut manager = with_work(h, 1).await;
    manager.abort().await;
    manager.abort().await;
    prepare(h, other.as_mut()).await;
    manager.abort().await;
    other.commit().await.expect("another transaction is not aborted");
    manager.abort().await;
    h.recover().await;
    assert_eq!(h.visible().await, 1, "the other one stays");
}

/// Catches a data manager that sends what was rolled back, or forgets what was not.
pub async fn a_savepoint_takes_its_work_with_it<H: DataManagerHarness>(h: &H) {
    let mut manager = with_work(h, 2).await;
    let Ok(mark) = manager.savepoint().await else {
        return super::skipped("a_savepoint_takes_its_work_with_it", "it has no savepoints");
    };
    h.work(manager.as_mut()).await;
    h.work(manager.as_mut()).await;
    manager.rollback_to(mark).await.expect("a savepoint can be rolled back to");
    h.work(manager.as_mut()).await;
    prepare(h, manager.as_mut()).await;
    manager.commit().await.expect("what was prepared can be committed");
    drop(manager);
    h.recover().await;
    assert_eq!(h.visible().await, 3, "two before the savepoint, one after the rollback");
}

/// Catches a data manager that has one savepoint only.
pub async fn savepoints_nest<H: DataManagerHarness>(h: &H) {
    let mut manager = with_work(h, 1).await;
    let Ok(outer) = manager.savepoint().await else {
        return super::skipped("savepoints_nest", "it has no savepoints");
    };
    h.work(manager.as_mut()).await;
    let inner = manager.savepoint().await.expect("a second savepoint");
    h.work(manager.as_mut()).await;
    manager.rollback_to(inner).await.expect("the inner savepoint can be rolled back to");
    manager.rollback_to(outer).await.expect("and then the outer one");
    manager.rollback_to(outer).await.expect("and that again");
    prepare(h, manager.as_mut()).await;
    manager.commit().await.expect("what was prepared can be committed");
    assert_eq!(h.visible().await, 1, "what was before the outer savepoint");
}

/// Catches a data manager whose messages nobody would ever be asked about.
pub async fn what_is_in_doubt_is_marked<H: DataManagerHarness>(h: &H) {
    let mut manager = with_work(h, 2).await;
    if !manager.needs_decision() {
        return super::skipped("what_is_in_doubt_is_marked", "it leaves nothing in doubt");
    }
    let mut context = h.context();
    manager.prepare(&mut context).await.expect("it can be prepared");
    assert_eq!(context.marks().len(), 2, "each message that is in doubt is marked");
    manager.abort().await;
}

/// Catches a data manager that marks what it will not commit.
pub async fn what_was_rolled_back_is_not_marked<H: DataManagerHarness>(h: &H) {
    let mut manager = with_work(h, 2).await;
    let Ok(mark) = manager.savepoint().await else {
        return super::skipped("what_was_rolled_back_is_not_marked", "it has no savepoints");
    };
    if !manager.needs_decision() {
        return super::skipped("what_was_rolled_back_is_not_marked", "it leaves nothing in doubt");
    }
    h.work(manager.as_mut()).await;
    manager.rollback_to(mark).await.expect("a savepoint can be rolled back to");
    let mut context = h.context();
    manager.prepare(&mut context).await.expect("it can be prepared");
    assert_eq!(context.marks().len(), 2, "only what is left is in doubt");
    manager.abort().await;
}

/// Catches a data manager that commits when it is dropped.
pub async fn dropped_before_prepare_is_harmless<H: DataManagerHarness>(h: &H) {
    drop(with_work(h, 2).await);
    h.recover().await;
    assert_eq!(h.visible().await, 0, "nobody has committed it");
}

/// Catches a data manager that commits when it is dropped after its vote, or by recovery.
pub async fn dropped_after_prepare_is_harmless<H: DataManagerHarness>(h: &H) {
    let mut manager = with_work(h, 2).await;
    prepare(h, manager.as_mut()).await;
    drop(manager);
    h.recover().await;
    assert_eq!(h.visible().await, 0, "nobody has committed it");
}

/// Catches a data manager that has one transaction for all.
pub async fn transactions_do_not_meet<H: DataManagerHarness>(h: &H) {
    let (mut one, mut two) = (with_work(h, 1).await, with_work(h, 2).await);
    prepare(h, one.as_mut()).await;
    prepare(h, two.as_mut()).await;
    one.abort().await;
    two.commit().await.expect("what was prepared can be committed");
    assert_eq!(h.visible().await, 2, "one was aborted, the other committed");
}

async fn with_work<H: DataManagerHarness>(h: &H, pieces: usize) -> Box<dyn DataManager> {
    let mut manager = h.manager().await;
    for _ in 0..pieces {
        h.work(manager.as_mut()).await;
    }
    manager
}

async fn prepare<H: DataManagerHarness>(h: &H, manager: &mut dyn DataManager) -> Vote {
    manager.prepare(&mut h.context()).await.expect("it can be prepared")
}
