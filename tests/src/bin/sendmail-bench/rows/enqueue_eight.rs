//! The same by eight tasks at once, beside the bare loop with eight threads.

use crate::figures::Metric;
use crate::row::{Against, Goal, Row};
use crate::works::enqueue as work;

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "enqueue-eight",
        work: work::NAME,
        metric: Metric::Rate,
        ours: work::ours(8, 1),
        against: Against::One(work::bare(8)),
        goal: Goal::at_least(1.5),
    }]
}
