//! Handlers of events: each event's effect exactly once, whatever fails.

use std::num::NonZeroU32;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    Cursor, Envelope, Error, ErrorKind, EventLog, EventPage, MailEvent, MailEventKind, Message,
    QueueStore as _, Result, Timestamp,
};
use sendmail_sqlx::{
    AttachExt as _, EventSource, EventTrouble, SqlDelivery, SqlEventConsumer, SqlEventHandler,
    StartAt,
};
use sendmail_testkit::{ManualClock, MemoryStore, attached};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Executor as _, Sqlite, SqliteConnection, SqlitePool};

/// A log in memory, whose cursors are numbers.
#[derive(Default)]
struct Log {
    events: Mutex<Vec<MailEvent>>,
    /// How many are no longer kept.
    gone: Mutex<usize>,
    /// The next reads that fail.
    unreadable: Mutex<u32>,
}

impl Log {
    fn add(&self, count: usize) {
        let mut events = self.events.lock().unwrap();
        for number in events.len()..events.len() + count {
            let event = MailEvent::new(MailEventKind::Sent, Timestamp::EPOCH);
            events.push(event.with_detail(&number.to_string()));
        }
    }
}

#[async_trait]
impl EventLog for Log {
    async fn read(&self, after: Option<Cursor>, limit: usize) -> Result<EventPage> {
        let operation = "read the event log";
        let mut unreadable = self.unreadable.lock().unwrap();
        if *unreadable > 0 {
            *unreadable -= 1;
            return Err(Error::new(ErrorKind::Io, operation, "injected"));
        }
        let gone = *self.gone.lock().unwrap();
        let start = after.map_or(gone, |cursor| cursor.as_str().parse().unwrap());
        if start < gone {
            let error = Error::new(ErrorKind::CursorExpired, operation, "no longer kept");
            return Err(error.with("oldest", gone));
        }
        let events = self.events.lock().unwrap();
        let rest = events.iter().enumerate().skip(start).take(limit);
        let behind = |index: usize| Cursor::new((index + 1).to_string());
        Ok(EventPage {
            events: rest.map(|(index, event)| (behind(index), event.clone())).collect(),
        })
    }
}

/// Writes a row for each event, and then ends as the script says: nothing left means well.
#[derive(Default)]
struct Answers {
    /// Attaches a mail too, if there is one.
    delivery: Option<SqlDelivery>,
    script: Mutex<Vec<End>>,
    calls: Mutex<usize>,
}

#[derive(Clone, Copy)]
enum End {
    Error,
    Panic,
    /// A statement ends the transaction, and the handler hides it.
    Swallow,
    /// Leaves a row that the COMMIT refuses.
    Orphan,
    /// Commits by itself, so that the COMMIT that follows fails.
    Commit,
}

#[async_trait]
impl SqlEventHandler<Sqlite> for Answers {
    async fn handle(&self, tx: &mut SqliteConnection, event: &MailEvent) -> Result<()> {
        *self.calls.lock().unwrap() += 1;
        let insert = sqlx::query("INSERT INTO effect (event) VALUES (?)");
        insert.bind(event.id.to_string()).execute(&mut *tx).await.unwrap();
        if let Some(delivery) = &self.delivery {
            let envelope = Envelope::parse("shop@example.org", ["alice@example.net"]).unwrap();
            let text = b"Subject: What became of it\n\nIt was sent.\n";
            let message = Message::from_raw(text, Timestamp::EPOCH, "example.org").unwrap();
            delivery.attach(tx, envelope, message).await?;
        }
        let next = self.script.lock().unwrap().pop();
        match next {
            None => {}
            Some(End::Error) => return Err(Error::new(ErrorKind::Refused, "handle", "injected")),
            Some(End::Panic) => panic!("oops"),
            Some(End::Swallow) => {
                let again = "INSERT OR ROLLBACK INTO only (one) VALUES (1)";
                tx.execute(again).await.unwrap_err();
            }
            Some(End::Orphan) => {
                tx.execute("INSERT INTO child (parent) VALUES (77)").await.unwrap();
            }
            Some(End::Commit) => {
                tx.execute("COMMIT").await.unwrap();
            }
        }
        Ok(())
    }
}

type Told = Arc<Mutex<Vec<(Option<String>, u32, Option<Duration>, String)>>>;

struct Scene {
    _folder: tempfile::TempDir,
    pool: SqlitePool,
    log: Arc<Log>,
    clock: ManualClock,
    handler: Arc<Answers>,
    told: Told,
}

impl Scene {
    /// `script` is what becomes of the events, first first.
    async fn new(events: usize, script: &[End]) -> Self {
        Self::with(events, script, 4).await
    }

