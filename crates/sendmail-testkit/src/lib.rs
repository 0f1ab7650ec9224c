//! What tests of a mail queue need: conformance suites for the traits of `sendmail-core`, a strict
//! in-memory store, a scripted SMTP server, and a mailer for tests of applications.
//!
//! | you test | take |
//! |---|---|
//! | what mail your application writes | [`MemoryStore`], [`TestMailer`], [`ManualClock`] |
//! | what mail your application attaches to a database's transaction | `attached`, feature `postgres`, `mysql` or `sqlite` |
//! | an SMTP client | [`smtp::ScriptedServer`], which misbehaves as its script says |
//! | your own store | [`queue_store_suite!`], [`event_log_suite!`], [`queue_admin_suite!`], [`decision_suite!`], on a [`suite::QueueHarness`] |
//! | your own mailer | [`mailer_suite!`], on a [`mailer_suite::MailerHarness`] |
//! | a database that decides the transactions of others | [`external_decision_suite!`], on a [`suite::external::ExternalHarness`] |
//! | your own data manager or event sink | [`data_manager_suite!`], [`event_sink_suite!`] |
//!
//! # Features
//!
//! * `tls`: STARTTLS and implicit TLS for the scripted server, with certificates made on the spot.
//! * `postgres`, `mysql`, `sqlite`: `attached` for connections of sqlx to that database.

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod attached;
mod clock;
pub mod mailer_suite;
mod memory;
pub mod smtp;
pub mod suite;
mod test_mailer;

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub use attached::{AttachedMail, MarkedConnection, attached};
pub use clock::ManualClock;
pub use memory::{MemoryStore, Operation};
pub use test_mailer::{Answer, Delivery, TestMailer};
