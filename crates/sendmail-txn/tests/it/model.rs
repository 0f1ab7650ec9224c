//! Random transactions with a fault at a random step: all of it or nothing.

use std::sync::Arc;

use futures_util::FutureExt;
use proptest::prelude::*;
use sendmail_core::mock::MockMailer;
use sendmail_core::{
    DeliveryReport, ErrorKind, EventSink, MailDelivery, MailEventKind, Outcome, Reply, Transaction,
};
use sendmail_txn::{
    CommitOutcome, DirectDelivery, QueuedDelivery, Recovery, Savepoint, TransactionManager,
};

use crate::direct::Heard;
use crate::fake::{FakeDatabase, FakeQueue, Fault, Place, World, clock, mail};

#[derive(Debug, Clone, Copy)]
enum Op {
    Queue,
    OtherQueue,
    Direct,
    Database,
    Savepoint,
    /// To one of the savepoints, valid or void.
    Rollback(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => Just(Op::Queue),
        2 => Just(Op::OtherQueue),
        1 => Just(Op::Direct),
        1 => Just(Op::Database),
        2 => Just(Op::Savepoint),
        2 => (0usize..4).prop_map(Op::Rollback),
    ]
}

fn fault() -> impl Strategy<Value = Fault> {
    let kind = prop_oneof![
        Just(ErrorKind::Io),
        Just(ErrorKind::Full),
        Just(ErrorKind::Uncertain),
        Just(ErrorKind::InvalidInput)
    ];
    prop_oneof![
        kind.prop_map(Fault::Before),
        // Done, and an error all the same: the only honest one is doubt.
        Just(Fault::After(ErrorKind::Uncertain)),
        Just(Fault::Hang),
        Just(Fault::Panic),
    ]
}

/// Everything of one case, and what is to be expected of it.
struct Case {
    world: World,
    queues: [FakeQueue; 2],
    deliveries: [QueuedDelivery; 2],
    direct: DirectDelivery,
    heard: Arc<Heard>,
    database: FakeDatabase,
    transactions: TransactionManager,
    savepoints: Vec<(Savepoint, bool, usize)>,
    /// What was handed over and not rolled back, queued mail as `q…`, direct mail as `d…`.
    expected: Vec<String>,
    sent: usize,
}

impl Case {
    fn new() -> Self {
        let world = World::default();
        let queues = [FakeQueue::new("queue", &world), FakeQueue::new("other", &world)];
        let heard = Arc::new(Heard::default());
        let mut mailer = MockMailer::new();
        mailer.expect_relay().return_const("relay".to_owned());
        mailer.expect_announces().returning(|| true);
        mailer.expect_check().returning(|_| Ok(()));
        mailer.expect_answer().returning(|envelope, _| {
            Ok(DeliveryReport::same(envelope, &Outcome::Accepted(Reply::new(250, "ok"))))
        });
        let sink: Arc<dyn EventSink> = heard.clone();
        Self {
            deliveries: [0, 1].map(|index| QueuedDelivery::new(queues[index].shared(), clock())),
            direct: DirectDelivery::new(Arc::new(mailer), clock(), [sink]),
            database: FakeDatabase::new("db", &world),
            transactions: TransactionManager::new(clock()),
            savepoints: Vec::new(),
            expected: Vec::new(),
            sent: 0,
            world,
            queues,
            heard,
        }
    }

    async fn send(&mut self, transaction: &mut Transaction, delivery: Option<usize>) {
        let name = format!("{}{}", if delivery.is_some() { 'q' } else { 'd' }, self.sent);
        self.sent += 1;
        let (envelope, message) = mail(&name);
        let delivery: &dyn MailDelivery = match delivery {
            Some(index) => &self.deliveries[index],
            None => &self.direct,
        };
        if delivery.send(transaction, envelope, message).await.is_ok() {
            self.expected.push(name);
        }
    }

    /// A transaction that did `ops`. Steps may fail; the application goes on.
    async fn apply(&mut self, ops: &[Op]) -> Transaction {
        let mut transaction = self.transactions.begin();
        for op in ops {
            match *op {
                Op::Queue => self.send(&mut transaction, Some(0)).await,
                Op::OtherQueue => self.send(&mut transaction, Some(1)).await,
                Op::Direct => self.send(&mut transaction, None).await,
                // A second one is refused, which is fine.
                Op::Database => drop(transaction.join(self.database.manager())),
                Op::Savepoint => {
                    if let Ok(savepoint) = self.transactions.savepoint(&mut transaction).await {
                        self.savepoints.push((savepoint, true, self.expected.len()));
                    }
                }
                Op::Rollback(index) => self.rollback(&mut transaction, index).await,
            }
        }
        transaction
    }

