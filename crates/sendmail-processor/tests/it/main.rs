//! Tests of the processor from the outside: on a strict store in memory, a mailer that does all that a
//! relay can do wrong, and mocks where the order or the absence of calls is the point.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod bench;
mod calls;
mod config;
mod delivery;
mod events;
mod relay;
mod running;
mod trouble;
