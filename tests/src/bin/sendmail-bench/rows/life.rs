//! The whole life of a mail of 4 KiB that a row takes along, beside a job of a table queue in the same database,
//! whose worker sends it with lettre. Eight writers, as many connections.

use std::sync::Arc;

use crate::contestants::commit::{Database, Kind};
use crate::contestants::{apalis, life};
use crate::figures::Metric;
use crate::row::{Against, Goal, Row};

/// Mails, and how many if it is quick.
const MESSAGES: (usize, usize) = (4000, 80);
const CONNECTIONS: usize = 8;

pub(crate) fn rows() -> Vec<Row> {
    let row = |name, work, kind| {
        let database = Database::new(kind);
        let ours = life::Life {
            database: Arc::clone(&database),
            connections: CONNECTIONS,
            messages: MESSAGES,
        };
        let theirs = apalis::Life { database, connections: CONNECTIONS, messages: MESSAGES };
        Row {
            name,
            work,
            metric: Metric::Rate,
            ours: Arc::new(ours),
            against: Against::One(Arc::new(theirs)),
            goal: Goal::at_least(2.0),
        }
    };
    vec![
        row("life-sqlite", "life-in-sqlite", Kind::Sqlite),
        row("life-postgres", "life-in-postgres", Kind::Postgres),
        row("life-mariadb", "life-in-mariadb", Kind::MariaDb),
    ]
}
