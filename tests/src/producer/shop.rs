//! Transactions of a database: rows, and mail that is attached to them. Most the producer commits itself,
//! by plain sqlx; some are honest ones, which tell what the database did.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::{Clock, QueueStore};
use sendmail_sqlx::{
    AttachExt as _, Commit, Engine, MailTransaction, SqlDecisionStore, SqlDelivery,
};
use sqlx::mysql::{MySqlConnectOptions, MySqlPoolOptions};
use sqlx::pool::PoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Connection, MySql, Pool, Postgres, Sqlite, Transaction};

use super::{Perform, Progress, compose, say};
use crate::Result;
use crate::plan::{Ending, Item, Plan};

/// How long a server may be down when a producer starts.
const CONNECT_WITHIN: Duration = Duration::from_secs(60);
/// Between two attempts to connect.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);
/// How many transactions a producer runs at once.
const CONNECTIONS: u32 = 4;
/// A process that stands still may hold SQLite's only lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(30);

/// A database with rows, and a delivery into the queue.
struct Shop<DB: Dialect> {
    pool: Pool<DB>,
    delivery: SqlDelivery,
    decisions: SqlDecisionStore<DB>,
}

/// An open transaction.
enum Open<DB: Dialect> {
    Plain(Transaction<'static, DB>),
    Honest(MailTransaction<DB>),
}

/// Opens the database at `url`, and goes on trying while its server is down.
///
/// # Errors
///
/// It cannot be used.
pub(super) async fn open(url: &str, store: Arc<dyn QueueStore>) -> Result<Arc<dyn Perform>> {
    match url.split(':').next() {
        Some("sqlite") => {
            let path = Path::new(url.trim_start_matches("sqlite:"));
            let options = SqliteConnectOptions::new().filename(path).busy_timeout(BUSY_TIMEOUT);
            let options = options.synchronous(SqliteSynchronous::Full);
            let pool = limits(SqlitePoolOptions::new()).connect_lazy_with(options);
            shop(pool, store).await
        }
        Some("postgres") => shop(limits(PgPoolOptions::new()).connect_lazy(url)?, store).await,
        Some("mysql") => {
            let options: MySqlConnectOptions = url.parse()?;
            shop(limits(MySqlPoolOptions::new()).connect_lazy_with(options), store).await
        }
        _ => Err("the URL is of no known database".into()),
    }
}

fn limits<DB: sqlx::Database>(options: PoolOptions<DB>) -> PoolOptions<DB> {
    options.max_connections(CONNECTIONS)
}

async fn shop<DB: Dialect>(pool: Pool<DB>, store: Arc<dyn QueueStore>) -> Result<Arc<dyn Perform>> {
    let deadline = Instant::now() + CONNECT_WITHIN;
    loop {
        match connect(&pool, store.clone()).await {
            Ok(shop) => return Ok(Arc::new(shop)),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(BETWEEN_ATTEMPTS).await,
        }
    }
}

async fn connect<DB: Dialect>(
    pool: &Pool<DB>,
    store: Arc<dyn QueueStore>,
) -> sendmail_core::Result<Shop<DB>> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let queue = store.resource_id().clone();
    let decisions = SqlDecisionStore::connect(pool.clone(), clock.clone(), queue).await?;
    let delivery = SqlDelivery::connect(store, clock, pool).await?;
    Ok(Shop { pool: pool.clone(), delivery, decisions })
}

#[async_trait]
impl<DB: Dialect> Perform for Shop<DB> {
    async fn perform(&self, plan: &Plan) -> Result<()> {
        let tx = match self.fill(plan).await {
            Ok(tx) => tx,
            // COMMIT was never sent.
            Err(error) => return say(plan, Progress::RolledBack, &error.to_string()),
        };
        match plan.ending {
            Ending::Commit => {
                say(plan, Progress::Committing, "")?;
                let (progress, remark) = tx.commit().await;
                say(plan, progress, &remark)
            }
            Ending::Abort => {
                let remark = tx.rollback().await;
                say(plan, Progress::RolledBack, &remark)
            }
            Ending::Refused => self.fail(tx, plan).await,
            Ending::AbortPrepared => {
                drop(tx);
                say(plan, Progress::RolledBack, "")
            }
        }
    }
}

