//! The whole way of a message with real processes: `sendmail-queue`, and what works on its queue.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod benchmarks;
mod crashes;
mod long_run;
mod memory;
mod races;
mod takeover;
