//! Tests of the crate from the outside.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod commit;
mod conformance;
mod direct;
mod events;
mod fake;
mod mail;
mod memory_store;
mod model;
mod recovery;
mod recovery_rounds;
mod run;
mod savepoints;
mod scene;
