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

/// What the database said; without it, what became of the connection.
fn told(error: tokio_postgres::Error) -> Error {
    const OPERATION: &str = "leave the marker";
    let told = match error.as_db_error() {
        Some(said) => Error::new(ErrorKind::Refused, OPERATION, said.message())
            .with("code", said.code().code()),
        None => Error::new(ErrorKind::Io, OPERATION, error.to_string()),
    };
    told.with_source(error)
}
