//! The adaptor for tokio-postgres.

use async_trait::async_trait;
use sendmail_core::{Dialect, Error, ErrorKind, MarkerSink, Result};
use tokio_postgres::GenericClient;

/// Lends a `Transaction` of tokio-postgres: `attach_with(&mut TokioPg(&transaction), …)`.
///
/// A `Client` on which `BEGIN` was executed does as well. One in autocommit is refused by the database.
pub struct TokioPg<'a, C>(pub &'a C);

#[async_trait]
impl<C: GenericClient + Sync> MarkerSink for TokioPg<'_, C> {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    async fn batch(&mut self, sql: &str) -> Result<()> {
        self.0.batch_execute(sql).await.map_err(told)
    }
}

/// What the database said. `tokio_postgres::Error` itself says only "db error".
fn told(error: tokio_postgres::Error) -> Error {
    let message = error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string);
    let mut told = Error::new(ErrorKind::Io, "leave the marker", message);
    if let Some(code) = error.code() {
        told = told.with("code", code.code());
    }
    told.with_source(error)
}
