//! The two-phase commit: who is called, in which order, and what a failure leaves.

use std::sync::{Arc, Mutex};

use mockall::Sequence;
use sendmail_core::mock::{MockDataManager, MockDecisionStore};
use sendmail_core::{
    DecisionStore, Error, ErrorKind, Order, QueueId, ResourceId, Result, Transaction,
    TransactionStatus, Vote,
};
use sendmail_txn::{CommitOutcome, TransactionManager};

use crate::fake::{NOW, clock};

type Calls = Arc<Mutex<Vec<String>>>;

/// What a data manager answers to `prepare` and to `commit`.
type Answers = (fn() -> Result<Vote>, fn() -> Result<()>);

fn fails(kind: ErrorKind) -> Result<()> {
    Err(Error::new(kind, "do as told", "injected"))
}

/// A data manager that notes its calls; what it answers to `prepare` and `commit` is given.
fn manager(
    calls: &Calls,
    name: &'static str,
    order: Order,
    (prepare, commit): Answers,
) -> Box<MockDataManager> {
    let mut manager = MockDataManager::new();
    manager.expect_name().return_const(name.to_owned());
    manager.expect_order().return_const(order);
    manager.expect_needs_decision().return_const(false);
    manager.expect_decision_store().returning(|| None);
    let note = |what: &'static str| {
        let calls = calls.clone();
        move || calls.lock().unwrap().push(format!("{what} {name}"))
    };
    let (on_prepare, on_commit, on_abort) = (note("prepare"), note("commit"), note("abort"));
    manager.expect_prepare().returning(move |_| {
        on_prepare();
        prepare()
    });
    manager.expect_commit().returning(move || {
        on_commit();
        commit()
    });
    manager.expect_abort().returning(on_abort);
    Box::new(manager)
}

fn yes() -> Result<Vote> {
    Ok(Vote::Yes)
}

fn done() -> Result<()> {
    Ok(())
}

/// Commits a transaction of a `First`, a `Normal` and a `LastResource` that behave as given.
async fn commit_three(
    first: Answers,
    normal: Answers,
    last: Answers,
) -> (CommitOutcome, Vec<String>) {
    let calls = Calls::default();
    let transactions = TransactionManager::new(clock());
    let mut transaction = transactions.begin();
    transaction.join(manager(&calls, "last", Order::LastResource, last)).unwrap();
    transaction.join(manager(&calls, "normal", Order::Normal, normal)).unwrap();
    transaction.join(manager(&calls, "first", Order::First, first)).unwrap();
    let outcome = transactions.commit(transaction).await;
    let calls = calls.lock().unwrap().clone();
    (outcome, calls)
}

#[tokio::test]
async fn all_are_prepared_and_then_the_last_resource_decides() {
    let (outcome, calls) = commit_three((yes, done), (yes, done), (yes, done)).await;
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
    assert_eq!(
        calls,
        [
            "prepare first",
            "prepare normal",
            "prepare last",
            "commit last",
            "commit first",
            "commit normal"
        ]
    );
}

#[tokio::test]
async fn a_vote_against_aborts_all_in_reverse_order() {
    let no: fn() -> Result<Vote> = || Err(Error::new(ErrorKind::Full, "prepare", "no room"));
    let (outcome, calls) = commit_three((yes, done), (no, done), (yes, done)).await;
    let CommitOutcome::Aborted(error) = outcome else { panic!("{outcome:?}") };
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains("data manager: normal"), "{error}");
    assert_eq!(
        calls,
        ["prepare first", "prepare normal", "abort normal", "abort first", "abort last"]
    );
}

#[tokio::test]
async fn a_panic_in_prepare_is_a_vote_against() {
    let (outcome, calls) = commit_three((yes, done), (|| panic!("oops"), done), (yes, done)).await;
    let CommitOutcome::Aborted(error) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().contains("oops"), "{error}");
    assert_eq!(calls[2..], ["abort normal", "abort first", "abort last"]);
}

