//! What tests of a mail queue need: conformance suites for the traits of `sendmail-core`, a strict
//! in-memory store, a scripted SMTP server, and a mailer for tests of applications.

pub mod mailer_suite;
pub mod smtp;
