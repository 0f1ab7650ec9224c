//! Recovery: what is asked, when, and what is done with the answer.

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::mock::{MockDecisionStore, MockQueueStore};
use sendmail_core::{
    DecisionStore, Discard, Error, ErrorKind, MailEventKind, QueueId, ResourceId, Undecided,
};
use sendmail_txn::{Action, Finding, Recovered, Recovery, RecoveryReport, Ruling};

use crate::direct::Heard;
use crate::fake::{FakeDatabase, FakeQueue, Fault, NOW, Place, World, clock};

struct Scene {
    world: World,
    queue: FakeQueue,
    database: FakeDatabase,
    heard: Arc<Heard>,
}

impl Scene {
    fn new() -> Self {
        let world = World::default();
        Self {
            queue: FakeQueue::new("queue", &world),
            database: FakeDatabase::new("db", &world),
            heard: Arc::default(),
            world,
        }
    }

    fn recovery(&self) -> Recovery {
        let recovery = Recovery::new(self.queue.shared(), clock());
        recovery.with_decision_store(self.database.shared()).unwrap().with_sink(self.heard.clone())
    }

    async fn recover(&self) -> RecoveryReport {
        self.recovery().run().await.unwrap()
    }
}

fn found(report: &RecoveryReport, id: QueueId) -> &Recovered {
    report.messages.iter().find(|message| message.id == id).unwrap()
}

#[tokio::test]
async fn what_is_visible_is_published_in_one_go_and_then_forgotten() {
    let scene = Scene::new();
    let ids = ["a", "b"].map(|name| scene.queue.plant(name, "db", Place::Staged));
    ids.iter().for_each(|id| scene.database.plant(*id));
    let report = scene.recover().await;
    for id in ids {
        let one = found(&report, id);
        assert!(matches!((&one.finding, &one.action), (Finding::Committed, Action::Published)));
        assert!(!scene.database.remembers(id));
    }
    assert_eq!(scene.world.calls(), ["db visible", "queue publish", "db forget"]);
    assert_eq!(scene.queue.names(Place::Published), ["a", "b"]);
}

// Proves: I5
#[tokio::test]
async fn a_live_and_young_transaction_is_not_fenced() {
    let scene = Scene::new();
    let id = scene.queue.plant("a", "db", Place::Staged);
    let report = scene.recover().await;
    assert!(matches!(found(&report, id).finding, Finding::InProgress));
    assert_eq!((report.kept(), scene.world.calls()), (1, vec!["db visible".to_owned()]));
}

#[tokio::test]
async fn an_old_transaction_is_fenced_unless_its_owner_is_still_writing() {
    let scene = Scene::new();
    let staged = scene.queue.plant("a", "db", Place::Staged);
    let written = scene.queue.plant("b", "db", Place::Written);
    let report = scene.recovery().with_fence_after(Duration::ZERO).run().await.unwrap();
    let one = found(&report, staged);
    assert!(matches!((&one.finding, &one.action), (Finding::Aborted, Action::Discarded)));
    assert!(matches!(found(&report, written).finding, Finding::InProgress));
}

#[tokio::test]
async fn a_dead_owners_messages_are_fenced_and_told_of() {
    let scene = Scene::new();
    let staged = scene.queue.plant("a", "db", Place::Staged);
    let written = scene.queue.plant("b", "queue", Place::Written);
    scene.queue.owner_dies();
    let report = scene.recover().await;
    assert!(matches!(found(&report, staged).action, Action::Discarded));
    assert!(matches!(found(&report, written).action, Action::Discarded));
    let events = scene.heard.events();
    assert_eq!(events.len(), 2);
    assert!(events.iter().all(|event| event.kind == MailEventKind::Discarded));
    // Once more is harmless, and tells nobody a second time.
    assert_eq!(scene.recover().await.messages.len(), 0);
    assert_eq!(scene.heard.events().len(), 2);
}

#[tokio::test]
async fn the_queue_itself_answers_unfinished_while_its_owner_lives() {
    let scene = Scene::new();
    let id = scene.queue.plant("a", "queue", Place::Staged);
    let report = scene.recovery().with_fence_after(Duration::ZERO).run().await.unwrap();
    let one = found(&report, id);
    assert!(matches!((&one.finding, &one.action), (Finding::Unfinished, Action::Kept)));
    assert_eq!(scene.queue.names(Place::Staged), ["a"]);
}

