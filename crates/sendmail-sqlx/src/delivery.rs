//! [`SqlDelivery`]: attaches mail to transactions of one database.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{
    Attach, Clock, Discard, Envelope, Error, ErrorKind, MarkerSink, Message, MessageId, NewMessage,
    QueueId, QueueStore, ResourceId, Result,
};

use crate::marker::{Marker, Plan};
use crate::refusal::{self, Refusal};

const OPERATION: &str = "attach the message";

/// Attaches mail to the transactions of one database: it goes out if and only if they commit.
///
/// The message's bytes go into the queue, where nobody sees them yet; a marker, a row of 50 bytes, goes
/// into the transaction. Whoever recovers the queue later asks the database for the marker. Nobody needs
/// to be told of the commit.
///
/// # What an error leaves
///
/// * The message cannot be taken, or could not be written: nothing is left.
/// * The database refused the marker: nothing is left, and the written message is thrown away. On
///   PostgreSQL a refusal inside a transaction makes the transaction fail.
/// * The message could not be staged: the marker is taken back, and the message is thrown away. It will
///   not be sent, whatever becomes of the transaction.
/// * The database did not answer clearly, or the marker could not be taken back: the message is kept,
///   and recovery asks the database what became of the transaction. Roll it back, and the message is
///   not sent; should it commit all the same, the message is sent, since it belongs to what committed.
#[derive(Clone)]
pub struct SqlDelivery {
    store: Arc<dyn QueueStore>,
    clock: Arc<dyn Clock>,
    resource: ResourceId,
}

impl SqlDelivery {
    /// A delivery into `store` for transactions of the database whose identity is `resource` (see
    /// `resource` in the crate's root). A connection to another database is refused when mail is attached
    /// through it.
    #[must_use]
    pub fn new(store: Arc<dyn QueueStore>, clock: Arc<dyn Clock>, resource: ResourceId) -> Self {
        Self { store, clock, resource }
    }

    /// A delivery into `store` for transactions of the database of `pool`, which is looked at first.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]: the tables are missing. [`ErrorKind::Unsupported`]: on MariaDB or MySQL
    /// they are not InnoDB, and would keep markers of transactions that were rolled back; or the database
    /// is an SQLite database in memory, which no other process can ask, and which a crash forgets.
    /// Others: it could not be asked.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only looks.
    #[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
    pub async fn connect<DB: crate::Engine>(
        store: Arc<dyn QueueStore>,
        clock: Arc<dyn Clock>,
        pool: &sqlx::Pool<DB>,
    ) -> Result<Self> {
        let resource = crate::migrate::inspect(pool).await?;
        Ok(Self::new(store, clock, resource))
    }

    /// The identity of the database whose transactions it attaches to.
    #[must_use]
    pub fn resource_id(&self) -> &ResourceId {
        &self.resource
    }

    /// What can be refused without touching anything.
    fn check(&self, message: &Message) -> Result<()> {
        let (length, limit) = (message.as_bytes().len(), self.store.capabilities().max_message_len);
        if length <= limit {
            return Ok(());
        }
        let error =
            Error::new(ErrorKind::InvalidInput, OPERATION, "the message has too many bytes");
        Err(error.with("count", length).with("limit", limit))
    }

    /// Throws away a message that nothing in the database refers to, and nothing ever will.
    async fn discard(&self, id: QueueId) {
        // What is left behind by a failure, recovery removes: it finds no marker.
        let _ = self.store.discard(&[id], Discard::Aborted).await;
    }

    /// After the message could not be staged: makes sure that it is not sent, where that can be done.
    async fn withdraw(&self, sink: &mut dyn MarkerSink, marker: Marker<'_>, error: Error) -> Error {
        let removed = match marker.removal(sink.dialect()) {
            Ok(text) => sink.batch(&text).await,
            Err(error) => Err(error),
        };
        if removed.is_ok() {
            // Invariant: in this transaction the marker came and went without a savepoint between, so
            // that no outcome can bring it back. Only therefore may the message go.
            self.discard(marker.id).await;
            return error;
        }
        error.with(
            "marker",
            "could not be taken back; roll the transaction back, or the mail is sent",
        )
    }
}

#[async_trait]
impl Attach for SqlDelivery {
    // Invariant: written before the marker, or a commit could refer to a message that a crash forgot;
    // marker before staged, or recovery could fence off a transaction that is alive.
    async fn attach_with(
        &self,
        sink: &mut dyn MarkerSink,
        envelope: Envelope,
        message: Message,
    ) -> Result<MessageId> {
        self.check(&message)?;
        let message_id = message.message_id().clone();
        // Never used before: a fence may have put a tombstone on the id of an earlier try.
        let id = QueueId::mint(self.clock.now());
        let marker = Marker { id, queue: self.store.resource_id(), database: &self.resource };
        let plan = marker.plan(sink.dialect())?;
        let new = NewMessage { id, envelope, message, resource: self.resource.clone() };
        self.store.write(&new).await?;
        match leave(sink, plan).await {
            Ok(()) => {}
            Err(NotLeft::Surely(error)) => {
                self.discard(id).await;
                return Err(error);
            }
            Err(NotLeft::Perhaps(error)) => return Err(error),
        }
        match self.store.stage(&[id]).await {
            Ok(()) => Ok(message_id),
            Err(error) => Err(self.withdraw(sink, marker, error).await),
        }
    }
}

impl fmt::Debug for SqlDelivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlDelivery")
            .field("queue", self.store.resource_id())
            .field("resource", &self.resource)
            .finish()
    }
}

/// Why there is no marker, and whether that is certain.
enum NotLeft {
    Surely(Error),
    Perhaps(Error),
}

/// Leaves the marker, if the connection is in a transaction.
async fn leave(sink: &mut dyn MarkerSink, plan: Plan) -> Result<(), NotLeft> {
    let text = match plan {
        Plan::Guarded(text) => text,
        Plan::Asked { question, insert } => {
            ask(sink, question).await?;
            insert
        }
    };
    let dialect = sink.dialect();
    sink.batch(&text).await.map_err(|said| match Refusal::of(dialect, &said) {
        Some(refusal) => NotLeft::Surely(refusal.into_error(OPERATION, said)),
        None => NotLeft::Perhaps(refusal::doubtful(OPERATION, said)),
    })
}

/// Asks SQLite whether there is a transaction. Without a clear yes nothing is inserted.
async fn ask(sink: &mut dyn MarkerSink, question: &str) -> Result<(), NotLeft> {
    let no_answer = || Error::new(ErrorKind::Protocol, OPERATION, "the question was not answered");
    let said = sink.batch(question).await.err().unwrap_or_else(no_answer);
    let error = match refusal::sqlite_in_transaction(&said) {
        Some(true) => return Ok(()),
        Some(false) => Refusal::NoTransaction.into_error(OPERATION, said),
        None => match Refusal::of(sink.dialect(), &said) {
            Some(refusal) => refusal.into_error(OPERATION, said),
            None => refusal::doubtful(OPERATION, said),
        },
    };
    Err(NotLeft::Surely(error))
}
