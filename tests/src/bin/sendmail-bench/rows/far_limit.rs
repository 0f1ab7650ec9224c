//! The same beside one message for each round trip on each connection: the limit of the line.

use crate::figures::Metric;
use crate::row::{Against, Goal, Row};
use crate::works::far as work;

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "far-limit",
        work: work::NAME,
        metric: Metric::Rate,
        ours: work::ours(),
        against: Against::One(work::round_trips()),
        goal: Goal::at_least(0.85),
    }]
}