// Proves: I5
#[tokio::test]
async fn in_doubt_everything_is_kept() {
    for call in ["db visible", "db fence"] {
        let scene = Scene::new();
        let id = scene.queue.plant("a", "db", Place::Staged);
        scene.queue.owner_dies();
        scene.world.fail(call, Fault::Before(ErrorKind::Unreachable));
        let report = scene.recover().await;
        let one = found(&report, id);
        assert!(matches!((&one.finding, &one.action), (Finding::NoAnswer(_), Action::Kept)));
        assert_eq!(scene.queue.names(Place::Staged), ["a"]);
        // The next look gets an answer.
        assert!(matches!(found(&scene.recover().await, id).action, Action::Discarded));
    }
}

// Proves: I5
#[tokio::test]
async fn a_resource_that_nobody_knows_is_kept_and_reported() {
    let scene = Scene::new();
    let id = scene.queue.plant("a", "elsewhere", Place::Staged);
    scene.queue.owner_dies();
    let report = scene.recover().await;
    let one = found(&report, id);
    assert!(matches!((&one.finding, &one.action), (Finding::UnknownResource, Action::Kept)));
    assert_eq!(one.resource.as_ref().map(ResourceId::as_str), Some("elsewhere"));
    assert_eq!(scene.world.calls(), [""; 0]);
}

#[tokio::test]
async fn one_that_cannot_be_published_keeps_nobody_back() {
    let scene = Scene::new();
    let ids = ["a", "b", "c"].map(|name| scene.queue.plant(name, "db", Place::Staged));
    ids.iter().for_each(|id| scene.database.plant(*id));
    scene.world.fail("queue publish", Fault::Before(ErrorKind::Full));
    scene.world.fail("queue publish", Fault::Before(ErrorKind::Full));
    let report = scene.recover().await;
    assert!(matches!(report.messages[0].action, Action::Failed(_)));
    assert_eq!((report.kept(), scene.queue.names(Place::Published).len()), (1, 2));
    let failed = report.messages[0].id;
    assert!(scene.database.remembers(failed), "it is forgotten only after it is published");
    scene.recover().await;
    assert!(!scene.database.remembers(failed));
    assert_eq!(scene.queue.names(Place::Published), ["a", "b", "c"]);
}

// Proves: I20
#[tokio::test]
async fn nothing_is_forgotten_before_it_is_published() {
    let id = QueueId::mint(NOW);
    let mut store = MockQueueStore::new();
    store.expect_decision_store().returning(|| None);
    store.expect_resource_id().return_const("queue".parse::<ResourceId>().unwrap());
    store.expect_is_frozen().returning(|| Ok(false));
    store.expect_undecided().returning(move || {
        let resource = "db".parse().unwrap();
        Ok(vec![Undecided { id, resource, staged: true, since: NOW, owner_alive: false }])
    });
    store
        .expect_publish()
        .times(2)
        .returning(|_| Err(Error::new(ErrorKind::Uncertain, "publish", "injected")));
    store.expect_discard().never();
    let mut oracle = MockDecisionStore::new();
    oracle.expect_resource_id().return_const("db".parse::<ResourceId>().unwrap());
    oracle.expect_visible().times(1).returning(|ids| Ok(ids.to_vec()));
    oracle.expect_fence().never();
    oracle.expect_forget().never();
    oracle.expect_remembered().returning(|_, _| Ok(Vec::new()));
    oracle.expect_sweep().returning(|| Ok(0));
    let oracle: Arc<dyn DecisionStore> = Arc::new(oracle);
    let recovery = Recovery::new(Arc::new(store), clock()).with_decision_store(oracle).unwrap();
    let report = recovery.run().await.unwrap();
    assert!(matches!(report.messages[0].action, Action::Failed(_)));
}

#[tokio::test]
async fn what_somebody_else_finished_meanwhile_is_left() {
    // It was listed as staged, then committed, published and forgotten; the fence says aborted, and
    // discarding finds nothing, since a published message is never touched.
    let id = QueueId::mint(NOW);
    let mut store = MockQueueStore::new();
    store.expect_decision_store().returning(|| None);
    store.expect_resource_id().return_const("queue".parse::<ResourceId>().unwrap());
    store.expect_is_frozen().returning(|| Ok(false));
    store.expect_undecided().returning(move || {
        let resource = "db".parse().unwrap();
        Ok(vec![Undecided { id, resource, staged: true, since: NOW, owner_alive: false }])
    });
    store.expect_discard().times(1).returning(|_, why| {
        assert_eq!(why, Discard::Fenced);
        Ok(Vec::new())
    });
    let world = World::default();
    let database = FakeDatabase::new("db", &world);
    let recovery = Recovery::new(Arc::new(store), clock());
    let report = recovery.with_decision_store(database.shared()).unwrap().run().await.unwrap();
    let Recovered { finding, action, .. } = &report.messages[0];
    assert!(matches!((finding, action), (Finding::NotUndecided, Action::Nothing)), "{finding:?}");
}

