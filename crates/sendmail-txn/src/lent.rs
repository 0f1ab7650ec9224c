//! A transaction that is lent to a piece of work and comes back by itself.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use sendmail_core::{Error, ErrorKind, Result, Transaction};

/// A transaction for the work of [`TransactionManager::run`](crate::TransactionManager::run), which gets
/// it back when this is dropped.
///
/// It is a value and not a reference, so that the work can be an ordinary closure that returns an
/// ordinary future, which may run in a task of its own.
#[derive(Debug)]
pub struct LentTransaction {
    transaction: Transaction,
    slot: Slot,
}

/// Where a lent transaction comes back to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Slot(Arc<Mutex<Option<Transaction>>>);

/// Lends `transaction`.
pub(crate) fn lend(transaction: Transaction) -> (LentTransaction, Slot) {
    let slot = Slot::default();
    (LentTransaction { transaction, slot: slot.clone() }, slot)
}

impl Slot {
    /// The transaction that came back.
    pub(crate) fn take(&self) -> Result<Transaction> {
        // A poisoned lock guards nothing that could be half done.
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take().ok_or_else(|| {
            let message = "the work ended and kept its transaction; it must drop it, and nothing is \
                           committed";
            Error::new(ErrorKind::InvalidState, "commit the transaction", message)
        })
    }
}

impl Deref for LentTransaction {
    type Target = Transaction;

    fn deref(&self) -> &Transaction {
        &self.transaction
    }
}

impl DerefMut for LentTransaction {
    fn deref_mut(&mut self) -> &mut Transaction {
        &mut self.transaction
    }
}

impl Drop for LentTransaction {
    fn drop(&mut self) {
        let empty = Transaction::new(self.transaction.id());
        let transaction = std::mem::replace(&mut self.transaction, empty);
        *self.slot.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(transaction);
    }
}
