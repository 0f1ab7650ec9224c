//! The fence on SQLite, in both journal modes.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::{
    Clock, Decision, DecisionStore, Error, ErrorKind, QueueId, ResourceId, Result,
};
use sendmail_sqlx::SqlDecisionStore;
use sendmail_testkit::ManualClock;
use sendmail_testkit::suite::external::{ExternalHarness, Owner};
use sqlx::pool::PoolConnection;
use sqlx::sqlite::{SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Sqlite, SqlitePool};

use crate::scene::{MODES, Scene};

mod wal {
    sendmail_testkit::external_decision_suite!(super::Wal);
}

mod rollback_journal {
    sendmail_testkit::external_decision_suite!(super::RollbackJournal);
}

/// A file in one of its modes, with a clock that a case moves.
struct File {
    scene: Scene,
    clock: ManualClock,
}

struct Wal(File);
struct RollbackJournal(File);

macro_rules! harness {
    ($harness:ident, $mode:ident) => {
        #[async_trait]
        impl ExternalHarness for $harness {
            async fn new() -> Self {
                let scene = Scene::new(SqliteJournalMode::$mode).await;
                Self(File { scene, clock: ManualClock::default() })
            }

            async fn store(&self, queue: &ResourceId) -> Arc<dyn DecisionStore> {
                let (pool, clock) = (self.0.scene.pool.clone(), Arc::new(self.0.clock.clone()));
                let store = SqlDecisionStore::connect(pool, clock, queue.clone()).await.unwrap();
                Arc::new(store.lock_wait(Duration::from_millis(100)))
            }

            async fn begin(&self, queue: &ResourceId) -> Box<dyn Owner> {
                Box::new(Application::begin(&self.0.scene.pool, queue).await)
            }

            fn one_writer(&self) -> bool {
                true
            }

            async fn age(&self, age: Duration) {
                let sql = "UPDATE sendmail_marker SET at = at - ?";
                let seconds = i64::try_from(age.as_secs()).unwrap();
                sqlx::query(sql).bind(seconds).execute(&self.0.scene.pool).await.unwrap();
            }

            async fn records(&self) -> usize {
                records(&self.0.scene.pool).await
            }

            fn clock(&self) -> &ManualClock {
                &self.0.clock
            }
        }
    };
}

harness!(Wal, Wal);
harness!(RollbackJournal, Delete);

/// A transaction that nobody but its own statements ends.
pub(crate) struct Application {
    connection: PoolConnection<Sqlite>,
    queue: ResourceId,
}

impl Application {
    pub(crate) async fn begin(pool: &SqlitePool, queue: &ResourceId) -> Self {
        let mut connection = pool.acquire().await.unwrap();
        connection.close_on_drop();
        sqlx::raw_sql("BEGIN IMMEDIATE").execute(&mut *connection).await.unwrap();
        Self { connection, queue: queue.clone() }
    }
}

#[async_trait]
impl Owner for Application {
    async fn mark(&mut self, id: QueueId) -> Result<()> {
        let insert = "INSERT INTO sendmail_marker (id, kind, queue) VALUES (?, 1, ?)";
        let insert = sqlx::query(insert).bind(&id.as_bytes()[..]).bind(self.queue.as_str());
        insert.execute(&mut *self.connection).await.map(drop).map_err(said)
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        sqlx::raw_sql("COMMIT").execute(&mut *self.connection).await.map(drop).map_err(said)
    }

    async fn rollback(mut self: Box<Self>) {
        sqlx::raw_sql("ROLLBACK").execute(&mut *self.connection).await.unwrap();
    }
}

fn said(error: sqlx::Error) -> Error {
    Error::new(ErrorKind::Refused, "run a statement", error.to_string())
}

async fn records(pool: &SqlitePool) -> usize {
    let count = sqlx::query_scalar::<_, i64>("SELECT COUNT(*) FROM sendmail_marker");
    usize::try_from(count.fetch_one(pool).await.unwrap()).unwrap()
}

pub(crate) fn queue() -> ResourceId {
    "queue-1".parse().unwrap()
}

pub(crate) fn fresh() -> QueueId {
    QueueId::mint(SystemClock.now())
}

