//! The whole way with the testkit's strict queue: what is committed is claimed, after any death.

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{
    ErrorKind, EventLog, MailDelivery, MailEventKind, QueueStore, Release, Settlement, Transaction,
};
use sendmail_testkit::{ManualClock, MemoryStore, Operation};
use sendmail_txn::{
    Action, CommitOutcome, Finding, QueuedDelivery, Recovery, RecoveryReport, TransactionManager,
};

use crate::fake::{NOW, mail};

struct Scene {
    clock: Arc<ManualClock>,
    store: MemoryStore,
    delivery: QueuedDelivery,
    transactions: TransactionManager,
}

impl Scene {
    fn new() -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let store = MemoryStore::new(clock.clone());
        Self {
            delivery: QueuedDelivery::new(Arc::new(store.clone()), clock.clone()),
            transactions: TransactionManager::new(clock.clone()),
            clock,
            store,
        }
    }

    async fn begin(&self, names: &[&str]) -> Transaction {
        let mut transaction = self.transactions.begin();
        for name in names {
            let (envelope, message) = mail(name);
            self.delivery.send(&mut transaction, envelope, message).await.unwrap();
        }
        transaction
    }

    async fn commit(&self, names: &[&str]) -> CommitOutcome {
        let transaction = self.begin(names).await;
        self.transactions.commit(transaction).await
    }

    /// Whom a processor of another process may write to now, sorted by sender.
    async fn claimed(&self) -> Vec<String> {
        let worker = self.store.process();
        let mut names = Vec::new();
        for claim in worker.claim(100).await.unwrap().claims {
            let loaded = worker.load(&claim).await.unwrap();
            names.push(loaded.envelope.reverse_path().local_part().unwrap().to_owned());
            worker.settle(claim, Settlement::Release(Release::NotAttempted)).await.unwrap();
        }
        names.sort();
        names
    }

    /// Recovery by another process.
    async fn recover(&self) -> RecoveryReport {
        let store = Arc::new(self.store.process());
        Recovery::new(store, self.clock.clone()).run().await.unwrap()
    }
}

#[tokio::test]
async fn what_is_committed_is_claimed_by_another_process() {
    let scene = Scene::new();
    assert!(matches!(scene.commit(&["a"]).await, CommitOutcome::Committed));
    assert!(matches!(scene.commit(&["b", "c", "c"]).await, CommitOutcome::Committed));
    assert_eq!(scene.claimed().await, ["a", "b", "c", "c"]);
    assert_eq!(scene.recover().await.messages.len(), 0);
}

#[tokio::test]
async fn what_is_rolled_back_is_not() {
    let scene = Scene::new();
    let transaction = scene.begin(&["a", "b"]).await;
    scene.transactions.abort(transaction).await;
    for (operation, kind) in [
        (Operation::Write, ErrorKind::Full),
        (Operation::Stage, ErrorKind::Io),
        (Operation::Propose, ErrorKind::Full),
        (Operation::Decide, ErrorKind::Aborted),
    ] {
        scene.store.fail_next(operation, kind);
        let outcome = scene.commit(&["a", "b"]).await;
        assert!(matches!(outcome, CommitOutcome::Aborted(_)), "{operation:?}: {outcome:?}");
    }
    assert_eq!(scene.claimed().await, [""; 0]);
    assert_eq!(scene.store.undecided().await.unwrap(), []);
}

// Proves: A-flood
#[tokio::test]
async fn a_queue_that_is_full_votes_against_and_takes_mail_later() {
    let scene = Scene::new();
    scene.store.set_full(true);
    let CommitOutcome::Aborted(error) = scene.commit(&["a"]).await else { panic!() };
    assert_eq!(error.kind(), ErrorKind::Full);
    scene.store.set_full(false);
    assert!(scene.commit(&["a"]).await.is_committed());
    assert_eq!(scene.claimed().await, ["a"]);
}

#[tokio::test]
async fn who_dies_after_the_decision_is_finished_by_recovery() {
    let scene = Scene::new();
    scene.store.fail_next(Operation::Publish, ErrorKind::Full);
    let outcome = scene.commit(&["a", "b"]).await;
    assert!(matches!(outcome, CommitOutcome::CommittedFinishPending(_)), "{outcome:?}");
    assert_eq!(scene.claimed().await, [""; 0]);
    scene.store.kill();
    let report = scene.recover().await;
    assert_eq!((report.messages.len(), report.kept()), (2, 0));
    assert!(report.messages.iter().all(|one| matches!(one.action, Action::Published)));
    assert_eq!(scene.claimed().await, ["a", "b"]);
}

#[tokio::test]
async fn who_dies_in_doubt_is_left_until_it_is_dead_and_then_decided() {
    let scene = Scene::new();
    scene.store.fail_next(Operation::Decide, ErrorKind::Uncertain);
    let outcome = scene.commit(&["a", "b"]).await;
    assert!(matches!(outcome, CommitOutcome::Uncertain(_)), "{outcome:?}");

    // Young, then old: in either case the owner lives, and the queue does not say.
    let report = scene.recover().await;
    assert!(report.messages.iter().all(|one| matches!(one.finding, Finding::InProgress)));
    scene.clock.advance(Duration::from_secs(31));
    let report = scene.recover().await;
    assert!(report.messages.iter().all(|one| matches!(one.finding, Finding::Unfinished)));
    assert_eq!(report.kept(), 2);

    scene.store.kill();
    let report = scene.recover().await;
    assert!(report.messages.iter().all(|one| matches!(one.action, Action::Discarded)));
    assert_eq!(scene.claimed().await, [""; 0]);
    let log = scene.store.process();
    let discarded = log.read(None, 10).await.unwrap().events;
    assert!(discarded.iter().all(|(_, event)| event.kind == MailEventKind::Discarded));
    assert_eq!(discarded.len(), 2);
}

#[tokio::test]
async fn two_recoveries_at_once_do_no_harm() {
    let scene = Scene::new();
    scene.store.fail_next(Operation::Publish, ErrorKind::Full);
    assert!(scene.commit(&["a", "b"]).await.is_committed());
    scene.store.fail_next(Operation::Decide, ErrorKind::Uncertain);
    assert!(!scene.commit(&["c", "d"]).await.is_committed());
    scene.store.kill();
    futures_util::join!(scene.recover(), scene.recover(), scene.recover());
    assert_eq!(scene.recover().await.messages.len(), 0);
    assert_eq!(scene.claimed().await, ["a", "b"]);
}
