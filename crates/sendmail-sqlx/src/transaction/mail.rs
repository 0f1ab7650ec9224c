//! [`MailTransaction`]: a database transaction whose `commit` tells what the database did.

use std::fmt;
use std::ops::{Deref, DerefMut};

use sendmail_core::Result;
use sqlx::{Pool, SqlSafeStr};
use sqlx_core::transaction::TransactionManager;

use super::ending::{Commit, Ending};
use crate::decision::{CALL, Lease, SqlDecisionStore, bounded};
use crate::engine::Engine;
use crate::error::explained;

const BEGIN: &str = "begin a transaction";

/// A transaction of sqlx whose [`commit`](Self::commit) tells what the database really did.
///
/// Drivers answer `Ok` to the COMMIT of a transaction that failed before, an error when the connection was
/// cut after a COMMIT that succeeded, and nothing to a future that was dropped. This one leaves a marker
/// of its own as its last statement, and asks the database for it whenever the answer is not clear.
///
/// It is used as sqlx's own: it dereferences to the connection, for `execute(&mut *tx)` as for
/// [`attach(&mut *tx, …)`](crate::AttachExt::attach). A nested transaction is `(*tx).begin()` of
/// [`sqlx::Connection`].
///
/// ```no_run
/// # #[cfg(feature = "sqlite")] mod example {
/// use sendmail_core::Decision;
/// use sendmail_sqlx::{Commit, MailTransaction, SqlDecisionStore};
///
/// # type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
/// # async fn f(pool: sqlx::SqlitePool, store: SqlDecisionStore<sqlx::Sqlite>) -> Result<()> {
/// let mut tx = MailTransaction::begin(&pool, &store).await?;
/// sqlx::query("UPDATE orders SET paid = 1").execute(&mut *tx).await?;
/// match tx.commit().await? {
///     Commit::Committed => {}
///     Commit::RolledBack(why) => return Err(why.into()),
///     Commit::Unknown(in_doubt) => match in_doubt.ask().await? {
///         Decision::Committed => {}
///         Decision::Aborted => return Err("it was rolled back".into()),
///         Decision::Unfinished => return Err("nobody knows yet; ask again".into()),
///     },
/// }
/// # Ok(())
/// # }
/// # }
/// ```
///
/// # Dropped, forgotten, killed
///
/// Dropped before `commit` was first polled, it is rolled back. Once polled, a task of its own ends the
/// transaction, whatever becomes of the future. Killed with the process or the runtime, its connection is
/// closed, and the database rolls back what it was not told to commit. Forgotten (`mem::forget`), it stays
/// open until the process ends, and its mail in doubt.
pub struct MailTransaction<DB: Engine> {
    // Invariant: there until it is committed, rolled back or dropped, and not in order as long.
    lease: Option<Lease<DB>>,
    store: SqlDecisionStore<DB>,
}

impl<DB: Engine> MailTransaction<DB> {
    /// Begins a transaction on a connection of `pool`, which leads to the database that `store` asks.
    /// Fences run on the store's own pool.
    ///
    /// # Errors
    ///
    /// The database cannot be reached, or the pool has no connection to give.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left open.
    pub async fn begin(pool: &Pool<DB>, store: &SqlDecisionStore<DB>) -> Result<Self> {
        Self::start(pool, store, None).await
    }

    /// As [`begin`](Self::begin), by a statement of its own, for a level of isolation, or on SQLite
    /// `BEGIN IMMEDIATE`, without which a transaction that reads before it writes may fail with 517. It
    /// must be able to write.
    ///
    /// # Errors
    ///
    /// As [`begin`](Self::begin).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left open.
    pub async fn begin_with(
        pool: &Pool<DB>,
        store: &SqlDecisionStore<DB>,
        statement: &'static str,
    ) -> Result<Self> {
        Self::start(pool, store, Some(statement)).await
    }

