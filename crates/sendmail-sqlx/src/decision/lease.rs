//! A pooled connection that goes back to its pool only in order, and calls that end in time.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use sendmail_core::{Clock, Error, ErrorKind, Result};
use sqlx::pool::PoolConnection;
use sqlx::{Database, Pool};

/// A connection that is closed, and not given back, unless it was said to be in order: whoever is
/// dropped half-way leaves nobody a connection with a transaction that is still open.
pub(crate) struct Lease<DB: Database> {
    // Invariant: there until it is dropped.
    connection: Option<PoolConnection<DB>>,
    in_order: bool,
}

impl<DB: Database> Lease<DB> {
    pub(crate) async fn take(pool: &Pool<DB>) -> sqlx::Result<Self> {
        Ok(Self { connection: Some(pool.acquire().await?), in_order: true })
    }

    /// Says whether nothing is open on it.
    pub(crate) fn in_order(&mut self, in_order: bool) {
        self.in_order = in_order;
    }

    pub(crate) fn is_in_order(&self) -> bool {
        self.in_order
    }
}

impl<DB: Database> Deref for Lease<DB> {
    type Target = DB::Connection;

    #[expect(clippy::expect_used, reason = "it is there until it is dropped")]
    fn deref(&self) -> &DB::Connection {
        self.connection.as_deref().expect("a connection until the drop")
    }
}

impl<DB: Database> DerefMut for Lease<DB> {
    #[expect(clippy::expect_used, reason = "it is there until it is dropped")]
    fn deref_mut(&mut self) -> &mut DB::Connection {
        self.connection.as_deref_mut().expect("a connection until the drop")
    }
}

impl<DB: Database> Drop for Lease<DB> {
    fn drop(&mut self) {
        if let Some(connection) = self.connection.take()
            && !self.in_order
        {
            // At once and without a word: the server may not listen. It rolls back what is open.
            drop(connection.detach());
        }
    }
}

/// `work`, or an error when it takes longer than `within`: then it is dropped, and its connection closed.
pub(crate) async fn bounded<T>(
    clock: &dyn Clock,
    within: Duration,
    operation: &'static str,
    work: impl Future<Output = Result<T>> + Send,
) -> Result<T> {
    tokio::select! {
        biased;
        done = work => done,
        () = clock.sleep(within) => {
            let message = format!("the database did not answer within {} s", within.as_secs());
            Err(Error::new(ErrorKind::Timeout, operation, message))
        }
    }
}
