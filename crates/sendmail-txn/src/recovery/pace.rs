//! When to look again: soon while something fresh is in doubt, and ever more rarely while nothing new
//! comes.

use std::collections::HashSet;
use std::time::Duration;

use sendmail_core::{QueueId, Timestamp, Undecided};

/// The shortest pause: what a commit takes.
pub(super) const SHORTEST: Duration = Duration::from_millis(5);
/// The longest pause: a transaction may stay open for hours.
const LONGEST: Duration = Duration::from_secs(1);
/// How often it is looked for what somebody who died left behind.
const LEFT_BEHIND: Duration = Duration::from_secs(10 * 60);

/// One resource's pace.
#[derive(Debug, Default)]
pub(super) struct Pace {
    doubted: HashSet<QueueId>,
    pause: Duration,
    looked: Option<Timestamp>,
}

impl Pace {
    /// Takes in what is in doubt, and returns when to look again: after a pause about as long as the
    /// youngest has been in doubt, and twice as long as the last one if there is none younger, so that a
    /// clock which stands wrong makes nobody busy. Nothing, if nothing is in doubt.
    pub(super) fn next<'a>(
        &mut self,
        in_doubt: impl Iterator<Item = &'a Undecided>,
        now: Timestamp,
    ) -> Option<Duration> {
        let before = std::mem::take(&mut self.doubted);
        let (mut age, mut news) = (Duration::MAX, false);
        for message in in_doubt {
            age = age.min(now.saturating_since(message.since));
            news |= !before.contains(&message.id);
            self.doubted.insert(message.id);
        }
        if self.doubted.is_empty() {
            self.pause = Duration::ZERO;
            return None;
        }
        let doubled = if news { Duration::ZERO } else { self.pause.saturating_mul(2) };
        self.pause = age.max(doubled).clamp(SHORTEST, LONGEST);
        Some(self.pause)
    }

    /// Whether it is time to look for what was left behind; if so, the next time is counted from now. A
    /// clock that went back makes it time once.
    pub(super) fn looks_for_left_behind(&mut self, now: Timestamp) -> bool {
        let due =
            self.looked.is_none_or(|last| now < last || now.saturating_since(last) >= LEFT_BEHIND);
        if due {
            self.looked = Some(now);
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn undecided(id: u8, since: i64) -> Undecided {
        Undecided {
            id: QueueId::from_bytes([id; 16]),
            resource: "db".parse().unwrap(),
            staged: true,
            since: Timestamp::from_millis(since),
            owner_alive: true,
        }
    }

    fn check(pace: &mut Pace, now: i64, list: &[Undecided], millis: Option<u64>) {
        let next = pace.next(list.iter(), Timestamp::from_millis(now));
        assert_eq!(next, millis.map(Duration::from_millis), "at {now}");
    }

    #[test]
    fn pauses_grow_with_the_age_of_the_youngest() {
        let mut pace = Pace::default();
        let old = undecided(1, 0);
        check(&mut pace, 0, &[], None);
        for (now, pause) in [(0, 5), (5, 10), (15, 20), (35, 40), (75, 80), (900, 900)] {
            check(&mut pace, now, std::slice::from_ref(&old), Some(pause));
        }
        check(&mut pace, 3_600_000, std::slice::from_ref(&old), Some(1000));
        let young = undecided(2, 3_600_000);
        check(&mut pace, 3_600_000, &[old.clone(), young], Some(5));
        check(&mut pace, 3_600_005, &[old], Some(1000));
    }

    #[test]
    fn a_clock_that_stands_wrong_makes_nobody_busy() {
        let mut pace = Pace::default();
        let list = [undecided(1, i64::MAX)];
        for pause in [5, 10, 20, 40, 80, 160, 320, 640, 1000, 1000] {
            check(&mut pace, 0, &list, Some(pause));
        }
    }

    #[test]
    fn what_was_left_behind_is_looked_for_now_and_then() {
        let mut pace = Pace::default();
        let mut at =
            |seconds: i64| pace.looks_for_left_behind(Timestamp::from_millis(seconds * 1000));
        let looks = [0, 1, 599, 600, 601, 10, 11, 609, 610].map(&mut at);
        assert_eq!(looks, [true, false, false, true, false, true, false, false, true]);
    }
}
