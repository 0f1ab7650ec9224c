//! What tests of a mail queue need: conformance suites for the traits of `sendmail-core`, a strict
//! in-memory store, a scripted SMTP server, and a mailer for tests of applications.

mod clock;
pub mod mailer_suite;
mod memory;
pub mod smtp;
pub mod suite;
mod test_mailer;

pub use clock::ManualClock;
pub use memory::{MemoryStore, Operation};
pub use test_mailer::{Answer, Delivery, TestMailer};
