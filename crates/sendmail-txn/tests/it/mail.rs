//! Queued mail in a transaction: what the queue is asked to do, and when.

use std::sync::Arc;

use mockall::Sequence;
use sendmail_core::mock::{MockDecisionLog, MockDecisionStore, MockQueueStore};
use sendmail_core::{
    Capabilities, DataManager, DecisionLog, DecisionStore, Error, ErrorKind, MailDelivery,
    PrepareContext, QueueId, ResourceId, Transaction, TransactionId, TransactionStatus, Vote,
};
use sendmail_txn::{CommitOutcome, Limits, MailDataManager, QueuedDelivery, TransactionManager};

use crate::fake::{FakeDatabase, FakeQueue, Fault, NOW, Place, World, clock, mail};

async fn send(delivery: &QueuedDelivery, transaction: &mut Transaction, name: &str) {
    let (envelope, message) = mail(name);
    let id = delivery.send(transaction, envelope, message).await.unwrap();
    assert_eq!(id.as_str(), format!("<{name}@example.org>"));
}

struct Scene {
    world: World,
    queue: FakeQueue,
    other: FakeQueue,
    database: FakeDatabase,
    transactions: TransactionManager,
}

impl Scene {
    fn new() -> Self {
        let world = World::default();
        Self {
            queue: FakeQueue::new("queue", &world),
            other: FakeQueue::new("other", &world),
            database: FakeDatabase::new("db", &world),
            transactions: TransactionManager::new(clock()),
            world,
        }
    }

    /// Commits a transaction with so many messages for each queue, and the database if wanted.
    async fn commit(&self, queue: usize, other: usize, database: bool) -> CommitOutcome {
        let mut transaction = self.transactions.begin();
        for (store, count) in [(&self.queue, queue), (&self.other, other)] {
            let delivery = QueuedDelivery::new(store.shared(), clock());
            for number in 0..count {
                send(&delivery, &mut transaction, &format!("m{number}")).await;
            }
        }
        if database {
            transaction.join(self.database.manager()).unwrap();
        }
        self.transactions.commit(transaction).await
    }

    fn check(&self, published: usize, gone: bool) {
        let count = |place| self.queue.names(place).len() + self.other.names(place).len();
        assert_eq!(count(Place::Published), published);
        if gone {
            assert_eq!(count(Place::Written) + count(Place::Staged), 0);
        }
        assert_eq!(self.world.breaches(), [""; 0]);
    }
}

#[tokio::test]
async fn one_message_alone_is_decided_by_publishing_it() {
    let scene = Scene::new();
    let outcome = scene.commit(1, 0, false).await;
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
    assert_eq!(scene.world.calls(), ["queue write", "queue publish"]);
}

// Proves: I1
#[tokio::test]
async fn several_messages_are_decided_by_one_record() {
    let scene = Scene::new();
    let outcome = scene.commit(2, 0, false).await;
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
    assert_eq!(
        scene.world.calls(),
        [
            "queue write",
            "queue write",
            "queue stage",
            "queue propose",
            "queue decide",
            "queue publish",
            "queue forget"
        ]
    );
    assert_eq!(scene.queue.proposals(), 0);
}

#[tokio::test]
async fn the_first_queue_decides_for_the_second() {
    let scene = Scene::new();
    let outcome = scene.commit(1, 1, false).await;
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
    assert_eq!(
        scene.world.calls(),
        [
            "other write",
            "other stage",
            "queue write",
            "queue stage",
            "queue propose",
            "queue decide",
            "queue publish",
            "other publish",
            "queue forget"
        ]
    );
}

#[tokio::test]
async fn a_database_decides_if_there_is_one() {
    let scene = Scene::new();
    let outcome = scene.commit(1, 0, true).await;
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
    assert_eq!(
        scene.world.calls(),
        ["queue write", "queue stage", "db prepare", "db commit", "queue publish", "db forget"]
    );
}

// Proves: I2, F-prepare-full, F-prepare-eio, F-prepare-access
#[tokio::test]
async fn whatever_fails_before_the_decision_leaves_nothing() {
    for call in ["queue write", "queue stage", "other write", "other stage", "queue propose"] {
        let kinds = [ErrorKind::Full, ErrorKind::Io, ErrorKind::PermissionDenied];
        let faults = kinds.into_iter().flat_map(|kind| [Fault::Before(kind), Fault::After(kind)]);
        for fault in faults.chain([Fault::Panic]) {
            let scene = Scene::new();
            scene.world.fail(call, fault);
            let outcome = scene.commit(2, 1, false).await;
            assert!(matches!(outcome, CommitOutcome::Aborted(_)), "{call} {fault:?}: {outcome:?}");
            scene.check(0, true);
        }
    }
}

