//! Who is hit when, and how.

use std::time::{Duration, Instant};

use fastrand::Rng;

use super::database::{Database, Kind};

/// Whom it hits, by the place among those that live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    /// A producer.
    Producer(usize),
    /// A processor.
    Processor(usize),
    /// The server of the database, which is down for so long.
    Server(Duration),
}

/// What is done to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blow {
    /// It is killed.
    Kill,
    /// It is killed, and so is the one that takes its place, this long after it began: while it takes
    /// over, if it is a processor.
    KillTwice(Duration),
    /// It is stopped in whatever it does, for a while.
    Stop(Duration),
}

/// One of them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Strike {
    pub(crate) victim: Victim,
    pub(crate) blow: Blow,
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
    with_database: bool,
    /// Whether there is a server to be killed.
    with_server: bool,
}

impl Strikes {
    /// The longest pause between two.
    const PAUSE_MS: u64 = 200;

    /// Once in so many times it is the server, if there is one.
    const SERVER: u8 = 25;

    pub(crate) fn new(random: Rng, database: Option<Kind>) -> Self {
        let next = Instant::now() + Duration::from_millis(500);
        let with_server = database.is_some_and(Database::has_server);
        Self { random, next, with_database: database.is_some(), with_server }
    }

    pub(crate) fn is_due(&self) -> bool {
        self.next <= Instant::now()
    }

    pub(crate) fn next(&mut self) -> Strike {
        let random = &mut self.random;
        self.next = Instant::now() + Duration::from_millis(random.u64(1..=Self::PAUSE_MS));
        let which = random.usize(0..100);
        let victim = if self.with_server && random.u8(0..Self::SERVER) == 0 {
            Victim::Server(Duration::from_millis(random.u64(0..500)))
        } else if random.u8(0..5) < 2 {
            Victim::Producer(which)
        } else {
            Victim::Processor(which)
        };
        let blow = match random.u8(0..8) {
            0 => Blow::Stop(Duration::from_millis(random.u64(50..2500))),
            1 => Blow::KillTwice(Duration::from_micros(random.u64(0..40_000))),
            _ => Blow::Kill,
        };
        let awaits_sign = random.u8(0..3) > 0;
        // The commit of a database is short.
        let at_once = self.with_database && random.bool();
        let delay = if at_once { 0 } else { random.u64(0..6000) };
        Strike { victim, blow, awaits_sign, delay: Duration::from_micros(delay) }
    }
}