    async fn with(events: usize, script: &[End], connections: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(folder.path().join("db"))
            .create_if_missing(true)
            .foreign_keys(true)
            .busy_timeout(Duration::from_secs(60))
            .journal_mode(SqliteJournalMode::Wal);
        let pool = SqlitePoolOptions::new()
            .max_connections(connections)
            .connect_with(options)
            .await
            .unwrap();
        let tables = "CREATE TABLE effect (event TEXT NOT NULL);
            CREATE TABLE only (one INTEGER PRIMARY KEY); INSERT INTO only VALUES (1);
            CREATE TABLE child (parent INTEGER REFERENCES only (one) DEFERRABLE INITIALLY DEFERRED);";
        sendmail_sqlx::migrate(&pool).await.unwrap();
        pool.execute(sqlx::raw_sql(tables)).await.unwrap();
        let log = Arc::new(Log::default());
        log.add(events);
        let script = Mutex::new(script.iter().rev().copied().collect());
        let handler = Arc::new(Answers { script, ..Answers::default() });
        Self {
            _folder: folder,
            pool,
            log,
            clock: ManualClock::default(),
            handler,
            told: Told::default(),
        }
    }

    fn consumer(&self) -> SqlEventConsumer<Sqlite> {
        self.named("orders")
    }

    fn named(&self, name: &str) -> SqlEventConsumer<Sqlite> {
        let source = EventSource::new("queue".parse().unwrap(), self.log.clone());
        let (clock, handler) = (Arc::new(self.clock.clone()), self.handler.clone());
        let told = self.told.clone();
        let hook = move |trouble: &EventTrouble<'_>| {
            let event = trouble.event.map(|event| event.detail.clone().unwrap());
            let text = trouble.error.to_string();
            told.lock().unwrap().push((event, trouble.failures, trouble.retry_after, text));
        };
        SqlEventConsumer::new(name, source, self.pool.clone(), clock, handler, Arc::new(hook))
            .unwrap()
    }

    /// How often each event has had its effect, in the order of the log.
    async fn effects(&self) -> Vec<i64> {
        let events = self.log.events.lock().unwrap().clone();
        let mut counts = Vec::new();
        for event in events {
            let count = sqlx::query_scalar("SELECT count(*) FROM effect WHERE event = ?")
                .bind(event.id.to_string());
            counts.push(count.fetch_one(&self.pool).await.unwrap());
        }
        counts
    }

    fn told(&self) -> Vec<(Option<String>, u32, Option<Duration>, String)> {
        self.told.lock().unwrap().clone()
    }
}

#[tokio::test]
async fn a_consumer_goes_on_where_another_stopped() {
    let scene = Scene::new(2, &[]).await;
    assert_eq!(scene.consumer().poll().await.unwrap().handled, 2);
    scene.log.add(1);
    assert_eq!(scene.consumer().poll().await.unwrap().handled, 1);
    assert_eq!(scene.consumer().poll().await.unwrap().handled, 0);
    assert_eq!(scene.effects().await, [1, 1, 1]);
    assert_eq!(scene.told(), []);
}

#[tokio::test]
async fn more_than_a_page_is_consumed_in_one_look() {
    let scene = Scene::new(250, &[]).await;
    assert_eq!(scene.consumer().poll().await.unwrap().handled, 250);
    assert_eq!(scene.effects().await, [1; 250]);
}

// Proves: D-effects
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_consumers_of_one_name_take_turns() {
    let scene = Scene::new(300, &[]).await;
    let (mut first, mut second) = (scene.consumer(), scene.consumer());
    let second = tokio::spawn(async move { second.poll().await.unwrap().handled });
    let first = first.poll().await.unwrap().handled;
    assert_eq!(first + second.await.unwrap(), 300);
    assert_eq!(scene.effects().await, [1; 300]);
    assert_eq!(scene.told(), []);
}

#[tokio::test]
async fn consumers_of_two_names_each_hear_everything() {
    let scene = Scene::new(2, &[End::Error]).await;
    let (mut orders, mut bounces) = (scene.consumer(), scene.named("bounces"));
    assert!(orders.poll().await.unwrap().waits.is_some());
    assert_eq!(bounces.poll().await.unwrap().handled, 2);
    assert_eq!(scene.effects().await, [1, 1]);
}

