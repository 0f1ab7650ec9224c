//! What can be set, and what it is when nobody sets it.

use std::time::Duration;

use sendmail_core::{Error, ErrorKind, Result};

/// Growing waits: `first`, doubled with every further failure up to `max`, each up to `jitter`
/// per cent longer or shorter, so that what failed together is not tried together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The first wait.
    pub first: Duration,
    /// The longest wait.
    pub max: Duration,
    /// How much longer or shorter a wait may be, in per cent: 0 to 100.
    pub jitter_percent: u8,
}

impl Backoff {
    /// The wait after failure number `number`, counted from 1; `luck`, from -1 to 1, says how much of
    /// the jitter it gets.
    #[must_use]
    pub fn delay(&self, number: u32, luck: f64) -> Duration {
        let doublings = number.saturating_sub(1).min(63);
        let factor = 2f64.powi(i32::try_from(doublings).unwrap_or(63));
        let wait = (self.first.as_secs_f64() * factor).min(self.max.as_secs_f64());
        let luck = if luck.is_finite() { luck.clamp(-1.0, 1.0) } else { 0.0 };
        let jitter = f64::from(self.jitter_percent.min(100)) / 100.0;
        Duration::try_from_secs_f64(wait * (1.0 + luck * jitter)).unwrap_or(self.max)
    }

    fn check(&self, what: &'static str) -> Result<()> {
        if self.first.is_zero() || self.first > self.max || self.jitter_percent > 100 {
            let text = "the first wait is more than nothing and at most the longest, and the jitter \
                        at most 100 per cent";
            return Err(Error::new(ErrorKind::InvalidInput, "configure the processor", text)
                .with("setting", what));
        }
        Ok(())
    }
}

/// How a processor works. The defaults are for a relay that is near and a queue that is busy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProcessorConfig {
    /// The most messages that are claimed at once. Default: 64.
    ///
    /// It bounds the memory that is used, and the second copies that can come of one crash.
    pub max_in_flight: usize,
    /// The most attempts that run at once. Default: 32. The others that are claimed wait, so that no
    /// connection does. The mailer may open fewer connections than this: over SMTP half as many are
    /// kept busy, since on each the next message is begun before the last one is answered.
    pub concurrency: usize,
    /// How long a message waits between attempts. Default: 30 s, doubled up to 1 h, ±20 %.
    pub backoff: Backoff,
    /// How long a message is tried that does not say so itself. Default: 5 days. Judged only after an
    /// attempt at a usable relay: no outage lets anything expire.
    pub lifetime: Duration,
    /// How long a relay in trouble is left alone. Default: 1 s, doubled up to 5 min, ±20 %.
    pub relay_pause: Backoff,
    /// How long a store in trouble is left alone. Default: 1 s, doubled up to 1 min, ±20 %.
    pub store_pause: Backoff,
    /// After how many different messages in a row that the relay refused for all recipients it counts
    /// as the relay's trouble: it is paused, and what it refuses is kept for later. Default: 50.
    pub max_refusals_in_a_row: u32,
    /// How often the queue is looked at when nothing wakes the processor. Default: 1 s.
    pub poll_interval: Duration,
    /// How often the store is swept. Default: 30 s.
    pub sweep_interval: Duration,
    /// How often each [`Recovery`](crate::Recovery) runs that does not say when it wants to. Default: 1 s.
    pub recovery_interval: Duration,
    /// How long one event sink may take for one event before it is left behind. Default: 30 s.
    pub sink_timeout: Duration,
}

impl Default for ProcessorConfig {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        let backoff = |first, max| Backoff { first, max, jitter_percent: 20 };
        Self {
            max_in_flight: 64,
            concurrency: 32,
            backoff: backoff(seconds(30), seconds(3600)),
            lifetime: seconds(5 * 86_400),
            relay_pause: backoff(seconds(1), seconds(300)),
            store_pause: backoff(seconds(1), seconds(60)),
            max_refusals_in_a_row: 50,
            poll_interval: seconds(1),
            sweep_interval: seconds(30),
            recovery_interval: seconds(1),
            sink_timeout: seconds(30),
        }
    }
}

impl ProcessorConfig {
    /// Whether a processor can work like that.
    ///
    /// # Errors
    ///
    /// The first setting with which it cannot, by its name.
    pub fn check(&self) -> Result<()> {
        let positive = |what: &'static str, is: bool| {
            let text = "it must be more than nothing";
            let error = Error::new(ErrorKind::InvalidInput, "configure the processor", text);
            if is { Ok(()) } else { Err(error.with("setting", what)) }
        };
        positive("max_in_flight", self.max_in_flight > 0)?;
        positive("concurrency", self.concurrency > 0)?;
        positive("lifetime", !self.lifetime.is_zero())?;
        positive("max_refusals_in_a_row", self.max_refusals_in_a_row > 0)?;
        positive("poll_interval", !self.poll_interval.is_zero())?;
        positive("sweep_interval", !self.sweep_interval.is_zero())?;
        positive("recovery_interval", !self.recovery_interval.is_zero())?;
        positive("sink_timeout", !self.sink_timeout.is_zero())?;
        self.backoff.check("backoff")?;
        self.relay_pause.check("relay_pause")?;
        self.store_pause.check("store_pause")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn waits_double_up_to_the_longest() {
        let backoff = ProcessorConfig::default().backoff;
        let waits: Vec<u64> = (0..10).map(|n| backoff.delay(n, 0.0).as_secs()).collect();
        assert_eq!(waits, [30, 30, 60, 120, 240, 480, 960, 1920, 3600, 3600]);
        assert_eq!(backoff.delay(1, 1.0).as_secs(), 36);
        assert_eq!(backoff.delay(1, -1.0).as_secs(), 24);
    }

    #[test]
    fn the_default_can_be_worked_with_and_nonsense_is_named() {
        ProcessorConfig::default().check().unwrap();
        let nonsense = ProcessorConfig { concurrency: 0, ..ProcessorConfig::default() };
        assert!(nonsense.check().unwrap_err().to_string().contains("concurrency"));
        let mut nonsense = ProcessorConfig::default();
        nonsense.relay_pause.first = Duration::MAX;
        assert!(nonsense.check().unwrap_err().to_string().contains("relay_pause"));
    }

    proptest! {
        #[test]
        fn a_wait_is_never_nothing_and_never_over_the_longest_and_its_jitter(
            first in 1u64..100_000,
            more in 0u64..100_000_000,
            jitter_percent in 0u8..=99,
            number: u32,
            luck: f64,
        ) {
            let (first, max) = (Duration::from_millis(first), Duration::from_millis(first + more));
            let wait = Backoff { first, max, jitter_percent }.delay(number, luck);
            prop_assert!(wait > Duration::ZERO);
            prop_assert!(wait <= max * 2);
            prop_assert!(wait >= first / 200);
        }

        #[test]
        fn a_later_wait_is_never_shorter(number in 0u32..100) {
            let backoff = ProcessorConfig::default().relay_pause;
            prop_assert!(backoff.delay(number + 1, 0.0) >= backoff.delay(number, 0.0));
        }
    }
}
