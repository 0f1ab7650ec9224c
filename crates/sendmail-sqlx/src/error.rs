//! From sqlx's errors to those of the core.

use sendmail_core::{Dialect, Error, ErrorKind};

use crate::refusal::Refusal;

/// What sqlx reported, met in `operation`, with the database's code in the context under `code`: the
/// number on MariaDB, MySQL and SQLite, the `SQLSTATE` on PostgreSQL.
pub(crate) fn from_sqlx(operation: &'static str, error: sqlx::Error) -> Error {
    let kind = match &error {
        sqlx::Error::Database(_) => ErrorKind::Refused,
        sqlx::Error::Io(_) | sqlx::Error::WorkerCrashed => ErrorKind::Io,
        sqlx::Error::Tls(_) => ErrorKind::Tls,
        sqlx::Error::PoolTimedOut => ErrorKind::Timeout,
        sqlx::Error::PoolClosed => ErrorKind::InvalidState,
        sqlx::Error::RowNotFound => ErrorKind::NotFound,
        _ => ErrorKind::Protocol,
    };
    let core = Error::new(kind, operation, error.to_string());
    match code(&error) {
        Some(code) => core.with("code", code).with_source(error),
        None => core.with_source(error),
    }
}

/// The same, in our words where the database's meaning is clear.
pub(crate) fn explained(dialect: Dialect, operation: &'static str, error: sqlx::Error) -> Error {
    let error = from_sqlx(operation, error);
    match Refusal::of(dialect, &error) {
        Some(refusal) => refusal.into_error(operation, error),
        None => error,
    }
}

pub(crate) fn code(error: &sqlx::Error) -> Option<String> {
    let error = error.as_database_error()?;
    // MySQL's SQLSTATE is one for many errors; its number tells them apart.
    #[cfg(feature = "mysql")]
    if let Some(error) = error.try_downcast_ref::<sqlx::mysql::MySqlDatabaseError>() {
        return Some(error.number().to_string());
    }
    error.code().map(|code| code.into_owned())
}