#[tokio::test]
async fn a_failure_is_rolled_back_reported_and_tried_again_after_its_pause() {
    let scene = Scene::new(2, &[End::Error, End::Panic]).await;
    let mut consumer = scene.consumer();
    let pause = consumer.poll().await.unwrap().waits.unwrap();
    assert!((800..=1200).contains(&pause.as_millis()), "{pause:?}");
    assert_eq!(scene.effects().await, [0, 0]);

    scene.clock.advance(pause - Duration::from_millis(1));
    assert_eq!(consumer.poll().await.unwrap().waits, Some(Duration::from_millis(1)));
    assert_eq!(*scene.handler.calls.lock().unwrap(), 1, "it was tried before its time");

    scene.clock.advance(Duration::from_millis(1));
    let pause = consumer.poll().await.unwrap().waits.unwrap();
    assert!((1600..=2400).contains(&pause.as_millis()), "{pause:?}");
    scene.clock.advance(pause);
    assert_eq!(consumer.poll().await.unwrap().handled, 2);
    assert_eq!(scene.effects().await, [1, 1]);

    let told = scene.told();
    assert_eq!(told.len(), 2);
    assert_eq!((told[0].0.as_deref(), told[0].1), (Some("0"), 1));
    assert!(told[0].3.contains("injected") && told[1].3.contains("oops"), "{told:?}");
}

#[tokio::test]
async fn an_error_that_the_handler_hides_is_found_out() {
    let scene = Scene::new(1, &[End::Swallow]).await;
    let mut consumer = scene.consumer();
    let pause = consumer.poll().await.unwrap().waits.unwrap();
    assert_eq!(scene.effects().await, [0]);
    assert!(scene.told()[0].3.contains("underneath the handler"), "{:?}", scene.told());
    scene.clock.advance(pause);
    assert_eq!(consumer.poll().await.unwrap().handled, 1);
    assert_eq!(scene.effects().await, [1]);
}

#[tokio::test]
async fn a_commit_that_fails_is_tried_again() {
    let scene = Scene::new(1, &[End::Orphan]).await;
    let mut consumer = scene.consumer();
    let pause = consumer.poll().await.unwrap().waits.unwrap();
    assert_eq!(scene.effects().await, [0]);
    scene.clock.advance(pause);
    assert_eq!(consumer.poll().await.unwrap().handled, 1);
    assert_eq!(scene.effects().await, [1]);
}

// Proves: D-effects
#[tokio::test]
async fn a_commit_that_succeeds_and_says_otherwise_is_believed_by_the_cursor() {
    let scene = Scene::new(2, &[End::Commit]).await;
    assert_eq!(scene.consumer().poll().await.unwrap().handled, 2);
    assert_eq!(scene.effects().await, [1, 1]);
}

#[tokio::test]
async fn nothing_is_passed_over_unless_asked_for() {
    let scene = Scene::new(2, &[End::Error; 20]).await;
    let mut consumer = scene.consumer();
    for _ in 0..20 {
        let pause = consumer.poll().await.unwrap().waits.unwrap();
        assert!(pause <= Duration::from_secs(360), "{pause:?}");
        scene.clock.advance(pause);
    }
    assert_eq!(consumer.poll().await.unwrap().handled, 2);
    assert_eq!(scene.told().last().unwrap().1, 20);
}

#[tokio::test]
async fn an_event_is_passed_over_when_patience_ends_and_that_is_reported() {
    let scene = Scene::new(2, &[End::Error; 3]).await;
    let mut consumer = scene.consumer().giving_up_after(NonZeroU32::new(3).unwrap());
    for _ in 0..2 {
        let pause = consumer.poll().await.unwrap().waits.unwrap();
        scene.clock.advance(pause);
    }
    let consumed = consumer.poll().await.unwrap();
    assert_eq!((consumed.handled, consumed.passed_over, consumed.waits), (1, 1, None));
    assert_eq!(scene.effects().await, [0, 1]);
    let told = scene.told();
    assert_eq!((told.len(), told[2].1, told[2].2), (3, 3, None));
}

#[tokio::test]
async fn a_consumer_may_start_now() {
    let scene = Scene::new(2, &[]).await;
    let mut consumer = scene.consumer().starting_at(StartAt::Now);
    assert_eq!(consumer.poll().await.unwrap().handled, 0);
    scene.log.add(1);
    assert_eq!(consumer.poll().await.unwrap().handled, 1);
    assert_eq!(scene.effects().await, [0, 0, 1]);
}

