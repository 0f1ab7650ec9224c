//! What joins a transaction: a two-phase-commit data manager (Python's `IDataManager`).

use std::any::Any;
use std::sync::Arc;

use async_trait::async_trait;

use crate::{DecisionStore, QueueId, ResourceId, Result, TransactionId};

/// When a data manager is prepared and committed, relative to the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Order {
    /// Before the others.
    First,
    /// In between, in the order of joining.
    Normal,
    /// The one that cannot promise: it is prepared last, and its commit is the decision. There is at
    /// most one in a transaction.
    LastResource,
}

/// What a data manager answers to `prepare`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Vote {
    /// It can commit and can abort, whichever is decided.
    Yes,
    /// It has nothing to commit, and needs not be asked again.
    ReadOnly,
}

/// A point in a data manager's work to which it can be rolled back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SavepointMark(pub u64);

/// What the data managers of one transaction tell each other while they prepare.
#[derive(Debug)]
pub struct PrepareContext {
    transaction: TransactionId,
    resource: Option<ResourceId>,
    marks: Vec<QueueId>,
}

impl PrepareContext {
    /// A context for `transaction`, which is decided by `resource`; nothing if no data manager of it
    /// needs to know who decides.
    #[must_use]
    pub fn new(transaction: TransactionId, resource: Option<ResourceId>) -> Self {
        Self { transaction, resource, marks: Vec::new() }
    }

    /// Which transaction it is.
    #[must_use]
    pub fn transaction(&self) -> TransactionId {
        self.transaction
    }

    /// Who decides it.
    #[must_use]
    pub fn resource(&self) -> Option<&ResourceId> {
        self.resource.as_ref()
    }

    /// Adds a message whose fate the decision is: whoever decides leaves a marker for it.
    pub fn mark(&mut self, id: QueueId) {
        self.marks.push(id);
    }

    /// The messages that were marked so far; all of them for the one that is prepared last.
    #[must_use]
    pub fn marks(&self) -> &[QueueId] {
        &self.marks
    }
}

/// Takes part in a two-phase commit.
///
/// The transaction calls `prepare` on all in their [`Order`]; if one fails, `abort` on all. If all
/// agree it calls `commit` on the one that decides, and then on the others. Dropping a data manager at
/// any moment must be as harmless as the death of the process: recovery decides.
#[async_trait]
pub trait DataManager: Any + Send + Sync {
    /// A name by which it is found again in its transaction, and named in errors.
    fn name(&self) -> &str;

    /// When it wants to be prepared and committed.
    fn order(&self) -> Order;

    /// Who can be asked later what became of the transaction, if this data manager's commit is the
    /// decision.
    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>>;

    /// Whether it leaves something in doubt when it is prepared, so that the transaction must be
    /// decided by somebody who can be asked after a crash.
    fn needs_decision(&self) -> bool;

    /// Marks the present point of its work.
    ///
    /// # Errors
    ///
    /// It has no savepoints, or cannot set one now.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the point may be marked or not, which does no harm.
    async fn savepoint(&mut self) -> Result<SavepointMark>;

    /// Undoes what was done since `mark`; marks set since are void.
    ///
    /// # Errors
    ///
    /// It cannot; the transaction must abort.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, how much is undone is not known; repeat it, or abort.
    async fn rollback_to(&mut self, mark: SavepointMark) -> Result<()>;

    /// The first phase: does everything that can fail, so that `commit` cannot.
    ///
    /// # Errors
    ///
    /// A vote against the commit. The transaction aborts.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, `abort` may be called, or the data manager dropped.
    async fn prepare(&mut self, context: &mut PrepareContext) -> Result<Vote>;

    /// The second phase. Repeatable: after an error, or a dropped future, it may be called again.
    ///
    /// # Errors
    ///
    /// From the one that decides: [`ErrorKind::Uncertain`](crate::ErrorKind::Uncertain) if a crash may
    /// show either outcome, [`ErrorKind::CommittedFinishPending`](crate::ErrorKind::CommittedFinishPending)
    /// if it is decided and something is left to recovery, and any other kind if it is certain that
    /// nothing was decided. From the others every error means: committed, and left to recovery.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the outcome of the one that decides is uncertain, and that of the others is left
    /// to recovery; either may be called again.
    async fn commit(&mut self) -> Result<()>;

    /// Undoes what `prepare` did, in any phase before the decision. Idempotent. It cannot fail: what
    /// it cannot undo, recovery does.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, recovery does the rest.
    async fn abort(&mut self);
}
