//! The same beside Postfix at its best: 50 deliveries at once, connections not kept.

use crate::figures::Metric;
use crate::row::{Against, Goal, Row};
use crate::works::drain as work;

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "drain-postfix",
        work: work::NAME,
        metric: Metric::Rate,
        ours: work::ours(),
        against: Against::One(work::postfix()),
        goal: Goal::at_least(4.0),
    }]
}
