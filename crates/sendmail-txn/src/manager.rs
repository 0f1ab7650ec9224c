//! The transaction manager.

use std::sync::Arc;

use sendmail_core::{
    Clock, Error, ErrorKind, Result, Transaction, TransactionId, TransactionStatus,
};

use crate::lent::{LentTransaction, lend};
use crate::outcome::{CommitOutcome, Pending};
use crate::savepoint::{self, Savepoint};
use crate::two_phase;

/// Begins, commits and aborts transactions.
///
/// It keeps no state of its own: a transaction is a value that its user holds and hands back.
#[derive(Clone)]
pub struct TransactionManager {
    clock: Arc<dyn Clock>,
}

/// What [`TransactionManager::run`] did.
#[derive(Debug)]
#[must_use = "a committed transaction may have left something to recovery"]
pub struct Completed<T> {
    /// What the work returned.
    pub value: T,
    /// What is committed and left to recovery; mostly nothing.
    pub pending: Vec<Pending>,
}

impl TransactionManager {
    /// A manager that takes the time of its transactions' ids from `clock`.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { clock }
    }

    /// Begins a transaction. Dropping it commits nothing.
    #[must_use]
    pub fn begin(&self) -> Transaction {
        Transaction::new(TransactionId::mint(self.clock.now()))
    }

    /// Commits a transaction.
    ///
    /// All data managers are prepared in their order, the one that decides last; if one fails or
    /// panics, all abort. Then the one that decides commits, and then the others; one that fails from
    /// there on is finished by recovery, and reported. Where no data manager needs to be decided by
    /// somebody who can be asked, the first to commit decides. A panic of the one that decides leaves
    /// the outcome uncertain.
    ///
    /// # Cancel safety
    ///
    /// Dropped before it was polled, it commits nothing. After that, with a tokio runtime, the commit
    /// goes on in a task of its own, and only its outcome is lost. Without a runtime, or when the
    /// runtime shuts down, it stops where it is, as by `kill -9`, and recovery decides.
    pub async fn commit(&self, transaction: Transaction) -> CommitOutcome {
        match detached(two_phase::commit(transaction)).await {
            Ok(outcome) => outcome,
            Err(error) => CommitOutcome::Uncertain(error),
        }
    }

    /// Aborts a transaction. It cannot fail: what cannot be undone now, recovery undoes.
    ///
    /// # Cancel safety
    ///
    /// As [`commit`](TransactionManager::commit); the transaction does not commit in any case.
    pub async fn abort(&self, mut transaction: Transaction) {
        // An error says that the runtime shuts down, which is as good as an abort.
        let _ = detached(async move { two_phase::abort(&mut transaction).await }).await;
    }

    /// Lets `transaction` go on, but never commit.
    pub fn doom(&self, transaction: &mut Transaction) {
        if transaction.status() == TransactionStatus::Active {
            transaction.set_status(TransactionStatus::Doomed);
        }
    }

    /// Sets a savepoint over all data managers that have joined.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidState`]: the transaction is not active. Otherwise one of its data managers
    /// cannot set one now; the transaction is as it was.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the transaction is as it was.
    pub async fn savepoint(&self, transaction: &mut Transaction) -> Result<Savepoint> {
        savepoint::set(transaction).await
    }

    /// Undoes everything since `savepoint`, which stays valid; those set since are void. Data managers
    /// that joined since are aborted and leave the transaction.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidState`], and nothing was done: the savepoint is void or another
    /// transaction's, or the transaction is not active. Otherwise a data manager cannot roll back,
    /// and the transaction is doomed.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, it leaves the transaction doomed.
    pub async fn rollback_to(
        &self,
        transaction: &mut Transaction,
        savepoint: &Savepoint,
    ) -> Result<()> {
        savepoint::rollback(transaction, savepoint).await
    }

    /// Does `work` in a transaction and commits it; after a temporary failure once more in a new one,
    /// up to `attempts` times in all, and at least once.
    ///
    /// Each attempt starts from nothing: what a failed one handed over is not sent. There is no pause
    /// between attempts; `work` can make one. An uncertain outcome is never tried again, since that
    /// could do the work twice, and neither is a committed one with something left to recovery.
    ///
    /// ```
    /// # use sendmail_core::{Envelope, MailDelivery, Message, MessageId, Result};
    /// # use sendmail_txn::TransactionManager;
    /// # async fn example(
    /// #     manager: TransactionManager,
    /// #     delivery: &dyn MailDelivery,
    /// #     envelope: &Envelope,
    /// #     message: &Message,
    /// # ) -> Result<MessageId> {
    /// let completed = manager
    ///     .run(3, |mut transaction| async move {
    ///         delivery.send(&mut transaction, envelope.clone(), message.clone()).await
    ///     })
    ///     .await?;
    /// # Ok(completed.value)
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// The error of the last attempt: of the work, or [`ErrorKind::Aborted`] or
    /// [`ErrorKind::Uncertain`] of its commit. [`ErrorKind::InvalidState`]: the work ended and did not
    /// drop the transaction.
    ///
    /// # Cancel safety
    ///
    /// Dropped while the work runs, nothing is committed; while the commit runs, see
    /// [`commit`](TransactionManager::commit).
    pub async fn run<T, F>(
        &self,
        attempts: u32,
        mut work: impl FnMut(LentTransaction) -> F,
    ) -> Result<Completed<T>>
    where
        F: Future<Output = Result<T>>,
    {
        let mut left = attempts.max(1);
        loop {
            left -= 1;
            let (lent, slot) = lend(self.begin());
            let done = work(lent).await;
            let transaction = slot.take()?;
            let error = match done {
                Ok(value) => match self.commit(transaction).await.into_result() {
                    Ok(pending) => return Ok(Completed { value, pending }),
                    Err(error) => error,
                },
                Err(error) => {
                    self.abort(transaction).await;
                    error
                }
            };
            if left == 0 || !may_try_again(&error) {
                return Err(error);
            }
        }
    }
}

/// Whether the work may be done again: what failed is temporary, and is certain not to be done.
fn may_try_again(error: &Error) -> bool {
    error.is_temporary()
        && !matches!(error.kind(), ErrorKind::Uncertain | ErrorKind::CommittedFinishPending)
}

/// Runs `work` in a task of its own, so that it does not stop when its caller does.
async fn detached<T: Send + 'static>(work: impl Future<Output = T> + Send + 'static) -> Result<T> {
    let Ok(runtime) = tokio::runtime::Handle::try_current() else {
        return Ok(work.await);
    };
    runtime.spawn(work).await.map_err(|error| {
        let message = "the task that commits ended early; recovery decides";
        Error::new(ErrorKind::Uncertain, "end the transaction", message).with_source(error)
    })
}
