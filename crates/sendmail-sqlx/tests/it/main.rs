//! Attaching mail and handling events in SQLite, mostly with a queue that only records what it is asked.
//!
//! What PostgreSQL and MariaDB do is shown by the package `sendmail-tests`, which has servers for it.
#![expect(clippy::unwrap_used, reason = "tests fail by panicking")]

mod attach;
mod decision;
mod dropped;
mod events;
mod in_doubt;
mod migrate;
mod refused;
mod savepoint;
mod scene;
mod transaction;
