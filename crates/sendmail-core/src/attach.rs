//! How a transaction that is not ours takes a mail along.

use async_trait::async_trait;

use crate::{Envelope, Message, MessageId, Result};

/// Whose SQL a [`MarkerSink`] understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
    /// SQLite.
    Sqlite,
}

/// A connection of some driver, inside the application's transaction, into which we put our marker.
#[async_trait]
pub trait MarkerSink: Send {
    /// Whose SQL it understands.
    fn dialect(&self) -> Dialect;

    /// Sends `sql`, which is ours, may have several statements and has no parameters, in one message,
    /// and awaits its end.
    ///
    /// # Errors
    ///
    /// What the database said, with its code (`SQLSTATE` or number) in the context under `code`,
    /// where the driver tells.
    ///
    /// # Cancel safety
    ///
    /// As the driver's: the text may or may not have been executed.
    async fn batch(&mut self, sql: &str) -> Result<()>;
}

/// Attaches mail to a transaction that somebody else begins and commits.
#[async_trait]
pub trait Attach: Send + Sync {
    /// Attaches `message`: it is sent if and only if the transaction of `sink` commits.
    ///
    /// # Errors
    ///
    /// The connection is in no transaction, the marker could not be left, or the message could not be
    /// stored. It will not be sent.
    ///
    /// # Cancel safety
    ///
    /// Dropped half-way, the message may go along with the transaction or not; drop the transaction
    /// too if that matters.
    async fn attach_with(
        &self,
        sink: &mut dyn MarkerSink,
        envelope: Envelope,
        message: Message,
    ) -> Result<MessageId>;
}
