//! Queued delivery (zope's `IQueuedMailDelivery`).

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{
    Clock, Envelope, Error, ErrorKind, MAX_RECIPIENTS, MailDelivery, Message, MessageId, QueueId,
    QueueStore, Result, Transaction, TransactionStatus,
};

use crate::mail_manager::MailDataManager;

/// How much mail one transaction may put into one queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many messages.
    pub messages: usize,
    /// How many recipients, over all messages.
    pub recipients: usize,
    /// How large one message may be in bytes; a smaller limit of the queue counts as well.
    pub message_len: usize,
}

impl Default for Limits {
    /// 1,000 messages to 10,000 recipients, each as large as the queue takes.
    fn default() -> Self {
        Self { messages: 1000, recipients: MAX_RECIPIENTS, message_len: Message::MAX_LEN }
    }
}

/// Puts messages into a queue if the transaction commits; a processor delivers them.
pub struct QueuedDelivery {
    store: Arc<dyn QueueStore>,
    clock: Arc<dyn Clock>,
    limits: Limits,
}

impl QueuedDelivery {
    /// A delivery into `store`, with default limits.
    #[must_use]
    pub fn new(store: Arc<dyn QueueStore>, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock, limits: Limits::default() }
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Whether one more message may join what `manager` holds already.
    fn check(
        &self,
        manager: Option<&MailDataManager>,
        envelope: &Envelope,
        message: &Message,
    ) -> Result<()> {
        let (messages, recipients) = manager.map_or((0, 0), |manager| {
            (manager.outbox().items().len(), manager.outbox().recipients())
        });
        let size_limit = self.limits.message_len.min(self.store.capabilities().max_message_len);
        within("the message has too many bytes", message.as_bytes().len(), size_limit)?;
        within("the transaction has too many messages", messages + 1, self.limits.messages)?;
        within(
            "the transaction has too many recipients",
            recipients + envelope.recipients().len(),
            self.limits.recipients,
        )
    }
}

#[async_trait]
impl MailDelivery for QueuedDelivery {
    async fn send(
        &self,
        transaction: &mut Transaction,
        envelope: Envelope,
        message: Message,
    ) -> Result<MessageId> {
        require_active(transaction)?;
        let name = MailDataManager::name_for(self.store.as_ref());
        let joined = transaction.joined::<MailDataManager>(&name);
        self.check(joined.as_deref(), &envelope, &message)?;
        let id = QueueId::mint(self.clock.now());
        let message_id = message.message_id().clone();
        match joined {
            Some(manager) if manager.is_for(&self.store) => {
                manager.hand_over(id, envelope, message);
            }
            Some(_) => return Err(same_name(&self.store)),
            None => {
                let mut manager = MailDataManager::new(self.store.clone());
                manager.hand_over(id, envelope, message);
                transaction.join(Box::new(manager))?;
            }
        }
        Ok(message_id)
    }
}

/// A data manager that has joined may be handed more only while its transaction is active.
pub(crate) fn require_active(transaction: &Transaction) -> Result<()> {
    if transaction.status() == TransactionStatus::Active {
        return Ok(());
    }
    let message = "the transaction is not active; begin another";
    Err(Error::new(ErrorKind::InvalidState, "send the message", message))
}

fn within(what: &'static str, count: usize, limit: usize) -> Result<()> {
    if count <= limit {
        return Ok(());
    }
    let error = Error::new(ErrorKind::InvalidInput, "send the message", what);
    Err(error.with("count", count).with("limit", limit))
}

fn same_name(store: &Arc<dyn QueueStore>) -> Error {
    let message = "another queue with this resource id is part of the transaction; share one store \
                   between deliveries, or give each queue a resource id of its own";
    Error::new(ErrorKind::InvalidState, "send the message", message)
        .with("resource id", store.resource_id())
}
