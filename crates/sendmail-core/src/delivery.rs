//! What an application hands its mail to.

use async_trait::async_trait;

use crate::{Envelope, Message, MessageId, Result, Transaction};

/// Takes messages on behalf of a transaction (zope's `IMailDelivery`).
///
/// The message is sent if the transaction commits, and not otherwise. `QueuedDelivery` and
/// `DirectDelivery`, in `sendmail-txn`, are the two that exist.
#[async_trait]
pub trait MailDelivery: Send + Sync {
    /// Hands a message over; the Message-ID and the bytes are fixed from here on.
    ///
    /// # Errors
    ///
    /// The transaction cannot be joined, or the message breaks a limit of the delivery. Nothing has
    /// joined, and the transaction is as it was.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the message has been handed over or it has not.
    async fn send(
        &self,
        transaction: &mut Transaction,
        envelope: Envelope,
        message: Message,
    ) -> Result<MessageId>;
}
