//! Savepoints over all data managers of a transaction.

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{
    DataManager, DecisionStore, Error, ErrorKind, Order, PrepareContext, Result, SavepointMark,
    Transaction, TransactionId, TransactionStatus, Vote,
};

use crate::panics::caught_as_error;
use crate::two_phase::abort_one;

/// A point in a transaction to which it can be rolled back.
#[derive(Debug)]
pub struct Savepoint {
    transaction: TransactionId,
    serial: u64,
    marks: Vec<(String, SavepointMark)>,
}

/// Sets a savepoint.
pub(crate) async fn set(transaction: &mut Transaction) -> Result<Savepoint> {
    let operation = "set a savepoint";
    require_active(transaction, operation)?;
    let mut marks = Vec::new();
    for manager in transaction.managers_mut().iter_mut().filter(|other| other.name() != LEDGER) {
        let mark = caught_as_error(operation, async { manager.savepoint().await }).await;
        let mark = mark.map_err(|error| error.with("data manager", manager.name()))?;
        marks.push((manager.name().to_owned(), mark));
    }
    let serial = ledger(transaction)?.open();
    Ok(Savepoint { transaction: transaction.id(), serial, marks })
}

/// Rolls back to a savepoint.
#[expect(
    clippy::indexing_slicing,
    reason = "the index counts down from the last, and only what is at it is removed"
)]
pub(crate) async fn rollback(transaction: &mut Transaction, savepoint: &Savepoint) -> Result<()> {
    let operation = "roll back to the savepoint";
    require_active(transaction, operation)?;
    let known = savepoint.transaction == transaction.id()
        && ledger(transaction)?.close_after(savepoint.serial);
    if !known {
        let message = "the savepoint is another transaction's, or is void because the transaction \
                       was rolled back to an earlier one";
        return Err(Error::new(ErrorKind::InvalidState, operation, message));
    }
    // Invariant: a rollback that fails, panics or is dropped half-way leaves the transaction doomed.
    transaction.set_status(TransactionStatus::Doomed);
    let managers = transaction.managers_mut();
    for index in (0..managers.len()).rev() {
        let manager = managers[index].as_mut();
        if manager.name() == LEDGER {
            continue;
        }
        let mark = savepoint.marks.iter().find(|(name, _)| name == manager.name());
        if let Some(&(_, mark)) = mark {
            let done = caught_as_error(operation, async { manager.rollback_to(mark).await }).await;
            done.map_err(|error| error.with("data manager", manager.name()))?;
        } else {
            abort_one(manager).await;
            managers.remove(index);
        }
    }
    transaction.set_status(TransactionStatus::Active);
    Ok(())
}

fn require_active(transaction: &Transaction, operation: &'static str) -> Result<()> {
    if transaction.status() == TransactionStatus::Active {
        return Ok(());
    }
    let message = "the transaction is not active; abort it and begin another";
    Err(Error::new(ErrorKind::InvalidState, operation, message))
}

const LEDGER: &str = "savepoints";

/// The transaction's ledger, which joins with the first savepoint.
fn ledger(transaction: &mut Transaction) -> Result<&mut Ledger> {
    if transaction.joined::<Ledger>(LEDGER).is_none() {
        transaction.join(Box::new(Ledger::default()))?;
    }
    transaction.joined(LEDGER).ok_or_else(|| {
        Error::new(ErrorKind::InvalidState, "set a savepoint", "the ledger has not joined")
    })
}

/// Knows which savepoints of its transaction are valid. It joins as a data manager, so that it lives
/// as long as the transaction, and has nothing to commit.
#[derive(Default)]
struct Ledger {
    valid: Vec<u64>,
    next: u64,
}

impl Ledger {
    fn open(&mut self) -> u64 {
        let serial = self.next;
        self.next += 1;
        self.valid.push(serial);
        serial
    }

    /// Makes all savepoints after `serial` void; false if it is void itself.
    fn close_after(&mut self, serial: u64) -> bool {
        let Some(position) = self.valid.iter().position(|other| *other == serial) else {
            return false;
        };
        self.valid.truncate(position + 1);
        true
    }
}

#[async_trait]
impl DataManager for Ledger {
    fn name(&self) -> &str {
        LEDGER
    }

    fn order(&self) -> Order {
        Order::Normal
    }

    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>> {
        None
    }

    fn needs_decision(&self) -> bool {
        false
    }

    async fn savepoint(&mut self) -> Result<SavepointMark> {
        Ok(SavepointMark(self.next))
    }

    async fn rollback_to(&mut self, _: SavepointMark) -> Result<()> {
        Ok(())
    }

    async fn prepare(&mut self, _: &mut PrepareContext) -> Result<Vote> {
        Ok(Vote::ReadOnly)
    }

    async fn commit(&mut self) -> Result<()> {
        Ok(())
    }

    async fn abort(&mut self) {}
}
