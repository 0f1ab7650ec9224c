//! When to try again what failed: 1 s, doubling to 5 min, ±20 %, whatever the clock does.

use std::time::Duration;

use sendmail_core::{EventId, Timestamp};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(300);
/// Keeps processes that failed together from trying again together.
const SPREAD: f64 = 0.2;

/// What fails now, and how often it did in a row: an event, or reaching log and database at all.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failing: Option<Failing>,
}

#[derive(Debug)]
struct Failing {
    event: Option<EventId>,
    failures: u32,
    since: Timestamp,
    pause: Duration,
}

impl Backoff {
    /// Notes a failure, and says how many there were in a row and how long to wait. `luck` is between
    /// 0 and 1.
    pub(super) fn failed(
        &mut self,
        event: Option<EventId>,
        now: Timestamp,
        luck: f64,
    ) -> (u32, Duration) {
        let before = self.failing.as_ref().filter(|failing| failing.event == event);
        let failures = before.map_or(0, |failing| failing.failures).saturating_add(1);
        let pause = pause_after(failures, luck);
        self.failing = Some(Failing { event, failures, since: now, pause });
        (failures, pause)
    }

    /// How long `event` still has to wait; nothing if it may be tried.
    pub(super) fn wait(&mut self, event: EventId, now: Timestamp) -> Option<Duration> {
        let failing = self.failing.as_mut().filter(|failing| failing.event == Some(event))?;
        // A clock that was set back makes nobody wait longer than one more pause.
        failing.since = failing.since.min(now);
        let left = failing.pause.saturating_sub(now.saturating_since(failing.since));
        (!left.is_zero()).then_some(left)
    }

    /// Forgets what failed.
    pub(super) fn clear(&mut self) {
        self.failing = None;
    }
}

fn pause_after(failures: u32, luck: f64) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    let pause = FIRST.saturating_mul(1 << doublings).min(LONGEST);
    let spread = pause.mul_f64(1.0 - SPREAD + 2.0 * SPREAD * luck.clamp(0.0, 1.0));
    // In the clock's unit, so that who waits so long has waited long enough.
    Duration::from_millis(u64::try_from(spread.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_millis(1_000_000);

    fn event() -> EventId {
        EventId::mint(NOW)
    }

    #[test]
    fn pauses_double_up_to_five_minutes_and_are_spread() {
        let seconds: Vec<f64> = (1..=11).map(|n| pause_after(n, 0.5).as_secs_f64()).collect();
        let wanted = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 300.0, 300.0];
        assert_eq!(seconds, wanted);
        assert_eq!(pause_after(u32::MAX, 1.0), Duration::from_secs(360));
        assert_eq!(pause_after(1, 0.0), Duration::from_millis(800));
    }

    #[test]
    fn failures_are_counted_for_one_event_in_a_row() {
        let (a, b) = (event(), event());
        let mut backoff = Backoff::default();
        assert_eq!(backoff.failed(Some(a), NOW, 0.5), (1, Duration::from_secs(1)));
        assert_eq!(backoff.failed(Some(a), NOW, 0.5), (2, Duration::from_secs(2)));
        assert_eq!(backoff.wait(b, NOW), None);
        assert_eq!(backoff.failed(Some(b), NOW, 0.5).0, 1);
        backoff.clear();
        assert_eq!(backoff.wait(b, NOW), None);
    }

    #[test]
    fn it_waits_out_its_pause_and_a_clock_set_back_costs_one_more() {
        let a = event();
        let mut backoff = Backoff::default();
        backoff.failed(Some(a), NOW, 0.5);
        let after = |millis: i64| Timestamp::from_millis(NOW.as_millis() + millis);
        assert_eq!(backoff.wait(a, after(400)), Some(Duration::from_millis(600)));
        assert_eq!(backoff.wait(a, after(1000)), None);
        assert_eq!(backoff.wait(a, after(-500_000)), Some(Duration::from_secs(1)));
        assert_eq!(backoff.wait(a, after(-499_000)), None);
    }
}
