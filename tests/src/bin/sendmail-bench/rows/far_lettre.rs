//! Draining a queue to a sink 40 ms away, 64 connections, beside lettre's pool of as many.

use crate::figures::Metric;
use crate::row::{Against, Goal, Row};
use crate::works::far as work;

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "far-lettre",
        work: work::NAME,
        metric: Metric::Rate,
        ours: work::ours(),
        against: Against::One(work::lettre()),
        goal: Goal::at_least(4.5),
    }]
}
