//! A processor that has nothing to do for a minute.

use std::sync::Arc;

use crate::contestants::idle::Idle;
use crate::figures::Metric;
use crate::row::{Against, Goal, Row};

pub(crate) fn rows() -> Vec<Row> {
    let row = |name, metric, most| Row {
        name,
        work: "idle",
        metric,
        ours: Arc::new(Idle),
        against: Against::Nobody,
        goal: Goal::AtMost(most),
    };
    vec![
        row("idle-wake-ups", Metric::WakeUps, 2.0),
        row("idle-writes", Metric::Written, 0.0),
        row("idle-reads", Metric::Read, 0.0),
    ]
}
