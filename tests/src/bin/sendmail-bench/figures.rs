//! What is measured: metrics, samples of them, and what the samples come to.

use std::collections::BTreeMap;

/// What is counted or timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Metric {
    /// Pieces of work per second.
    Rate,
    /// Seconds of processors for 100,000 messages.
    Cpu,
    /// The median of a delay, from when the message was queued, in milliseconds.
    Delay,
    /// The same from the call that queues it.
    DelayFromCall,
    /// From the start of the processor to the first message accepted, in milliseconds.
    FirstMessage,
    /// The most memory resident, in MiB.
    Memory,
    /// How often threads went to sleep and woke up, per second.
    WakeUps,
    /// Bytes written to a disk, in KiB.
    Written,
    /// Bytes read from a disk, in KiB.
    Read,
    /// System calls for each message, of one part of its way.
    Calls(Stage),
    /// Syncs for each message, of one part of its way.
    Syncs(Stage),
}

/// A part of a message's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    /// Into the queue.
    Enqueue,
    /// Out of it, to a worker.
    Claim,
    /// To the relay.
    Deliver,
    /// The record of what became of it, and its end.
    Settle,
    /// Between the threads of a program, and for its memory: what has nothing to do with the queue or the relay.
    Runtime,
}

impl Stage {
    pub(crate) const ALL: [Self; 5] =
        [Self::Enqueue, Self::Claim, Self::Deliver, Self::Settle, Self::Runtime];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Claim => "claim",
            Self::Deliver => "deliver",
            Self::Settle => "settle",
            Self::Runtime => "run",
        }
    }
}

impl Metric {
    /// Its name in JSON.
    pub(crate) fn name(self) -> String {
        match self {
            Self::Rate => "per_second".to_owned(),
            Self::Cpu => "cpu_seconds_per_100k".to_owned(),
            Self::Delay => "delay_p50_ms".to_owned(),
            Self::DelayFromCall => "delay_from_call_p50_ms".to_owned(),
            Self::FirstMessage => "first_message_ms".to_owned(),
            Self::Memory => "memory_mib".to_owned(),
            Self::WakeUps => "wake_ups_per_second".to_owned(),
            Self::Written => "written_kib".to_owned(),
            Self::Read => "read_kib".to_owned(),
            Self::Calls(stage) => format!("{}_calls", stage.name()),
            Self::Syncs(stage) => format!("{}_syncs", stage.name()),
        }
    }

    /// What a figure of it is called.
    pub(crate) fn unit(self) -> String {
        let fixed = match self {
            Self::Rate => "/s",
            Self::Cpu => " CPU s/100,000",
            Self::Delay => " ms p50",
            Self::DelayFromCall => " ms p50 from the call",
            Self::FirstMessage => " ms to the first",
            Self::Memory => " MiB",
            Self::WakeUps => " wake-ups/s",
            Self::Written => " KiB written",
            Self::Read => " KiB read",
            Self::Calls(stage) => return format!(" calls to {}", stage.name()),
            Self::Syncs(stage) => return format!(" syncs to {}", stage.name()),
        };
        fixed.to_owned()
    }
}

/// What one round of one contestant came to.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Sample(BTreeMap<Metric, f64>);

impl Sample {
    /// So many pieces of work in so many seconds.
    pub(crate) fn rate(count: usize, seconds: f64) -> Self {
        Self::default().with(Metric::Rate, count as f64 / seconds.max(1e-9))
    }

    /// The same with another metric.
    pub(crate) fn with(mut self, metric: Metric, value: f64) -> Self {
        self.0.insert(metric, value);
        self
    }

    /// The same with what the processors did for so many messages.
    pub(crate) fn with_cpu(self, cpu: std::time::Duration, messages: usize) -> Self {
        let seconds = cpu.as_secs_f64() * 100_000.0 / messages.max(1) as f64;
        self.with(Metric::Cpu, seconds)
    }
}

/// All rounds of one contestant.
#[derive(Debug, Clone, Default)]
pub(crate) struct Figures(BTreeMap<Metric, Vec<f64>>);

impl Figures {
    pub(crate) fn add(&mut self, sample: Sample) {
        for (metric, value) in sample.0 {
            self.0.entry(metric).or_default().push(value);
        }
    }

    /// Every metric that was measured, with its samples in the order of the rounds.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Metric, &[f64])> {
        self.0.iter().map(|(metric, samples)| (*metric, samples.as_slice()))
    }

    pub(crate) fn median(&self, metric: Metric) -> Option<f64> {
        median(self.0.get(&metric)?)
    }
}

/// The one in the middle, or between the two in the middle.
pub(crate) fn median(samples: &[f64]) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => None,
        even if even % 2 == 0 => Some(f64::midpoint(sorted[middle - 1], sorted[middle])),
        _ => Some(sorted[middle]),
    }
}

/// The lowest and the highest.
pub(crate) fn range(samples: &[f64]) -> Option<(f64, f64)> {
    let low = samples.iter().copied().min_by(f64::total_cmp)?;
    let high = samples.iter().copied().max_by(f64::total_cmp)?;
    Some((low, high))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 3.0, 4.0]), Some(3.5));
        assert_eq!(range(&[9.0, 1.0, 3.0]), Some((1.0, 9.0)));
        assert_eq!(range(&[]), None);
    }

    #[test]
    fn samples_become_rates_and_processors_are_counted_for_as_many_messages() {
        let mut figures = Figures::default();
        for seconds in [1.0, 4.0, 2.0] {
            let cpu = std::time::Duration::from_millis(500);
            figures.add(Sample::rate(100, seconds).with_cpu(cpu, 1000));
        }
        assert_eq!(figures.median(Metric::Rate), Some(50.0));
        assert_eq!(figures.median(Metric::Cpu), Some(50.0));
        assert_eq!(figures.median(Metric::Memory), None);
        let all: Vec<_> = figures.iter().collect();
        assert_eq!(all[0], (Metric::Rate, [100.0, 25.0, 50.0].as_slice()));
    }
}
