//! Recovery as it goes on beside applications that commit in databases: whom it waits for, what it does
//! about what was left behind, what a frozen queue keeps it from, and how often it asks.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use mockall::Sequence;
use sendmail_core::mock::{MockDecisionStore, MockQueueStore};
use sendmail_core::{
    Clock as _, Decision, DecisionStore, ErrorKind, NewMessage, QueueId, QueueStore, ResourceId,
    Undecided,
};
use sendmail_testkit::{ManualClock, MemoryStore};
use sendmail_txn::{Action, Finding, Recovery, RecoveryReport};

use crate::fake::{FakeDatabase, FakeQueue, Fault, NOW, Place, World, mail};

struct Scene {
    world: World,
    queue: FakeQueue,
    databases: [FakeDatabase; 2],
    clock: ManualClock,
}

impl Scene {
    fn new() -> Self {
        let world = World::default();
        Self {
            queue: FakeQueue::new("queue", &world),
            databases: ["db", "other"].map(|name| FakeDatabase::new(name, &world)),
            clock: ManualClock::new(NOW),
            world,
        }
    }

    fn recovery(&self) -> Recovery {
        let mut recovery = Recovery::new(self.queue.shared(), Arc::new(self.clock.clone()));
        for database in &self.databases {
            recovery = recovery.with_decision_store(database.shared()).unwrap();
        }
        recovery
    }

    /// A committed message in each database.
    fn one_each(&self) -> [QueueId; 2] {
        let plant = |database: &FakeDatabase, name, resource| {
            let id = self.queue.plant(name, resource, Place::Staged);
            database.plant(id);
            id
        };
        [plant(&self.databases[0], "a", "db"), plant(&self.databases[1], "b", "other")]
    }
}

// Proves: D-apart
#[tokio::test]
async fn one_that_does_not_answer_holds_up_no_other() {
    let scene = Scene::new();
    scene.one_each();
    scene.world.fail("db visible", Fault::Hang);
    let recovery = scene.recovery();
    let running = recovery.run().now_or_never();
    assert!(running.is_none(), "one of them never answers");
    assert_eq!(scene.queue.names(Place::Published), ["b"], "the other's mail is on its way");
    assert_eq!(scene.queue.names(Place::Staged), ["a"], "and the first one's is in doubt");
}

#[tokio::test]
async fn one_that_cannot_be_reached_is_told_of_and_keeps_only_its_own() {
    let scene = Scene::new();
    let [unanswered, _] = scene.one_each();
    scene.world.fail("db visible", Fault::Before(ErrorKind::Unreachable));
    let report = scene.recovery().run().await.unwrap();
    for message in &report.messages {
        let unreached = matches!(message.finding, Finding::NoAnswer(_));
        assert_eq!(unreached, message.id == unanswered, "{report:?}");
    }
    assert_eq!(scene.queue.names(Place::Published), ["b"]);
}

#[tokio::test]
async fn each_part_looks_after_its_own() {
    let scene = Scene::new();
    scene.one_each();
    scene.queue.plant("c", "elsewhere", Place::Staged);
    let parts = scene.recovery().split();
    assert_eq!(parts.len(), 3, "the queue itself and two databases");
    let (mut published, mut unknown) = (Vec::new(), 0);
    for part in &parts {
        let report = part.run().await.unwrap();
        published
            .push(report.messages.iter().filter(|m| matches!(m.action, Action::Published)).count());
        unknown += report
            .messages
            .iter()
            .filter(|m| matches!(m.finding, Finding::UnknownResource))
            .count();
    }
    published.sort_unstable();
    assert_eq!((published, unknown), (vec![0, 1, 1], 1), "and one tells of what nobody knows");
}

