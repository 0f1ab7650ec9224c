//! Event handlers: each event in a new transaction of its own, after the outcome is durable.

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{Error, EventSink, MailEvent, Result, Transaction};

use crate::manager::TransactionManager;
use crate::panics::{caught, panicked};

/// An application's answer to events: marks an order as notified, writes to somebody else.
///
/// It never runs inside the transaction that it hears about, which is over by then and cannot be
/// harmed. Each event may come more than once: [`MailEvent::id`] tells, and a handler that must not act
/// twice records it in the transaction that it is given.
#[async_trait]
pub trait EventHandler: Send + Sync {
    /// Handles one event. What it joins to `transaction` is committed when it returns; mail that it
    /// sends there goes out with it.
    ///
    /// # Errors
    ///
    /// The transaction aborts, and the failure is reported. A temporary error asks for the event to be
    /// handled again where somebody can do that.
    ///
    /// # Cancel safety
    ///
    /// The caller may drop the future when it stops; the transaction is then aborted.
    async fn handle(&self, transaction: &mut Transaction, event: &MailEvent) -> Result<()>;
}

/// Is told of each event whose handling failed, or was committed with something left to recovery.
pub type FailureHook = Arc<dyn Fn(&MailEvent, &Error) + Send + Sync>;

/// An [`EventSink`] that handles each event it hears in a transaction of its own.
///
/// An event whose handling fails is reported and not handled again; where each must be handled at least
/// once, read the log with an [`EventConsumer`](crate::EventConsumer).
pub struct HandlerSink {
    handling: Handling,
}

impl HandlerSink {
    /// A sink that lets `handler` handle what it hears, and tells `on_failure` what fails.
    #[must_use]
    pub fn new(
        manager: TransactionManager,
        handler: Arc<dyn EventHandler>,
        on_failure: FailureHook,
    ) -> Self {
        Self { handling: Handling { manager, handler, on_failure } }
    }
}

#[async_trait]
impl EventSink for HandlerSink {
    async fn emit(&self, event: &MailEvent) {
        if let Err(error) = self.handling.handle(event).await {
            self.handling.report(event, &error).await;
        }
    }
}

/// How an event is handled: shared by sink and consumer.
pub(crate) struct Handling {
    pub(crate) manager: TransactionManager,
    pub(crate) handler: Arc<dyn EventHandler>,
    pub(crate) on_failure: FailureHook,
}

impl Handling {
    /// Handles `event` in a new transaction. What is left to recovery is reported and no error.
    pub(crate) async fn handle(&self, event: &MailEvent) -> Result<()> {
        let mut transaction = self.manager.begin();
        let done = caught(async { self.handler.handle(&mut transaction, event).await }).await;
        let error = match done {
            Ok(Ok(())) => {
                for left in self.manager.commit(transaction).await.into_result()? {
                    self.report(event, &left.error).await;
                }
                return Ok(());
            }
            Ok(Err(error)) => error,
            Err(text) => panicked("handle the event", &text),
        };
        self.manager.abort(transaction).await;
        Err(error.with("event", event.id))
    }

    /// Tells the hook; if that panics too, there is nobody left to tell.
    pub(crate) async fn report(&self, event: &MailEvent, error: &Error) {
        let _ = caught(async { (self.on_failure)(event, error) }).await;
    }
}
