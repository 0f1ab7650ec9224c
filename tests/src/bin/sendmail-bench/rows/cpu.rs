//! What the processors do for 100,000 messages of the same drain, beside zope.sendmail and Postfix.

use crate::figures::Metric;
use crate::row::{Against, Goal, Row, Shared};
use crate::works::drain as work;

pub(crate) fn rows() -> Vec<Row> {
    let row = |name, peer: Shared| Row {
        name,
        work: work::NAME,
        metric: Metric::Cpu,
        ours: work::ours(),
        against: Against::One(peer),
        goal: Goal::Told,
    };
    vec![row("cpu-zope", work::zope()), row("cpu-postfix", work::postfix())]
}
