//! A row and an attached mail of 4 KiB, eight writers, beside the same row and the body in an outbox row; and
//! beside the row alone, which is the limit of the database.

use std::sync::Arc;

use crate::contestants::commit::{Commit, Database, Kind, With};
use crate::figures::Metric;
use crate::row::{Against, Goal, Row};

/// Transactions, and how many if it is quick.
const TRANSACTIONS: (usize, usize) = (4000, 80);

pub(crate) fn rows() -> Vec<Row> {
    let of = |outbox, limit, work, kind| {
        let database = Database::new(kind);
        let commit = |with| {
            let database = Arc::clone(&database);
            Arc::new(Commit { database, with, messages: TRANSACTIONS })
        };
        let row = |name, with, goal| Row {
            name,
            work,
            metric: Metric::Rate,
            ours: commit(With::Attached),
            against: Against::One(commit(with)),
            goal,
        };
        [row(outbox, With::Outbox, Goal::at_least(0.6)), row(limit, With::Nothing, Goal::Told)]
    };
    [
        of("commit-sqlite", "commit-sqlite-alone", "commit-in-sqlite", Kind::Sqlite),
        of("commit-postgres", "commit-postgres-alone", "commit-in-postgres", Kind::Postgres),
        of("commit-mariadb", "commit-mariadb-alone", "commit-in-mariadb", Kind::MariaDb),
    ]
    .into_iter()
    .flatten()
    .collect()
}
