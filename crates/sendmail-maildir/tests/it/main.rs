//! The Maildir queue from the outside.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod attacks;
mod crashes;
mod foreign;
mod frozen;
mod harness;
mod model;
mod moving;
mod old_names;
mod readers;
mod room;
mod rubbish;
mod suites;
mod support;
