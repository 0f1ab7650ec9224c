//! System calls and syncs for each message, of each part of its way. It is told, and there is no goal.

use std::sync::Arc;

use crate::contestants::calls::{OfEnqueue, OfProcessor};
use crate::figures::{Metric, Stage};
use crate::row::{Against, Goal, Row, Shared};

pub(crate) fn rows() -> Vec<Row> {
    let (enqueue, processor): (Shared, Shared) = (Arc::new(OfEnqueue), Arc::new(OfProcessor));
    let row = |stage| {
        let name = match stage {
            Stage::Enqueue => "calls-enqueue",
            Stage::Claim => "calls-claim",
            Stage::Deliver => "calls-deliver",
            Stage::Settle => "calls-settle",
            Stage::Runtime => "calls-run",
        };
        let ours = if stage == Stage::Enqueue { &enqueue } else { &processor };
        [Metric::Calls(stage), Metric::Syncs(stage)].map(|metric| Row {
            name,
            work: "calls",
            metric,
            ours: Arc::clone(ours),
            against: Against::Nobody,
            goal: Goal::Told,
        })
    };
    Stage::ALL.into_iter().flat_map(row).collect()
}
