//! What a mail costs a database transaction: a row and an attached mail, beside the same row and the
//! mail's body as a row of an outbox table, beside the row alone.
//!
//! All are durable, and all are only the application's side: whoever delivers comes on top of each.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use sendmail_clock::SystemClock;
use sendmail_core::{Clock, Envelope, Message};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::{AttachExt as _, SqlDelivery};
use sendmail_tests::Result;
use sendmail_tests::servers::{MariaDb, Postgres};
use sqlx::mysql::MySqlPoolOptions;
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::task::JoinSet;

use crate::report::Table;

/// How long a mail is.
const LENGTH: usize = 4096;
/// How many write at once.
const WRITERS: [usize; 2] = [1, 8];

const ATTACHED: &str = "a row and an attached mail";
const OUTBOX: &str = "a row and the body as an outbox row";
const ROW: &str = "a row alone";

/// What a transaction does beside its row.
#[derive(Debug, Clone, Copy)]
enum With {
    Attached,
    Outbox,
    Nothing,
}

const CONTESTANTS: [(&str, With); 3] =
    [(ATTACHED, With::Attached), (OUTBOX, With::Outbox), (ROW, With::Nothing)];

/// Measures every database that is there, `rounds` rounds with `transactions` each, and shows each table
/// when it is done.
pub(crate) async fn measure(
    transactions: usize,
    rounds: usize,
    show: impl Fn(&Table),
) -> Result<()> {
    for database in [Kind::Postgres, Kind::MariaDb, Kind::Sqlite] {
        for writers in WRITERS {
            let title = format!("commit, {database:?}, {}", count(writers));
            let mut table = Table::new(title, transactions, "transactions");
            // A server of its own for each, so that none pays for another's checkpoints.
            match Place::start(database) {
                Ok(place) => place.fill(&mut table, writers, transactions, rounds).await?,
                Err(error) => {
                    CONTESTANTS.iter().for_each(|(who, _)| table.absent(who, &error.to_string()));
                }
            }
            show(&table);
        }
    }
    Ok(())
}

fn count(writers: usize) -> String {
    if writers == 1 { "1 writer".to_owned() } else { format!("{writers} writers") }
}

/// Which database.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Postgres,
    MariaDb,
    Sqlite,
}

/// A database that runs, in which each measurement has tables of its own.
enum Place {
    Postgres(Postgres),
    MariaDb(MariaDb),
    Sqlite(tempfile::TempDir),
}

impl Place {
    fn start(kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Postgres => Self::Postgres(Postgres::start()?),
            Kind::MariaDb => Self::MariaDb(MariaDb::start()?),
            Kind::Sqlite => Self::Sqlite(tempfile::tempdir()?),
        })
    }

    /// All rounds, the contestants in turn.
    async fn fill(
        &self,
        table: &mut Table,
        writers: usize,
        transactions: usize,
        rounds: usize,
    ) -> Result<()> {
        for round in 0..rounds {
            for (who, with) in CONTESTANTS {
                let name = format!("{with:?}_{round}").to_lowercase();
                table.add(who, self.run(&name, with, writers, transactions).await?);
            }
        }
        Ok(())
    }

    /// How many seconds the transactions took, in a new database.
    async fn run(&self, name: &str, with: With, writers: usize, count: usize) -> Result<f64> {
        let connections = u32::try_from(writers)?;
        match self {
            Self::Postgres(server) => {
                let url = server.create_database(name)?;
                let pool = PgPoolOptions::new().min_connections(connections);
                let pool = pool.max_connections(connections).connect(&url);
                postgres::run(pool.await?, with, writers, count).await
            }
            Self::MariaDb(server) => {
                let url = server.create_database(name)?;
                let pool = MySqlPoolOptions::new().min_connections(connections);
                let pool = pool.max_connections(connections).connect(&url);
                mariadb::run(pool.await?, with, writers, count).await
            }
            Self::Sqlite(folder) => {
                let options = SqliteConnectOptions::new()
                    .filename(folder.path().join(name))
                    .create_if_missing(true)
                    .journal_mode(SqliteJournalMode::Wal)
                    .synchronous(SqliteSynchronous::Full)
                    .busy_timeout(std::time::Duration::from_secs(60));
                let pool = SqlitePoolOptions::new().min_connections(connections);
                let pool = pool.max_connections(connections).connect_with(options).await?;
                sqlite::run(pool, with, writers, count).await
            }
        }
    }
}

/// A delivery into a queue in `folder`, for the database of `pool`.
async fn delivery<DB: sendmail_sqlx::Engine>(
    folder: &Path,
    pool: &sqlx::Pool<DB>,
) -> Result<SqlDelivery> {
    sendmail_sqlx::migrate(pool).await?;
    let store = MaildirStore::open(folder.join("queue"), MaildirOptions::default()).await?;
    Ok(SqlDelivery::connect(Arc::new(store), Arc::new(SystemClock), pool).await?)
}

fn mail() -> Result<(Envelope, Message)> {
    let raw = format!("Subject: Your order\r\n\r\n{}\r\n", "x".repeat(62).repeat(LENGTH / 62));
    let lines = raw.as_bytes().chunks(998).collect::<Vec<_>>().join(&b"\r\n"[..]);
    let message = Message::from_raw(&lines, SystemClock.now(), "bench.example.org")?;
    Ok((Envelope::parse("shop@example.org", ["customer@example.net"])?, message))
}

/// The same for each of sqlx's databases, whose statements are written differently.
macro_rules! database {
    ($name:ident, $database:ty, $begin:literal, $schema:literal, $row:literal, $outbox:literal) => {
        mod $name {
            use super::*;

            pub(super) async fn run(
                pool: sqlx::Pool<$database>,
                with: With,
                writers: usize,
                count: usize,
            ) -> Result<f64> {
                let folder = tempfile::tempdir()?;
                let delivery = Arc::new(delivery(folder.path(), &pool).await?);
                sqlx::raw_sql($schema).execute(&pool).await?;
                let mut tasks = JoinSet::new();
                let begin = Instant::now();
                for writer in 0..writers {
                    let (pool, delivery) = (pool.clone(), delivery.clone());
                    let numbers = (writer..count).step_by(writers);
                    tasks.spawn(async move { write(&pool, &delivery, with, numbers).await });
                }
                while let Some(done) = tasks.join_next().await {
                    done??;
                }
                let seconds = begin.elapsed().as_secs_f64();
                pool.close().await;
                Ok(seconds)
            }

            async fn write(
                pool: &sqlx::Pool<$database>,
                delivery: &SqlDelivery,
                with: With,
                numbers: impl Iterator<Item = usize>,
            ) -> Result<()> {
                let (envelope, message) = mail()?;
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
