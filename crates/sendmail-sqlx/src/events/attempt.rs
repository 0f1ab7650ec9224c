//! One event in one transaction: the cursor moves, the handler works, and both commit or neither does.

use std::pin::Pin;

use sendmail_core::{Error, ErrorKind, MailEvent, Result};
use sqlx::{Connection as _, Pool};

use super::cursor::{EventDatabase, Step};
use super::handler::SqlEventHandler;
use super::panics::caught;
use super::trouble::trouble;

/// A handler and what it is to handle.
pub(super) struct Work<'a, DB: sqlx::Database> {
    pub(super) handler: &'a dyn SqlEventHandler<DB>,
    pub(super) event: &'a MailEvent,
}

/// What became of it.
pub(super) enum Attempt {
    Committed,
    /// Somebody else had moved the cursor; nothing was done.
    Moved,
    /// Nothing was done: the handler failed, or something under it.
    Failed(Error),
    /// The COMMIT was not confirmed: the cursor tells.
    Unknown(Error),
}

/// Makes the step, and does the work with it if there is any.
///
/// # Errors
///
/// The database could not be used; nothing was done.
///
/// # Cancel safety
///
/// It was done or it was not; the cursor tells.
pub(super) fn attempt<'a, DB: EventDatabase>(
    pool: &'a Pool<DB>,
    step: Step<'a>,
    work: Option<Work<'a, DB>>,
) -> Pin<Box<dyn Future<Output = Result<Attempt>> + Send + 'a>> {
    // Boxed, since the compiler cannot see through so many lifetimes that the future is `Send`.
    Box::pin(attempted(pool, step, work))
}

async fn attempted<DB: EventDatabase>(
    pool: &Pool<DB>,
    step: Step<'_>,
    work: Option<Work<'_, DB>>,
) -> Result<Attempt> {
    let acquired = pool.acquire().await;
    let mut connection = acquired.map_err(|error| trouble(BEGIN, error))?;
    let (attempt, clean) = transact::<DB>(&mut connection, &step, work).await;
    if !clean {
        connection.close_on_drop();
    }
    attempt
}

const BEGIN: &str = "begin to handle an event";

/// Makes the attempt, and says whether its transaction has ended as it should. Otherwise the connection
/// would stay in it, by the driver's count, for whoever gets it next; closing it also ends what may be left
/// of the transaction.
async fn transact<DB: EventDatabase>(
    connection: &mut DB::Connection,
    step: &Step<'_>,
    work: Option<Work<'_, DB>>,
) -> (Result<Attempt>, bool) {
    let mut tx = match connection.begin_with(DB::BEGIN).await {
        Ok(tx) => tx,
        Err(error) => return (Err(trouble(BEGIN, error)), false),
    };
    let attempt = match within::<DB>(&mut tx, step, work).await {
        Within::Ready => {
            return match tx.commit().await {
                Ok(()) => (Ok(Attempt::Committed), true),
                Err(error) => {
                    let error = trouble("commit what an event's handler did", error);
                    (Ok(Attempt::Unknown(error)), false)
                }
            };
        }
        Within::Moved => Ok(Attempt::Moved),
        Within::Failed(error) => Ok(Attempt::Failed(error)),
        Within::Trouble(error) => Err(error),
    };
    (attempt, tx.rollback().await.is_ok())
}

/// What came of the work, before the transaction ends.
enum Within {
    Ready,
    Moved,
    Failed(Error),
    Trouble(Error),
}

async fn within<DB: EventDatabase>(
    tx: &mut DB::Connection,
    step: &Step<'_>,
    work: Option<Work<'_, DB>>,
) -> Within {
    match DB::advance(tx, step).await {
        Ok(true) => {}
        Ok(false) => return Within::Moved,
        // At REPEATABLE READ and above PostgreSQL says so when the row has changed since.
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("40001") => {
            return Within::Moved;
        }
        Err(error) => return Within::Trouble(trouble("move the event cursor", error)),
    }
    let Some(Work { handler, event }) = work else { return Within::Ready };
    if let Err(error) = caught("handle an event", handler.handle(tx, event)).await {
        return Within::Failed(error);
    }
    still_whole::<DB>(tx, step).await.map_or_else(Within::Failed, |()| Within::Ready)
}

/// Whether the transaction still holds all that was done in it. After an error PostgreSQL refuses to read;
/// where the transaction was ended, by MySQL after a deadlock or by a handler, the cursor is back where it
/// was.
async fn still_whole<DB: EventDatabase>(tx: &mut DB::Connection, step: &Step<'_>) -> Result<()> {
    let text = "the transaction failed or was ended underneath the handler; it must return the errors \
                that the database gives it, and leave COMMIT and ROLLBACK alone";
    let error = match DB::load(tx, step.key).await {
        Ok(Some(position)) if position == *step.to => return Ok(()),
        Ok(_) => Error::new(ErrorKind::InvalidState, "handle an event", text),
        Err(error) => {
            let text = format!("{text} ({error})");
            Error::new(ErrorKind::InvalidState, "handle an event", text).with_source(error)
        }
    };
    Err(error)
}
