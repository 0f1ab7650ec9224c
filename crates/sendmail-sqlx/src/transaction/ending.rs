//! The end of a [`MailTransaction`](super::MailTransaction): marker, COMMIT, and the truth.

use std::fmt;
use std::time::Duration;

use sendmail_core::{
    Decision, DecisionStore, Dialect, Error, ErrorKind, QueueId, Result, Timestamp,
};
use sqlx_core::transaction::TransactionManager;
use tokio::task::JoinHandle;

use crate::decision::{CALL, Lease, SqlDecisionStore, bounded};
use crate::engine::Engine;
use crate::error::{explained, from_sqlx};
use crate::marker::{SAVEPOINT, SQLITE_QUESTION};
use crate::refusal::{Refusal, sqlite_in_transaction};

const COMMIT: &str = "commit the transaction";

/// How long a COMMIT may take before its connection is given up, and the database asked on another.
const COMMIT_WITHIN: Duration = Duration::from_secs(60);

/// How often SQLite is asked again to commit while readers are in the way, and how long after.
const BUSY_TRIES: u32 = 40;
const BUSY_PAUSE: Duration = Duration::from_millis(50);

/// How often a commit asks what became of it, how long each time, and how long after.
const ASK_TRIES: u32 = 4;
const ASK_WAIT: Duration = Duration::from_secs(5);
const ASK_PAUSE: Duration = Duration::from_millis(100);

/// How long the marker can be relied on: half of what it is kept for, so that only a clock that was set
/// back by half a day could ask about one that is gone.
const ASK_UNTIL: Duration = Duration::from_secs(12 * 60 * 60);

/// What a commit came to.
#[derive(Debug)]
#[must_use = "the transaction may have been rolled back"]
pub enum Commit<DB: Engine> {
    /// It is committed.
    Committed,
    /// It is not committed, and never will be; and why.
    RolledBack(Error),
    /// The database could not be reached to ask it.
    Unknown(InDoubt<DB>),
}

/// A transaction of which is not known yet whether it committed.
pub struct InDoubt<DB: Engine> {
    store: SqlDecisionStore<DB>,
    marker: QueueId,
    since: Timestamp,
}

/// A commit that is under way in a task of its own.
pub(crate) struct Ending<DB: Engine> {
    task: JoinHandle<Result<Commit<DB>>>,
    in_doubt: InDoubt<DB>,
}

impl<DB: Engine> InDoubt<DB> {
    /// Asks the database what became of the transaction, waiting some seconds at most for one that is
    /// still open. [`Decision::Aborted`] is final. It may be asked again, also after a final answer, for
    /// 12 hours.
    ///
    /// # Errors
    ///
    /// The database could not be asked; ask again. After 12 hours: [`ErrorKind::NotFound`], since its
    /// marker may be gone.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: ask again.
    pub async fn ask(&self) -> Result<Decision> {
        let now = self.store.inner.clock.now();
        if now.saturating_since(self.since) > ASK_UNTIL || now < self.since {
            let message = "its marker is kept for a day only, and may be gone; look for its rows";
            return Err(Error::new(ErrorKind::NotFound, "ask about the transaction", message));
        }
        self.store.fence(self.marker, ASK_WAIT).await
    }

    /// Asks until there is an answer, some times.
    async fn settle(&self, why: Error) -> Commit<DB> {
        let mut pause = ASK_PAUSE;
        for _ in 0..ASK_TRIES {
            // Some tries take a minute or so, whatever the clock says: the marker is there.
            match self.store.fence(self.marker, ASK_WAIT).await {
                Ok(Decision::Committed) => return Commit::Committed,
                Ok(Decision::Aborted) => return Commit::RolledBack(why),
                Ok(Decision::Unfinished) | Err(_) => {}
            }
            self.store.inner.clock.sleep(pause).await;
            pause = pause.saturating_mul(4);
        }
        Commit::Unknown(self.clone())
    }
}

impl<DB: Engine> Ending<DB> {
    pub(crate) fn start(lease: Lease<DB>, store: &SqlDecisionStore<DB>) -> Self {
        let now = store.inner.clock.now();
        let in_doubt = InDoubt { store: store.clone(), marker: QueueId::mint(now), since: now };
        let task = tokio::spawn(end(lease, in_doubt.clone()));
        Self { task, in_doubt }
    }

    /// Waits for the end. Once it has answered, it must not be asked again.
    pub(crate) async fn wait(&mut self) -> Result<Commit<DB>> {
        match (&mut self.task).await {
            Ok(ended) => ended,
            // The task panicked, or the runtime is going down.
            Err(_) => Ok(Commit::Unknown(self.in_doubt.clone())),
        }
    }

    pub(crate) fn no_transaction() -> Error {
        let message = "there is no transaction any more: a statement has ended it, such as a COMMIT or \
                       ROLLBACK, the definition of a table, or a deadlock; what became of its parts is \
                       not known here";
        Error::new(ErrorKind::InvalidState, COMMIT, message)
    }
}

