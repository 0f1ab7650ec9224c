//! What the fuzzers call: everything here that reads what a database says. Only built for them.

use sendmail_core::{Dialect, Error, ErrorKind};

use crate::decision::fuzz as decision;
use crate::refusal::{Refusal, doubtful, sqlite_in_transaction};

/// Ids, error codes, error texts and settings: what is not known is doubt, and nothing is taken for an
/// answer that is none.
pub fn answers(text: &str) {
    decision::id(text);
    let (code, message) = text.split_once('\n').unwrap_or((text, ""));
    decision::code(code, message);
    let error = || Error::new(ErrorKind::Io, "ask", message.to_owned()).with("code", code);
    for dialect in [Dialect::Postgres, Dialect::MySql, Dialect::Sqlite] {
        match Refusal::of(dialect, &error()) {
            Some(refusal) => drop(refusal.into_error("ask", error())),
            None => drop(doubtful("ask", error())),
        }
    }
    if let Some(inside) = sqlite_in_transaction(&error()) {
        assert!(text.contains(if inside { "within a transaction" } else { "filename" }));
    }
    let rows = message.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect();
    decision::facts(&rows);
}
