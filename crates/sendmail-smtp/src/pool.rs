//! Connections that are kept between messages, how many there may be, and who comes next.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sendmail_core::{Error, ErrorKind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use crate::connection::{Connection, Deadline};
use crate::load::{Counted, Load, State};
use crate::overlap::{Lease, Offers, Successor};

const WAIT: &str = "wait for a connection to the relay";

/// How many messages go through each connection before one more is tried, after the relay wanted fewer.
const TRUST: usize = 64;

struct Idle {
    connection: Connection,
    since: Instant,
}

/// Where a message is to be sent from.
pub(crate) enum Place {
    /// A connection of its own: a kept one, or one that is to be opened.
    Own(Permit),
    /// The one behind the message that a connection waits for the reply to.
    Behind(Successor),
}

/// The right to use one connection.
pub(crate) type Permit = OwnedSemaphorePermit;

/// The connections of one mailer. No more than `limit` are in use at once, and no more than
/// `max_connections` are kept.
pub(crate) struct Pool {
    idle: Mutex<Vec<Idle>>,
    offers: Arc<Offers>,
    permits: Arc<Semaphore>,
    /// How many permits there are: lower than configured where the relay wants fewer connections.
    limit: AtomicUsize,
    load: Load,
    /// Messages that were served since the limit changed.
    served: AtomicUsize,
    max_connections: usize,
    max_idle: Duration,
}

impl Pool {
    pub(crate) fn new(max_connections: usize, max_idle: Duration) -> Self {
        Self {
            idle: Mutex::new(Vec::new()),
            offers: Arc::default(),
            permits: Arc::new(Semaphore::new(max_connections)),
            limit: AtomicUsize::new(max_connections),
            load: Load::default(),
            served: AtomicUsize::new(0),
            max_connections,
            max_idle,
        }
    }

    /// Waits for a place. A connection of its own comes first; where all are in use, whichever is free first:
    /// one of those, or the place behind a message that is answered soon.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; whoever is dropped while waiting loses its place.
    pub(crate) async fn place(&self, deadline: Deadline) -> Result<Place> {
        let place = async {
            tokio::select! {
                biased;
                permit = self.permits.clone().acquire_owned() => permit.ok().map(Place::Own),
                successor = self.offers.next() => Some(Place::Behind(successor)),
            }
        };
        within(deadline, place).await
    }

    /// Waits for a connection of its own.
    ///
    /// # Cancel safety
    ///
    /// As of [`Pool::place`].
    pub(crate) async fn turn(&self, deadline: Deadline) -> Result<Permit> {
        within(deadline, async { self.permits.clone().acquire_owned().await.ok() }).await
    }

    /// A connection in use.
    pub(crate) fn lease(&self, connection: Connection, permit: Permit) -> Lease {
        // Nobody comes next on a connection that is not kept.
        let offers = (!self.max_idle.is_zero()).then(|| self.offers.clone());
        Lease::new(connection, permit, self.load.count(State::InUse), offers)
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

    /// Passes a connection on: to who waits behind its message, or else to who comes next.
    pub(crate) async fn give_back(&self, lease: Lease) {
        let in_order = !lease.connection.broken;
        // Whoever gets the permit is to find the connection.
        if let Some((connection, _permit)) = lease.pass_on() {
            self.keep(connection).await;
        }
        if in_order {
            self.note_served();
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

    /// Counts a connection that is being opened.
    pub(crate) fn opening(&self) -> Counted {
        self.load.count(State::Opening)
    }

    /// Takes note that the relay took no further connection, and says whether it serves others. If it does,
    /// that is how many it wants, and the permit is gone; otherwise it is in trouble.
    ///
    /// One more is tried when those that are left have served well for a while.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the permit comes back.
    pub(crate) async fn lower_limit(&self, permit: Permit) -> bool {
        if !self.load.is_any_in_use().await {
            return false;
        }
        // Those that are free are no use either. Others that are being opened find out for themselves.
        let gone = self.permits.forget_permits(usize::MAX) + 1;
        permit.forget();
        self.limit.fetch_sub(gone, Ordering::SeqCst);
        self.served.store(0, Ordering::SeqCst);
        true
    }

    fn note_served(&self) {
        let limit = self.limit.load(Ordering::SeqCst);
        if limit < self.max_connections
            && self.served.fetch_add(1, Ordering::SeqCst) + 1 >= limit.saturating_mul(TRUST)
        {
            self.served.store(0, Ordering::SeqCst);
            let raised =
                self.limit.compare_exchange(limit, limit + 1, Ordering::SeqCst, Ordering::SeqCst);
            // Whoever lowers it meanwhile is right.
            if raised.is_ok() {
                self.permits.add_permits(1);
            }
        }
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

async fn within<T>(deadline: Deadline, wait: impl Future<Output = Option<T>>) -> Result<T> {
    match timeout(deadline.within(Duration::MAX), wait).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err(Error::new(ErrorKind::InvalidState, WAIT, "the mailer is gone")),
        Err(_) => Err(Error::new(ErrorKind::Timeout, WAIT, "all connections are in use")),
    }
}