#[tokio::test]
async fn an_expired_cursor_asks_for_a_decision() {
    let scene = Scene::new(2, &[]).await;
    let mut consumer = scene.consumer();
    consumer.poll().await.unwrap();
    scene.log.add(3);
    *scene.log.gone.lock().unwrap() = 3;
    let error = consumer.follow(Duration::from_secs(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CursorExpired);
    let text = error.to_string();
    assert!(text.contains("start_at") && text.contains("oldest: 3"), "{text}");
    consumer.start_at(StartAt::Oldest).await.unwrap();
    assert_eq!(consumer.poll().await.unwrap().handled, 2);
    assert_eq!(scene.effects().await, [1, 1, 0, 1, 1]);
    scene.log.add(1);
    consumer.start_at(StartAt::Now).await.unwrap();
    assert_eq!(consumer.poll().await.unwrap().handled, 0);
}

#[tokio::test]
async fn a_missing_table_says_what_to_do() {
    let scene = Scene::new(1, &[]).await;
    scene.pool.execute("DROP TABLE sendmail_cursor").await.unwrap();
    let error = scene.consumer().follow(Duration::from_secs(1)).await.unwrap_err();
    assert!(error.to_string().contains("migrate"), "{error}");
}

#[tokio::test]
async fn trouble_that_passes_is_reported_and_waited_out() {
    let scene = Scene::new(1, &[]).await;
    *scene.log.unreadable.lock().unwrap() = 2;
    let mut consumer = scene.consumer();
    let follower = tokio::spawn(async move { consumer.follow(Duration::from_secs(60)).await });
    let first = scene.clock.advance_to_next().await;
    let second = scene.clock.advance_to_next().await;
    assert!(first < second && second <= Duration::from_millis(2400), "{first:?} {second:?}");
    // It sleeps again when it has handled all there is.
    scene.clock.until_asleep(1).await;
    assert_eq!(scene.effects().await, [1]);
    let told = scene.told();
    assert_eq!(
        told.iter().map(|told| (told.0.clone(), told.1)).collect::<Vec<_>>(),
        [(None, 1), (None, 2)]
    );
    follower.abort();
}

// Proves: D-effects
#[tokio::test]
async fn a_poll_that_is_dropped_anywhere_repeats_nothing() {
    let scene = Scene::new(400, &[]).await;
    for polls in 1..150 {
        let mut consumer = scene.consumer();
        drop_after(polls, pin!(consumer.poll())).await;
    }
    let half = scene.effects().await.iter().filter(|count| **count > 0).count();
    assert!(half > 10, "hardly anything was handled: {half}");
    scene.consumer().poll().await.unwrap();
    assert_eq!(scene.effects().await, [1; 400]);
}

/// Polls a future so often, unless it ends before.
async fn drop_after<F: Future>(polls: u32, mut future: Pin<&mut F>) {
    let mut left = polls;
    std::future::poll_fn(|context: &mut Context<'_>| {
        left -= 1;
        match future.as_mut().poll(context) {
            Poll::Pending if left > 0 => Poll::Pending,
            _ => Poll::Ready(()),
        }
    })
    .await;
}

#[tokio::test]
async fn mail_goes_with_the_effect_and_only_with_it() {
    let mut scene = Scene::new(2, &[End::Error, End::Orphan]).await;
    let clock = Arc::new(scene.clock.clone());
    let queue = Arc::new(MemoryStore::new(clock.clone()));
    let delivery = SqlDelivery::connect(queue.clone(), clock, &scene.pool).await.unwrap();
    let script = std::mem::take(&mut *scene.handler.script.lock().unwrap());
    let delivery = Some(delivery);
    scene.handler =
        Arc::new(Answers { delivery, script: Mutex::new(script), ..Answers::default() });
    let mut consumer = scene.consumer();
    for _ in 0..2 {
        let pause = consumer.poll().await.unwrap().waits.unwrap();
        let mut connection = scene.pool.acquire().await.unwrap();
        assert_eq!(attached(&mut *connection, &*queue).await.unwrap(), []);
        scene.clock.advance(pause);
    }
    assert_eq!(consumer.poll().await.unwrap().handled, 2);
    let mut connection = scene.pool.acquire().await.unwrap();
    assert_eq!(attached(&mut *connection, &*queue).await.unwrap().len(), 2);
    // What the two failures left is in doubt, until somebody asks the database.
    assert_eq!(queue.undecided().await.unwrap().len(), 4);
}

#[tokio::test]
async fn one_connection_is_enough() {
    let scene = Scene::with(4, &[End::Swallow, End::Orphan, End::Panic, End::Commit], 1).await;
    let mut consumer = scene.consumer();
    for _ in 0..3 {
        let pause = consumer.poll().await.unwrap().waits.unwrap();
        scene.clock.advance(pause);
    }
    assert_eq!(consumer.poll().await.unwrap().handled, 4);
    assert_eq!(scene.effects().await, [1; 4]);
}

#[test]
fn a_name_is_one_word() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let scene = runtime.block_on(Scene::new(0, &[]));
    for name in ["", "two words", "süß", "a\n", &"a".repeat(65)] {
        let source = EventSource::new("queue".parse().unwrap(), scene.log.clone());
        let (clock, handler) = (Arc::new(scene.clock.clone()), scene.handler.clone());
        let made = SqlEventConsumer::new(
            name,
            source,
            scene.pool.clone(),
            clock,
            handler,
            Arc::new(|_| {}),
        );
        assert_eq!(made.unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
    }
}
