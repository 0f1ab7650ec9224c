//! The two-phase commit.

use sendmail_core::{
    DataManager, Error, ErrorKind, PrepareContext, QueueId, Transaction, TransactionStatus, Vote,
};

use crate::outcome::{CommitOutcome, Pending};
use crate::panics::{caught, caught_as_error, panicked};
use crate::plan::Plan;

/// Commits `transaction`.
///
/// Invariant: before the decision every way out aborts all; after it none does; in doubt, nothing is
/// done at all.
pub(crate) async fn commit(mut transaction: Transaction) -> CommitOutcome {
    if let Some(outcome) = refuse(&mut transaction).await {
        return outcome;
    }
    transaction.set_status(TransactionStatus::Ending);
    let plan = match Plan::new(transaction.managers_mut()) {
        Ok(plan) => plan,
        Err(error) => {
            abort(&mut transaction).await;
            return CommitOutcome::Aborted(error);
        }
    };
    let (willing, marks) = match prepare(&mut transaction, &plan).await {
        Ok(prepared) => prepared,
        Err(error) => {
            abort(&mut transaction).await;
            return CommitOutcome::Aborted(error);
        }
    };
    finish(transaction, &plan, &willing, &marks).await
}

/// Aborts `transaction`: every data manager, whatever happens to the others.
#[expect(
    clippy::indexing_slicing,
    reason = "the plan was made of these very managers, and none joins or leaves while it is used"
)]
pub(crate) async fn abort(transaction: &mut Transaction) {
    transaction.set_status(TransactionStatus::Ending);
    let managers = transaction.managers_mut();
    let order = Plan::new(managers)
        .map_or_else(|_| (0..managers.len()).rev().collect(), |plan| plan.abort_order());
    for index in order {
        abort_one(managers[index].as_mut()).await;
    }
    transaction.set_status(TransactionStatus::Aborted);
}

/// Aborts one data manager. A panic leaves the rest of its work to recovery, as a crash would.
pub(crate) async fn abort_one(manager: &mut dyn DataManager) {
    let _ = caught(async { manager.abort().await }).await;
}

/// The answer for a transaction that is not active; it is aborted if it is doomed.
async fn refuse(transaction: &mut Transaction) -> Option<CommitOutcome> {
    let misuse =
        |message: &str| Error::new(ErrorKind::InvalidState, "commit the transaction", message);
    match transaction.status() {
        TransactionStatus::Active => None,
        TransactionStatus::Doomed => {
            abort(transaction).await;
            let message = "the transaction was doomed by an earlier failure, and was aborted";
            Some(CommitOutcome::Aborted(misuse(message)))
        }
        _ => {
            let message = "the transaction was ended by somebody else, and what became of it is not \
                           known here";
            Some(CommitOutcome::Uncertain(misuse(message)))
        }
    }
}

/// The first phase. Returns who is to commit, in order, and which messages were marked.
#[expect(
    clippy::indexing_slicing,
    reason = "the plan was made of these very managers, and none joins or leaves while it is used"
)]
async fn prepare(
    transaction: &mut Transaction,
    plan: &Plan,
) -> Result<(Vec<usize>, Vec<QueueId>), Error> {
    let mut context = PrepareContext::new(transaction.id(), plan.resource());
    let managers = transaction.managers_mut();
    let mut willing = vec![false; managers.len()];
    for index in plan.prepare_order() {
        let manager = &mut managers[index];
        let call = async { manager.prepare(&mut context).await };
        let vote = caught_as_error("prepare the transaction", call).await;
        let vote = vote.map_err(|error| error.with("data manager", manager.name()))?;
        willing[index] = vote == Vote::Yes;
    }
    let decider_left = plan.commit_order.first().is_some_and(|&index| !willing[index]);
    if decider_left && !context.marks().is_empty() {
        let message = "the data manager that decides voted read-only, but the fate of mail depends on \
                       its decision; it must record the messages that were marked";
        return Err(Error::new(ErrorKind::InvalidState, "prepare the transaction", message));
    }
    let order = plan.commit_order.iter().copied().filter(|&index| willing[index]).collect();
    Ok((order, context.marks().to_vec()))
}

/// The second phase: the first of `willing` decides, and the others follow.
#[expect(
    clippy::indexing_slicing,
    reason = "the plan was made of these very managers, and none joins or leaves while it is used"
)]
async fn finish(
    mut transaction: Transaction,
    plan: &Plan,
    willing: &[usize],
    marks: &[QueueId],
) -> CommitOutcome {
    let managers = transaction.managers_mut();
    let mut pending = Vec::new();
    if let Some((&first, others)) = willing.split_first() {
        match decide(managers[first].as_mut()).await {
            Decided::Yes(None) => {}
            Decided::Yes(Some(error)) => pending.push(left(managers[first].as_ref(), error)),
            Decided::No(error) => {
                abort(&mut transaction).await;
                return CommitOutcome::Aborted(error);
            }
            Decided::Unknown(error) => {
                transaction.set_status(TransactionStatus::Uncertain);
                return CommitOutcome::Uncertain(error);
            }
        }
        for &index in others {
            let manager = managers[index].as_mut();
            let done = caught_as_error("finish the commit", async { manager.commit().await }).await;
            if let Err(error) = done {
                pending.push(left(manager, error));
            }
        }
    }
    transaction.set_status(TransactionStatus::Committed);
    if !pending.is_empty() {
        return CommitOutcome::CommittedFinishPending(pending);
    }
    if let Some(oracle) = plan.oracle.as_ref().filter(|_| !marks.is_empty()) {
        // A failure leaves records that do no harm, as the contract of `forget` says.
        let _ = caught(async { oracle.forget(marks).await }).await;
    }
    CommitOutcome::Committed
}

/// What the one that decides did.
enum Decided {
    /// Committed; perhaps something is left to recovery.
    Yes(Option<Error>),
    /// Certainly not committed.
    No(Error),
    /// Either.
    Unknown(Error),
}

async fn decide(manager: &mut dyn DataManager) -> Decided {
    let operation = "commit the transaction";
    match caught(async { manager.commit().await }).await {
        Ok(Ok(())) => Decided::Yes(None),
        Ok(Err(error)) => match error.kind() {
            ErrorKind::CommittedFinishPending => Decided::Yes(Some(error)),
            ErrorKind::Uncertain => Decided::Unknown(error.with("data manager", manager.name())),
            _ => Decided::No(error.with("data manager", manager.name())),
        },
        // It may have panicked before or after its commit.
        Err(text) => Decided::Unknown(
            Error::new(ErrorKind::Uncertain, operation, "whether it committed is not known")
                .with("data manager", manager.name())
                .with_source(panicked(operation, &text)),
        ),
    }
}

fn left(manager: &dyn DataManager, error: Error) -> Pending {
    Pending { manager: manager.name().to_owned(), error }
}