#[tokio::test]
async fn a_database_that_rolls_back_takes_the_mail_along() {
    let scene = Scene::new();
    scene.world.fail("db commit", Fault::Before(ErrorKind::Aborted));
    let outcome = scene.commit(1, 1, true).await;
    assert!(matches!(outcome, CommitOutcome::Aborted(_)), "{outcome:?}");
    scene.check(0, true);
}

// Proves: F-decide-full
#[tokio::test]
async fn one_message_that_cannot_be_published_is_not_committed() {
    for kind in [ErrorKind::Full, ErrorKind::PermissionDenied] {
        let scene = Scene::new();
        scene.world.fail("queue publish", Fault::Before(kind));
        let outcome = scene.commit(1, 0, false).await;
        let CommitOutcome::Aborted(error) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.kind(), kind);
        scene.check(0, true);
    }
}

// Proves: F-decide-eio, F-decide-access, I4
#[tokio::test]
async fn one_message_of_which_the_store_is_in_doubt_is_uncertain_and_kept() {
    let scene = Scene::new();
    scene.world.fail("queue publish", Fault::Before(ErrorKind::Uncertain));
    let outcome = scene.commit(1, 0, false).await;
    assert!(matches!(outcome, CommitOutcome::Uncertain(_)), "{outcome:?}");
    assert_eq!(scene.world.calls().last().map(String::as_str), Some("queue publish"));
    assert_eq!(scene.queue.names(Place::Written).len(), 1);
}

#[tokio::test]
async fn in_doubt_everything_is_kept_and_nothing_published() {
    // Any error of `decide` but "aborted" is a doubt, whatever it calls itself.
    for kind in [ErrorKind::Uncertain, ErrorKind::Io] {
        let scene = Scene::new();
        scene.world.fail("queue decide", Fault::After(kind));
        let outcome = scene.commit(1, 1, false).await;
        let CommitOutcome::Uncertain(error) = outcome else { panic!("{outcome:?}") };
        assert_eq!(error.kind(), ErrorKind::Uncertain);
        let calls = scene.world.calls();
        assert_eq!(calls.last().map(String::as_str), Some("queue decide"));
        assert_eq!(scene.queue.names(Place::Staged).len(), 1);
        assert_eq!(scene.other.names(Place::Staged).len(), 1);
    }
}

// Proves: F-publish-full, F-publish-eio, F-publish-access
#[tokio::test]
async fn after_the_decision_what_cannot_be_published_is_pending() {
    let calls =
        [("queue publish", "mail queue queue", 1), ("other publish", "mail queue other", 2)];
    let kinds = [ErrorKind::Full, ErrorKind::Io, ErrorKind::PermissionDenied];
    for ((call, manager, published), kind) in
        calls.into_iter().flat_map(|each| kinds.map(|kind| (each, kind)))
    {
        let scene = Scene::new();
        scene.world.fail(call, Fault::Before(kind));
        let outcome = scene.commit(2, 1, false).await;
        let CommitOutcome::CommittedFinishPending(pending) = outcome else { panic!("{outcome:?}") };
        assert_eq!((pending.len(), pending[0].manager.as_str()), (1, manager));
        scene.check(published, false);
        assert!(!scene.world.calls().contains(&"queue forget".to_owned()));
    }
}

// Proves: I2
#[tokio::test]
async fn a_rollback_sends_nothing() {
    let scene = Scene::new();
    let mut transaction = scene.transactions.begin();
    let delivery = QueuedDelivery::new(scene.queue.shared(), clock());
    send(&delivery, &mut transaction, "a").await;
    scene.transactions.abort(transaction).await;
    assert_eq!(scene.world.calls(), [""; 0]);
}

#[tokio::test]
async fn a_queue_that_cannot_decide_takes_one_message() {
    let world = World::default();
    let queue = FakeQueue::mute("mute", &world);
    let transactions = TransactionManager::new(clock());
    let delivery = QueuedDelivery::new(queue.shared(), clock());
    for (count, committed) in [(1, true), (2, false)] {
        let mut transaction = transactions.begin();
        for _ in 0..count {
            send(&delivery, &mut transaction, "a").await;
        }
        let outcome = transactions.commit(transaction).await;
        assert_eq!(outcome.is_committed(), committed);
        if let CommitOutcome::Aborted(error) = outcome {
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            assert!(error.to_string().contains("no decision log"), "{error}");
        }
    }
    assert_eq!(world.calls(), ["mute write", "mute publish"]);
}

