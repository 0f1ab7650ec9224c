//! The adaptor for sea-orm.

use async_trait::async_trait;
use sea_orm::{ConnectionTrait, DbBackend, DbErr, RuntimeErr};
use sendmail_core::{Dialect, Error, ErrorKind, MarkerSink, Result};

/// Lends a `DatabaseTransaction` of sea-orm: `attach_with(&mut SeaOrm(&transaction), …)`.
///
/// A `DatabaseConnection` is a pool, whose connections are in autocommit: the database refuses it.
pub struct SeaOrm<'a, C>(pub &'a C);

#[async_trait]
impl<C: ConnectionTrait> MarkerSink for SeaOrm<'_, C> {
    fn dialect(&self) -> Dialect {
        match self.0.get_database_backend() {
            DbBackend::MySql => Dialect::MySql,
            DbBackend::Sqlite => Dialect::Sqlite,
            _ => Dialect::Postgres,
        }
    }

    async fn batch(&mut self, sql: &str) -> Result<()> {
        // Unprepared: several statements in one message, which a prepared statement cannot be.
        self.0.execute_unprepared(sql).await.map(drop).map_err(told)
    }
}

/// What the database said; without it, what became of the connection. sea-orm keeps the error of sqlx, which
/// knows the code.
fn told(error: DbErr) -> Error {
    const OPERATION: &str = "leave the marker";
    let said = match &error {
        DbErr::Exec(RuntimeErr::SqlxError(driver)) => driver.as_database_error(),
        _ => None,
    };
    let told = match said {
        Some(said) => {
            let told = Error::new(ErrorKind::Refused, OPERATION, said.message());
            said.code().into_iter().fold(told, |told, code| told.with("code", code))
        }
        None => Error::new(ErrorKind::Io, OPERATION, error.to_string()),
    };
    told.with_source(error)
}