#[tokio::test]
async fn a_decision_against_aborts_all() {
    let lost: fn() -> Result<()> = || fails(ErrorKind::Aborted);
    let (outcome, calls) = commit_three((yes, done), (yes, done), (yes, lost)).await;
    assert!(matches!(outcome, CommitOutcome::Aborted(_)), "{outcome:?}");
    assert_eq!(calls[3..], ["commit last", "abort normal", "abort first", "abort last"]);
}

#[tokio::test]
async fn after_the_decision_a_failure_is_left_to_recovery_and_the_others_go_on() {
    let lost: fn() -> Result<()> = || fails(ErrorKind::Io);
    let (outcome, calls) = commit_three((yes, lost), (yes, done), (yes, done)).await;
    assert!(outcome.is_committed());
    let CommitOutcome::CommittedFinishPending(pending) = outcome else { panic!("{outcome:?}") };
    assert_eq!((pending.len(), pending[0].manager.as_str()), (1, "first"));
    assert_eq!(calls[3..], ["commit last", "commit first", "commit normal"]);
}

#[tokio::test]
async fn a_panic_after_the_decision_is_left_to_recovery() {
    let (outcome, _) = commit_three((yes, || panic!("oops")), (yes, done), (yes, done)).await;
    let CommitOutcome::CommittedFinishPending(pending) = outcome else { panic!("{outcome:?}") };
    assert!(pending[0].error.to_string().contains("oops"));
}

// Proves: I4, I19
#[tokio::test]
async fn in_doubt_nothing_is_undone_and_nothing_is_finished() {
    let doubts: [fn() -> Result<()>; 2] = [|| fails(ErrorKind::Uncertain), || panic!("oops")];
    for doubt in doubts {
        let (outcome, calls) = commit_three((yes, done), (yes, done), (yes, doubt)).await;
        let CommitOutcome::Uncertain(error) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.kind(), ErrorKind::Uncertain);
        assert_eq!(calls[3..], ["commit last"]);
    }
}

#[tokio::test]
async fn who_decided_may_leave_something_to_recovery_itself() {
    let left: fn() -> Result<()> = || fails(ErrorKind::CommittedFinishPending);
    let (outcome, calls) = commit_three((yes, done), (yes, done), (yes, left)).await;
    assert!(matches!(outcome, CommitOutcome::CommittedFinishPending(_)), "{outcome:?}");
    assert_eq!(calls[3..], ["commit last", "commit first", "commit normal"]);
}

#[tokio::test]
async fn who_votes_read_only_is_not_asked_again() {
    let reader: fn() -> Result<Vote> = || Ok(Vote::ReadOnly);
    let (outcome, calls) = commit_three((yes, done), (reader, done), (reader, done)).await;
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
    assert_eq!(calls[3..], ["commit first"]);
}

#[tokio::test]
async fn without_a_last_resource_the_first_to_commit_decides() {
    let calls = Calls::default();
    let transactions = TransactionManager::new(clock());
    let mut transaction = transactions.begin();
    transaction.join(manager(&calls, "a", Order::Normal, (yes, || fails(ErrorKind::Io)))).unwrap();
    transaction.join(manager(&calls, "b", Order::Normal, (yes, done))).unwrap();
    let outcome = transactions.commit(transaction).await;
    assert!(matches!(outcome, CommitOutcome::Aborted(_)), "{outcome:?}");
    assert_eq!(calls.lock().unwrap()[2..], ["commit a", "abort b", "abort a"]);
}

#[tokio::test]
async fn a_transaction_without_data_managers_commits() {
    let transactions = TransactionManager::new(clock());
    assert!(matches!(transactions.commit(transactions.begin()).await, CommitOutcome::Committed));
}

#[tokio::test]
async fn a_doomed_transaction_aborts() {
    let calls = Calls::default();
    let transactions = TransactionManager::new(clock());
    let mut transaction = transactions.begin();
    transaction.join(manager(&calls, "a", Order::Normal, (yes, done))).unwrap();
    transactions.doom(&mut transaction);
    let outcome = transactions.commit(transaction).await;
    assert!(matches!(outcome, CommitOutcome::Aborted(_)), "{outcome:?}");
    assert_eq!(*calls.lock().unwrap(), ["abort a"]);
}

