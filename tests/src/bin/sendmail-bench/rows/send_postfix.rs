//! `sendmail-queue send` from a shell, process and all, beside Postfix's `sendmail`.

use std::sync::Arc;

use crate::contestants::shell::{OfPostfix, Ours};
use crate::figures::Metric;
use crate::row::{Against, Goal, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "send-postfix",
        work: "send",
        metric: Metric::Rate,
        ours: Arc::new(Ours),
        against: Against::One(Arc::new(OfPostfix)),
        goal: Goal::at_least(5.0),
    }]
}
