//! The next message behind the last dot: while a relay thinks about one message, MAIL, RCPT and DATA of
//! the next are on their way (RFC 2920 section 3.1 lets the end of a message be the first of a group).
//!
//! Whoever has written a final dot offers the place behind it. Who takes it writes its commands, and then
//! waits for the connection itself, which comes when the reply to the dot was read: so replies are read by
//! one at a time, in the order of the commands. If the connection is lost before that, nothing has become
//! of what was said behind the dot, since no body goes out without a reply to DATA: it is said again
//! elsewhere.
//!
//! Invariant: on one connection at most one final dot is without an answer.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

use crate::capabilities::Capabilities;
use crate::connection::{Connection, Deadline};
use crate::guard::Guard;
use crate::load::Counted;
use crate::pool::Permit;

/// For how long a reply is looked forward to. A relay that takes longer may take minutes.
const SOON: Duration = Duration::from_secs(1);

/// A connection in use, with the right to use it.
pub(crate) struct Lease {
    pub(crate) connection: Connection,
    permit: Permit,
    counted: Counted,
    /// Where the place behind a final dot is offered; nowhere if connections are not kept.
    offers: Option<Arc<Offers>>,
    offered: Offered,
}

impl Lease {
    pub(crate) fn new(
        connection: Connection,
        permit: Permit,
        counted: Counted,
        offers: Option<Arc<Offers>>,
    ) -> Self {
        Self { connection, permit, counted, offers, offered: Offered(None) }
    }

    /// Offers the place behind the final dot, which was just written and is the message's last.
    ///
    /// Only on a connection that has served before: one whose relay did not get confused.
    pub(crate) fn offer(&mut self) {
        let (connection, Some(offers)) = (&self.connection, &self.offers) else { return };
        if connection.capabilities.pipelining && connection.reused {
            let guard = connection.guard().clone();
            let capabilities = connection.capabilities.clone();
            let (since, heir) = (Instant::now(), Mutex::new(Heir::Nobody));
            let offer = Arc::new(Offer { guard, capabilities, since, heir });
            offers.add(Arc::downgrade(&offer));
            self.offered = Offered(Some(offer));
        }
    }

    /// Passes the connection to who waits behind its message. If nobody does, it comes back.
    pub(crate) fn pass_on(self) -> Option<(Connection, Permit)> {
        let Self { connection, permit, counted, offers, offered } = self;
        let Some(heir) = offered.withdraw() else { return Some((connection, permit)) };
        if !connection.broken {
            // An heir who is gone has left commands behind: the connection ends with it.
            drop(heir.send(Self::new(connection, permit, counted, offers)));
        }
        None
    }

    /// Ends the connection, and keeps the right to have one.
    pub(crate) fn into_permit(self) -> Permit {
        self.permit
    }
}

/// The place behind a message whose reply is waited for. It lives as long as the one who offers it, or the
/// one who has taken it: it holds the socket open.
struct Offer {
    guard: Guard,
    capabilities: Capabilities,
    since: Instant,
    heir: Mutex<Heir>,
}

enum Heir {
    /// The place is free.
    Nobody,
    Waits(oneshot::Sender<Lease>),
    /// The message was answered, or the connection is lost.
    TooLate,
}

impl Offer {
    fn lock(&self) -> MutexGuard<'_, Heir> {
        self.heir.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(self: Arc<Self>) -> Option<Successor> {
        let mut heir = self.lock();
        if !matches!(*heir, Heir::Nobody) {
            return None;
        }
        let (sender, lease) = oneshot::channel();
        *heir = Heir::Waits(sender);
        drop(heir);
        Some(Successor { offer: self, lease })
    }
}

/// What was offered, withdrawn when it is dropped: who waits then learns that the connection is lost.
struct Offered(Option<Arc<Offer>>);

impl Offered {
    /// Withdraws the offer, and says who has taken it.
    fn withdraw(mut self) -> Option<oneshot::Sender<Lease>> {
        let offer = self.0.take()?;
        match std::mem::replace(&mut *offer.lock(), Heir::TooLate) {
            Heir::Waits(sender) => Some(sender),
            Heir::Nobody | Heir::TooLate => None,
        }
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        if let Some(offer) = &self.0 {
            *offer.lock() = Heir::TooLate;
        }
    }
}

/// The places that are offered, the oldest first.
#[derive(Default)]
pub(crate) struct Offers {
    open: Mutex<VecDeque<Weak<Offer>>>,
    news: Notify,
}

impl Offers {
    /// Waits for a place behind a message.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub(crate) async fn next(&self) -> Successor {
        loop {
            let mut news = std::pin::pin!(self.news.notified());
            news.as_mut().enable();
            if let Some(successor) = self.take() {
                return successor;
            }
            news.await;
        }
    }

    fn add(&self, offer: Weak<Offer>) {
        let mut open = self.lock();
        // Most are never taken, and answered soon.
        open.retain(|offer| offer.strong_count() > 0);
        open.push_back(offer);
        drop(open);
        self.news.notify_one();
    }

    /// The oldest of those whose reply can be looked forward to: it is the next to come. If there is none,
    /// the youngest.
    fn take(&self) -> Option<Successor> {
        let mut open = self.lock();
        loop {
            open.retain(|offer| offer.strong_count() > 0);
            let is_fresh = |offer: &Weak<Offer>| {
                offer.upgrade().is_some_and(|offer| offer.since.elapsed() < SOON)
            };
            let offer = match open.iter().position(is_fresh) {
                Some(index) => open.remove(index),
                None => open.pop_back(),
            };
            if let Some(successor) = offer?.upgrade().and_then(Offer::take) {
                return Some(successor);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Weak<Offer>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who has taken the place behind a message.
pub(crate) struct Successor {
    offer: Arc<Offer>,
    lease: oneshot::Receiver<Lease>,
}

impl Successor {
    pub(crate) fn capabilities(&self) -> &Capabilities {
        &self.offer.capabilities
    }

    /// Says `commands` behind the dot, and waits until the message before it is answered. Nothing comes back if the
    /// connection was lost meanwhile, or if it takes longer than the deadline.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the connection ends when the message before it is answered.
    pub(crate) async fn follow(self, commands: &str, deadline: Deadline) -> Option<Lease> {
        let Self { offer, mut lease } = self;
        let pushes = offer.guard.say(commands.as_bytes());
        let wait = poll_fn(|cx| {
            if pushes {
                offer.guard.poll_push(cx);
            }
            Pin::new(&mut lease).poll(cx)
        });
        let mut lease = timeout(deadline.within(Duration::MAX), wait).await.ok()?.ok()?;
        lease.connection.reuse(deadline);
        Some(lease)
    }
}
