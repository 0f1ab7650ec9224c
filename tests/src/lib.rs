//! What tests of the whole way of a message share: real processes, a relay that remembers everything,
//! and a ledger that compares what was promised with what arrived.
//!
//! **What is absent.** Nothing here looks into a queue's directory or its journal: what became of a
//! message is judged by what the command line prints, and by what a relay received.

pub mod claimer;
pub mod crash;
pub mod fill;
pub mod hostile;
pub mod ledger;
pub mod long;
pub mod many_files;
pub mod memory;
pub mod mounted;
pub mod orders;
pub mod peers;
pub mod plan;
pub mod process;
pub mod producer;
pub mod programs;
pub mod queue;
pub mod race;
pub mod relay;
pub mod servers;

use std::time::{SystemTime, UNIX_EPOCH};

/// What goes wrong in a test is told to a person, and nothing decides by its kind.
pub type Error = Box<dyn std::error::Error + Send + Sync>;

/// What comes of a step of a test.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The wall clock in milliseconds since the epoch: what event times are compared with.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
