//! Queueing durably, 100 messages in each transaction, beside one in each.

use crate::figures::Metric;
use crate::row::{Against, Goal, Row};
use crate::works::enqueue as work;

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "batch",
        work: work::NAME,
        metric: Metric::Rate,
        ours: work::ours(1, 100),
        against: Against::One(work::ours(1, 1)),
        goal: Goal::at_least(5.0),
    }]
}
