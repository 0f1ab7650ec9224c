//! What may be forgotten, until it is deleted: many rows at once, and not too often.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sendmail_core::{QueueId, Timestamp};

use super::speak::Flavour;

/// How many ids wait at most: 800 kB. What is too much is found again by `remembered`.
const MOST: usize = 50_000;

/// The ids that wait to be deleted, when they were last, and how far the sweep has come.
pub(crate) struct Forgotten {
    flavour: Flavour,
    state: Mutex<State>,
}

struct State {
    waiting: HashSet<QueueId>,
    /// When rows were deleted last, or else when this began.
    last: Timestamp,
    /// Whether nothing was deleted since this began.
    fresh: bool,
    cursor: Option<QueueId>,
}

/// Some that are being deleted. They wait again if that was not confirmed.
pub(crate) struct Taken<'a> {
    from: &'a Forgotten,
    ids: Vec<QueueId>,
}

impl Forgotten {
    pub(crate) fn new(flavour: Flavour, now: Timestamp) -> Self {
        let state = State { waiting: HashSet::new(), last: now, fresh: true, cursor: None };
        Self { flavour, state: Mutex::new(state) }
    }

    /// Adds `ids`, as far as there is room, and says how many it took.
    pub(crate) fn add(&self, ids: &[QueueId]) -> usize {
        let mut state = self.lock();
        let taken = ids.len().min(MOST.saturating_sub(state.waiting.len()));
        state.waiting.extend(ids.iter().take(taken));
        taken
    }

    /// Whether what waits should be deleted now.
    pub(crate) fn is_due(&self, now: Timestamp) -> bool {
        let state = self.lock();
        // A process may end within a minute, and then the next one has to do it. What is older than that
        // was left by such a one: it is deleted at once, and only once in the life of a process.
        let left = || {
            let age = between(self.flavour);
            let is_old = |at| now.saturating_since(at) >= age;
            state.waiting.iter().any(|id| id.minted_at().is_some_and(is_old))
        };
        is_due(self.flavour, state.waiting.len(), elapsed(state.last, now)) || state.fresh && left()
    }

    /// Whether rows may be deleted now for a reason of another kind.
    pub(crate) fn may_write(&self, now: Timestamp) -> bool {
        let state = self.lock();
        self.flavour != Flavour::Sqlite
            || state.fresh
            || elapsed(state.last, now) >= between(self.flavour)
    }

    /// Says that rows are deleted now.
    pub(crate) fn wrote(&self, now: Timestamp) {
        let mut state = self.lock();
        state.last = now;
        state.fresh = false;
    }

    /// Takes at most `most` that wait.
    pub(crate) fn take(&self, most: usize) -> Taken<'_> {
        let mut state = self.lock();
        let ids: Vec<QueueId> = state.waiting.iter().take(most).copied().collect();
        for id in &ids {
            state.waiting.remove(id);
        }
        Taken { from: self, ids }
    }

    /// Those that wait.
    pub(crate) fn waiting(&self) -> HashSet<QueueId> {
        self.lock().waiting.clone()
    }

    pub(crate) fn cursor(&self) -> Option<QueueId> {
        self.lock().cursor
    }

    pub(crate) fn set_cursor(&self, cursor: Option<QueueId>) {
        self.lock().cursor = cursor;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken<'_> {
    pub(crate) fn ids(&self) -> &[QueueId] {
        &self.ids
    }

    /// Says that they are deleted.
    pub(crate) fn deleted(mut self) {
        self.ids.clear();
    }
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        self.from.lock().waiting.extend(self.ids.drain(..));
    }
}

/// A clock that was set back counts as if the time had passed: it may be far.
fn elapsed(last: Timestamp, now: Timestamp) -> Duration {
    if now < last { Duration::MAX } else { now.saturating_since(last) }
}

fn between(flavour: Flavour) -> Duration {
    match flavour {
        Flavour::Sqlite => Duration::from_secs(60),
        Flavour::Postgres | Flavour::MySql => Duration::from_secs(1),
    }
}

fn is_due(flavour: Flavour, waiting: usize, elapsed: Duration) -> bool {
    let many = flavour != Flavour::Sqlite && waiting >= 100;
    waiting > 0 && (many || elapsed >= between(flavour))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: u8) -> QueueId {
        QueueId::from_bytes([number; 16])
    }

    #[test]
    fn sqlite_waits_a_minute_however_many_there_are() {
        let (second, minute) = (Duration::from_secs(1), Duration::from_secs(60));
        for (flavour, waiting, elapsed, due) in [
            (Flavour::Sqlite, 40_000, minute - second, false),
            (Flavour::Sqlite, 1, minute, true),
            (Flavour::Sqlite, 0, minute, false),
            (Flavour::Postgres, 99, second / 2, false),
            (Flavour::Postgres, 100, Duration::ZERO, true),
            (Flavour::MySql, 1, second, true),
        ] {
            assert_eq!(is_due(flavour, waiting, elapsed), due, "{flavour:?} {waiting} {elapsed:?}");
        }
    }

    #[test]
    fn what_was_not_deleted_waits_again() {
        let forgotten = Forgotten::new(Flavour::Postgres, Timestamp::EPOCH);
        assert_eq!(forgotten.add(&[id(1), id(2)]), 2);
        drop(forgotten.take(10));
        assert_eq!(forgotten.waiting().len(), 2);
        forgotten.take(10).deleted();
        assert!(forgotten.waiting().is_empty());
    }

    #[test]
    fn it_holds_no_more_than_it_should() {
        let forgotten = Forgotten::new(Flavour::Sqlite, Timestamp::EPOCH);
        let ids: Vec<QueueId> =
            (0..MOST + 7).map(|n| QueueId::from_bytes((n as u128).to_be_bytes())).collect();
        assert_eq!(forgotten.add(&ids), MOST);
        assert_eq!(forgotten.add(&[id(255)]), 0);
    }

    #[test]
    fn a_clock_that_was_set_back_does_not_stop_it() {
        let start = Timestamp::from_millis(1_000_000);
        let forgotten = Forgotten::new(Flavour::Sqlite, start);
        forgotten.add(&[QueueId::mint(start)]);
        assert!(!forgotten.is_due(Timestamp::from_millis(1_000_001)));
        assert!(forgotten.is_due(Timestamp::from_millis(0)));
    }

    #[test]
    fn what_an_earlier_process_left_is_due_at_once_and_once() {
        let now = Timestamp::from_millis(1_000_000);
        let forgotten = Forgotten::new(Flavour::Sqlite, now);
        forgotten.add(&[QueueId::mint(now)]);
        assert!(!forgotten.is_due(now), "it is of this process");
        forgotten.add(&[QueueId::mint(Timestamp::from_millis(1_000_000 - 60_000))]);
        assert!(forgotten.is_due(now));
        forgotten.wrote(now);
        assert!(!forgotten.is_due(now));
    }
}
