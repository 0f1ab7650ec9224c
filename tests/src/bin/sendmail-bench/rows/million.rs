//! The first 20,000 of a million messages, beside a queue that has no more than those; the first message, and
//! the memory.

use std::sync::Arc;

use crate::contestants::long::First;
use crate::figures::Metric;
use crate::row::{Against, Goal, Row, Shared};

pub(crate) fn rows() -> Vec<Row> {
    let long: Shared = Arc::new(First::of_long());
    let short: Shared = Arc::new(First::of_short());
    let row = |name, metric, against, goal| Row {
        name,
        work: "million",
        metric,
        ours: Arc::clone(&long),
        against,
        goal,
    };
    vec![
        // At most 1.1 times as long.
        row("million-drain", Metric::Rate, Against::One(short), Goal::at_least(1.0 / 1.1)),
        row("million-first", Metric::FirstMessage, Against::Nobody, Goal::AtMost(100.0)),
        row("million-memory", Metric::Memory, Against::Nobody, Goal::AtMost(64.0)),
    ]
}
