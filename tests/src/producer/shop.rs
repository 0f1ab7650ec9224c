//! Transactions of a database: rows, and mail that is attached to them. The producer commits them itself,
//! by plain sqlx.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::QueueStore;
use sendmail_sqlx::{AttachExt as _, Engine, SqlDelivery};
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
        match SqlDelivery::connect(store.clone(), Arc::new(SystemClock), &pool).await {
            Ok(delivery) => return Ok(Arc::new(Shop { pool, delivery })),
            Err(error) if Instant::now() > deadline => return Err(error.into()),
            Err(_) => tokio::time::sleep(BETWEEN_ATTEMPTS).await,
        }
    }
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
                match tx.commit().await {
                    Ok(()) => say(plan, Progress::Committed, ""),
                    Err(error) => say(plan, Progress::Uncertain, &error.to_string()),
                }
            }
            Ending::Abort => {
                let done = tx.rollback().await;
                let remark = done.err().map(|error| error.to_string()).unwrap_or_default();
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
    async fn fill(&self, plan: &Plan) -> Result<Transaction<'static, DB>> {
        let mut tx = self.pool.begin_with(DB::BEGIN).await?;
        for item in plan.items() {
            if item.undone() {
                let mut savepoint = tx.begin().await?;
                self.put(&mut savepoint, plan, item).await?;
                savepoint.rollback().await?;
            } else if plan.nested {
                let mut savepoint = tx.begin().await?;
                self.put(&mut savepoint, plan, item).await?;
                savepoint.commit().await?;
            } else {
                self.put(&mut tx, plan, item).await?;
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
    async fn fail(&self, mut tx: Transaction<'static, DB>, plan: &Plan) -> Result<()> {
        let again = plan.kept_rows().next().map(|row| insert(plan, &row.key));
        let remark = match again {
            Some(again) if DB::execute_one(&mut tx, again).await.is_ok() => "a key was taken twice",
            _ => "",
        };
        drop(tx);
        say(plan, Progress::RolledBack, remark)
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
