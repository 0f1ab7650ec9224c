//! The Maildir queue from the outside.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod harness;
mod suites;
