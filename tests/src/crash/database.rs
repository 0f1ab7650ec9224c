//! The database of a crash test: its server, which is killed as well, and what it holds when everything
//! is over.
//!
//! What the ledger reads here, it reads by statements of its own: of the product there is nothing but the
//! names of the table and of its columns.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions};
use sqlx::{AssertSqlSafe, Row as _};
use tokio::task::JoinHandle;

use crate::Result;
use crate::servers::{Engine, MariaDb, Postgres, Server};

/// Which database takes the mail along.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, serde::Serialize, serde::Deserialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A file.
    Sqlite,
    /// A server of PostgreSQL.
    Postgres,
    /// A server of MariaDB.
    #[value(name = "mariadb")]
    MariaDb,
}

/// The database on a server.
const NAME: &str = "crash";
/// How long after a server is back its clients may still find that it was away.
const AFTERMATH: Duration = Duration::from_secs(5);
/// Older than what a transaction's own process may still be about.
const ONE_HOUR_LESS: [&str; 3] = [
    "UPDATE sendmail_marker SET at = at - 3600 WHERE kind = 1",
    "UPDATE sendmail_marker SET at = at - interval '1 hour' WHERE kind = 1",
    "UPDATE sendmail_marker SET at = at - INTERVAL 1 HOUR WHERE kind = 1",
];

/// Where rows and markers are.
pub(crate) struct Database {
    kind: Kind,
    pub(crate) url: String,
    place: Place,
    /// When the server is, or was last, away.
    away: Arc<Mutex<Option<Away>>>,
    striking: Option<JoinHandle<Result<()>>>,
}

enum Place {
    File(SqlitePool),
    Postgres(Arc<Mutex<Postgres>>),
    MariaDb(Arc<Mutex<MariaDb>>),
}

#[derive(Clone, Copy)]
struct Away {
    /// When it was back, if it is.
    until: Option<Instant>,
}

impl Database {
    /// Starts a server, or makes a file in `folder`, with an empty table.
    ///
    /// # Errors
    ///
    /// The server is not installed, or does not start.
    pub(crate) async fn start(kind: Kind, folder: &Path) -> Result<Self> {
        let (url, place) = match kind {
            Kind::Sqlite => file(folder).await?,
            Kind::Postgres => {
                let server = blocking(Postgres::start).await?;
                (server.create_database(NAME)?, Place::Postgres(Arc::new(Mutex::new(server))))
            }
            Kind::MariaDb => {
                let server = blocking(MariaDb::start).await?;
                (server.create_database(NAME)?, Place::MariaDb(Arc::new(Mutex::new(server))))
            }
        };
        let database = Self { kind, url, place, away: Arc::default(), striking: None };
        let table =
            "CREATE TABLE crash_row (row_key varchar(40) PRIMARY KEY, number bigint NOT NULL)";
        database.query(table).await?;
        Ok(database)
    }

    pub(crate) fn has_server(kind: Kind) -> bool {
        kind != Kind::Sqlite
    }

    /// Kills the server, and lets it start again after this time; false if it is away already.
    pub(crate) fn strike(&mut self, down: Duration) -> bool {
        if self.striking.as_ref().is_some_and(|striking| !striking.is_finished()) {
            return false;
        }
        let strike = match &self.place {
            Place::File(_) => return false,
            Place::Postgres(server) => blow(server, down),
            Place::MariaDb(server) => blow(server, down),
        };
        let away = Arc::clone(&self.away);
        let note = move |until| {
            *away.lock().unwrap_or_else(PoisonError::into_inner) = Some(Away { until });
        };
        note(None);
        self.striking = Some(tokio::task::spawn_blocking(move || {
            let done = strike();
            note(Some(Instant::now()));
            done
        }));
        true
    }

    /// Whether a client may be in trouble because the server is, or was just now, away.
    pub(crate) fn is_excuse(&self) -> bool {
        let away = *self.away.lock().unwrap_or_else(PoisonError::into_inner);
        away.is_some_and(|away| away.until.is_none_or(|until| until.elapsed() < AFTERMATH))
    }

    /// Waits until the server is back.
    ///
    /// # Errors
    ///
    /// It does not come back.
    pub(crate) async fn settle(&mut self) -> Result<()> {
        match self.striking.take() {
            Some(striking) => striking.await?,
            None => Ok(()),
        }
    }

    /// The keys of all rows.
    ///
    /// # Errors
    ///
    /// The database cannot be asked.
    pub(crate) async fn rows(&self) -> Result<Vec<String>> {
        let text = self.query("SELECT row_key FROM crash_row ORDER BY row_key").await?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// How many markers there are of this kind: 1 mail, 2 transaction, 3 tombstone.
    ///
    /// # Errors
    ///
    /// The database cannot be asked.
    pub(crate) async fn markers(&self, kind: u8) -> Result<usize> {
        let sql = format!("SELECT COUNT(*) FROM sendmail_marker WHERE kind = {kind}");
        Ok(self.query(&sql).await?.trim().parse()?)
    }

    /// Lets all mail markers be an hour older than they are.
    ///
    /// # Errors
    ///
    /// The database cannot be asked.
    pub(crate) async fn age(&self) -> Result<()> {
        let statement = match self.kind {
            Kind::Sqlite => ONE_HOUR_LESS[0],
            Kind::Postgres => ONE_HOUR_LESS[1],
            Kind::MariaDb => ONE_HOUR_LESS[2],
        };
        self.query(statement).await.map(drop)
    }

    /// The first column of what a statement answers, a line for each row.
    async fn query(&self, sql: &str) -> Result<String> {
        let sql = sql.to_owned();
        match &self.place {
            Place::File(pool) => {
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(pool).await?;
                let first = |row: &sqlx::sqlite::SqliteRow| {
                    let text = row.try_get_unchecked::<String, _>(0)?;
                    Ok::<_, sqlx::Error>(text + "\n")
                };
                Ok(rows.iter().map(first).collect::<Result<String, _>>()?)
            }
            Place::Postgres(server) => {
                let server = Arc::clone(server);
                blocking(move || {
                    server.lock().unwrap_or_else(PoisonError::into_inner).query(NAME, &sql)
                })
                .await
            }
            Place::MariaDb(server) => {
                let server = Arc::clone(server);
                blocking(move || {
                    server.lock().unwrap_or_else(PoisonError::into_inner).query(NAME, &sql)
                })
                .await
            }
        }
    }
}

async fn file(folder: &Path) -> Result<(String, Place)> {
    let path = folder.join("crash.sqlite");
    let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
    let options = options.journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await?;
    Ok((format!("sqlite:{}", path.display()), Place::File(pool)))
}

/// Everything about a server blocks.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await?
}

/// Kills a server, and starts it again after a while.
fn blow<E: Engine>(
    server: &Arc<Mutex<Server<E>>>,
    down: Duration,
) -> Box<dyn FnOnce() -> Result<()> + Send> {
    let server = Arc::clone(server);
    Box::new(move || {
        let mut server = server.lock().unwrap_or_else(PoisonError::into_inner);
        server.kill()?;
        std::thread::sleep(down);
        server.restart()
    })
}
