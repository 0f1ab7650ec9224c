//! Housekeeping of other layers, done while the processor runs.

use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{MailEvent, Result};

/// What somebody else wants done beside the queue: to decide staged messages of transactions whose
/// processes died, to forget markers that nobody asks for any more.
///
/// The processor knows nothing of transactions. Whoever puts the layers together gives it a recovery
/// that does. It runs when the processor begins (a single pass waits for it before the first claim), and
/// then again and again, one run at a time: when it says so itself, at the latest some
/// [`recovery_interval`](crate::ProcessorConfig::recovery_interval) after the last run if it says nothing,
/// and a few milliseconds after the store was woken by something that could not be claimed. Several
/// recoveries run beside each other, and none waits for another.
#[async_trait]
pub trait Recovery: Send + Sync {
    /// What it does, for logs: "recover transactions".
    fn name(&self) -> &str;

    /// Does it once, and returns what came of it.
    ///
    /// # Errors
    ///
    /// Some of it could not be done. It is tried again some
    /// [`recovery_interval`](crate::ProcessorConfig::recovery_interval) later; nothing else stops.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the processor stops: it must be as harmless as the death of the
    /// process.
    async fn recover(&self) -> Result<Recovered>;
}

/// What a run of a [`Recovery`] amounted to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovered {
    /// The events that came of it, which are durable: the processor's sinks hear them.
    pub events: Vec<MailEvent>,
    /// When it wants to run again, because it has found something that goes on; nothing: some
    /// [`recovery_interval`](crate::ProcessorConfig::recovery_interval) later.
    pub again: Option<Duration>,
}

impl Recovered {
    /// The same, to be run again after `wait`.
    #[must_use]
    pub fn again_after(mut self, wait: Option<Duration>) -> Self {
        self.again = wait;
        self
    }
}

/// These events, and no wish about the next run.
impl From<Vec<MailEvent>> for Recovered {
    fn from(events: Vec<MailEvent>) -> Self {
        Self { events, again: None }
    }
}
