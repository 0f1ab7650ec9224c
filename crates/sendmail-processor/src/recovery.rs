//! Housekeeping of other layers, done while the processor runs.

use async_trait::async_trait;
use sendmail_core::{MailEvent, Result};

/// What somebody else wants done beside the queue: to decide staged messages of transactions whose
/// processes died, to forget markers that nobody asks for any more.
///
/// The processor knows nothing of transactions. Whoever puts the layers together gives it a recovery
/// that does; it runs once before the first message is claimed, and then again and again, one run at a
/// time, each some [`recovery_interval`](crate::ProcessorConfig::recovery_interval) after the last.
#[async_trait]
pub trait Recovery: Send + Sync {
    /// What it does, for logs: "recover transactions".
    fn name(&self) -> &str;

    /// Does it once, and returns the events that came of it, which are durable: the processor's sinks
    /// hear them.
    ///
    /// # Errors
    ///
    /// Some of it could not be done. It is tried again with the next run; nothing else stops.
    ///
    /// # Cancel safety
    ///
    /// The future is dropped when the processor stops: it must be as harmless as the death of the
    /// process.
    async fn recover(&self) -> Result<Vec<MailEvent>>;
}
