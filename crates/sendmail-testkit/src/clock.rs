//! A clock that stands still until a test moves it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{Clock, Timestamp};
use tokio::sync::watch;

/// A [`Clock`] that a test moves by hand. Clones show the same time.
///
/// [`advance`](Self::advance) lets time pass: the wall clock moves on and sleepers wake.
/// [`set`](Self::set) steps the wall clock, as an operator or NTP does: sleepers do not notice, as the
/// contract of [`Clock::sleep`] has it.
#[derive(Debug, Clone)]
pub struct ManualClock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    /// Counts changes of `state`; whoever waits for one looks again at each.
    changes: watch::Sender<u64>,
}

#[derive(Debug)]
struct State {
    now: Timestamp,
    /// How much time has passed, whatever the wall clock says.
    elapsed: Duration,
    /// When each sleeper wakes, in terms of `elapsed`.
    sleepers: BTreeMap<u64, Duration>,
    next_sleeper: u64,
}

impl ManualClock {
    /// A clock that shows `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        let state =
            State { now, elapsed: Duration::ZERO, sleepers: BTreeMap::new(), next_sleeper: 0 };
        let shared = Shared { state: Mutex::new(state), changes: watch::Sender::new(0) };
        Self { shared: Arc::new(shared) }
    }

    /// Lets `duration` pass.
    pub fn advance(&self, duration: Duration) {
        self.change(|state| {
            state.elapsed += duration;
            state.now = state.now.saturating_add(duration);
        });
    }

    /// Steps the wall clock to `now`, without any time passing.
    pub fn set(&self, now: Timestamp) {
        self.change(|state| state.now = now);
    }

    /// How many sleep and have not been woken.
    #[must_use]
    pub fn sleepers(&self) -> usize {
        self.state().asleep().count()
    }

    /// Returns when at least `count` sleep.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn until_asleep(&self, count: usize) {
        self.until(|state| state.asleep().count() >= count).await;
    }

    /// Waits until at least one sleeps, lets just so much time pass that the next one wakes, and
    /// returns how much it was.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: time passes only just before it returns.
    pub async fn advance_to_next(&self) -> Duration {
        self.until(|state| state.asleep().count() > 0).await;
        let mut passed = Duration::ZERO;
        self.change(|state| {
            if let Some(next) = state.asleep().min() {
                passed = next.saturating_sub(state.elapsed);
                state.elapsed += passed;
                state.now = state.now.saturating_add(passed);
            }
        });
        passed
    }

    async fn until(&self, reached: impl Fn(&State) -> bool) {
        let mut changes = self.shared.changes.subscribe();
        while !reached(&self.state()) {
            // The sender is in `self`, so that this fails never.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.shared.changes.send_modify(|count| *count += 1);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Starts on the first second of 2026.
impl Default for ManualClock {
    fn default() -> Self {
        Self::new(Timestamp::from_millis(1_767_225_600_000))
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        self.state().now
    }

    async fn sleep(&self, duration: Duration) {
        let sleeper = Sleeper::new(self, duration);
        self.until(|state| state.elapsed >= sleeper.until).await;
    }
}

impl State {
    fn asleep(&self) -> impl Iterator<Item = Duration> + '_ {
        self.sleepers.values().copied().filter(|until| *until > self.elapsed)
    }
}

/// Takes a sleeper out of the clock's list when it wakes or is dropped.
struct Sleeper<'a> {
    clock: &'a ManualClock,
    number: u64,
    until: Duration,
}

impl<'a> Sleeper<'a> {
    fn new(clock: &'a ManualClock, duration: Duration) -> Self {
        let mut sleeper = Self { clock, number: 0, until: Duration::ZERO };
        clock.change(|state| {
            sleeper.number = state.next_sleeper;
            sleeper.until = state.elapsed.saturating_add(duration);
            state.next_sleeper += 1;
            state.sleepers.insert(sleeper.number, sleeper.until);
        });
        sleeper
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        self.clock.change(|state| {
            state.sleepers.remove(&self.number);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sleepers_wake_when_their_time_has_passed_and_not_when_the_clock_steps() {
        let clock = ManualClock::default();
        let asleep = clock.clone();
        let task = tokio::spawn(async move { asleep.sleep(Duration::from_secs(5)).await });
        clock.until_asleep(1).await;
        clock.set(Timestamp::from_millis(i64::MAX));
        clock.advance(Duration::from_millis(4999));
        assert_eq!(clock.sleepers(), 1);
        assert_eq!(clock.advance_to_next().await, Duration::from_millis(1));
        task.await.unwrap();
        assert_eq!(clock.sleepers(), 0);
    }

    #[tokio::test]
    async fn a_dropped_sleep_is_forgotten() {
        let clock = ManualClock::default();
        let asleep = clock.clone();
        let task = tokio::spawn(async move { asleep.sleep(Duration::from_secs(5)).await });
        clock.until_asleep(1).await;
        task.abort();
        assert!(task.await.unwrap_err().is_cancelled());
        assert_eq!(clock.sleepers(), 0);
    }
}