impl<DB: Dialect> Shop<DB> {
    /// Does everything but the end.
    async fn fill(&self, plan: &Plan) -> Result<Open<DB>> {
        let mut tx = if plan.honest {
            let (pool, decisions) = (&self.pool, &self.decisions);
            Open::Honest(MailTransaction::begin_with(pool, decisions, DB::BEGIN).await?)
        } else {
            Open::Plain(self.pool.begin_with(DB::BEGIN).await?)
        };
        let connection = tx.connection();
        for item in plan.items() {
            if item.undone() {
                let mut savepoint = connection.begin().await?;
                self.put(&mut savepoint, plan, item).await?;
                savepoint.rollback().await?;
            } else if plan.nested {
                let mut savepoint = connection.begin().await?;
                self.put(&mut savepoint, plan, item).await?;
                savepoint.commit().await?;
            } else {
                self.put(connection, plan, item).await?;
            }
        }
        Ok(tx)
    }

    async fn put(
        &self,
        connection: &mut DB::Connection,
        plan: &Plan,
        item: Item<'_>,
    ) -> Result<()> {
        match item {
            Item::Row(row) => Ok(DB::execute_one(connection, insert(plan, &row.key)).await?),
            Item::Mail(mail) => {
                let (envelope, message) = compose(mail)?;
                self.delivery.attach(connection, envelope, message).await?;
                Ok(())
            }
        }
    }

    /// Inserts a row for the second time, which fails, and drops the transaction.
    async fn fail(&self, mut tx: Open<DB>, plan: &Plan) -> Result<()> {
        if let Some(row) = plan.kept_rows().next() {
            // What it says does not matter: it is dropped whatever it is.
            let _ = DB::execute_one(tx.connection(), insert(plan, &row.key)).await;
        }
        drop(tx);
        say(plan, Progress::RolledBack, "")
    }
}

impl<DB: Dialect> Open<DB> {
    fn connection(&mut self) -> &mut DB::Connection {
        match self {
            Self::Plain(tx) => tx,
            Self::Honest(tx) => tx,
        }
    }

    /// Commits it; what is known then, and why no more.
    async fn commit(self) -> (Progress, String) {
        match self {
            Self::Plain(tx) => match tx.commit().await {
                Ok(()) => (Progress::Committed, String::new()),
                Err(error) => (Progress::Uncertain, error.to_string()),
            },
            Self::Honest(tx) => match tx.commit().await {
                Ok(Commit::Committed) => (Progress::Committed, String::new()),
                Ok(Commit::RolledBack(why)) => (Progress::RolledBack, why.to_string()),
                Ok(Commit::Unknown(_)) => (Progress::Uncertain, "nobody knows".to_owned()),
                Err(error) => (Progress::Uncertain, error.to_string()),
            },
        }
    }

    /// Rolls it back, and says what was wrong with that.
    async fn rollback(self) -> String {
        let error = match self {
            Self::Plain(tx) => tx.rollback().await.err().map(|error| error.to_string()),
            Self::Honest(tx) => tx.rollback().await.err().map(|error| error.to_string()),
        };
        error.unwrap_or_default()
    }
}

/// Keys have nothing in them that could end a literal.
fn insert(plan: &Plan, key: &str) -> String {
    format!("INSERT INTO crash_row (row_key, number) VALUES ('{key}', {})", plan.number)
}

/// A database, as far as a producer is concerned.
trait Dialect: Engine {
    /// How a transaction that writes begins.
    const BEGIN: &'static str;

    /// Runs one statement.
    fn execute_one(
        connection: &mut Self::Connection,
        sql: String,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;
}

macro_rules! dialect {
    ($database:ty, $begin:literal) => {
        impl Dialect for $database {
            const BEGIN: &'static str = $begin;

            async fn execute_one(
                connection: &mut Self::Connection,
                sql: String,
            ) -> sqlx::Result<()> {
                sqlx::query(AssertSqlSafe(sql)).execute(connection).await.map(drop)
            }
        }
    };
}

dialect!(Postgres, "BEGIN");
dialect!(MySql, "BEGIN");
dialect!(Sqlite, "BEGIN IMMEDIATE");
