//! Draining a queue to a sink on loopback, beside zope.sendmail.

use crate::figures::Metric;
use crate::row::{Against, Goal, Row};
use crate::works::drain as work;

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "drain-zope",
        work: work::NAME,
        metric: Metric::Rate,
        ours: work::ours(),
        against: Against::One(work::zope()),
        goal: Goal::AtLeast(10.0, 6.0),
    }]
}
