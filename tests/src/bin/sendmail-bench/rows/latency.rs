//! From a message that this process has queued to its acceptance through a processor that is another process,
//! beside `send` over an open connection. How long it is from the call that queues it, two syncs before, is
//! told as well.

use std::sync::Arc;

use crate::contestants::latency::{Queued, Sent};
use crate::figures::Metric;
use crate::row::{Against, Goal, Row};

pub(crate) fn rows() -> Vec<Row> {
    let row = |name, metric, goal| Row {
        name,
        work: "latency",
        metric,
        ours: Arc::new(Queued),
        against: Against::One(Arc::new(Sent)),
        goal,
    };
    vec![
        row("latency-queued", Metric::Delay, Goal::AtMost(3.0)),
        row("latency-called", Metric::DelayFromCall, Goal::Told),
    ]
}
