//! What would be sent if a transaction committed, seen from inside it.

use std::collections::HashSet;

use async_trait::async_trait;
use sendmail_core::{
    Envelope, Error, ErrorKind, Message, QueueAdmin, QueueId, QueueStore, ResourceId, Result,
};

const OPERATION: &str = "look at the mail attached to the transaction";

/// A mail that goes out if the transaction commits.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct AttachedMail {
    /// Its key in the queue.
    pub queue_id: QueueId,
    /// Who it is from and who it goes to. Its options are not shown, and are always the default.
    pub envelope: Envelope,
    /// What would be sent, byte for byte.
    pub message: Message,
}

/// The mail that is attached to the transaction which `connection` is in, in the order in which it was
/// attached: what `store` would send if it committed now.
///
/// So a test that always rolls back, as tests with a database often do, can say what mail it expects. It
/// sees what the transaction sees: mail attached in a savepoint that was rolled back is not in it. It
/// changes nothing, and may be called again and again.
///
/// Markers of other transactions are seen too once these have committed, until a processor has published
/// their mail. A test that gives each of its transactions a store of its own, such as a new
/// [`MemoryStore`](crate::MemoryStore), never meets them.
///
/// ```
/// # #[cfg(feature = "postgres")] mod example {
/// use std::sync::Arc;
///
/// use sendmail_core::Attach;
/// use sendmail_testkit::{ManualClock, MemoryStore, attached};
/// use sqlx::{PgConnection, PgPool};
///
/// # type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
/// # fn delivery(store: &MemoryStore) -> Arc<dyn Attach> { unreachable!("{store:?}") }
/// # async fn place_order(tx: &mut PgConnection, by: &dyn Attach, to: &str) -> Result<()> { unreachable!() }
/// async fn an_order_is_confirmed(pool: PgPool) -> Result<()> {
///     let queue = MemoryStore::new(Arc::new(ManualClock::default()));
///     // SqlDelivery::connect(Arc::new(queue.clone()), clock, &pool)
///     let delivery = delivery(&queue);
///     let mut tx = pool.begin().await?;
///
///     // The application's own code.
///     place_order(&mut tx, &*delivery, "ada@example.net").await?;
///
///     let mails = attached(&mut *tx, &queue).await?;
///     assert_eq!(mails.len(), 1);
///     assert_eq!(mails[0].envelope.recipients()[0].to_string(), "ada@example.net");
///     assert!(mails[0].message.as_bytes().starts_with(b"Subject: Your order"));
///     tx.rollback().await?; // Nothing was ever sent.
///     Ok(())
/// }
/// # }
/// ```
///
/// # Errors
///
/// The database or the store could not be read: the tables are missing, the transaction has failed. Or a
/// message that is attached is damaged.
///
/// # Cancel safety
///
/// Cancel safe: it only looks.
pub async fn attached<C, S>(connection: &mut C, store: &S) -> Result<Vec<AttachedMail>>
where
    C: MarkedConnection,
    S: QueueStore + QueueAdmin + ?Sized,
{
    let marked = connection.markers(store.resource_id()).await?;
    let marked: HashSet<QueueId> = marked.into_iter().collect();
    let undecided = store.undecided().await?;
    let mut ids: Vec<QueueId> =
        undecided.iter().map(|mail| mail.id).filter(|id| marked.contains(id)).collect();
    // Ids sort as they were minted.
    ids.sort_unstable();
    let mut mails = Vec::with_capacity(ids.len());
    for id in ids {
        mails.push(mail(store, id).await?);
    }
    Ok(mails)
}

/// A connection whose transaction can be looked into: `sqlx::PgConnection`, `sqlx::MySqlConnection` or
/// `sqlx::SqliteConnection`, each with its feature. It is sealed.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a connection that can be looked into",
    note = "of a transaction `tx`, write `&mut *tx`"
)]
pub trait MarkedConnection: sealed::Markers {}

mod sealed {
    use super::{QueueId, ResourceId, Result, async_trait};

    #[async_trait]
    pub trait Markers: Send {
        /// The ids of all mail of `queue` that has a marker, as this transaction sees it.
        async fn markers(&mut self, queue: &ResourceId) -> Result<Vec<QueueId>>;
    }
}

async fn mail<S: QueueAdmin + ?Sized>(store: &S, id: QueueId) -> Result<AttachedMail> {
    let unreadable = |text: String| Error::new(ErrorKind::Damaged, OPERATION, text);
    let detail = store.show(id).await?;
    let (Some(entry), Some(content)) = (detail.entry, detail.content) else {
        let error = unreadable("the queue cannot read the message".to_owned());
        return Err(error.with("queue id", id));
    };
    let envelope = Envelope::new(entry.reverse_path, entry.recipients);
    let envelope = envelope.map_err(|error| unreadable(error.to_string()).with("queue id", id))?;
    let message = Message::from_wire(content, 0);
    let message = message.map_err(|error| unreadable(error.to_string()).with("queue id", id))?;
    Ok(AttachedMail { queue_id: id, envelope, message })
}

fn unreadable(error: sqlx::Error) -> Error {
    let kind = match &error {
        sqlx::Error::Io(_) => ErrorKind::Io,
        _ => ErrorKind::Refused,
    };
    let text = format!(
        "the markers cannot be read; a table that is missing is made by sendmail_sqlx::migrate ({error})"
    );
    Error::new(kind, OPERATION, text).with_source(error)
}

macro_rules! marked_connection {
    ($feature:literal, $connection:ty, $select:literal) => {
        #[cfg(feature = $feature)]
        impl MarkedConnection for $connection {}

        #[cfg(feature = $feature)]
        #[async_trait]
        impl sealed::Markers for $connection {
            async fn markers(&mut self, queue: &ResourceId) -> Result<Vec<QueueId>> {
                let query = sqlx::query_scalar::<_, Vec<u8>>($select).bind(queue.as_str());
                let ids = query.fetch_all(self).await.map_err(unreadable)?;
                // The column takes nothing else than 16 bytes.
                let id = |bytes: Vec<u8>| bytes.try_into().ok().map(QueueId::from_bytes);
                Ok(ids.into_iter().filter_map(id).collect())
            }
        }
    };
}

marked_connection!(
    "postgres",
    sqlx::PgConnection,
    "SELECT uuid_send(id) FROM sendmail_marker WHERE kind = 1 AND queue = $1"
);
marked_connection!(
    "mysql",
    sqlx::MySqlConnection,
    "SELECT id FROM sendmail_marker WHERE kind = 1 AND queue = ?"
);
marked_connection!(
    "sqlite",
    sqlx::SqliteConnection,
    "SELECT id FROM sendmail_marker WHERE kind = 1 AND queue = ?"
);