#[tokio::test]
async fn what_was_left_behind_is_forgotten_once_it_is_sure_to_be_published() {
    let scene = Scene::new();
    let id = scene.queue.plant("a", "db", Place::Published);
    let database = &scene.databases[0];
    database.plant(id);
    database.age();
    // Together with others, and alone.
    scene.world.fail("queue publish", Fault::Before(ErrorKind::Uncertain));
    scene.world.fail("queue publish", Fault::Before(ErrorKind::Uncertain));
    let recovery = scene.recovery();
    let report = recovery.run().await.unwrap();
    assert_eq!((report.forgotten, report.kept()), (0, 1), "{report:?}");
    assert!(database.remembers(id), "it may not be durable yet");
    scene.clock.advance(Duration::from_secs(600));
    let report = recovery.run().await.unwrap();
    assert_eq!((report.forgotten, report.swept, report.kept()), (1, 3, 0), "{report:?}");
    assert!(!database.remembers(id));
    let calls = scene.world.calls();
    assert_eq!(
        calls,
        [
            "db remembered",
            "queue known",
            "queue publish",
            "queue publish",
            "db sweep",
            "db remembered",
            "queue known",
            "queue publish",
            "db forget",
            "db sweep"
        ]
    );
}

// Proves: Q-gone
#[tokio::test]
async fn a_committed_message_that_is_not_there_is_an_alarm_and_stays_remembered() {
    let scene = Scene::new();
    let database = &scene.databases[0];
    let missing = QueueId::mint(NOW);
    database.plant(missing);
    let undecided = scene.queue.plant("a", "db", Place::Staged);
    database.plant(undecided);
    scene.world.fail("queue publish", Fault::Before(ErrorKind::Full));
    scene.world.fail("queue publish", Fault::Before(ErrorKind::Full));
    database.age();
    let recovery = scene.recovery();
    let alarms = |report: &RecoveryReport| {
        let missing =
            |message: &&sendmail_txn::Recovered| matches!(message.finding, Finding::Missing);
        report.messages.iter().filter(missing).map(|message| message.id).collect::<Vec<_>>()
    };
    let report = recovery.run().await.unwrap();
    assert_eq!(alarms(&report), [missing], "and not what still waits to be published");
    assert!(database.remembers(missing), "it is all that is left of it");
    // One that never goes away makes nobody busy.
    let calls = scene.world.calls().len();
    for _ in 0..5 {
        scene.clock.advance(Duration::from_secs(100));
        assert_eq!(alarms(&recovery.run().await.unwrap()), []);
    }
    let asked = |call: &&String| call.as_str() == "db remembered";
    assert_eq!(scene.world.calls()[calls..].iter().filter(asked).count(), 0);
    scene.clock.advance(Duration::from_secs(100));
    assert_eq!(alarms(&recovery.run().await.unwrap()), [missing], "ten minutes later");
}

/// Many more than are asked for at once, none of which goes away.
#[tokio::test]
async fn one_that_never_changes_its_answer_is_asked_twice_at_most() {
    let mut store = MockQueueStore::new();
    store.expect_decision_store().returning(|| None);
    store.expect_resource_id().return_const("queue".parse::<ResourceId>().unwrap());
    store.expect_is_frozen().returning(|| Ok(false));
    store.expect_undecided().returning(|| Ok(Vec::new()));
    store.expect_known().times(1).returning(|_| Ok(Vec::new()));
    let mut oracle = MockDecisionStore::new();
    oracle.expect_resource_id().return_const("db".parse::<ResourceId>().unwrap());
    oracle.expect_remembered().times(2).returning(|age, limit| {
        assert_eq!(age, Duration::from_secs(600));
        let all = (0..500_u128).map(|n| QueueId::from_bytes(n.to_be_bytes()));
        Ok(all.take(limit).collect())
    });
    oracle.expect_forget().never();
    oracle.expect_sweep().times(1).returning(|| Ok(0));
    let oracle: Arc<dyn DecisionStore> = Arc::new(oracle);
    let clock = Arc::new(ManualClock::new(NOW));
    let recovery = Recovery::new(Arc::new(store), clock).with_decision_store(oracle).unwrap();
    let report = recovery.run().await.unwrap();
    assert!(report.messages.iter().all(|message| matches!(message.finding, Finding::Missing)));
    assert_eq!(report.kept(), 500);
}

#[tokio::test]
async fn what_stays_keeps_nothing_behind_it_from_being_forgotten() {
    let scene = Scene::new();
    let database = &scene.databases[0];
    // Missing, and older than what is published.
    for n in 0..1200_u128 {
        database.plant(QueueId::from_bytes(n.to_be_bytes()));
    }
    let published = scene.queue.plant("a", "db", Place::Published);
    database.plant(published);
    database.age();
    let report = scene.recovery().run().await.unwrap();
    let missing = report.messages.iter().filter(|m| matches!(m.finding, Finding::Missing)).count();
    assert_eq!((report.forgotten, missing), (1, 1200));
    assert!(!database.remembers(published));
}