pub(crate) async fn store(pool: &SqlitePool) -> SqlDecisionStore<Sqlite> {
    SqlDecisionStore::connect(pool.clone(), Arc::new(SystemClock), queue()).await.unwrap()
}

#[tokio::test]
async fn a_fence_that_found_the_file_busy_leaves_its_connection_as_it_was() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(scene.options().busy_timeout(Duration::from_millis(7)))
            .await
            .unwrap();
        let store = store(&pool).await.lock_wait(Duration::from_millis(20));
        let mut owner = Application::begin(&scene.pool, &queue()).await;
        let (marked, other) = (fresh(), fresh());
        owner.mark(marked).await.unwrap();
        assert_eq!(store.fence(other, Duration::ZERO).await.unwrap(), Decision::Unfinished);
        Box::new(owner).commit().await.unwrap();
        assert_eq!(store.fence(other, Duration::ZERO).await.unwrap(), Decision::Aborted);
        assert_eq!(store.fence(marked, Duration::ZERO).await.unwrap(), Decision::Committed);
        let timeout: i64 =
            sqlx::query_scalar("PRAGMA busy_timeout").fetch_one(&pool).await.unwrap();
        assert_eq!(timeout, 7);
    }
}

#[tokio::test]
async fn a_connection_that_came_back_with_an_open_transaction_decides_nothing() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(scene.options())
            .await
            .unwrap();
        let store = store(&pool).await;
        for (marks, fences) in [(true, false), (false, true)] {
            let mut connection = pool.acquire().await.unwrap();
            sqlx::raw_sql("BEGIN").execute(&mut *connection).await.unwrap();
            let id = fresh();
            if marks {
                let mark = "INSERT INTO sendmail_marker (id, kind, queue) VALUES (?, 1, 'queue-1')";
                let mark = sqlx::query(mark).bind(&id.as_bytes()[..]);
                mark.execute(&mut *connection).await.unwrap();
            }
            drop(connection);
            if fences {
                assert!(store.fence(id, Duration::ZERO).await.is_err(), "{mode:?}");
            } else {
                assert!(store.visible(&[id]).await.is_err(), "{mode:?}");
            }
            // It was closed, which rolled back what nobody had committed.
            assert_eq!(store.visible(&[id]).await.unwrap(), [], "{mode:?}");
            assert_eq!(store.fence(id, Duration::ZERO).await.unwrap(), Decision::Aborted);
        }
    }
}

#[tokio::test]
async fn a_fence_that_is_dropped_at_any_poll_leaves_nothing_open() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let store = store(&scene.pool).await;
        for polls in 0.. {
            let id = fresh();
            let done = poll_times(polls, store.fence(id, Duration::ZERO)).await;
            // Whoever comes next gets the write lock, and a connection in order.
            let mut owner = Application::begin(&scene.pool, &queue()).await;
            owner.mark(fresh()).await.unwrap();
            Box::new(owner).commit().await.unwrap();
            assert_eq!(store.fence(id, Duration::ZERO).await.unwrap(), Decision::Aborted);
            if let Some(answer) = done {
                assert_eq!(answer.unwrap(), Decision::Aborted);
                assert!(polls > 3, "it was dropped at {polls} polls only");
                break;
            }
        }
    }
}

/// Polls `future` that often, each time after it asked for it, and drops it unless it was done.
pub(crate) async fn poll_times<T>(times: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    let mut polled = 0;
    std::future::poll_fn(move |context| {
        if polled == times {
            return std::task::Poll::Ready(None);
        }
        polled += 1;
        let poll = future.as_mut().poll(context).map(Some);
        if poll.is_pending() && polled == times {
            return std::task::Poll::Ready(None);
        }
        poll
    })
    .await
}

