//! Time: the one trait through which it is read, and its unit.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

/// A point in time: milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
///
/// It is the wall clock's idea of now and may step in either direction. Nothing in this project
/// decides *whether* to send by comparing timestamps, only *when*.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Timestamp(i64);

impl Timestamp {
    /// The start of the epoch.
    pub const EPOCH: Self = Self(0);

    /// From milliseconds since the epoch.
    #[must_use]
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the epoch.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    #[must_use]
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// This time plus `duration`, clamped to what can be represented.
    #[must_use]
    pub fn saturating_add(self, duration: Duration) -> Self {
        let millis = i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
        Self(self.0.saturating_add(millis))
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    #[must_use]
    pub fn saturating_since(self, earlier: Self) -> Duration {
        let millis = self.0.saturating_sub(earlier.0);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }
}

/// RFC 3339 in UTC with milliseconds: `2026-11-24T07:08:55.123Z`.
impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let civil = Civil::from(*self);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            civil.year,
            civil.month,
            civil.day,
            civil.hour,
            civil.minute,
            civil.second,
            civil.millisecond
        )
    }
}

/// A timestamp taken apart into the fields of the proleptic Gregorian calendar, in UTC.
pub(crate) struct Civil {
    pub(crate) year: i64,
    pub(crate) month: u8,
    pub(crate) day: u8,
    pub(crate) hour: u8,
    pub(crate) minute: u8,
    pub(crate) second: u8,
    pub(crate) millisecond: u16,
    /// 0 is Sunday.
    pub(crate) weekday: u8,
}

impl From<Timestamp> for Civil {
    /// The usual conversion from a count of days: years are counted from March, so that the leap day
    /// is a year's last day, in eras of 400 years, each of which has the same 146,097 days.
    fn from(timestamp: Timestamp) -> Self {
        let days = timestamp.0.div_euclid(86_400_000);
        let in_day = timestamp.0.rem_euclid(86_400_000);
        let from_march_of_year_0 = days + 719_468;
        let era = from_march_of_year_0.div_euclid(146_097);
        let day_of_era = from_march_of_year_0.rem_euclid(146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let month_from_march = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
        let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        // All of these are within the ranges that their names promise.
        let small = |value: i64| u8::try_from(value).unwrap_or(0);
        Self {
            year,
            month: small(month),
            day: small(day),
            hour: small(in_day / 3_600_000),
            minute: small(in_day / 60_000 % 60),
            second: small(in_day / 1000 % 60),
            millisecond: u16::try_from(in_day % 1000).unwrap_or(0),
            weekday: small((days + 4).rem_euclid(7)),
        }
    }
}

/// The only source of time.
///
/// Implementers owe a wall clock that may step; callers may not assume that it is monotonic.
#[async_trait]
pub trait Clock: Send + Sync {
    /// What time it is.
    fn now(&self) -> Timestamp;

    /// Returns after about `duration`, however the wall clock steps meanwhile.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropping the future forgets the wait and nothing else.
    async fn sleep(&self, duration: Duration);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_days_are_written_as_in_a_calendar() {
        for (millis, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_795_504_135_123, "2026-11-24T07:08:55.123Z"),
            (-1, "1969-12-31T23:59:59.999Z"),
            (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
        ] {
            assert_eq!(Timestamp::from_millis(millis).to_string(), text);
        }
    }

    #[test]
    fn the_epoch_was_a_thursday() {
        assert_eq!(Civil::from(Timestamp::EPOCH).weekday, 4);
    }

    proptest! {
        #[test]
        fn a_later_time_is_written_later(a in 0i64..253_402_300_799_999, b in 0i64..253_402_300_799_999) {
            let (a, b) = (Timestamp::from_millis(a), Timestamp::from_millis(b));
            prop_assert_eq!(a.cmp(&b), a.to_string().cmp(&b.to_string()));
        }

        #[test]
        fn arithmetic_never_overflows(a: i64, millis: u64) {
            let later = Timestamp::from_millis(a).saturating_add(Duration::from_millis(millis));
            prop_assert!(later >= Timestamp::from_millis(a));
        }
    }
}
