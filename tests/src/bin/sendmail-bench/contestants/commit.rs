//! What a mail costs a database transaction: a row and an attached mail, beside the same row and the
//! mail's body as a row of an outbox table, beside the row alone.
//!
//! All are durable, and all are only the application's side: whoever delivers comes on top of each.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::{AttachExt as _, SqlDelivery};
use sendmail_tests::Result;
use sendmail_tests::peers::place;
use sendmail_tests::servers::{MariaDb, Postgres};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tempfile::TempDir;
use tokio::task::JoinSet;

use super::{ATTACHED, mail};
use crate::figures::Sample;
use crate::row::Contestant;
use crate::scale::Scale;

/// How many write at once.
pub(crate) const WRITERS: usize = 8;

/// Which database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Postgres,
    MariaDb,
    Sqlite,
}

impl Kind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Postgres => "PostgreSQL",
            Self::MariaDb => "MariaDB",
            Self::Sqlite => "SQLite",
        }
    }
}

/// What a transaction does beside its row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum With {
    Attached,
    Outbox,
    Nothing,
}

/// Transactions of eight writers.
pub(crate) struct Commit {
    pub(crate) database: Arc<Database>,
    pub(crate) with: With,
    pub(crate) messages: (usize, usize),
}

#[async_trait]
impl Contestant for Commit {
    fn name(&self) -> String {
        let what = match self.with {
            With::Attached => "a row and an attached mail",
            With::Outbox => "a row and the body as an outbox row",
            With::Nothing => "a row alone",
        };
        format!("{what}, {}", self.database.kind.name())
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let transactions = scale.of(self.messages.0, self.messages.1);
        let database = self.database.create()?;
        let folder = place::folder()?;
        let writers = database.writers(&folder.path().join("queue")).await?;
        let seconds = writers.run(self.with, transactions).await?;
        Ok(Sample::rate(transactions, seconds))
    }
}

/// A database server that is started when it is first needed, and in which each round has a database of its
/// own.
pub(crate) struct Database {
    pub(crate) kind: Kind,
    place: OnceLock<Result<Place, String>>,
    made: AtomicUsize,
}

/// Where databases are made.
enum Place {
    Postgres(Postgres),
    MariaDb(MariaDb),
    Sqlite(TempDir),
}

/// An empty database.
pub(crate) struct Made {
    kind: Kind,
    pub(crate) url: String,
}

impl Database {
    pub(crate) fn new(kind: Kind) -> Arc<Self> {
        Arc::new(Self { kind, place: OnceLock::new(), made: AtomicUsize::new(0) })
    }

    pub(crate) fn create(&self) -> Result<Made> {
        let start = || self.start().map_err(|error| error.to_string());
        let place = self.place.get_or_init(start).as_ref().map_err(Clone::clone)?;
        let name = format!("bench_{}", self.made.fetch_add(1, Ordering::Relaxed));
        let url = match place {
            Place::Postgres(server) => server.create_database(&name)?,
            Place::MariaDb(server) => server.create_database(&name)?,
            Place::Sqlite(folder) => format!("sqlite:{}", folder.path().join(name).display()),
        };
        Ok(Made { kind: self.kind, url })
    }

    fn start(&self) -> Result<Place> {
        Ok(match self.kind {
            Kind::Postgres => Place::Postgres(Postgres::start()?),
            Kind::MariaDb => Place::MariaDb(MariaDb::start()?),
            Kind::Sqlite => Place::Sqlite(place::folder()?),
        })
    }
}

impl Made {
    /// Connections to it, its tables, and a queue for what is attached.
    pub(crate) async fn writers(&self, queue: &Path) -> Result<Writers> {
        let store = Arc::new(MaildirStore::open(queue, MaildirOptions::default()).await?);
        let connections = u32::try_from(WRITERS)?;
        let pool = match self.kind {
            Kind::Postgres => {
                let options = PgPoolOptions::new().min_connections(connections);
                let pool = options.max_connections(connections).connect(&self.url).await?;
                Pool::Postgres(postgres::prepare(&pool, &store).await?, pool)
            }
            Kind::MariaDb => {
                let options = MySqlPoolOptions::new().min_connections(connections);
                let pool = options.max_connections(connections).connect(&self.url).await?;
                Pool::MariaDb(mariadb::prepare(&pool, &store).await?, pool)
            }
            Kind::Sqlite => {
                let options = self.url.parse::<SqliteConnectOptions>()?;
                let options = options
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(Duration::from_secs(60));
                let pool = SqlitePoolOptions::new().min_connections(connections);
                let pool = pool.max_connections(connections).connect_with(options).await?;
                Pool::Sqlite(sqlite::prepare(&pool, &store).await?, pool)
            }
        };
        Ok(Writers { pool, store })
    }
}

/// Writers that are ready to begin.
pub(crate) struct Writers {
    pool: Pool,
    store: Arc<MaildirStore>,
}

