//! Messages of 1 MB over eight connections, beside smtp-source with the same.

use std::sync::Arc;

use crate::contestants::relay::Distance;
use crate::contestants::{MB, processor, source};
use crate::figures::Metric;
use crate::row::{Against, Goal, Row};

/// Messages, and how many if it is quick.
const MESSAGES: (usize, usize) = (500, 30);
const CONNECTIONS: usize = 8;

pub(crate) fn rows() -> Vec<Row> {
    let ours = processor::Drain {
        connections: CONNECTIONS,
        processors: 1,
        distance: Distance::Near,
        messages: MESSAGES,
        length: MB,
    };
    let limit = source::Source { connections: CONNECTIONS, messages: MESSAGES, length: MB };
    vec![Row {
        name: "large-source",
        work: "large",
        metric: Metric::Rate,
        ours: Arc::new(ours),
        against: Against::One(Arc::new(limit)),
        goal: Goal::at_least(0.6),
    }]
}
