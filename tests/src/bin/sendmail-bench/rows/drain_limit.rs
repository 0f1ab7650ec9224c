//! The same beside smtp-source and then a bare loop of claim, append, unlink: the limit of wire and disk.

use crate::figures::Metric;
use crate::row::{Against, Goal, Row};
use crate::works::drain as work;

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "drain-limit",
        work: work::NAME,
        metric: Metric::Rate,
        ours: work::ours(),
        against: Against::Both(work::source(), work::bare()),
        goal: Goal::at_least(0.8),
    }]
}