/// The pool of a database, and the delivery that belongs to it.
enum Pool {
    Postgres(Arc<SqlDelivery>, sqlx::PgPool),
    MariaDb(Arc<SqlDelivery>, sqlx::MySqlPool),
    Sqlite(Arc<SqlDelivery>, sqlx::SqlitePool),
}

impl Writers {
    pub(crate) fn store(&self) -> &MaildirStore {
        &self.store
    }

    /// How many seconds so many transactions take.
    pub(crate) async fn run(&self, with: With, transactions: usize) -> Result<f64> {
        match &self.pool {
            Pool::Postgres(delivery, pool) => {
                postgres::run(pool, delivery, with, transactions).await
            }
            Pool::MariaDb(delivery, pool) => mariadb::run(pool, delivery, with, transactions).await,
            Pool::Sqlite(delivery, pool) => sqlite::run(pool, delivery, with, transactions).await,
        }
    }
}

/// The same for each of sqlx's databases, whose statements are written differently.
macro_rules! database {
    ($name:ident, $database:ty, $begin:literal, $schema:literal, $row:literal, $outbox:literal) => {
        mod $name {
            use super::*;

            pub(super) async fn prepare(
                pool: &sqlx::Pool<$database>,
                store: &Arc<MaildirStore>,
            ) -> Result<Arc<SqlDelivery>> {
                sqlx::raw_sql($schema).execute(pool).await?;
                sendmail_sqlx::migrate(pool).await?;
                let clock = Arc::new(SystemClock);
                Ok(Arc::new(SqlDelivery::connect(store.clone(), clock, pool).await?))
            }

            pub(super) async fn run(
                pool: &sqlx::Pool<$database>,
                delivery: &Arc<SqlDelivery>,
                with: With,
                count: usize,
            ) -> Result<f64> {
                let mut tasks = JoinSet::new();
                let begin = Instant::now();
                for writer in 0..WRITERS {
                    let (pool, delivery) = (pool.clone(), delivery.clone());
                    let numbers = (writer..count).step_by(WRITERS);
                    tasks.spawn(async move { write(&pool, &delivery, with, numbers).await });
                }
                while let Some(done) = tasks.join_next().await {
                    done??;
                }
                Ok(begin.elapsed().as_secs_f64())
            }

            async fn write(
                pool: &sqlx::Pool<$database>,
                delivery: &SqlDelivery,
                with: With,
                numbers: impl Iterator<Item = usize>,
            ) -> Result<()> {
                let (envelope, message) = mail(ATTACHED)?;
                for number in numbers {
                    let number = i64::try_from(number)?;
                    let mut tx = pool.begin_with($begin).await?;
                    sqlx::query($row).bind(number).execute(&mut *tx).await?;
                    match with {
                        With::Attached => {
                            let mail = (envelope.clone(), message.clone());
                            delivery.attach(&mut *tx, mail.0, mail.1).await?;
                        }
                        With::Outbox => {
                            let insert = sqlx::query($outbox).bind(number);
                            insert.bind(message.as_bytes()).execute(&mut *tx).await?;
                        }
                        With::Nothing => {}
                    }
                    tx.commit().await?;
                }
                Ok(())
            }
        }
    };
}

database! {
    postgres, sqlx::Postgres, "BEGIN",
    "CREATE TABLE orders (id bigint PRIMARY KEY, note text NOT NULL);
     CREATE TABLE outbox (id bigint PRIMARY KEY, sender text NOT NULL, recipient text NOT NULL,
                          body bytea NOT NULL)",
    "INSERT INTO orders VALUES ($1, 'a note')",
    "INSERT INTO outbox VALUES ($1, 'shop@example.org', 'customer@example.net', $2)"
}
database! {
    mariadb, sqlx::MySql, "START TRANSACTION",
    "CREATE TABLE orders (id bigint PRIMARY KEY, note text NOT NULL) ENGINE = InnoDB;
     CREATE TABLE outbox (id bigint PRIMARY KEY, sender text NOT NULL, recipient text NOT NULL,
                          body mediumblob NOT NULL) ENGINE = InnoDB",
    "INSERT INTO orders VALUES (?, 'a note')",
    "INSERT INTO outbox VALUES (?, 'shop@example.org', 'customer@example.net', ?)"
}
database! {
    sqlite, sqlx::Sqlite, "BEGIN IMMEDIATE",
    "CREATE TABLE orders (id INTEGER PRIMARY KEY, note TEXT NOT NULL);
     CREATE TABLE outbox (id INTEGER PRIMARY KEY, sender TEXT NOT NULL, recipient TEXT NOT NULL,
                          body BLOB NOT NULL)",
    "INSERT INTO orders VALUES (?, 'a note')",
    "INSERT INTO outbox VALUES (?, 'shop@example.org', 'customer@example.net', ?)"
}
