//! The mailer against real programs: small shell scripts in a temporary directory.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod calling;
mod conformance;
mod ends;
mod killed;
mod ourselves;
mod support;
