//! Connections that are kept between messages, and how many there may be.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sendmail_core::{Error, ErrorKind, Result};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::connection::{Connection, Deadline};

struct Idle {
    connection: Connection,
    since: Instant,
}

/// The connections of one mailer. No more than `max_connections` are in use at once, and no more are kept.
pub(crate) struct Pool {
    idle: Mutex<Vec<Idle>>,
    permits: Semaphore,
    max_connections: usize,
    max_idle: Duration,
}

impl Pool {
    pub(crate) fn new(max_connections: usize, max_idle: Duration) -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            permits: Semaphore::new(max_connections),
            max_connections,
            max_idle,
        }
    }

    /// Waits for its turn to use a connection.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; whoever is dropped while waiting loses its place.
    pub(crate) async fn turn(&self, deadline: Deadline) -> Result<SemaphorePermit<'_>> {
        let limit = deadline.within(Duration::MAX);
        let late = |kind, text| Error::new(kind, "wait for a connection to the relay", text);
        match tokio::time::timeout(limit, self.permits.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(late(ErrorKind::InvalidState, "the mailer is gone")),
            Err(_) => Err(late(ErrorKind::Timeout, "all connections are in use")),
        }
    }

    /// A kept connection that is still in order; the one that was used last, which is the likeliest.
    pub(crate) async fn take(&self, deadline: Deadline) -> Option<Connection> {
        loop {
            let Idle { mut connection, since } = self.lock().pop()?;
            if since.elapsed() < self.max_idle && connection.is_in_order().await {
                connection.reuse(deadline);
                return Some(connection);
            }
        }
    }

    /// Keeps a connection, if it is in order.
    pub(crate) async fn keep(&self, connection: Connection) {
        if !self.max_idle.is_zero() && connection.is_in_order().await {
            let mut idle = self.lock();
            // What is too old would otherwise wait below the newer ones for ever.
            idle.retain(|idle| idle.since.elapsed() < self.max_idle);
            if idle.len() < self.max_connections {
                idle.push(Idle { connection, since: Instant::now() });
            }
        }
    }

    /// Forgets all kept connections: the relay has given one up, and the others are no better.
    pub(crate) fn forget(&self) {
        let stale = std::mem::take(&mut *self.lock());
        drop(stale);
    }

    /// Says QUIT on all kept connections at once.
    pub(crate) async fn close(&self) {
        let idle = std::mem::take(&mut *self.lock());
        let mut leaving: JoinSet<()> =
            idle.into_iter().map(|idle| idle.connection.quit()).collect();
        while leaving.join_next().await.is_some() {}
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
