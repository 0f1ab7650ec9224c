//! What the database said, as an error of the core that says whether waiting can help.

use sendmail_core::{Error, ErrorKind};
use sqlx::error::DatabaseError;

/// The error of `operation`, which failed for `error`.
pub(super) fn trouble(operation: &'static str, error: sqlx::Error) -> Error {
    let (kind, temporary, text) = match &error {
        sqlx::Error::Database(database) => judge(database.as_ref()),
        sqlx::Error::PoolTimedOut => {
            let text =
                "no connection became free in time; give the pool more, or find who keeps them";
            (ErrorKind::Timeout, true, text.to_owned())
        }
        sqlx::Error::PoolClosed => (ErrorKind::Cancelled, false, "the pool was closed".to_owned()),
        sqlx::Error::Io(_) | sqlx::Error::Tls(_) | sqlx::Error::WorkerCrashed => {
            (ErrorKind::Io, true, format!("the connection to the database failed: {error}"))
        }
        _ => (ErrorKind::Io, false, error.to_string()),
    };
    let told = Error::new(kind, operation, text).with_source(error);
    if temporary { told.temporary() } else { told.permanent() }
}

/// What kind of trouble it is, and whether somebody has to do something before it can pass.
fn judge(error: &dyn DatabaseError) -> (ErrorKind, bool, String) {
    let said = error.message();
    let code = error.code().unwrap_or_default();
    let missing = matches!(&*code, "42P01" | "42S02") || said.contains("no such table");
    if missing {
        let text = format!("a table is missing: run sendmail_sqlx::migrate once ({said})");
        return (ErrorKind::NotFound, false, text);
    }
    let text = if code.is_empty() { said.to_owned() } else { format!("{said} ({code})") };
    match &*code {
        // Serialisation failures, deadlocks and lock time-outs, and the same of SQLite.
        "40001" | "40P01" | "55P03" | "5" | "6" | "261" | "517" => (ErrorKind::Busy, true, text),
        // SQLite: an error in the SQL, read-only, damaged, no database.
        "1" | "11" | "26" => (ErrorKind::Io, false, text),
        "8" | "42501" => (ErrorKind::PermissionDenied, false, text),
        "13" | "53100" => (ErrorKind::Full, true, text),
        // Wrong credentials; no right to it or no such thing.
        _ if code.starts_with("28") => (ErrorKind::PermissionDenied, false, text),
        _ if code.starts_with("42") => (ErrorKind::Io, false, text),
        _ => (ErrorKind::Io, true, text),
    }
}
