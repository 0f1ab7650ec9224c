//! A database in a temporary directory, a queue that records, and a delivery between them.

use std::sync::{Arc, Mutex};

use sendmail_core::mock::{MockClock, MockQueueStore};
use sendmail_core::{Capabilities, Envelope, Error, ErrorKind, Message, QueueId, Timestamp};
use sendmail_sqlx::SqlDelivery;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Row, SqlitePool};
use tempfile::TempDir;

/// Both modes of a file; what is shown must hold in each.
pub(crate) const MODES: [SqliteJournalMode; 2] =
    [SqliteJournalMode::Wal, SqliteJournalMode::Delete];

/// What the queue was asked, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Call {
    Write(QueueId),
    Stage(QueueId),
    Discard(QueueId),
}

/// The calls that reached the queue, in order.
#[derive(Clone, Default)]
pub(crate) struct Calls(Arc<Mutex<Vec<Call>>>);

impl Calls {
    pub(crate) fn push(&self, call: Call) {
        self.0.lock().unwrap().push(call);
    }

    pub(crate) fn all(&self) -> Vec<Call> {
        self.0.lock().unwrap().clone()
    }

    /// What the queue has staged and not thrown away, in the order of the calls.
    pub(crate) fn staged(&self) -> Vec<QueueId> {
        let calls = self.all();
        let gone = |id| calls.contains(&Call::Discard(id));
        let staged = calls.iter().filter_map(|call| match call {
            Call::Stage(id) if !gone(*id) => Some(*id),
            _ => None,
        });
        staged.collect()
    }
}

/// A directory with a database and everything that goes with it.
pub(crate) struct Scene {
    pub(crate) directory: TempDir,
    pub(crate) mode: SqliteJournalMode,
    pub(crate) pool: SqlitePool,
    pub(crate) calls: Calls,
}

impl Scene {
    /// With the tables made.
    pub(crate) async fn new(mode: SqliteJournalMode) -> Self {
        let scene = Self::without_tables(mode).await;
        sendmail_sqlx::migrate(&scene.pool).await.unwrap();
        let orders = "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT NOT NULL)";
        sqlx::raw_sql(orders).execute(&scene.pool).await.unwrap();
        scene
    }

    pub(crate) async fn without_tables(mode: SqliteJournalMode) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let options = SqliteConnectOptions::new()
            .filename(directory.path().join("shop.db"))
            .create_if_missing(true)
            .journal_mode(mode);
        let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
        Self { directory, mode, pool, calls: Calls::default() }
    }

    /// A delivery through [`SqlDelivery::connect`].
    pub(crate) async fn delivery(&self) -> SqlDelivery {
        let (store, clock) = (Arc::new(queue(&self.calls, false)), Arc::new(clock()));
        SqlDelivery::connect(store, clock, &self.pool).await.unwrap()
    }

    /// A delivery whose queue takes messages and then cannot stage them.
    pub(crate) async fn delivery_that_cannot_stage(&self) -> SqlDelivery {
        let resource = sendmail_sqlx::resource(&self.pool).await.unwrap();
        SqlDelivery::new(Arc::new(queue(&self.calls, true)), Arc::new(clock()), resource)
    }

    /// A pool of the same file with other options.
    pub(crate) fn options(&self) -> SqliteConnectOptions {
        SqliteConnectOptions::new()
            .filename(self.directory.path().join("shop.db"))
            .journal_mode(self.mode)
    }

    /// Ids of the markers that are committed, with their kind.
    pub(crate) async fn markers(&self) -> Vec<QueueId> {
        let rows = sqlx::query("SELECT id, kind, queue FROM sendmail_marker ORDER BY id")
            .fetch_all(&self.pool)
            .await
            .unwrap();
        rows.iter()
            .map(|row| {
                assert_eq!((row.get::<i64, _>(1), row.get::<&str, _>(2)), (1, "queue-1"));
                QueueId::from_bytes(row.get::<&[u8], _>(0).try_into().unwrap())
            })
            .collect()
    }

    pub(crate) async fn orders(&self) -> i64 {
        sqlx::query_scalar("SELECT COUNT(*) FROM orders").fetch_one(&self.pool).await.unwrap()
    }
}

pub(crate) const ORDER: &str = "INSERT INTO orders (customer) VALUES ('alice@example.net')";

pub(crate) fn mail() -> (Envelope, Message) {
    let envelope = Envelope::parse("shop@example.org", ["alice@example.net"]).unwrap();
    let text = b"Message-ID: <1@example.org>\n\nThank you.\n";
    (envelope, Message::from_raw(text, Timestamp::EPOCH, "example.org").unwrap())
}

fn queue(calls: &Calls, cannot_stage: bool) -> MockQueueStore {
    let mut store = MockQueueStore::new();
    store.expect_capabilities().returning(|| {
        let mut capabilities = Capabilities::new();
        capabilities.max_message_len = 1000;
        capabilities
    });
    store
        .expect_resource_id()
        .return_const("queue-1".parse::<sendmail_core::ResourceId>().unwrap());
    let log = calls.clone();
    store.expect_write().returning(move |new| {
        assert!(new.resource.as_str().starts_with("db-"));
        log.push(Call::Write(new.id));
        Ok(())
    });
    let log = calls.clone();
    store.expect_stage().returning(move |ids| {
        if cannot_stage {
            return Err(Error::new(ErrorKind::Io, "stage the message", "the disk is gone"));
        }
        ids.iter().for_each(|id| log.push(Call::Stage(*id)));
        Ok(())
    });
    let log = calls.clone();
    store.expect_discard().returning(move |ids, why| {
        assert_eq!(why, sendmail_core::Discard::Aborted);
        ids.iter().for_each(|id| log.push(Call::Discard(*id)));
        Ok(Vec::new())
    });
    store
}

pub(crate) fn clock() -> MockClock {
    let mut clock = MockClock::new();
    clock.expect_now().return_const(Timestamp::from_millis(1_795_504_135_123));
    clock
}
