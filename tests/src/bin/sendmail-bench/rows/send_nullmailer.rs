//! `sendmail-queue send` from a shell, process and all, beside nullmailer's `sendmail`.

use std::sync::Arc;

use crate::contestants::shell::{OfNullmailer, Ours};
use crate::figures::Metric;
use crate::row::{Against, Goal, Row};

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        name: "send-nullmailer",
        work: "send",
        metric: Metric::Rate,
        ours: Arc::new(Ours),
        against: Against::One(Arc::new(OfNullmailer)),
        goal: Goal::at_least(1.5),
    }]
}