#[tokio::test]
async fn a_queue_that_cannot_decide_follows_one_that_can() {
    let world = World::default();
    let mute = FakeQueue::mute("mute", &world);
    let queue = FakeQueue::new("queue", &world);
    let transactions = TransactionManager::new(clock());
    let mut transaction = transactions.begin();
    let delivery = QueuedDelivery::new(mute.shared(), clock());
    send(&delivery, &mut transaction, "a").await;
    send(&delivery, &mut transaction, "b").await;
    send(&QueuedDelivery::new(queue.shared(), clock()), &mut transaction, "c").await;
    assert!(transactions.commit(transaction).await.is_committed());
    assert!(world.ordered("queue decide", "mute publish"));
}

#[tokio::test]
async fn two_queues_of_one_name_are_not_mixed_up() {
    let world = World::default();
    let transactions = TransactionManager::new(clock());
    let mut transaction = transactions.begin();
    let first = QueuedDelivery::new(FakeQueue::new("queue", &world).shared(), clock());
    let second = QueuedDelivery::new(FakeQueue::new("queue", &world).shared(), clock());
    send(&first, &mut transaction, "a").await;
    let (envelope, message) = mail("b");
    let error = second.send(&mut transaction, envelope, message).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    assert!(error.to_string().contains("resource id"), "{error}");
}

// Proves: A-flood, B-lengths
#[tokio::test]
async fn limits_are_told_with_both_numbers_and_nothing_joins() {
    let world = World::default();
    let transactions = TransactionManager::new(clock());
    let mut limits = Limits::default();
    limits.messages = 2;
    limits.recipients = 3;
    let store = FakeQueue::new("queue", &world).shared();
    let delivery = QueuedDelivery::new(store, clock()).with_limits(limits);
    let mut transaction = transactions.begin();

    let (envelope, _) = mail("big");
    let raw = format!("Message-ID: <a@b>\n\n{}", "x\n".repeat(500));
    let big = sendmail_core::Message::from_raw(raw.as_bytes(), NOW, "b").unwrap();
    let error = delivery.send(&mut transaction, envelope, big).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("limit: 1000"), "{error}");
    assert!(transaction.managers_mut().is_empty());

    let (_, message) = mail("many");
    let many = sendmail_core::Envelope::parse("a@b", ["1@c", "2@c", "3@c"]).unwrap();
    delivery.send(&mut transaction, many, message).await.unwrap();
    let (envelope, message) = mail("more");
    let error = delivery.send(&mut transaction, envelope, message).await.unwrap_err();
    assert!(error.to_string().contains("recipients (count: 4, limit: 3)"), "{error}");

    limits.recipients = 100;
    let store = FakeQueue::new("two", &world).shared();
    let delivery = QueuedDelivery::new(store, clock()).with_limits(limits);
    send(&delivery, &mut transaction, "a").await;
    send(&delivery, &mut transaction, "b").await;
    let (envelope, message) = mail("c");
    let error = delivery.send(&mut transaction, envelope, message).await.unwrap_err();
    assert!(error.to_string().contains("messages (count: 3, limit: 2)"), "{error}");
}

#[tokio::test]
async fn nothing_is_handed_to_a_transaction_that_is_not_active() {
    let scene = Scene::new();
    let delivery = QueuedDelivery::new(scene.queue.shared(), clock());
    let mut transaction = scene.transactions.begin();
    send(&delivery, &mut transaction, "a").await;
    transaction.set_status(TransactionStatus::Doomed);
    let (envelope, message) = mail("b");
    let error = delivery.send(&mut transaction, envelope, message).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
}

#[tokio::test]
async fn one_message_in_two_envelopes_is_sent_twice() {
    let scene = Scene::new();
    let delivery = QueuedDelivery::new(scene.queue.shared(), clock());
    let mut transaction = scene.transactions.begin();
    send(&delivery, &mut transaction, "same").await;
    send(&delivery, &mut transaction, "same").await;
    assert!(scene.transactions.commit(transaction).await.is_committed());
    assert_eq!(scene.queue.names(Place::Published), ["same", "same"]);
}

/// Makes a mock of a queue answer who it is, and that `log` decides for it.
fn with_log(mut store: MockQueueStore, log: MockDecisionLog) -> Arc<MockQueueStore> {
    let resource: ResourceId = "queue".parse().unwrap();
    let log = Arc::new(log);
    store.expect_resource_id().return_const(resource.clone());
    store.expect_capabilities().return_const(Capabilities::new());
    store.expect_decision_log().returning(move || Some(log.clone() as Arc<dyn DecisionLog>));
    let mut oracle = MockDecisionStore::new();
    oracle.expect_resource_id().return_const(resource);
    oracle.expect_forget().returning(|_| Ok(()));
    let oracle: Arc<dyn DecisionStore> = Arc::new(oracle);
    store.expect_decision_store().returning(move || Some(oracle.clone()));
    Arc::new(store)
}

