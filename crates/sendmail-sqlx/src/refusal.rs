//! What a database means by its error codes, in our words. Pure.

use std::error::Error as StdError;

use sendmail_core::{Dialect, Error, ErrorKind};

/// A clear no: the statement did nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The connection is in no transaction.
    NoTransaction,
    /// An earlier statement made the transaction fail.
    TransactionFailed,
    /// The transaction, the connection or the server only reads.
    ReadOnly,
    /// The migration has not been run in this database.
    TableMissing,
    /// The database is another one than it should be.
    WrongDatabase,
    /// The role lacks a right.
    NotAllowed,
    /// A deadlock, or a lock that was not to be had in time.
    Contended,
    /// There is no room.
    Full,
}

impl Refusal {
    /// Which refusal `error` is; nothing where it may be something else, such as a lost connection.
    pub(crate) fn of(dialect: Dialect, error: &Error) -> Option<Self> {
        let code = code(error).unwrap_or_default();
        match dialect {
            Dialect::Postgres => postgres(code, error),
            Dialect::MySql => mysql(code, error),
            Dialect::Sqlite => sqlite(code, error),
            _ => None,
        }
    }

    /// The refusal as an error of `operation`, with what the database said as its source.
    pub(crate) fn into_error(self, operation: &'static str, said: Error) -> Error {
        let (kind, words) = self.words();
        let mut error = Error::new(kind, operation, words);
        if let Some(code) = code(&said) {
            error = error.with("code", code);
        }
        if self == Self::Contended || self == Self::Full {
            error = error.temporary();
        }
        error.with_source(said)
    }

    fn words(self) -> (ErrorKind, &'static str) {
        match self {
            Self::NoTransaction => (
                ErrorKind::InvalidState,
                "the connection is in no transaction; begin one, and attach through it: \
                 `let mut tx = pool.begin().await?; delivery.attach(&mut *tx, …).await?`",
            ),
            Self::TransactionFailed => (
                ErrorKind::Aborted,
                "the transaction has failed before; roll it back, and see which of its statements failed",
            ),
            Self::ReadOnly => (
                ErrorKind::PermissionDenied,
                "the transaction or the database is read-only; use one that writes, on the primary server",
            ),
            Self::TableMissing => (
                ErrorKind::NotFound,
                "the tables sendmail_marker and sendmail_database are not there (or not in this \
                 connection's schema); call `sendmail_sqlx::migrate(&pool)`, or run the file of \
                 sendmail-sqlx's `migrations` folder for this database",
            ),
            Self::WrongDatabase => (
                ErrorKind::InvalidInput,
                "this connection leads to another database than the delivery was made for; make one \
                 delivery for each database, with `SqlDelivery::connect`",
            ),
            Self::NotAllowed => (
                ErrorKind::PermissionDenied,
                "the role may not use the tables; grant it SELECT on sendmail_database, and SELECT, \
                 INSERT and DELETE on sendmail_marker",
            ),
            Self::Contended => (
                ErrorKind::Busy,
                "another transaction was in the way; roll this one back, and repeat it",
            ),
            Self::Full => (ErrorKind::Full, "the database has no room left"),
        }
    }
}

/// An error that is no clear refusal: whether the statement was executed is not known.
pub(crate) fn doubtful(operation: &'static str, said: Error) -> Error {
    let message = "the database did not answer clearly; roll the transaction back, and repeat it";
    let mut error = Error::new(said.kind(), operation, format!("{message}: {}", said.message()));
    if let Some(code) = code(&said) {
        error = error.with("code", code);
    }
    if said.is_temporary() { error.temporary() } else { error.permanent() }.with_source(said)
}

/// Whether SQLite's answer to the question, which never succeeds, says that there is a transaction.
/// Nothing when it says neither.
pub(crate) fn sqlite_in_transaction(answer: &Error) -> Option<bool> {
    if says(answer, "from within a transaction") {
        Some(true)
    } else if says(answer, "non-text filename") {
        Some(false)
    } else {
        None
    }
}

fn postgres(code: &str, error: &Error) -> Option<Refusal> {
    Some(match code {
        "25P01" => Refusal::NoTransaction,
        "25P02" => Refusal::TransactionFailed,
        "25006" => Refusal::ReadOnly,
        "42P01" | "3F000" => Refusal::TableMissing,
        "23502" => Refusal::WrongDatabase,
        "42501" => Refusal::NotAllowed,
        "40001" | "40P01" | "55P03" | "57014" => Refusal::Contended,
        "53100" => Refusal::Full,
        // Some drivers keep the code to themselves.
        "" if says(error, "can only be used in transaction blocks") => Refusal::NoTransaction,
        _ => return None,
    })
}

