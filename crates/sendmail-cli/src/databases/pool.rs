//! Connections to a configured database, whichever it is.

use std::sync::Arc;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sendmail_core::{Error, ErrorKind, ResourceId, Result};
use sendmail_sqlx::{Engine, SqlDecisionStore};
use sqlx::mysql::{MySqlConnectOptions, MySqlPool};
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{ConnectOptions, Connection as _, Database, Pool};

use super::Connected;
use crate::config::{DatabaseKind, DatabaseName, DatabaseSection, first_line};
use crate::exit::{CONFIG, Failure};
use crate::setup::Setup;

/// The most connections: one looks while another waits in a fence, and one is to spare.
const CONNECTIONS: u32 = 3;
/// How long it may take to get a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connections, which are made when they are needed.
pub(crate) enum DatabasePool {
    Postgres(PgPool),
    MySql(MySqlPool),
    Sqlite(SqlitePool),
}

impl DatabasePool {
    /// Prepares connections, and makes none yet.
    pub(crate) fn new(
        name: &DatabaseName,
        section: &DatabaseSection,
    ) -> std::result::Result<Self, Failure> {
        let url = section.url.get_ref();
        // The URL was understood when the configuration was read; its own message may hold a secret.
        let wrong = |_| Failure::new(CONFIG, format!("database {name}: the URL is not understood"));
        let password = match &section.password_file {
            Some(file) => Some(first_line(file.get_ref())?),
            None => None,
        };
        Ok(match url.kind() {
            DatabaseKind::Postgres => {
                let mut options: PgConnectOptions = url.expose().parse().map_err(wrong)?;
                if let Some(password) = &password {
                    options = options.password(password.expose_secret());
                }
                Self::Postgres(limits().connect_lazy_with(quiet(options)))
            }
            DatabaseKind::MySql => {
                let mut options: MySqlConnectOptions = url.expose().parse().map_err(wrong)?;
                if let Some(password) = &password {
                    options = options.password(password.expose_secret());
                }
                Self::MySql(limits().connect_lazy_with(quiet(options)))
            }
            DatabaseKind::Sqlite => {
                let options: SqliteConnectOptions = url.expose().parse().map_err(wrong)?;
                Self::Sqlite(limits().connect_lazy_with(quiet(options)))
            }
        })
    }

    /// Makes the tables.
    pub(crate) async fn migrate(&self) -> Result<()> {
        match self {
            Self::Postgres(pool) => sendmail_sqlx::migrate(pool).await,
            Self::MySql(pool) => sendmail_sqlx::migrate(pool).await,
            Self::Sqlite(pool) => sendmail_sqlx::migrate(pool).await,
        }
    }

    /// Which database it is.
    pub(crate) async fn resource(&self) -> Result<ResourceId> {
        match self {
            Self::Postgres(pool) => sendmail_sqlx::resource(pool).await,
            Self::MySql(pool) => sendmail_sqlx::resource(pool).await,
            Self::Sqlite(pool) => sendmail_sqlx::resource(pool).await,
        }
    }

    /// Makes one connection, only to find out why it cannot be made.
    pub(crate) async fn reach(&self) -> Result<()> {
        let reached = match self {
            Self::Postgres(pool) => reach(pool).await,
            Self::MySql(pool) => reach(pool).await,
            Self::Sqlite(pool) => reach(pool).await,
        };
        reached.map_err(|error| {
            let kind = match &error {
                sqlx::Error::Tls(_) => ErrorKind::Tls,
                sqlx::Error::Database(_) => ErrorKind::Refused,
                _ => ErrorKind::Unreachable,
            };
            // Whatever it is may be mended at its place; nothing here has to be changed for that.
            Error::new(kind, "connect to the database", error.to_string()).temporary()
        })
    }

    /// What decides its transactions.
    pub(crate) async fn decisions(&self, queue: ResourceId) -> Result<Connected> {
        match self {
            Self::Postgres(pool) => decisions(pool, queue).await,
            Self::MySql(pool) => decisions(pool, queue).await,
            Self::Sqlite(pool) => decisions(pool, queue).await,
        }
    }
}

async fn reach<DB: Database>(pool: &Pool<DB>) -> sqlx::Result<()> {
    let connection = pool.connect_options().connect().await?;
    connection.close().await
}

async fn decisions<DB: Engine>(pool: &Pool<DB>, queue: ResourceId) -> Result<Connected> {
    let store = SqlDecisionStore::connect(pool.clone(), Setup::clock(), queue).await?;
    let warnings = store.warnings().to_vec();
    Ok(Connected { decisions: Arc::new(store), warnings })
}

fn limits<DB: Database>() -> PoolOptions<DB> {
    PoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(CONNECT_TIMEOUT)
}

/// A fence waits on purpose: the driver need not warn of slow statements.
fn quiet<O: ConnectOptions>(options: O) -> O {
    options.disable_statement_logging()
}
