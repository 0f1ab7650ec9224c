//! Handlers of events: in transactions of their own, at least once, and harmless to others.

use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sendmail_core::{
    Cursor, Error, ErrorKind, EventLog, EventPage, EventSink, MailDelivery, MailEvent,
    MailEventKind, Result, Transaction,
};
use sendmail_txn::{
    Consumed, CursorStore, EventConsumer, EventHandler, FailureHook, HandlerSink, QueuedDelivery,
    TransactionManager,
};

use crate::fake::{FakeQueue, Fault, NOW, Place, World, clock, mail};

/// Sends a message for each event, and then ends as the script says: nothing left means well.
struct Answers {
    delivery: QueuedDelivery,
    script: Mutex<Vec<End>>,
}

#[derive(Clone, Copy)]
enum End {
    Well,
    Error(ErrorKind),
    Panic,
}

#[async_trait]
impl EventHandler for Answers {
    async fn handle(&self, transaction: &mut Transaction, event: &MailEvent) -> Result<()> {
        let (envelope, message) = mail(event.detail.as_deref().unwrap());
        self.delivery.send(transaction, envelope, message).await?;
        let next = self.script.lock().unwrap().pop();
        match next.unwrap_or(End::Well) {
            End::Well => Ok(()),
            End::Error(kind) => Err(Error::new(kind, "handle", "injected")),
            End::Panic => panic!("oops"),
        }
    }
}

fn event(name: &str) -> MailEvent {
    MailEvent::new(MailEventKind::Sent, NOW).with_detail(name)
}

struct Scene {
    world: World,
    queue: FakeQueue,
    handler: Arc<Answers>,
    failures: Arc<Mutex<Vec<String>>>,
}

impl Scene {
    /// `script` is what becomes of the events, first first.
    fn new(script: &[End]) -> Self {
        let world = World::default();
        let queue = FakeQueue::new("queue", &world);
        let delivery = QueuedDelivery::new(queue.shared(), clock());
        let script = Mutex::new(script.iter().rev().copied().collect());
        let handler = Arc::new(Answers { delivery, script });
        Self { world, queue, handler, failures: Arc::default() }
    }

    fn hook(&self) -> FailureHook {
        let failures = self.failures.clone();
        Arc::new(move |event, error| {
            let name = event.detail.clone().unwrap();
            failures.lock().unwrap().push(format!("{name}: {error}"));
        })
    }

    fn failures(&self) -> usize {
        self.failures.lock().unwrap().len()
    }

    fn sink(&self) -> HandlerSink {
        let manager = TransactionManager::new(clock());
        HandlerSink::new(manager, self.handler.clone(), self.hook())
    }

    fn consumer(&self, log: &Arc<Log>) -> EventConsumer {
        let manager = TransactionManager::new(clock());
        EventConsumer::new(log.clone(), log.clone(), manager, self.handler.clone(), self.hook())
    }
}

#[tokio::test]
async fn a_handler_sends_mail_in_a_transaction_of_its_own() {
    let scene = Scene::new(&[]);
    let sink = scene.sink();
    sink.emit(&event("a")).await;
    assert_eq!(scene.queue.names(Place::Published), ["a"]);
    assert_eq!(scene.failures(), 0);
}

// Proves: Q-handler
#[tokio::test]
async fn a_failure_or_panic_takes_back_its_own_transaction_only() {
    let scene = Scene::new(&[End::Error(ErrorKind::InvalidInput), End::Panic, End::Well]);
    let sink = scene.sink();
    for name in ["a", "b", "c"] {
        sink.emit(&event(name)).await;
    }
    assert_eq!(scene.queue.names(Place::Published), ["c"]);
    let failures = scene.failures.lock().unwrap().clone();
    assert_eq!(failures.len(), 2);
    assert!(failures[0].starts_with("a: ") && failures[1].contains("oops"), "{failures:?}");
}

#[tokio::test]
async fn a_commit_that_fails_is_reported_too() {
    let scene = Scene::new(&[]);
    scene.world.fail("queue write", Fault::Before(ErrorKind::Full));
    scene.sink().emit(&event("a")).await;
    assert_eq!(scene.failures(), 1);
}

#[tokio::test]
async fn a_hook_that_panics_harms_nobody() {
    let scene = Scene::new(&[End::Panic]);
    let manager = TransactionManager::new(clock());
    let sink = HandlerSink::new(manager, scene.handler.clone(), Arc::new(|_, _| panic!("oops")));
    sink.emit(&event("a")).await;
    sink.emit(&event("b")).await;
    assert_eq!(scene.queue.names(Place::Published), ["b"]);
}

