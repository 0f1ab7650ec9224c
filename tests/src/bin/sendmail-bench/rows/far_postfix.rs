//! The same beside Postfix with 100 deliveries at once.

use crate::figures::Metric;
use crate::row::{Against, Goal, Row};
use crate::works::far as work;

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "far-postfix",
        work: work::NAME,
        metric: Metric::Rate,
        ours: work::ours(),
        against: Against::One(work::postfix()),
        goal: Goal::at_least(1.8),
    }]
}
