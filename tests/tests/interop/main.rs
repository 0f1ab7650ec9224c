//! The whole way of a message, with real parts: the real binary, real processes and files, real servers,
//! and the programs that share a queue or a relay with us.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and says where")]

mod clock;
mod command_line;
mod configuration;
mod copies;
mod database_servers;
mod databases;
mod deaths;
mod delivery;
mod events;
mod foreign;
mod freezing;
mod full_disk;
mod hostile;
mod injection;
mod log_injection;
mod permissions;
mod readers;
mod refusing;
mod secrets;
mod smuggling;
mod support;
mod zope_failures;
