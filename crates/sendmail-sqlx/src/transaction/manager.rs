//! [`SqlDataManager`]: a database in a transaction of several data managers.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{
    DataManager, Decision, DecisionStore, Error, ErrorKind, Order, PrepareContext, Result,
    SavepointMark, Vote,
};

use super::ending::{Commit, Ending, InDoubt};
use super::mail::MailTransaction;
use crate::decision::{CALL, SqlDecisionStore, bounded};
use crate::engine::Engine;
use crate::error::explained;

/// A database transaction as the data manager that decides: with it, a transaction manager commits mail
/// of a queue and rows of the database together.
///
/// When it is prepared it leaves a marker for each message whose fate the transaction is; its commit is
/// the decision. All messages must be of the queue that its [`SqlDecisionStore`] was made for.
pub struct SqlDataManager<DB: Engine> {
    name: String,
    store: SqlDecisionStore<DB>,
    state: State<DB>,
    savepoints: u64,
}

enum State<DB: Engine> {
    Open(MailTransaction<DB>),
    Ending(Ending<DB>),
    InDoubt(InDoubt<DB>),
    Committed,
    Aborted,
    /// Somebody has ended it, nobody knows how.
    Lost,
}

const PREPARE: &str = "prepare the database's transaction";
const SAVEPOINT: &str = "set a savepoint";
const ROLL_BACK: &str = "roll back to the savepoint";
const COMMIT: &str = "commit the database's transaction";

/// How many markers one statement inserts at most.
const CHUNK: usize = 500;

impl<DB: Engine> SqlDataManager<DB> {
    /// Lets `transaction` take part, under the name `sqlx`.
    #[must_use]
    pub fn new(transaction: MailTransaction<DB>) -> Self {
        let store = transaction.decision_store().clone();
        Self { name: "sqlx".to_owned(), store, state: State::Open(transaction), savepoints: 0 }
    }

    /// Under another name.
    #[must_use]
    pub fn named(self, name: impl Into<String>) -> Self {
        Self { name: name.into(), ..self }
    }

    /// The connection, in its transaction.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidState`]: the transaction has ended.
    pub fn connection(&mut self) -> Result<&mut DB::Connection> {
        self.open("use the connection").map(|transaction| &mut **transaction)
    }

    fn open(&mut self, operation: &'static str) -> Result<&mut MailTransaction<DB>> {
        match &mut self.state {
            State::Open(transaction) => Ok(transaction),
            _ => Err(Error::new(ErrorKind::InvalidState, operation, "the transaction has ended")),
        }
    }

    async fn run(&mut self, operation: &'static str, text: String) -> Result<()> {
        let clock = Arc::clone(&self.store.inner.clock);
        let connection = &mut **self.open(operation)?;
        let work = async {
            let done = DB::tell(connection, text).await;
            done.map(drop).map_err(|error| explained(DB::DIALECT, operation, error))
        };
        bounded(&*clock, CALL, operation, work).await
    }

    /// Makes of a commit's end what a repeated call answers by.
    fn ended(&mut self, ended: Result<Commit<DB>>) -> Result<()> {
        match ended {
            Ok(Commit::Committed) => {
                self.state = State::Committed;
                Ok(())
            }
            Ok(Commit::RolledBack(error)) => {
                self.state = State::Aborted;
                Err(aborted().with_source(error))
            }
            Ok(Commit::Unknown(in_doubt)) => {
                self.state = State::InDoubt(in_doubt);
                Err(uncertain())
            }
            Err(error) => {
                self.state = State::Lost;
                Err(uncertain().with_source(error))
            }
        }
    }
}

#[async_trait]
impl<DB: Engine> DataManager for SqlDataManager<DB> {
    fn name(&self) -> &str {
        &self.name
    }

    fn order(&self) -> Order {
        Order::LastResource
    }

    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>> {
        Some(Arc::new(self.store.clone()))
    }

    fn needs_decision(&self) -> bool {
        false
    }

    async fn savepoint(&mut self) -> Result<SavepointMark> {
        // Never used again, so that an older one is not hidden by a newer.
        self.savepoints += 1;
        let mark = self.savepoints;
        self.run(SAVEPOINT, format!("SAVEPOINT sendmail_rs_{mark}")).await?;
        Ok(SavepointMark(mark))
    }

    async fn rollback_to(&mut self, mark: SavepointMark) -> Result<()> {
        self.run(ROLL_BACK, format!("ROLLBACK TO SAVEPOINT sendmail_rs_{}", mark.0)).await
    }

    async fn prepare(&mut self, context: &mut PrepareContext) -> Result<Vote> {
        if let Some(resource) = context.resource().filter(|id| *id != self.store.resource_id()) {
            let message = "another one decides this transaction, and a database cannot follow";
            let error = Error::new(ErrorKind::InvalidState, PREPARE, message);
            return Err(error.with("resource", resource));
        }
        for marks in context.marks().chunks(CHUNK) {
            let markers = self.store.inner.text.markers(marks, 1);
            self.run(PREPARE, markers).await?;
        }
        self.open(PREPARE)?;
        Ok(Vote::Yes)
    }

    async fn commit(&mut self) -> Result<()> {
        // Invariant: where a dropped future leaves it, a repeated call goes on.
        if let State::Open(_) = self.state
            && let State::Open(transaction) = std::mem::replace(&mut self.state, State::Lost)
            && let Some(ending) = transaction.start_commit()
        {
            self.state = State::Ending(ending);
        }
        match &mut self.state {
            State::Ending(ending) => {
                let ended = ending.wait().await;
                self.ended(ended)
            }
            State::InDoubt(in_doubt) => match in_doubt.ask().await {
                Ok(Decision::Committed) => self.ended(Ok(Commit::Committed)),
                Ok(Decision::Aborted) => {
                    self.state = State::Aborted;
                    Err(aborted())
                }
                Ok(Decision::Unfinished) => Err(uncertain()),
                Err(error) => Err(uncertain().with_source(error)),
            },
            State::Committed => Ok(()),
            State::Aborted => Err(aborted()),
            State::Open(_) | State::Lost => Err(uncertain()),
        }
    }

    async fn abort(&mut self) {
        if let State::Open(_) = self.state
            && let State::Open(transaction) = std::mem::replace(&mut self.state, State::Aborted)
        {
            // What it does not confirm, the database does when the connection is closed.
            let _ = transaction.rollback().await;
        }
    }
}

impl<DB: Engine> fmt::Debug for SqlDataManager<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlDataManager")
            .field("name", &self.name)
            .field("store", &self.store)
            .finish_non_exhaustive()
    }
}

fn aborted() -> Error {
    Error::new(ErrorKind::Aborted, COMMIT, "the database rolled it back")
}

fn uncertain() -> Error {
    let message = "whether the database committed is not known; it is asked again";
    Error::new(ErrorKind::Uncertain, COMMIT, message)
}
