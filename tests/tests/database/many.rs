//! A hundred recoveries at once on one queue: each message is decided once, and all agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use sendmail_clock::SystemClock;
use sendmail_core::QueueId;
use sendmail_sqlx::SqlDecisionStore;
use sendmail_txn::{Finding, Recovery, RecoveryReport};
use tokio::sync::Barrier;
use tokio::task::JoinSet;

use crate::world::{Whole, World, on_each_database, store_id};

on_each_database! {
    a_hundred_recoveries_decide_once => many_postgres, many_mariadb, many_sqlite;
}

const RECOVERIES: usize = 100;
/// Orders 1 to 20 are committed, 21 to 40 rolled back, 41 to 44 open.
const COMMITTED: u32 = 20;
const ROLLED_BACK: u32 = 40;
const OPEN: u32 = 44;
/// How often everybody has to look at most until nothing is in doubt: each answers at once, or says that
/// it is to be asked again.
const ROUNDS: usize = 20;

// Proves: D-fence
async fn a_hundred_recoveries_decide_once<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    let dead = world.process().await;
    for number in 1..=COMMITTED {
        dead.commit(number).await;
    }
    for number in COMMITTED + 1..=ROLLED_BACK {
        dead.roll_back(number).await;
    }
    drop(dead);
    let live = world.process().await;
    let mut open = Vec::new();
    // In SQLite one that is open keeps out all others.
    for number in ROLLED_BACK + 1..=if DB::ONE_WRITER { ROLLED_BACK + 1 } else { OPEN } {
        open.push(live.order(number).await);
    }
    let recoveries = recoveries(&world).await;

    let mut findings = Findings::default();
    let mut rounds = 0;
    let settled = |left: usize| if DB::ONE_WRITER { left <= 21 } else { left == open.len() };
    while !settled(world.undecided().await.len()) {
        findings.add(at_once(&recoveries).await);
        rounds += 1;
        assert!(rounds <= ROUNDS, "still in doubt: {findings:?}");
    }
    findings.add(at_once(&recoveries).await);
    assert!(settled(world.undecided().await.len()), "what is open is in doubt");
    assert_eq!(findings.committed.len(), COMMITTED as usize);
    let fenced = if DB::ONE_WRITER { 0 } else { 20 };
    assert_eq!(findings.aborted.len(), fenced, "{findings:?}");

    // Two that were open are committed, the others rolled back.
    for (index, tx) in open.into_iter().enumerate() {
        if index % 2 == 0 { tx.commit().await.unwrap() } else { tx.rollback().await.unwrap() }
    }
    rounds = 0;
    while !world.undecided().await.is_empty() {
        findings.add(at_once(&recoveries).await);
        rounds += 1;
        assert!(rounds <= ROUNDS, "still in doubt: {findings:?}");
    }
    findings.add(at_once(&recoveries).await);
    findings.agree();
    assert!(world.events.discarded().values().all(|times| *times == 1), "each once");
    let discarded: Vec<QueueId> = world.events.discarded().into_keys().collect();
    assert_eq!(discarded, findings.aborted.iter().copied().collect::<Vec<_>>());

    for _ in 0..2 {
        world.deliver().await;
        assert_eq!(world.copies(OPEN), world.orders(OPEN).await);
    }
    assert!(world.copies(COMMITTED).iter().all(|copies| *copies == 1));
}

/// Each as a process of its own has it, with its own handle of the queue. They share connections, so that
/// the server has some left.
async fn recoveries<DB: Whole>(world: &World<DB>) -> Vec<Arc<Recovery>> {
    let mut recoveries = Vec::with_capacity(RECOVERIES);
    for _ in 0..RECOVERIES {
        let store = world.store().await;
        let decisions =
            SqlDecisionStore::connect(world.pool.clone(), Arc::new(SystemClock), store_id(&store))
                .await
                .unwrap()
                .lock_wait(Duration::ZERO);
        let recovery = world.recovery_of(store).with_decision_store(Arc::new(decisions)).unwrap();
        recoveries.push(Arc::new(recovery));
    }
    recoveries
}

/// Runs all of them, beginning together.
async fn at_once(recoveries: &[Arc<Recovery>]) -> Vec<RecoveryReport> {
    let barrier = Arc::new(Barrier::new(recoveries.len()));
    let mut tasks = JoinSet::new();
    for recovery in recoveries {
        let (recovery, barrier) = (recovery.clone(), barrier.clone());
        tasks.spawn(async move {
            barrier.wait().await;
            recovery.run().await.unwrap()
        });
    }
    tasks.join_all().await
}

/// What anybody found out for good, and what nobody could say.
#[derive(Debug, Default)]
struct Findings {
    committed: BTreeSet<QueueId>,
    aborted: BTreeSet<QueueId>,
    unanswered: BTreeMap<String, usize>,
}

impl Findings {
    fn add(&mut self, reports: Vec<RecoveryReport>) {
        for message in reports.into_iter().flat_map(|report| report.messages) {
            match message.finding {
                Finding::Committed => drop(self.committed.insert(message.id)),
                Finding::Aborted => drop(self.aborted.insert(message.id)),
                Finding::NoAnswer(error) => {
                    *self.unanswered.entry(error.to_string()).or_default() += 1;
                }
                Finding::Unfinished => {
                    *self.unanswered.entry("unfinished".into()).or_default() += 1;
                }
                // Another has just done it.
                Finding::NotUndecided => {}
                other => panic!("{other:?} about {}", message.id),
            }
        }
        self.agree();
    }

    fn agree(&self) {
        let both: Vec<_> = self.committed.intersection(&self.aborted).collect();
        assert!(both.is_empty(), "one said committed, another rolled back: {both:?}");
    }
}
