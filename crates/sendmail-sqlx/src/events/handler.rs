//! What an application gives to a consumer: a handler, a place in the log to start at, and somebody who
//! hears of failures.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{Error, EventLog, MailEvent, QueueStore, ResourceId, Result};

/// An application's answer to events: marks an order as notified, puts an address on a list of those
/// that bounce, writes to somebody else.
///
/// It never runs inside the transaction that it hears about, which is over by then and cannot be harmed.
#[async_trait]
pub trait SqlEventHandler<DB: sqlx::Database>: Send + Sync {
    /// Handles one event inside the transaction in which the consumer moves its cursor: what it does
    /// through `tx` is committed together with that, exactly once. Mail attached to `tx` goes out
    /// if that commits.
    ///
    /// What it does elsewhere (a request to another service) happens at least once:
    /// [`MailEvent::id`] is the same each time.
    ///
    /// It leaves the transaction open: a `COMMIT` or `ROLLBACK` of its own, or a statement that commits
    /// implicitly as `CREATE TABLE` does in MySQL, takes the promise away. And it returns an error that
    /// the database gave it, or rolls back to a savepoint of its own, for after a deadlock MySQL has
    /// ended the transaction, and what follows would be in none.
    ///
    /// # Errors
    ///
    /// The transaction is rolled back, the failure is reported, and the event is handled again later.
    ///
    /// # Cancel safety
    ///
    /// The consumer drops the future when it is dropped itself; the transaction is then rolled back.
    async fn handle(&self, tx: &mut DB::Connection, event: &MailEvent) -> Result<()>;
}

/// Hears of everything that keeps a consumer from going on.
pub type TroubleHook = Arc<dyn Fn(&EventTrouble<'_>) + Send + Sync>;

/// What keeps a consumer from going on.
#[derive(Debug)]
#[non_exhaustive]
pub struct EventTrouble<'a> {
    /// The event whose handling failed; nothing if log or database could not be used at all.
    pub event: Option<&'a MailEvent>,
    /// Why.
    pub error: &'a Error,
    /// How often that happened in a row, in this process.
    pub failures: u32,
    /// How long until the next try; nothing if the event was passed over.
    pub retry_after: Option<Duration>,
}

/// The log of a queue, with the queue's name, under which the cursor is kept.
#[derive(Clone)]
pub struct EventSource {
    queue: ResourceId,
    log: Arc<dyn EventLog>,
}

impl EventSource {
    /// The events of a store that keeps them itself.
    #[must_use]
    pub fn of<S: QueueStore + EventLog + 'static>(store: &Arc<S>) -> Self {
        Self::new(store.resource_id().clone(), store.clone())
    }

    /// The events of the queue `queue` ([`QueueStore::resource_id`]), as `log` tells them.
    #[must_use]
    pub fn new(queue: ResourceId, log: Arc<dyn EventLog>) -> Self {
        Self { queue, log }
    }

    pub(super) fn queue(&self) -> &ResourceId {
        &self.queue
    }

    pub(super) fn log(&self) -> &dyn EventLog {
        &*self.log
    }
}

impl fmt::Debug for EventSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EventSource").field("queue", &self.queue).finish_non_exhaustive()
    }
}

/// Where in a log a consumer starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum StartAt {
    /// At the oldest event that is kept.
    #[default]
    Oldest,
    /// Behind all that has happened so far. The whole log is read for it, and not handled.
    Now,
}
