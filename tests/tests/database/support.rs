//! A database of its own for each test, with a queue in memory and a delivery between them.

use std::sync::Arc;

use sendmail_core::{
    Envelope, Message, MessageId, QueueId, QueueStore, ResourceId, Result, Timestamp,
};
use sendmail_sqlx::{AttachExt, Engine, SqlDelivery};
use sendmail_testkit::{ManualClock, MemoryStore};
use sendmail_tests::servers::{MariaDb, Postgres};
use sqlx::pool::PoolOptions;
use sqlx::{MySql, Pool};

/// What a test needs of a database beyond what both have in common.
pub(crate) trait Tested: Engine + Sized {
    /// A new database on the shared server; nothing where the test is skipped.
    fn create(test: &str, database: &str) -> Option<String>;

    /// Runs `sql` as one text.
    fn execute(
        connection: &mut Self::Connection,
        sql: &'static str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// The first column of the only row.
    fn count(
        pool: &Pool<Self>,
        sql: &'static str,
    ) -> impl Future<Output = sqlx::Result<i64>> + Send;

    /// The keys of the markers, in their order.
    fn markers(pool: &Pool<Self>) -> impl Future<Output = sqlx::Result<Vec<Vec<u8>>>> + Send;
}

macro_rules! tested {
    ($database:ty, $server:ty, $id:literal) => {
        impl Tested for $database {
            fn create(test: &str, database: &str) -> Option<String> {
                let server = <$server>::shared(test)?;
                Some(server.create_database(database).unwrap())
            }

            async fn execute(
                connection: &mut Self::Connection,
                sql: &'static str,
            ) -> sqlx::Result<()> {
                sqlx::raw_sql(sql).execute(connection).await.map(drop)
            }

            async fn count(pool: &Pool<Self>, sql: &'static str) -> sqlx::Result<i64> {
                sqlx::query_scalar(sql).fetch_one(pool).await
            }

            async fn markers(pool: &Pool<Self>) -> sqlx::Result<Vec<Vec<u8>>> {
                let sql =
                    concat!("SELECT ", $id, " FROM sendmail_marker WHERE kind = 1 ORDER BY id");
                sqlx::query_scalar(sql).fetch_all(pool).await
            }
        }
    };
}

tested!(sqlx::Postgres, Postgres, "uuid_send(id)");
tested!(MySql, MariaDb, "id");

/// A database with the tables made, and one of the application.
pub(crate) struct Shop<DB: Tested> {
    pub(crate) pool: Pool<DB>,
    pub(crate) queue: MemoryStore,
    pub(crate) clock: Arc<ManualClock>,
}

impl<DB: Tested> Shop<DB> {
    /// Nothing where `test` is skipped; the database has its name, which must be no other's.
    pub(crate) async fn open(test: &str) -> Option<Self> {
        let shop = Self::empty(test).await?;
        sendmail_sqlx::migrate(&shop.pool).await.unwrap();
        let mut connection = shop.pool.acquire().await.unwrap();
        DB::execute(&mut connection, "CREATE TABLE orders (customer varchar(64) NOT NULL)")
            .await
            .unwrap();
        drop(connection);
        Some(shop)
    }

    /// Without tables.
    pub(crate) async fn empty(test: &str) -> Option<Self> {
        let url = DB::create(test, test)?;
        let pool = PoolOptions::new().max_connections(8).connect(&url).await.unwrap();
        let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_504_135_123)));
        let queue = MemoryStore::new(clock.clone());
        Some(Self { pool, queue, clock })
    }

    pub(crate) async fn delivery(&self) -> SqlDelivery {
        SqlDelivery::connect(Arc::new(self.queue.clone()), self.clock.clone(), &self.pool)
            .await
            .unwrap()
    }

    /// A delivery that was not made from this database.
    pub(crate) fn delivery_for(&self, resource: &str) -> SqlDelivery {
        let resource: ResourceId = resource.parse().unwrap();
        SqlDelivery::new(Arc::new(self.queue.clone()), self.clock.clone(), resource)
    }

    /// Attaches a mail through `connection`.
    pub(crate) async fn attach(&self, connection: &mut DB::Connection) -> Result<MessageId> {
        let (envelope, message) = mail();
        self.delivery().await.attach(connection, envelope, message).await
    }

    /// The markers that are committed.
    pub(crate) async fn markers(&self) -> Vec<QueueId> {
        let keys = DB::markers(&self.pool).await.unwrap();
        keys.into_iter().map(|key| QueueId::from_bytes(key.try_into().unwrap())).collect()
    }

    pub(crate) async fn orders(&self) -> i64 {
        DB::count(&self.pool, "SELECT COUNT(*) FROM orders").await.unwrap()
    }

    /// What the queue has, and whether it is staged, in the order of the ids.
    pub(crate) async fn undecided(&self) -> Vec<(QueueId, bool)> {
        let undecided = self.queue.undecided().await.unwrap();
        let mut undecided: Vec<_> =
            undecided.into_iter().map(|message| (message.id, message.staged)).collect();
        undecided.sort();
        undecided
    }
}

pub(crate) const ORDER: &str = "INSERT INTO orders (customer) VALUES ('alice@example.net')";

pub(crate) fn mail() -> (Envelope, Message) {
    let envelope = Envelope::parse("shop@example.org", ["alice@example.net"]).unwrap();
    let text = b"Message-ID: <1@example.org>\n\nThank you.\n";
    (envelope, Message::from_raw(text, Timestamp::EPOCH, "example.org").unwrap())
}

/// A test for each server, from one that is generic over the database.
macro_rules! on_each_server {
    ($($test:ident => $postgres:ident, $mariadb:ident;)*) => {$(
        #[tokio::test]
        async fn $postgres() {
            $test::<sqlx::Postgres>(stringify!($postgres)).await;
        }

        #[tokio::test]
        async fn $mariadb() {
            $test::<sqlx::MySql>(stringify!($mariadb)).await;
        }
    )*};
}
pub(crate) use on_each_server;