/// By number; by `SQLSTATE` where a driver knows no more, as far as that is clear.
fn mysql(code: &str, error: &Error) -> Option<Refusal> {
    Some(match code {
        "1305" => Refusal::NoTransaction,
        "1290" | "1792" | "1836" | "25006" => Refusal::ReadOnly,
        "1146" | "42S02" => Refusal::TableMissing,
        "1048" => Refusal::WrongDatabase,
        "1044" | "1142" | "1143" => Refusal::NotAllowed,
        "1205" | "1213" | "40001" => Refusal::Contended,
        "1021" | "1041" | "1114" => Refusal::Full,
        "" | "42000" if says(error, "SAVEPOINT sendmail_rs_probe does not exist") => {
            Refusal::NoTransaction
        }
        _ => return None,
    })
}

/// By primary code, except where only the extended one or the text is clear.
fn sqlite(code: &str, error: &Error) -> Option<Refusal> {
    if says(error, "no such table: ") {
        return Some(Refusal::TableMissing);
    }
    let code: u32 = code.parse().ok()?;
    Some(match (code & 0xff, code) {
        (8, _) => Refusal::ReadOnly,
        (_, 1299) => Refusal::WrongDatabase,
        (5 | 6, _) => Refusal::Contended,
        (13, _) => Refusal::Full,
        _ => return None,
    })
}

/// The code that a driver's adaptor put into the context.
fn code(error: &Error) -> Option<&str> {
    error.context().iter().find(|(key, _)| *key == "code").map(|(_, value)| value.as_str())
}

/// Whether the error or one of its sources says `words`.
fn says(error: &Error, words: &str) -> bool {
    let mut next: Option<&dyn StdError> = Some(error);
    while let Some(error) = next {
        if error.to_string().contains(words) {
            return true;
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(code: &str, text: &str) -> Error {
        let error = Error::new(ErrorKind::Refused, "run a statement", text);
        if code.is_empty() { error } else { error.with("code", code) }
    }

    #[test]
    fn every_measured_code_has_its_meaning() {
        use Dialect::{MySql, Postgres, Sqlite};
        for (dialect, code, text, refusal) in [
            (Postgres, "25P01", "", Some(Refusal::NoTransaction)),
            (
                Postgres,
                "",
                "SAVEPOINT can only be used in transaction blocks",
                Some(Refusal::NoTransaction),
            ),
            (Postgres, "25P02", "", Some(Refusal::TransactionFailed)),
            (Postgres, "25006", "", Some(Refusal::ReadOnly)),
            (Postgres, "42P01", "", Some(Refusal::TableMissing)),
            (Postgres, "23502", "", Some(Refusal::WrongDatabase)),
            (Postgres, "40P01", "", Some(Refusal::Contended)),
            (Postgres, "57P01", "terminating connection", None),
            (Postgres, "08006", "connection failure", None),
            (MySql, "1305", "", Some(Refusal::NoTransaction)),
            (
                MySql,
                "42000",
                "SAVEPOINT sendmail_rs_probe does not exist",
                Some(Refusal::NoTransaction),
            ),
            (MySql, "42000", "You have an error in your SQL syntax", None),
            (MySql, "1792", "", Some(Refusal::ReadOnly)),
            (MySql, "1290", "", Some(Refusal::ReadOnly)),
            (MySql, "1146", "", Some(Refusal::TableMissing)),
            (MySql, "1048", "", Some(Refusal::WrongDatabase)),
            (MySql, "1213", "", Some(Refusal::Contended)),
            (MySql, "2013", "lost connection", None),
            (Sqlite, "8", "", Some(Refusal::ReadOnly)),
            (Sqlite, "1032", "", Some(Refusal::ReadOnly)),
            (Sqlite, "1", "no such table: sendmail_marker", Some(Refusal::TableMissing)),
            (Sqlite, "1", "near \"x\": syntax error", None),
            (Sqlite, "1299", "", Some(Refusal::WrongDatabase)),
            (Sqlite, "517", "", Some(Refusal::Contended)),
            (Sqlite, "13", "", Some(Refusal::Full)),
            (Sqlite, "778", "disk I/O error", None),
        ] {
            assert_eq!(
                Refusal::of(dialect, &said(code, text)),
                refusal,
                "{dialect:?} {code} {text}"
            );
        }
    }

    #[test]
    fn a_refusal_keeps_the_code_and_what_was_said() {
        let error = Refusal::Contended.into_error("attach the message", said("40P01", "deadlock"));
        assert!(error.is_temporary());
        assert_eq!(error.context(), [("code", "40P01".to_owned())]);
        assert!(says(&error, "deadlock"));
        let error = Refusal::ReadOnly.into_error("attach the message", said("25006", "no"));
        assert!(!error.is_temporary());
    }

    #[test]
    fn doubt_stays_doubt() {
        let lost = Error::new(ErrorKind::Io, "run a statement", "broken pipe").temporary();
        let error = doubtful("attach the message", lost);
        assert!(error.is_temporary());
        assert!(error.to_string().contains("broken pipe"), "{error}");
    }
}
