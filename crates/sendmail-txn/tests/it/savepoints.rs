//! Savepoints over several data managers, and a commit whose caller goes away.

use sendmail_core::{ErrorKind, MailDelivery, Transaction, TransactionStatus};
use sendmail_txn::CommitOutcome;

use crate::fake::{FakeDatabase, Fault, Place, mail};
use crate::scene::Scene;

impl Scene {
    async fn send(&self, transaction: &mut Transaction, name: &str) {
        let (envelope, message) = mail(name);
        self.delivery.send(transaction, envelope, message).await.unwrap();
    }
}

// Proves: I1
#[tokio::test]
async fn a_rolled_back_savepoint_takes_its_mail_with_it() {
    let scene = Scene::new();
    let mut transaction = scene.transactions.begin();
    scene.send(&mut transaction, "a").await;
    let savepoint = scene.transactions.savepoint(&mut transaction).await.unwrap();
    scene.send(&mut transaction, "b").await;
    scene.transactions.rollback_to(&mut transaction, &savepoint).await.unwrap();
    scene.send(&mut transaction, "c").await;
    scene.transactions.rollback_to(&mut transaction, &savepoint).await.unwrap();
    scene.send(&mut transaction, "d").await;
    assert!(scene.transactions.commit(transaction).await.is_committed());
    assert_eq!(scene.queue.names(Place::Published), ["a", "d"]);
}

// Proves: I1
#[tokio::test]
async fn who_joined_after_the_savepoint_leaves_with_it() {
    let scene = Scene::new();
    let database = FakeDatabase::new("db", &scene.world);
    let mut transaction = scene.transactions.begin();
    let savepoint = scene.transactions.savepoint(&mut transaction).await.unwrap();
    scene.send(&mut transaction, "a").await;
    transaction.join(database.manager()).unwrap();
    scene.transactions.rollback_to(&mut transaction, &savepoint).await.unwrap();
    assert_eq!(scene.world.calls(), ["db abort"]);
    scene.send(&mut transaction, "b").await;
    assert!(scene.transactions.commit(transaction).await.is_committed());
    assert_eq!(scene.queue.names(Place::Published), ["b"]);
    assert_eq!(database.commits(), 0);
}

#[tokio::test]
async fn a_void_or_foreign_savepoint_is_refused_and_harms_nothing() {
    let scene = Scene::new();
    let mut transaction = scene.transactions.begin();
    let first = scene.transactions.savepoint(&mut transaction).await.unwrap();
    scene.send(&mut transaction, "a").await;
    let second = scene.transactions.savepoint(&mut transaction).await.unwrap();
    scene.transactions.rollback_to(&mut transaction, &first).await.unwrap();
    scene.send(&mut transaction, "b").await;
    let mut other = scene.transactions.begin();
    let foreign = scene.transactions.savepoint(&mut other).await.unwrap();
    for savepoint in [&second, &foreign] {
        let error = scene.transactions.rollback_to(&mut transaction, savepoint).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidState);
    }
    assert!(scene.transactions.commit(transaction).await.is_committed());
    assert_eq!(scene.queue.names(Place::Published), ["b"]);
}

#[tokio::test]
async fn a_rollback_that_fails_dooms_the_transaction() {
    for fault in [Fault::Before(ErrorKind::Io), Fault::Panic] {
        let scene = Scene::new();
        let database = FakeDatabase::new("db", &scene.world);
        let mut transaction = scene.transactions.begin();
        scene.send(&mut transaction, "a").await;
        transaction.join(database.manager()).unwrap();
        let savepoint = scene.transactions.savepoint(&mut transaction).await.unwrap();
        scene.world.fail("db rollback", fault);
        let failed = scene.transactions.rollback_to(&mut transaction, &savepoint).await;
        assert!(failed.is_err());
        assert_eq!(transaction.status(), TransactionStatus::Doomed);
        let outcome = scene.transactions.commit(transaction).await;
        assert!(matches!(outcome, CommitOutcome::Aborted(_)), "{outcome:?}");
        assert_eq!(scene.queue.ids().len(), 0);
    }
}

#[tokio::test]
async fn a_rollback_that_is_dropped_dooms_the_transaction() {
    let scene = Scene::new();
    let database = FakeDatabase::new("db", &scene.world);
    let mut transaction = scene.transactions.begin();
    transaction.join(database.manager()).unwrap();
    let savepoint = scene.transactions.savepoint(&mut transaction).await.unwrap();
    scene.world.fail("db rollback", Fault::Hang);
    let mut rollback = Box::pin(scene.transactions.rollback_to(&mut transaction, &savepoint));
    assert!(futures_util::poll!(&mut rollback).is_pending());
    drop(rollback);
    assert_eq!(transaction.status(), TransactionStatus::Doomed);
}

#[tokio::test]
async fn a_savepoint_that_cannot_be_set_changes_nothing() {
    let scene = Scene::new();
    let database = FakeDatabase::new("db", &scene.world);
    let mut transaction = scene.transactions.begin();
    scene.send(&mut transaction, "a").await;
    transaction.join(database.manager()).unwrap();
    scene.world.fail("db savepoint", Fault::Before(ErrorKind::Unsupported));
    let error = scene.transactions.savepoint(&mut transaction).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(scene.transactions.commit(transaction).await.is_committed());
    assert_eq!(scene.queue.names(Place::Published), ["a"]);
}

#[tokio::test]
async fn a_commit_goes_on_when_its_caller_stops_waiting() {
    let scene = Scene::new();
    let mut transaction = scene.transactions.begin();
    scene.send(&mut transaction, "a").await;
    scene.send(&mut transaction, "b").await;
    let mut commit = Box::pin(scene.transactions.commit(transaction));
    // One look hands the work to a task; this test's runtime has not run it yet.
    assert!(futures_util::poll!(&mut commit).is_pending());
    drop(commit);
    assert_eq!(scene.queue.names(Place::Published), [""; 0]);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.queue.names(Place::Published), ["a", "b"]);
}

#[tokio::test]
async fn a_commit_that_was_never_polled_commits_nothing() {
    let scene = Scene::new();
    let mut transaction = scene.transactions.begin();
    scene.send(&mut transaction, "a").await;
    drop(scene.transactions.commit(transaction));
    tokio::task::yield_now().await;
    assert_eq!(scene.world.calls(), [""; 0]);
}
