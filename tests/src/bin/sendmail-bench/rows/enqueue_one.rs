//! Queueing durably, a message in each transaction, one after the other, beside the bare loop.

use crate::figures::Metric;
use crate::row::{Against, Goal, Row};
use crate::works::enqueue as work;

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "enqueue-one",
        work: work::NAME,
        metric: Metric::Rate,
        ours: work::ours(1, 1),
        against: Against::One(work::bare(1)),
        goal: Goal::at_least(0.8),
    }]
}
