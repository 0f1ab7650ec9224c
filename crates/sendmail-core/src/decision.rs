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

    /// Settles what became of each of `ids`, waiting at most about `timeout` in all.
    ///
    /// A store that settles many at once cheaper than one by one has a way of its own; this one lets the
    /// first that is unfinished use the time up, and asks about the others without waiting.
    ///
    /// # Errors
    ///
    /// For each id as [`fence`](Self::fence): one in doubt keeps no other back.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe, as [`fence`](Self::fence).
    async fn fence_all(
        &self,
        ids: &[QueueId],
        timeout: Duration,
    ) -> Vec<(QueueId, Result<Decision>)> {
        let mut left = timeout;
        let mut answers = Vec::with_capacity(ids.len());
        for id in ids {
            let answer = self.fence(*id, left).await;
            if !matches!(answer, Ok(Decision::Committed | Decision::Aborted)) {
                left = Duration::ZERO;
            }
            answers.push((*id, answer));
        }
        answers
    }

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

    /// At most `limit` messages that it knows to be committed since at least `age`, by its own clock,
    /// and that nobody has told it to forget: whoever should have died first, or the message is lost.
    /// A store that finds out by itself what it may forget answers none.
    ///
    /// # Errors
    ///
    /// It could not be asked.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only looks.
    async fn remembered(&self, age: Duration, limit: usize) -> Result<Vec<QueueId>>;

    /// Housekeeping: carries out what `forget` left for later, and removes some of what is older than
    /// a day and cannot matter any more, such as fences. Returns how many records it removed; more may
    /// be left.
    ///
    /// # Errors
    ///
    /// Some of it could not be done; repeat it later.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: repeat it.
    async fn sweep(&self) -> Result<usize>;
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