    /// Commits it, and tells whether that happened.
    ///
    /// In doubt it asks the database, and fences its own commit if need be, until it knows; it gives up
    /// after some tries, when the database cannot be reached.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidState`](sendmail_core::ErrorKind::InvalidState): there was no transaction any
    /// more, since a statement has ended it: a COMMIT or ROLLBACK of yours, a definition of a table on
    /// MariaDB or MySQL, or a deadlock there, after which every statement has committed by itself. What
    /// became of its parts is not known here.
    ///
    /// # Cancel safety
    ///
    /// Dropped before its first poll, the transaction is rolled back. Dropped later, a task of its own
    /// goes on to the end, and the outcome is told nobody: attached mail follows it all the same.
    pub async fn commit(mut self) -> Result<Commit<DB>> {
        match self.lease.take() {
            Some(lease) => Ending::start(lease, &self.store).wait().await,
            // It cannot be: only this and `rollback` take it, and both consume the transaction.
            None => Err(Ending::<DB>::no_transaction()),
        }
    }

    /// Rolls it back.
    ///
    /// # Errors
    ///
    /// The database did not confirm it. It is rolled back all the same, as soon as the database notices
    /// that the connection is closed.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is rolled back whatever happens.
    pub async fn rollback(mut self) -> Result<()> {
        let Some(mut lease) = self.lease.take() else { return Ok(()) };
        if DB::TransactionManager::get_transaction_depth(&lease) > 1 {
            // A nested one was forgotten. Closing the connection rolls all of it back.
            return Ok(());
        }
        let work = async {
            let done = DB::TransactionManager::rollback(&mut lease).await;
            done.map_err(|error| explained(DB::DIALECT, "roll back", error))
        };
        bounded(&*self.store.inner.clock, CALL, "roll back", work).await?;
        lease.in_order(DB::TransactionManager::get_transaction_depth(&lease) == 0);
        Ok(())
    }

    /// Who is asked what became of it.
    #[must_use]
    pub fn decision_store(&self) -> &SqlDecisionStore<DB> {
        &self.store
    }

    /// Begins to commit it, in a task that does not depend on whoever waits for it.
    pub(crate) fn start_commit(mut self) -> Option<Ending<DB>> {
        Some(Ending::start(self.lease.take()?, &self.store))
    }

    async fn start(
        pool: &Pool<DB>,
        store: &SqlDecisionStore<DB>,
        statement: Option<&'static str>,
    ) -> Result<Self> {
        let work = async {
            let mut lease = Lease::take(pool).await?;
            lease.in_order(false);
            let statement = statement.map(SqlSafeStr::into_sql_str);
            DB::TransactionManager::begin(&mut lease, statement).await?;
            Ok(lease)
        };
        let work = async { work.await.map_err(|error| explained(DB::DIALECT, BEGIN, error)) };
        // As long as the pool lets a caller wait for a connection, and a call.
        let within = pool.options().get_acquire_timeout().saturating_add(CALL);
        let lease = bounded(&*store.inner.clock, within, BEGIN, work).await?;
        Ok(Self { lease: Some(lease), store: store.clone() })
    }
}

impl<DB: Engine> SqlDecisionStore<DB> {
    /// Begins a transaction on a connection of the store's own pool: see [`MailTransaction::begin`].
    ///
    /// # Errors
    ///
    /// As [`MailTransaction::begin`].
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: nothing is left open.
    pub async fn begin(&self) -> Result<MailTransaction<DB>> {
        MailTransaction::begin(&self.inner.pool, self).await
    }
}

impl<DB: Engine> Deref for MailTransaction<DB> {
    type Target = DB::Connection;

    #[expect(clippy::expect_used, reason = "only what consumes the transaction takes it")]
    fn deref(&self) -> &DB::Connection {
        self.lease.as_deref().expect("a transaction that was not ended")
    }
}

impl<DB: Engine> DerefMut for MailTransaction<DB> {
    #[expect(clippy::expect_used, reason = "only what consumes the transaction takes it")]
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.lease.as_deref_mut().expect("a transaction that was not ended")
    }
}

impl<DB: Engine> Drop for MailTransaction<DB> {
    fn drop(&mut self) {
        let Some(mut lease) = self.lease.take() else { return };
        // With a nested one forgotten the driver would roll back that one only: the connection is closed.
        if DB::TransactionManager::get_transaction_depth(&lease) == 1 {
            DB::TransactionManager::start_rollback(&mut lease);
            lease.in_order(true);
        }
    }
}

impl<DB: Engine> fmt::Debug for MailTransaction<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MailTransaction").field("store", &self.store).finish_non_exhaustive()
    }
}
