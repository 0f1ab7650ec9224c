//! A transaction: the data managers that joined, and how far they are.

use std::any::Any;
use std::fmt;

use crate::{DataManager, Error, ErrorKind, Order, Result, TransactionId};

/// How far a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TransactionStatus {
    /// Data managers may join.
    Active,
    /// Something failed on the way; it can only abort.
    Doomed,
    /// It is being committed or aborted.
    Ending,
    /// It committed.
    Committed,
    /// It aborted.
    Aborted,
    /// Whether it committed is not known.
    Uncertain,
}

/// A unit of work that happens as a whole or not at all.
///
/// Deliveries and databases join it by a [`DataManager`]. This type only holds them together; a
/// transaction manager commits and aborts. A transaction that is dropped commits nothing.
pub struct Transaction {
    id: TransactionId,
    status: TransactionStatus,
    managers: Vec<Box<dyn DataManager>>,
}

impl Transaction {
    /// A transaction that nobody has joined.
    #[must_use]
    pub fn new(id: TransactionId) -> Self {
        Self { id, status: TransactionStatus::Active, managers: Vec::new() }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> TransactionId {
        self.id
    }

    /// How far it is.
    #[must_use]
    pub fn status(&self) -> TransactionStatus {
        self.status
    }

    /// Lets `manager` take part.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidState`]: the transaction is not active; it has a last resource already; one
    /// of that name has joined; or a message would be in doubt with nobody to ask: the last resource
    /// has no decision store, and something that needs a decision has joined or joins.
    pub fn join(&mut self, manager: Box<dyn DataManager>) -> Result<()> {
        let misuse = |message: &str, name: &str| {
            Err(Error::new(ErrorKind::InvalidState, "join the transaction", message)
                .with("data manager", name))
        };
        if self.status != TransactionStatus::Active {
            return misuse("the transaction is not active", manager.name());
        }
        if self.managers.iter().any(|other| other.name() == manager.name()) {
            return misuse("a data manager of that name has joined already", manager.name());
        }
        if manager.order() == Order::LastResource && self.last_resource().is_some() {
            return misuse(
                "there is a last resource already, and only one can decide",
                manager.name(),
            );
        }
        let blind = |manager: &dyn DataManager| {
            manager.order() == Order::LastResource && manager.decision_store().is_none()
        };
        let needs = |manager: &dyn DataManager| manager.needs_decision();
        let others = || self.managers.iter().map(AsRef::as_ref);
        if blind(manager.as_ref()) && others().any(needs)
            || needs(manager.as_ref()) && others().any(blind)
        {
            return misuse(
                "mail is queued in this transaction, and its last resource cannot be asked after a \
                 crash what became of it; give it a decision store, or queue the mail elsewhere",
                manager.name(),
            );
        }
        self.managers.push(manager);
        Ok(())
    }

    /// The data manager of that name and type, if it has joined.
    pub fn joined<T: DataManager>(&mut self, name: &str) -> Option<&mut T> {
        let manager = self.managers.iter_mut().find(|manager| manager.name() == name)?;
        let any: &mut dyn Any = manager.as_mut();
        any.downcast_mut()
    }

    /// The data managers, in the order of joining: for transaction managers.
    pub fn managers_mut(&mut self) -> &mut Vec<Box<dyn DataManager>> {
        &mut self.managers
    }

    /// Says how far it is: for transaction managers.
    pub fn set_status(&mut self, status: TransactionStatus) {
        self.status = status;
    }

    fn last_resource(&self) -> Option<&dyn DataManager> {
        let last = self.managers.iter().find(|manager| manager.order() == Order::LastResource);
        last.map(AsRef::as_ref)
    }
}

impl fmt::Debug for Transaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.managers.iter().map(|manager| manager.name()).collect();
        f.debug_struct("Transaction")
            .field("id", &self.id)
            .field("status", &self.status)
            .field("managers", &names)
            .finish()
    }
}