// Proves: D-markers
#[tokio::test]
async fn old_tombstones_are_removed_a_thousand_rows_at_a_time_and_once_a_minute() {
    let scene = Scene::new(SqliteJournalMode::Wal).await;
    let fill = "INSERT INTO sendmail_marker (id, kind, queue, at) \
                WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 20000) \
                SELECT CAST(substr('0000000000000000' || n, -16) AS BLOB), 3, 'queue-1', 0 FROM n";
    sqlx::raw_sql(fill).execute(&scene.pool).await.unwrap();
    let mut owner = Application::begin(&scene.pool, &queue()).await;
    let mail = fresh();
    owner.mark(mail).await.unwrap();
    Box::new(owner).commit().await.unwrap();
    let clock = ManualClock::default();
    let store = SqlDecisionStore::connect(scene.pool.clone(), Arc::new(clock.clone()), queue())
        .await
        .unwrap();
    let mut left = 20_001;
    for _ in 0..21 {
        let removed = store.sweep().await.unwrap();
        assert!(removed <= 1000, "{removed}");
        left -= removed;
        assert_eq!(records(&scene.pool).await, left);
        assert_eq!(store.sweep().await.unwrap(), 0, "not twice in a minute");
        clock.advance(Duration::from_secs(60));
    }
    assert_eq!(left, 1);
    assert_eq!(store.visible(&[mail]).await.unwrap(), [mail]);
}

#[tokio::test]
async fn markers_are_deleted_at_most_once_a_minute() {
    let scene = Scene::new(SqliteJournalMode::Wal).await;
    let clock = ManualClock::default();
    let store = SqlDecisionStore::connect(scene.pool.clone(), Arc::new(clock.clone()), queue())
        .await
        .unwrap();
    let ids: Vec<QueueId> = (0..300).map(|_| fresh()).collect();
    let mut owner = Application::begin(&scene.pool, &queue()).await;
    for id in &ids {
        owner.mark(*id).await.unwrap();
    }
    Box::new(owner).commit().await.unwrap();
    for (minute, some) in ids.chunks(100).enumerate() {
        store.forget(some).await.unwrap();
        store.sweep().await.unwrap();
        assert_eq!(records(&scene.pool).await, 300 - minute * 100);
        clock.advance(Duration::from_secs(60));
        store.forget(&[]).await.unwrap();
        assert_eq!(records(&scene.pool).await, 200 - minute * 100);
    }
}

// Proves: D-undecidable
#[tokio::test]
async fn what_cannot_decide_is_refused_with_a_word_of_what_to_do() {
    let connect = async |pool: &SqlitePool| {
        let connected =
            SqlDecisionStore::connect(pool.clone(), Arc::new(SystemClock), queue()).await;
        connected.unwrap_err()
    };
    let bare = Scene::without_tables(SqliteJournalMode::Wal).await;
    let error = connect(&bare.pool).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.to_string().contains("migrate"), "{error}");

    let scene = Scene::new(SqliteJournalMode::Delete).await;
    let read_only = SqlitePool::connect_with(scene.options().read_only(true)).await.unwrap();
    let error = connect(&read_only).await;
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
}

// Proves: D-undecidable
#[tokio::test]
async fn a_table_that_was_dropped_and_another_database_are_no_answers() {
    let scene = Scene::new(SqliteJournalMode::Wal).await;
    let store = store(&scene.pool).await;
    let rename = "UPDATE sendmail_database SET resource = 'db-00000000000000000000000000000000'";
    sqlx::raw_sql(rename).execute(&scene.pool).await.unwrap();
    let error = store.fence(fresh(), Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(store.visible(&[fresh()]).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(records(&scene.pool).await, 0, "no tombstone in another database");

    sqlx::raw_sql("DROP TABLE sendmail_marker").execute(&scene.pool).await.unwrap();
    let error = store.fence(fresh(), Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.is_temporary(), "the table can be restored");
}

// Proves: D-relaxed
#[tokio::test]
async fn relaxed_settings_are_found_and_can_be_refused() {
    let scene = Scene::new(SqliteJournalMode::Wal).await;
    let full = SqlitePool::connect_with(scene.options().synchronous(SqliteSynchronous::Full)).await;
    let full = store(&full.unwrap()).await;
    assert!(full.warnings().is_empty(), "{:?}", full.warnings());
    full.require_durable().unwrap();
    let normal =
        SqlitePool::connect_with(scene.options().synchronous(SqliteSynchronous::Normal)).await;
    let normal = store(&normal.unwrap()).await;
    assert_eq!(normal.warnings().len(), 1);
    assert_eq!(normal.require_durable().unwrap_err().kind(), ErrorKind::Unsupported);
}