#[tokio::test]
async fn what_somebody_else_ended_is_not_touched() {
    let calls = Calls::default();
    let transactions = TransactionManager::new(clock());
    let mut transaction = transactions.begin();
    transaction.join(manager(&calls, "a", Order::Normal, (yes, done))).unwrap();
    transaction.set_status(TransactionStatus::Committed);
    let outcome = transactions.commit(transaction).await;
    assert!(matches!(outcome, CommitOutcome::Uncertain(_)), "{outcome:?}");
    assert!(calls.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_abort_reaches_all_although_one_panics() {
    let calls = Calls::default();
    let transactions = TransactionManager::new(clock());
    let mut transaction = transactions.begin();
    transaction.join(manager(&calls, "a", Order::Normal, (yes, done))).unwrap();
    let mut panics = MockDataManager::new();
    panics.expect_name().return_const("b".to_owned());
    panics.expect_order().return_const(Order::Normal);
    panics.expect_needs_decision().return_const(false);
    panics.expect_decision_store().returning(|| None);
    panics.expect_abort().times(1).returning(|| panic!("oops"));
    transaction.join(Box::new(panics)).unwrap();
    transactions.abort(transaction).await;
    assert_eq!(*calls.lock().unwrap(), ["abort a"]);
}

/// A transaction of a last resource that can be asked, and something that marks a message.
fn marked(
    oracle: MockDecisionStore,
    sequence: &mut Sequence,
    follower: fn() -> Result<()>,
) -> Transaction {
    let mut oracle = oracle;
    oracle.expect_resource_id().return_const("db".parse::<ResourceId>().unwrap());
    let oracle: Arc<dyn DecisionStore> = Arc::new(oracle);

    let mut mail = MockDataManager::new();
    mail.expect_name().return_const("mail".to_owned());
    mail.expect_order().return_const(Order::Normal);
    mail.expect_needs_decision().return_const(true);
    mail.expect_decision_store().returning(|| None);
    mail.expect_prepare().times(1).in_sequence(sequence).returning(|context| {
        assert_eq!(context.resource().map(ResourceId::as_str), Some("db"));
        context.mark(QueueId::mint(NOW));
        Ok(Vote::Yes)
    });

    let mut database = MockDataManager::new();
    database.expect_name().return_const("db".to_owned());
    database.expect_order().return_const(Order::LastResource);
    database.expect_needs_decision().return_const(false);
    database.expect_decision_store().returning(move || Some(oracle.clone()));
    database.expect_prepare().times(1).in_sequence(sequence).returning(|context| {
        assert_eq!(context.marks().len(), 1);
        Ok(Vote::Yes)
    });
    database.expect_commit().times(1).in_sequence(sequence).returning(|| Ok(()));
    mail.expect_commit().times(1).in_sequence(sequence).returning(follower);

    let transactions = TransactionManager::new(clock());
    let mut transaction = transactions.begin();
    transaction.join(Box::new(mail)).unwrap();
    transaction.join(Box::new(database)).unwrap();
    transaction
}

#[tokio::test]
async fn marks_are_forgotten_when_everybody_has_finished() {
    let mut sequence = Sequence::new();
    let mut oracle = MockDecisionStore::new();
    let forgotten = Arc::new(Mutex::new(0));
    let count = forgotten.clone();
    oracle.expect_forget().times(1).returning(move |ids| {
        *count.lock().unwrap() += ids.len();
        Ok(())
    });
    let transaction = marked(oracle, &mut sequence, done);
    let outcome = TransactionManager::new(clock()).commit(transaction).await;
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
    assert_eq!(*forgotten.lock().unwrap(), 1);
}

#[tokio::test]
async fn marks_are_kept_while_somebody_has_not_finished() {
    let mut sequence = Sequence::new();
    // No call of `forget` is expected: one would fail the test when the mock is dropped.
    let mut oracle = MockDecisionStore::new();
    oracle.expect_forget().never();
    let transaction = marked(oracle, &mut sequence, || fails(ErrorKind::Io));
    let outcome = TransactionManager::new(clock()).commit(transaction).await;
    let CommitOutcome::CommittedFinishPending(pending) = outcome else { panic!("{outcome:?}") };
    assert_eq!(pending.len(), 1);
}
