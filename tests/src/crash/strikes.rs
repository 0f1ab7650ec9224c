//! Who is killed when.

use std::time::{Duration, Instant};

use fastrand::Rng;

/// Whom it hits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    /// A producer, by its place among those that live.
    Producer(usize),
    /// A processor.
    Processor(usize),
    /// A processor, which is not killed but stopped for a while.
    Stopped(usize, Duration),
}

/// One kill.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strike {
    pub(crate) victim: Victim,
    /// Whether it waits until the victim is in one of the moments that matter: in a commit, or between
    /// the final dot and its record of the reply.
    pub(crate) awaits_sign: bool,
    /// How long it waits then.
    pub(crate) delay: Duration,
}

/// All of them, one after the other.
pub(crate) struct Strikes {
    random: Rng,
    next: Instant,
}

impl Strikes {
    /// The longest pause between two.
    const PAUSE_MS: u64 = 200;

    pub(crate) fn new(random: Rng) -> Self {
        Self { random, next: Instant::now() + Duration::from_millis(500) }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.next <= Instant::now()
    }

    pub(crate) fn next(&mut self) -> Strike {
        let pause = Duration::from_millis(self.random.u64(1..=Self::PAUSE_MS));
        self.next = Instant::now() + pause;
        let which = self.random.usize(0..100);
        let victim = match self.random.u8(0..10) {
            0..4 => Victim::Producer(which),
            4..9 => Victim::Processor(which),
            _ => Victim::Stopped(which, Duration::from_millis(self.random.u64(50..2500))),
        };
        let awaits_sign = self.random.u8(0..3) > 0;
        Strike { victim, awaits_sign, delay: Duration::from_micros(self.random.u64(0..6000)) }
    }
}
