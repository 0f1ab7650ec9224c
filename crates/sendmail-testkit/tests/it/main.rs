//! Tests of the crate from the outside: the suites on what the crate itself offers.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

#[cfg(feature = "sqlite")]
mod attached;
mod harness;
mod ledger;
mod memory;
mod strict;
mod test_mailer;
mod wrong_store;
