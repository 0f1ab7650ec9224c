//! The adaptor for diesel-async on PostgreSQL.

use async_trait::async_trait;
use diesel::pg::Pg;
use diesel::result::{DatabaseErrorKind, Error as DieselError};
use diesel_async::{AsyncConnectionCore, SimpleAsyncConnection};
use sendmail_core::{Dialect, Error, ErrorKind, MarkerSink, Result};

/// Lends the connection inside a transaction of diesel: `attach_with(&mut Diesel(connection), …)` in
/// the closure of `connection.transaction(async |connection| …)`.
///
/// Outside of such a closure the connection is in autocommit, and the database refuses it.
pub struct Diesel<'a, C>(pub &'a mut C);

#[async_trait]
impl<C: AsyncConnectionCore<Backend = Pg>> MarkerSink for Diesel<'_, C> {
    fn dialect(&self) -> Dialect {
        Dialect::Postgres
    }

    async fn batch(&mut self, sql: &str) -> Result<()> {
        SimpleAsyncConnection::batch_execute(self.0, sql).await.map_err(told)
    }
}

/// What the database said; without it, what became of the connection.
fn told(error: DieselError) -> Error {
    use DatabaseErrorKind::{ClosedConnection, UnableToSendCommand};
    let (kind, code) = match &error {
        DieselError::DatabaseError(ClosedConnection | UnableToSendCommand, _) => {
            (ErrorKind::Io, None)
        }
        DieselError::DatabaseError(kind, said) => (ErrorKind::Refused, code(kind, said.message())),
        _ => (ErrorKind::Io, None),
    };
    let told = Error::new(kind, "leave the marker", error.to_string());
    code.into_iter().fold(told, |told, code| told.with("code", code)).with_source(error)
}

/// The code that diesel threw away, where it can still be told.
fn code(kind: &DatabaseErrorKind, message: &str) -> Option<&'static str> {
    match kind {
        DatabaseErrorKind::UniqueViolation => Some("23505"),
        DatabaseErrorKind::NotNullViolation => Some("23502"),
        DatabaseErrorKind::ReadOnlyTransaction => Some("25006"),
        DatabaseErrorKind::SerializationFailure => Some("40001"),
        // "SAVEPOINT can only be used in transaction blocks": the keyword stays in every language that
        // the server may speak, and no other error of the marker's text has it in capitals.
        DatabaseErrorKind::Unknown if message.contains("SAVEPOINT") => Some("25P01"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_transaction_is_told_in_every_language() {
        let unknown = DatabaseErrorKind::Unknown;
        for message in [
            "SAVEPOINT can only be used in transaction blocks",
            "SAVEPOINT kann nur in Transaktionsblöcken verwendet werden",
        ] {
            assert_eq!(code(&unknown, message), Some("25P01"), "{message}");
        }
        for message in [
            "current transaction is aborted, commands ignored until end of transaction block",
            "relation \"sendmail_marker\" does not exist",
        ] {
            assert_eq!(code(&unknown, message), None, "{message}");
        }
    }
}