/// The queue is frozen when it is asked for the n-th time whether it is; the one that decides says that
/// the transaction is rolled back.
async fn frozen_at(n: usize, fences: usize) -> RecoveryReport {
    let id = QueueId::mint(NOW);
    let mut store = MockQueueStore::new();
    let mut order = Sequence::new();
    store.expect_decision_store().returning(|| None);
    store.expect_resource_id().return_const("queue".parse::<ResourceId>().unwrap());
    store.expect_undecided().returning(move || {
        let resource = "db".parse().unwrap();
        Ok(vec![Undecided { id, resource, staged: true, since: NOW, owner_alive: false }])
    });
    store.expect_is_frozen().times(n).in_sequence(&mut order).returning(|| Ok(false));
    store.expect_is_frozen().returning(|| Ok(true));
    store.expect_discard().never();
    store.expect_publish().never();
    let mut oracle = MockDecisionStore::new();
    oracle.expect_resource_id().return_const("db".parse::<ResourceId>().unwrap());
    oracle.expect_visible().returning(|_| Ok(Vec::new()));
    oracle.expect_fence().times(fences).returning(|_, _| Ok(Decision::Aborted));
    oracle.expect_remembered().returning(|_, _| Ok(Vec::new()));
    oracle.expect_sweep().returning(|| Ok(0));
    let oracle: Arc<dyn DecisionStore> = Arc::new(oracle);
    let clock = Arc::new(ManualClock::new(NOW));
    let recovery = Recovery::new(Arc::new(store), clock).with_decision_store(oracle).unwrap();
    recovery.run().await.unwrap()
}

// Proves: Q-frozen
#[tokio::test]
async fn nothing_is_decided_in_a_frozen_queue() {
    for (asked, fences) in [(0, 0), (1, 0), (2, 1)] {
        let report = frozen_at(asked, fences).await;
        let message = &report.messages[0];
        assert!(
            matches!((&message.finding, &message.action), (Finding::Frozen, Action::Kept)),
            "frozen after it was asked {asked} times: {report:?}"
        );
    }
}

/// A queue in memory whose messages a database decides.
struct Shop {
    store: MemoryStore,
    database: FakeDatabase,
    clock: ManualClock,
}

impl Shop {
    fn new() -> Self {
        let clock = ManualClock::new(NOW);
        Self {
            store: MemoryStore::new(Arc::new(clock.clone())),
            database: FakeDatabase::new("db", &World::default()),
            clock,
        }
    }

    fn recovery(&self) -> Recovery {
        let recovery = Recovery::new(Arc::new(self.store.process()), Arc::new(self.clock.clone()));
        recovery.with_decision_store(self.database.shared()).unwrap()
    }

    async fn stage(&self) -> QueueId {
        let (envelope, message) = mail("shop");
        let (id, resource) = (QueueId::mint(self.clock.now()), "db".parse().unwrap());
        self.store.write(&NewMessage { id, envelope, message, resource }).await.unwrap();
        self.store.stage(&[id]).await.unwrap();
        id
    }

    async fn undecided(&self) -> usize {
        self.store.undecided().await.unwrap().len()
    }
}

#[tokio::test]
async fn pauses_grow_while_a_transaction_stays_open() {
    let shop = Shop::new();
    let recovery = shop.recovery();
    assert_eq!(recovery.run().await.unwrap().again, None, "nothing is in doubt");
    let id = shop.stage().await;
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let again = recovery.run().await.unwrap().again.unwrap();
        pauses.push(again.as_millis());
        shop.clock.advance(again);
    }
    assert_eq!(pauses, [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000, 1000]);
    shop.database.plant(id);
    let report = recovery.run().await.unwrap();
    let soon = Some(Duration::from_millis(5));
    assert_eq!((report.again, shop.undecided().await), (soon, 0), "it is on its way");
    assert_eq!(recovery.run().await.unwrap().again, None);
}

