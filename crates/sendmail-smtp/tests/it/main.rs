//! The mailer against a real server on loopback that follows a script.

#![expect(clippy::unwrap_used, reason = "a test says what it expects by failing")]

mod auth;
mod conformance;
mod extensions;
mod hostile;
mod kept;
mod lettre_traps;
mod limits;
mod matrix;
mod overlap;
mod secrets;
mod smuggling;
mod support;
mod tls;
mod transactions;
