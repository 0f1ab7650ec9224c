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

/// What the database said; sea-orm keeps the error of sqlx, which knows the code.
fn told(error: DbErr) -> Error {
    let mut told = Error::new(ErrorKind::Io, "leave the marker", error.to_string());
    if let DbErr::Exec(RuntimeErr::SqlxError(driver)) = &error
        && let Some(code) = driver.as_database_error().and_then(|error| error.code())
    {
        told = told.with("code", code);
    }
    told.with_source(error)
}