async fn commit_two(store: Arc<MockQueueStore>) -> CommitOutcome {
    let transactions = TransactionManager::new(clock());
    let delivery = QueuedDelivery::new(store, clock());
    let mut transaction = transactions.begin();
    send(&delivery, &mut transaction, "a").await;
    send(&delivery, &mut transaction, "b").await;
    transactions.commit(transaction).await
}

#[tokio::test]
async fn publishing_waits_for_the_decision_over_all_that_was_written() {
    let mut sequence = Sequence::new();
    let mut log = MockDecisionLog::new();
    let mut store = MockQueueStore::new();
    store.expect_write().times(2).in_sequence(&mut sequence).returning(|_| Ok(()));
    store.expect_stage().times(1).in_sequence(&mut sequence).returning(|_| Ok(()));
    log.expect_propose()
        .times(1)
        .in_sequence(&mut sequence)
        .withf(|_, ids| ids.len() == 2 && ids[0] != ids[1])
        .returning(|_, _| Ok(()));
    log.expect_decide().times(1).in_sequence(&mut sequence).returning(|_| Ok(()));
    store.expect_publish().times(1).in_sequence(&mut sequence).returning(|_| Ok(()));
    store.expect_discard().never();
    let outcome = commit_two(with_log(store, log)).await;
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
}

// Proves: I4
#[tokio::test]
async fn nothing_is_published_or_discarded_in_doubt() {
    let mut log = MockDecisionLog::new();
    let mut store = MockQueueStore::new();
    store.expect_write().times(2).returning(|_| Ok(()));
    store.expect_stage().times(1).returning(|_| Ok(()));
    log.expect_propose().times(1).returning(|_, _| Ok(()));
    log.expect_decide()
        .times(1)
        .returning(|_| Err(Error::new(ErrorKind::Uncertain, "decide", "injected")));
    log.expect_retract().never();
    store.expect_publish().never();
    store.expect_discard().never();
    let outcome = commit_two(with_log(store, log)).await;
    assert!(matches!(outcome, CommitOutcome::Uncertain(_)), "{outcome:?}");
}

#[tokio::test]
async fn a_commit_that_is_repeated_decides_once_and_an_abort_after_it_undoes_nothing() {
    let world = World::default();
    let queue = FakeQueue::new("queue", &world);
    let mut manager = MailDataManager::new(queue.shared());
    for name in ["a", "b"] {
        let (envelope, message) = mail(name);
        manager.hand_over(QueueId::mint(NOW), envelope, message);
    }
    let transaction = TransactionId::mint(NOW);
    let mut context = PrepareContext::new(transaction, Some("queue".parse().unwrap()));
    assert_eq!(manager.prepare(&mut context).await.unwrap(), Vote::Yes);

    world.fail("queue publish", Fault::Before(ErrorKind::Full));
    let error = manager.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommittedFinishPending);
    manager.abort().await;
    manager.commit().await.unwrap();
    assert_eq!(
        world.calls()[4..],
        ["queue decide", "queue publish", "queue publish"].map(String::from)
    );
    assert_eq!(queue.names(Place::Published), ["a", "b"]);
}

#[tokio::test]
async fn a_commit_that_was_not_prepared_does_nothing() {
    let world = World::default();
    let mut manager = MailDataManager::new(FakeQueue::new("queue", &world).shared());
    assert_eq!(manager.commit().await.unwrap_err().kind(), ErrorKind::InvalidState);
    assert_eq!(world.calls(), [""; 0]);
}

#[tokio::test]
async fn a_queue_decides_for_another_although_its_own_mail_is_gone() {
    let world = World::default();
    let mut manager = MailDataManager::new(FakeQueue::new("queue", &world).shared());
    let transaction = TransactionId::mint(NOW);
    let mut context = PrepareContext::new(transaction, Some("queue".parse().unwrap()));
    assert_eq!(manager.prepare(&mut context).await.unwrap(), Vote::ReadOnly);
    context.mark(QueueId::mint(NOW));
    assert_eq!(manager.prepare(&mut context).await.unwrap(), Vote::Yes);
    manager.commit().await.unwrap();
    assert_eq!(world.calls(), ["queue propose", "queue decide"]);
}
