//! Tests of the crate from the outside, with what needs no server: SQLite.

#![cfg(feature = "sqlite")]
#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod events;
