//! Reads an event log and handles each event at least once, over any number of restarts.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{Clock, Cursor, EventId, EventLog, MailEvent, Result};

use crate::handler::{EventHandler, FailureHook, Handling};
use crate::manager::TransactionManager;

/// Where a consumer keeps how far it is: a row in the application's database, a file.
///
/// Each consumer has one of its own. Two processes that share one at the same time both handle what
/// is new.
#[async_trait]
pub trait CursorStore: Send + Sync {
    /// The cursor that was saved last; nothing before the first.
    ///
    /// # Errors
    ///
    /// It could not be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    async fn load(&self) -> Result<Option<Cursor>>;

    /// Saves a cursor in the place of the last one: durable on return.
    ///
    /// # Errors
    ///
    /// The last one may still be there; events behind it are then handled again.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, either the last cursor or this one is there.
    async fn save(&self, cursor: &Cursor) -> Result<()>;
}

/// Handles the events of a log, each at least once, each in a transaction of its own.
///
/// How far it is stands in a [`CursorStore`], so that another process goes on from there after any
/// restart. An event whose handling fails for good, or panics, is reported and passed over; one that
/// fails temporarily is reported and tried again at the next look, up to a number of attempts in this
/// process, so that no event keeps the others back for ever.
pub struct EventConsumer {
    log: Arc<dyn EventLog>,
    cursors: Arc<dyn CursorStore>,
    handling: Handling,
    attempts: NonZeroU32,
    failing: Option<(EventId, u32)>,
}

/// What one look at the log came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Consumed {
    /// Events that were handled.
    pub handled: usize,
    /// Events that were given up and passed over; each was reported.
    pub given_up: usize,
    /// Whether the next event waits because its handling failed temporarily; it was reported.
    pub waits: bool,
}

impl EventConsumer {
    /// How often an event is tried, unless [`with_attempts`](EventConsumer::with_attempts) says more.
    pub const ATTEMPTS: NonZeroU32 = NonZeroU32::new(10).unwrap();

    /// How many events are read at once.
    const PAGE: usize = 100;

    /// A consumer of `log` that stands where `cursors` says.
    #[must_use]
    pub fn new(
        log: Arc<dyn EventLog>,
        cursors: Arc<dyn CursorStore>,
        manager: TransactionManager,
        handler: Arc<dyn EventHandler>,
        on_failure: FailureHook,
    ) -> Self {
        let handling = Handling { manager, handler, on_failure };
        Self { log, cursors, handling, attempts: Self::ATTEMPTS, failing: None }
    }

    /// The same with another number of attempts for each event.
    #[must_use]
    pub fn with_attempts(mut self, attempts: NonZeroU32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Handles what is new, until there is no more or an event has to wait.
    ///
    /// # Errors
    ///
    /// The log could not be read, or the cursor not be loaded or saved; repeat it later.
    /// [`ErrorKind::CursorExpired`](sendmail_core::ErrorKind::CursorExpired): what follows is no longer
    /// kept, and somebody has to decide where to go on.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the event that was being handled is handled again.
    pub async fn poll(&mut self) -> Result<Consumed> {
        let mut consumed = Consumed::default();
        let mut after = self.cursors.load().await?;
        loop {
            let page = self.log.read(after.clone(), Self::PAGE).await?;
            if page.events.is_empty() {
                return Ok(consumed);
            }
            for (cursor, event) in page.events {
                match self.consume(&event).await {
                    End::Handled => consumed.handled += 1,
                    End::GivenUp => consumed.given_up += 1,
                    End::Waits => {
                        consumed.waits = true;
                        return Ok(consumed);
                    }
                }
                self.cursors.save(&cursor).await?;
                after = Some(cursor);
            }
        }
    }

    /// Handles what is new, waits for `pause`, and so on. It returns only with an error.
    ///
    /// # Errors
    ///
    /// As [`poll`](EventConsumer::poll).
    ///
    /// # Cancel safety
    ///
    /// As [`poll`](EventConsumer::poll); this is how it is stopped.
    pub async fn follow(&mut self, clock: &dyn Clock, pause: Duration) -> Result<()> {
        loop {
            self.poll().await?;
            clock.sleep(pause).await;
        }
    }

    async fn consume(&mut self, event: &MailEvent) -> End {
        let Err(error) = self.handling.handle(event).await else {
            self.failing = None;
            return End::Handled;
        };
        self.handling.report(event, &error).await;
        let before = self.failing.filter(|(id, _)| *id == event.id).map_or(0, |(_, count)| count);
        if error.is_temporary() && before + 1 < self.attempts.get() {
            self.failing = Some((event.id, before + 1));
            return End::Waits;
        }
        self.failing = None;
        End::GivenUp
    }
}

/// What became of one event.
enum End {
    Handled,
    GivenUp,
    Waits,
}
