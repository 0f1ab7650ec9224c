//! Who decides a transaction, and how to ask.

use std::time::Duration;

use async_trait::async_trait;

use crate::{QueueId, ResourceId, Result, TransactionId};

/// What became of the transaction that a message belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Decision {
    /// It committed.
    Committed,
    /// It did not commit and never will.
    Aborted,
    /// It may still do either: ask later.
    Unfinished,
}

/// Knows what became of transactions: a database with our markers in it, or a queue that decides
/// transactions with mail only.
#[async_trait]
pub trait DecisionStore: Send + Sync {
    /// The name by which messages refer to it. It never changes.
    fn resource_id(&self) -> &ResourceId;

    /// Which of `ids` are known to be committed. What is missing may still be.
    ///
    /// # Errors
    ///
    /// It could not be asked; nothing is known.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    async fn visible(&self, ids: &[QueueId]) -> Result<Vec<QueueId>>;

    /// Settles what became of `id`, waiting at most about `timeout` for a transaction that is still
    /// open. `Aborted` is final: after that answer the transaction cannot commit any more.
    ///
    /// # Errors
    ///
    /// Any doubt at all. The message is kept, and the question asked again later.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a fence that was set stays set, and the next call tells.
    async fn fence(&self, id: QueueId, timeout: Duration) -> Result<Decision>;

    /// Says that nobody will ask about `ids` any more: their messages are published, and that is
    /// durable. The store may forget them, at its leisure.
    ///
    /// # Errors
    ///
    /// They are still remembered, which does no harm.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    async fn forget(&self, ids: &[QueueId]) -> Result<()>;
}

/// A [`DecisionStore`] that is told what to decide: the side of a queue that commits transactions
/// with several mails and no database.
#[async_trait]
pub trait DecisionLog: DecisionStore {
    /// Prepares the decision over all of `ids`: writes down what it takes so that [`decide`] cannot
    /// fail for lack of room. Undecided until then.
    ///
    /// [`decide`]: DecisionLog::decide
    ///
    /// # Errors
    ///
    /// Nothing is proposed; the transaction can abort.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn propose(&self, transaction: TransactionId, ids: &[QueueId]) -> Result<()>;

    /// Decides that the transaction is committed. Durable on return: this is the commit.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Aborted`](crate::ErrorKind::Aborted): nothing was decided, and nothing will be.
    /// [`ErrorKind::Uncertain`](crate::ErrorKind::Uncertain): a crash may show either; the messages
    /// are kept until it is known.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the outcome is uncertain in the same sense.
    async fn decide(&self, transaction: TransactionId) -> Result<()>;

    /// Withdraws a proposal that was not decided, after its messages were discarded.
    ///
    /// # Errors
    ///
    /// It is still there, which does no harm; recovery removes it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn retract(&self, transaction: TransactionId) -> Result<()>;
}
