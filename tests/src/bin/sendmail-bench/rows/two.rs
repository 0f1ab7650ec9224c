//! Two processors on one queue beside one, to a relay that is not the limit.

use std::sync::Arc;

use crate::contestants::relay::Distance;
use crate::contestants::{KIB, processor};
use crate::figures::Metric;
use crate::row::{Against, Goal, Row, Shared};

/// Messages, and how many if it is quick.
const MESSAGES: (usize, usize) = (20_000, 500);
const CONNECTIONS: usize = 8;

pub(crate) fn rows() -> Vec<Row> {
    let drain = |processors| -> Shared {
        Arc::new(processor::Drain {
            connections: CONNECTIONS,
            processors,
            distance: Distance::Near,
            messages: MESSAGES,
            length: KIB,
        })
    };
    vec![Row {
        name: "two-processors",
        work: "two",
        metric: Metric::Rate,
        ours: drain(2),
        against: Against::One(drain(1)),
        goal: Goal::at_least(1.0),
    }]
}
