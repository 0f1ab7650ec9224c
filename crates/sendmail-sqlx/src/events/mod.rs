//! Events into the database: a handler for each event of a queue, exactly once.
//!
//! [`SqlEventConsumer`] says how, and what it asks of a handler.

mod attempt;
mod backoff;
mod consumer;
mod cursor;
mod handler;
mod panics;
mod place;
mod trouble;

pub use consumer::{Consumed, SqlEventConsumer};
pub use cursor::EventDatabase;
pub use handler::{EventSource, EventTrouble, SqlEventHandler, StartAt, TroubleHook};
