//! The same beside repoze.sendmail, which nobody set a goal for.

use crate::figures::Metric;
use crate::row::{Against, Goal, Row};
use crate::works::drain as work;

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "drain-repoze",
        work: work::NAME,
        metric: Metric::Rate,
        ours: work::ours(),
        against: Against::One(work::repoze()),
        goal: Goal::Told,
    }]
}