    async fn rollback(&mut self, transaction: &mut Transaction, index: usize) {
        let Some((savepoint, valid, length)) = self.savepoints.get(index) else { return };
        let done = self.transactions.rollback_to(transaction, savepoint).await;
        if done.is_ok() {
            assert!(valid, "a void savepoint was accepted");
            self.expected.truncate(*length);
            for later in &mut self.savepoints[index + 1..] {
                later.1 = false;
            }
        }
    }

    /// The process is dead; recovery runs for both queues until nothing is left.
    async fn recover(&self) {
        self.world.heal();
        for (queue, other) in [(0, 1), (1, 0)] {
            self.queues[queue].owner_dies();
            self.queues[other].owner_dies();
            let recovery = Recovery::new(self.queues[queue].shared(), clock())
                .with_decision_store(self.queues[other].shared().decision_store().unwrap())
                .unwrap()
                .with_decision_store(self.database.shared())
                .unwrap();
            let report = recovery.run().await.unwrap();
            assert_eq!(report.kept(), 0, "{report:?}");
        }
    }

    /// What was published or sent, sorted.
    fn delivered(&self) -> Vec<String> {
        let mut names = self.queues[0].names(Place::Published);
        names.extend(self.queues[1].names(Place::Published));
        names.extend(self.heard.events().iter().map(|event| {
            assert_eq!(event.kind, MailEventKind::Sent);
            let id = event.message_id.as_ref().unwrap().as_str();
            id.trim_start_matches('<').split('@').next().unwrap().to_owned()
        }));
        names.sort();
        names
    }
}

fn queued(names: &[String]) -> Vec<String> {
    names.iter().filter(|name| name.starts_with('q')).cloned().collect()
}

fn check(ops: &[Op], commits: bool, fault_at: usize, fault: Option<Fault>) {
    let mut case = Case::new();
    if let Some(fault) = fault {
        case.world.fail_at(fault_at, fault);
    }
    // Without a runtime everything runs in this thread, and what hangs is dropped: kill -9.
    let outcome = async {
        let transaction = case.apply(ops).await;
        if commits {
            return Some(case.transactions.commit(transaction).await);
        }
        case.transactions.abort(transaction).await;
        None
    }
    .now_or_never();
    let mut expected = case.expected.clone();
    expected.sort();
    case.recover().now_or_never().unwrap();
    let delivered = case.delivered();
    match outcome {
        Some(Some(CommitOutcome::Committed | CommitOutcome::CommittedFinishPending(_))) => {
            assert_eq!(delivered, expected);
        }
        Some(None | Some(CommitOutcome::Aborted(_))) => assert_eq!(delivered, [""; 0]),
        // In doubt or killed: all of the queue's or nothing; direct mail has no memory, but is never
        // sent unless the rest is.
        Some(Some(CommitOutcome::Uncertain(_))) | None => {
            let all = queued(&delivered) == queued(&expected);
            let nothing = delivered.is_empty();
            let direct_only = delivered.iter().all(|name| expected.contains(name));
            assert!(nothing || (all && direct_only), "{delivered:?} of {expected:?}");
        }
    }
    assert_eq!(case.world.breaches(), [""; 0]);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_transaction_is_all_or_nothing_wherever_it_fails(
        ops in proptest::collection::vec(op(), 0..12),
        commits in prop::bool::weighted(0.9),
        fault_at in 0usize..24,
        fault in proptest::option::weighted(0.8, fault()),
    ) {
        check(&ops, commits, fault_at, fault);
    }
}

// Proves: I1
#[test]
fn every_step_of_one_transaction_fails_in_every_way() {
    use Op::{Database, Direct, OtherQueue, Queue, Rollback, Savepoint};
    let ways = [
        Fault::Before(ErrorKind::Io),
        Fault::Before(ErrorKind::Uncertain),
        Fault::After(ErrorKind::Uncertain),
        Fault::Hang,
        Fault::Panic,
    ];
    let transactions: [&[Op]; 5] = [
        &[Queue],
        &[Queue, Queue, Queue],
        &[Queue, Direct, OtherQueue],
        &[OtherQueue, Queue, Direct, Database],
        &[Queue, Database, Savepoint, Queue, OtherQueue, Rollback(0), Queue],
    ];
    for ops in transactions {
        for fault_at in 0..24 {
            for fault in ways {
                check(ops, true, fault_at, Some(fault));
            }
        }
    }
}