#[tokio::test]
async fn one_that_cannot_be_discarded_keeps_nobody_back() {
    let scene = Scene::new();
    let ids = ["a", "b", "c"].map(|name| scene.queue.plant(name, "db", Place::Staged));
    scene.queue.owner_dies();
    // All together, and the first alone.
    scene.world.fail("queue discard", Fault::Before(ErrorKind::Io));
    scene.world.fail("queue discard", Fault::Before(ErrorKind::Io));
    let report = scene.recover().await;
    assert!(matches!(found(&report, ids[0]).action, Action::Failed(_)), "{report:?}");
    for id in &ids[1..] {
        assert!(matches!(found(&report, *id).action, Action::Discarded), "{report:?}");
    }
    let told: Vec<_> = scene.heard.events().iter().filter_map(|event| event.queue_id).collect();
    assert_eq!(told, ids[1..]);
    assert_eq!(scene.queue.names(Place::Staged), ["a"]);
}

#[tokio::test]
async fn what_is_gone_when_an_operator_drops_it_is_told_as_such() {
    let id = QueueId::mint(NOW);
    let mut store = MockQueueStore::new();
    store.expect_decision_store().returning(|| None);
    store.expect_resource_id().return_const("queue".parse::<ResourceId>().unwrap());
    store.expect_undecided().returning(move || {
        let resource = "elsewhere".parse().unwrap();
        Ok(vec![Undecided { id, resource, staged: true, since: NOW, owner_alive: false }])
    });
    store.expect_discard().times(1).returning(|_, _| Ok(Vec::new()));
    let recovery = Recovery::new(Arc::new(store), clock());
    let report = recovery.decide(&[id], Ruling::Aborted).await.unwrap();
    assert!(matches!(report.messages[0].action, Action::Nothing), "{report:?}");
}

#[tokio::test]
async fn one_resource_id_names_one_decision_store() {
    let scene = Scene::new();
    let twin = FakeDatabase::new("queue", &scene.world);
    let error = scene.recovery().with_decision_store(twin.shared()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn a_part_that_joins_later_looks_at_its_own_messages_only() {
    let scene = Scene::new();
    let own = scene.queue.plant("a", "db", Place::Staged);
    scene.database.plant(own);
    scene.queue.plant("b", "queue", Place::Staged);
    scene.queue.plant("c", "elsewhere", Place::Staged);
    scene.queue.owner_dies();
    let part = Recovery::of(scene.queue.shared(), clock(), scene.database.shared());
    let report = part.run().await.unwrap();
    assert!(matches!(found(&report, own).action, Action::Published));
    assert_eq!(report.messages.len(), 1);
    assert_eq!(scene.queue.names(Place::Staged), ["b", "c"]);
}

#[tokio::test]
async fn an_operator_decides_where_nobody_can_be_asked() {
    let scene = Scene::new();
    let sent = scene.queue.plant("a", "elsewhere", Place::Staged);
    let dropped = scene.queue.plant("b", "elsewhere", Place::Staged);
    let never = QueueId::mint(NOW);
    scene.queue.owner_dies();
    let recovery = scene.recovery();
    let report = recovery.decide(&[sent, never], Ruling::Committed).await.unwrap();
    assert!(matches!(found(&report, sent).action, Action::Published));
    assert!(matches!(found(&report, never).finding, Finding::NotUndecided));
    let report = recovery.decide(&[dropped], Ruling::Aborted).await.unwrap();
    assert!(matches!(found(&report, dropped).action, Action::Discarded));
    assert_eq!(scene.queue.names(Place::Published), ["a"]);
    assert_eq!(scene.heard.events().len(), 1);
}

#[tokio::test]
async fn an_operator_does_not_overrule_an_answer_or_a_live_owner() {
    let scene = Scene::new();
    let committed = scene.queue.plant("a", "db", Place::Staged);
    scene.database.plant(committed);
    let rolled_back = scene.queue.plant("b", "db", Place::Staged);
    let recovery = scene.recovery();
    let report = recovery.decide(&[committed], Ruling::Aborted).await.unwrap();
    assert!(matches!(report.messages[0].finding, Finding::InProgress));
    scene.queue.owner_dies();
    for (id, ruling) in [(committed, Ruling::Aborted), (rolled_back, Ruling::Committed)] {
        let report = recovery.decide(&[id], ruling).await.unwrap();
        assert!(matches!(report.messages[0].action, Action::Kept), "{report:?}");
    }
    assert_eq!(scene.queue.names(Place::Staged), ["a", "b"]);
}
