//! How much of the work there is.

use std::time::Duration;

/// How much is done in a round.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// Only whether it works.
    pub(crate) quick: bool,
    /// How many messages are in the long queue.
    pub(crate) queued: usize,
}

/// The long queue, unless another length is asked for.
const QUEUED: usize = 1_000_000;
const QUEUED_QUICK: usize = 5000;

impl Scale {
    pub(crate) fn new(quick: bool, queued: Option<usize>) -> Self {
        let usual = if quick { QUEUED_QUICK } else { QUEUED };
        Self { quick, queued: queued.unwrap_or(usual) }
    }

    /// The first number, or the second if it is quick.
    pub(crate) fn of(&self, whole: usize, quick: usize) -> usize {
        if self.quick { quick } else { whole }
    }

    /// For how long an idle processor is watched.
    pub(crate) fn idle(&self) -> Duration {
        Duration::from_secs(if self.quick { 3 } else { 60 })
    }
}