/// A log in memory, with the cursor of one consumer.
#[derive(Default)]
struct Log {
    events: Mutex<Vec<MailEvent>>,
    cursor: Mutex<Option<Cursor>>,
}

impl Log {
    fn of(names: &[&str]) -> Arc<Self> {
        let log = Self::default();
        log.events.lock().unwrap().extend(names.iter().map(|name| event(name)));
        Arc::new(log)
    }

    fn position(&self) -> usize {
        self.cursor.lock().unwrap().as_ref().map_or(0, |cursor| cursor.as_str().parse().unwrap())
    }
}

#[async_trait]
impl EventLog for Log {
    async fn read(&self, after: Option<Cursor>, limit: usize) -> Result<EventPage> {
        let start = after.map_or(0, |cursor| cursor.as_str().parse().unwrap());
        let events = self.events.lock().unwrap();
        let rest = events.iter().enumerate().skip(start).take(limit);
        let behind = |index: usize| Cursor::new((index + 1).to_string());
        Ok(EventPage {
            events: rest.map(|(index, event)| (behind(index), event.clone())).collect(),
        })
    }
}

#[async_trait]
impl CursorStore for Log {
    async fn load(&self) -> Result<Option<Cursor>> {
        Ok(self.cursor.lock().unwrap().clone())
    }
    async fn save(&self, cursor: &Cursor) -> Result<()> {
        *self.cursor.lock().unwrap() = Some(cursor.clone());
        Ok(())
    }
}

// Proves: Q-handler
#[tokio::test]
async fn a_consumer_goes_on_where_another_stopped() {
    let scene = Scene::new(&[]);
    let log = Log::of(&["a", "b"]);
    let consumed = scene.consumer(&log).poll().await.unwrap();
    assert_eq!(consumed, Consumed { handled: 2, ..Consumed::default() });
    log.events.lock().unwrap().push(event("c"));
    let consumed = scene.consumer(&log).poll().await.unwrap();
    assert_eq!(consumed.handled, 1);
    assert_eq!(scene.queue.names(Place::Published), ["a", "b", "c"]);
}

#[tokio::test]
async fn more_than_a_page_is_consumed_in_one_look() {
    let scene = Scene::new(&[]);
    let log = Log::of(&vec!["a"; 250]);
    assert_eq!(scene.consumer(&log).poll().await.unwrap().handled, 250);
}

#[tokio::test]
async fn a_temporary_failure_waits_and_is_handled_at_the_next_look() {
    let scene = Scene::new(&[End::Well, End::Error(ErrorKind::Busy)]);
    let log = Log::of(&["a", "b", "c"]);
    let mut consumer = scene.consumer(&log);
    let consumed = consumer.poll().await.unwrap();
    assert_eq!(consumed, Consumed { handled: 1, given_up: 0, waits: true });
    assert_eq!((log.position(), scene.failures()), (1, 1));
    let consumed = consumer.poll().await.unwrap();
    assert_eq!(consumed, Consumed { handled: 2, given_up: 0, waits: false });
    assert_eq!(scene.queue.names(Place::Published), ["a", "b", "c"]);
}

#[tokio::test]
async fn what_fails_for_good_is_reported_and_keeps_nobody_back() {
    let scene = Scene::new(&[End::Error(ErrorKind::InvalidInput), End::Panic]);
    let log = Log::of(&["a", "b", "c"]);
    let consumed = scene.consumer(&log).poll().await.unwrap();
    assert_eq!(consumed, Consumed { handled: 1, given_up: 2, waits: false });
    assert_eq!((log.position(), scene.failures()), (3, 2));
}

#[tokio::test]
async fn attempts_are_bounded() {
    let scene = Scene::new(&[End::Error(ErrorKind::Busy); 3]);
    let log = Log::of(&["a", "b"]);
    let mut consumer = scene.consumer(&log).with_attempts(NonZeroU32::new(3).unwrap());
    assert!(consumer.poll().await.unwrap().waits);
    assert!(consumer.poll().await.unwrap().waits);
    let consumed = consumer.poll().await.unwrap();
    assert_eq!(consumed, Consumed { handled: 1, given_up: 1, waits: false });
    assert_eq!(scene.queue.names(Place::Published), ["b"]);
}
