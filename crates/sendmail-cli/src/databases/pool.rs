//! Connections to a configured database, whichever it is.

use std::time::Duration;

use secrecy::ExposeSecret as _;
use sendmail_core::{ResourceId, Result};
use sqlx::mysql::{MySqlConnectOptions, MySqlPool};
use sqlx::pool::PoolOptions;
use sqlx::postgres::{PgConnectOptions, PgPool};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};
use sqlx::{ConnectOptions, Database};

use crate::config::{DatabaseKind, DatabaseName, DatabaseSection, first_line};
use crate::exit::{CONFIG, Failure};

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
}

fn limits<DB: Database>() -> PoolOptions<DB> {
    PoolOptions::new().max_connections(CONNECTIONS).acquire_timeout(CONNECT_TIMEOUT)
}

/// A fence waits on purpose: the driver need not warn of slow statements.
fn quiet<O: ConnectOptions>(options: O) -> O {
    options.disable_statement_logging()
}