#[tokio::test]
async fn it_looks_again_soon_only_for_what_somebody_else_may_just_be_deciding() {
    for (resource, place, owner_alive, soon) in [
        ("db", Place::Staged, true, true),
        ("db", Place::Staged, false, true),
        ("db", Place::Written, false, true),
        // It is being written, and is not committed yet.
        ("db", Place::Written, true, false),
        // Its own process publishes it.
        ("queue", Place::Staged, true, false),
        ("queue", Place::Written, true, false),
    ] {
        let scene = Scene::new();
        scene.queue.plant("a", resource, place);
        if !owner_alive {
            scene.queue.owner_dies();
            scene.world.fail("db fence", Fault::Before(ErrorKind::Unreachable));
        }
        let report = scene.recovery().run().await.unwrap();
        assert_eq!(report.kept(), 1, "{report:?}");
        let case = (resource, place, owner_alive);
        assert_eq!(report.again.is_some(), soon, "{case:?}: {report:?}");
    }
}

#[tokio::test]
async fn mail_that_no_database_decides_makes_nobody_look_sooner() {
    let shop = Shop::new();
    let (envelope, message) = mail("shop");
    let (id, resource) = (QueueId::mint(NOW), QueueStore::resource_id(&shop.store).clone());
    shop.store.write(&NewMessage { id, envelope, message, resource }).await.unwrap();
    let report = shop.recovery().run().await.unwrap();
    assert_eq!((report.kept(), report.again), (1, None));
}

/// Follows until `done`, with as much time passing as is slept for.
async fn follow(
    shop: &Shop,
    recovery: Recovery,
    runs: Arc<AtomicUsize>,
    done: impl AsyncFn() -> bool,
) {
    let count = move |report: sendmail_core::Result<RecoveryReport>| {
        report.unwrap();
        runs.fetch_add(1, Ordering::SeqCst);
    };
    let others_first = async || {
        for _ in 0..20 {
            tokio::task::yield_now().await;
        }
    };
    let time = async {
        while !done().await {
            others_first().await;
            shop.clock.advance_to_next().await;
            others_first().await;
        }
    };
    tokio::select! {
        () = recovery.follow(count) => unreachable!("it goes on for ever"),
        () = time => {}
    }
}

// Proves: Q-soon
#[tokio::test]
async fn a_commit_that_nobody_tells_of_is_on_its_way_within_milliseconds() {
    let shop = Shop::new();
    let runs = Arc::<AtomicUsize>::default();
    let committed = OnceLock::new();
    let done = async || {
        // Staged and committed when it has looked around and waits.
        if runs.load(Ordering::SeqCst) >= 3 && committed.set(shop.clock.now()).is_ok() {
            let id = shop.stage().await;
            shop.database.plant(id);
        }
        committed.get().is_some() && shop.undecided().await == 0
    };
    follow(&shop, shop.recovery(), runs.clone(), done).await;
    let passed = shop.clock.now().saturating_since(*committed.get().unwrap());
    assert!(passed <= Duration::from_millis(50), "{passed:?}");
}

#[tokio::test]
async fn a_transaction_that_stays_open_for_an_hour_is_asked_about_once_a_second() {
    let shop = Shop::new();
    shop.stage().await;
    let mut oracle = MockDecisionStore::new();
    oracle.expect_resource_id().return_const("db".parse::<ResourceId>().unwrap());
    oracle.expect_visible().times(3600..=3700).returning(|_| Ok(Vec::new()));
    oracle.expect_fence().returning(|_, _| Ok(Decision::Unfinished));
    oracle.expect_remembered().returning(|_, _| Ok(Vec::new()));
    oracle.expect_sweep().returning(|| Ok(0));
    let oracle: Arc<dyn DecisionStore> = Arc::new(oracle);
    let recovery = Recovery::new(Arc::new(shop.store.process()), Arc::new(shop.clock.clone()));
    let recovery = recovery.with_decision_store(oracle).unwrap();
    let begun = shop.clock.now();
    let hour = Duration::from_secs(3600);
    let done = async || shop.clock.now().saturating_since(begun) >= hour;
    follow(&shop, recovery, Arc::default(), done).await;
    assert_eq!(shop.undecided().await, 1, "it may still commit");
}