/// Everything from the marker on.
///
/// Invariant: no COMMIT is sent before the marker was confirmed, so that without a marker nothing is
/// committed; after it was sent only an `Ok` or the marker itself say that it is.
async fn end<DB: Engine>(mut lease: Lease<DB>, in_doubt: InDoubt<DB>) -> Result<Commit<DB>> {
    let clock = &*in_doubt.store.inner.clock;
    let marked = bounded(clock, CALL, COMMIT, mark(&mut lease, &in_doubt)).await;
    match marked {
        Ok(true) => {}
        Ok(false) => return Err(Ending::<DB>::no_transaction()),
        Err(error) => {
            roll_back(lease, &in_doubt).await;
            return Ok(Commit::RolledBack(error));
        }
    }
    // Only now: a nested one that was dropped is rolled back by the driver when it is spoken to next.
    if DB::TransactionManager::get_transaction_depth(&lease) > 1 {
        let message = "a nested transaction was neither committed nor rolled back";
        return Ok(Commit::RolledBack(Error::new(ErrorKind::InvalidState, COMMIT, message)));
    }
    match bounded(clock, COMMIT_WITHIN, COMMIT, commit(&mut lease, &in_doubt)).await {
        Ok(()) => {
            lease.in_order(true);
            Ok(Commit::Committed)
        }
        Err(error) => {
            if error.kind() == ErrorKind::Timeout {
                // It may still succeed, after which SQLite's driver confirms the ROLLBACK of nothing, and
                // ignores that of whoever has the connection next: it is closed.
                drop(lease);
                return Ok(in_doubt.settle(error).await);
            }
            // It gives its connection back first: the fence may need it.
            let rolled_back = roll_back(lease, &in_doubt).await;
            // SQLite rolls back only what is open; a server says yes to a ROLLBACK of nothing.
            if rolled_back && DB::DIALECT == Dialect::Sqlite {
                return Ok(Commit::RolledBack(error));
            }
            Ok(in_doubt.settle(error).await)
        }
    }
}

/// Leaves the marker. `false`: there is no transaction, and nothing was left.
async fn mark<DB: Engine>(lease: &mut Lease<DB>, in_doubt: &InDoubt<DB>) -> Result<bool> {
    let insert = in_doubt.store.inner.text.transaction_marker(in_doubt.marker);
    let text = if DB::DIALECT == Dialect::Sqlite {
        match is_in_transaction(lease).await? {
            true => insert,
            false => return Ok(false),
        }
    } else {
        format!("{SAVEPOINT}{insert}")
    };
    let Err(error) = DB::tell(lease, text).await else { return Ok(true) };
    let error = from_sqlx(COMMIT, error);
    match Refusal::of(DB::DIALECT, &error) {
        Some(Refusal::NoTransaction) => Ok(false),
        Some(refusal) => Err(refusal.into_error(COMMIT, error)),
        None => Err(error),
    }
}

/// Asks SQLite, whose answer to the question is always an error.
async fn is_in_transaction<DB: Engine>(lease: &mut Lease<DB>) -> Result<bool> {
    let silent = || Error::new(ErrorKind::Protocol, COMMIT, "the question was not answered");
    let asked = DB::tell(lease, SQLITE_QUESTION.to_owned()).await;
    let said = asked.err().map_or_else(silent, |error| from_sqlx(COMMIT, error));
    sqlite_in_transaction(&said).ok_or(said)
}

/// Sends the COMMIT; again where it was refused because of readers, after which the transaction is open.
async fn commit<DB: Engine>(lease: &mut Lease<DB>, in_doubt: &InDoubt<DB>) -> Result<()> {
    for _ in 0..BUSY_TRIES {
        match DB::TransactionManager::commit(lease).await {
            Ok(()) => return Ok(()),
            Err(error) if DB::DIALECT == Dialect::Sqlite && is_busy(&error) => {}
            Err(error) => return Err(explained(DB::DIALECT, COMMIT, error)),
        }
        in_doubt.store.inner.clock.sleep(BUSY_PAUSE).await;
    }
    let message = "readers kept it from committing; repeat it";
    Err(Error::new(ErrorKind::Busy, COMMIT, message))
}

fn is_busy(error: &sqlx::Error) -> bool {
    const BUSY: u32 = 5;
    let code = crate::error::code(error).and_then(|code| code.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == BUSY)
}

/// Ends what may still be open, and gives the connection back if that was confirmed.
async fn roll_back<DB: Engine>(mut lease: Lease<DB>, in_doubt: &InDoubt<DB>) -> bool {
    let work = async {
        let done = DB::TransactionManager::rollback(&mut lease).await;
        done.map_err(|error| from_sqlx(COMMIT, error))
    };
    let done = bounded(&*in_doubt.store.inner.clock, CALL, COMMIT, work).await;
    // With a nested one forgotten, that was all that was rolled back: the connection is closed.
    let ended = done.is_ok() && DB::TransactionManager::get_transaction_depth(&lease) == 0;
    lease.in_order(ended);
    ended
}

impl<DB: Engine> Clone for InDoubt<DB> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), marker: self.marker, since: self.since }
    }
}

impl<DB: Engine> fmt::Debug for InDoubt<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { store, marker, since } = self;
        f.debug_struct("InDoubt")
            .field("resource", store.resource_id())
            .field("marker", marker)
            .field("since", since)
            .finish()
    }
}
