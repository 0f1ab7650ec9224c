//! The same beside smtp-source, which has no queue: the limit of sink and wire.

use crate::figures::Metric;
use crate::row::{Against, Goal, Row};
use crate::works::drain as work;

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "drain-source",
        work: work::NAME,
        metric: Metric::Rate,
        ours: work::ours(),
        against: Against::One(work::source()),
        goal: Goal::AtLeast(0.5, 0.4),
    }]
}
