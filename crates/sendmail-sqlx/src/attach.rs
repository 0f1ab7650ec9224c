//! [`AttachExt`]: attaching through sqlx's own connections.

use sendmail_core::{Attach, Envelope, Message, MessageId, Result};

use crate::connection::{Adapt, SqlxConnection};

/// Attaches mail through a connection of sqlx. Everything that is [`Attach`] has it, `Arc<dyn Attach>`
/// too.
///
/// A pool does not compile, for it is in no transaction:
///
/// ```compile_fail,E0277
/// # use sendmail_core::{Attach, Envelope, Message};
/// # use sendmail_sqlx::AttachExt;
/// # async fn f<DB: sqlx::Database>(delivery: &dyn Attach, mut pool: sqlx::Pool<DB>, e: Envelope, m: Message) {
/// let _ = delivery.attach(&mut pool, e, m).await;
/// # }
/// ```
///
/// Nor does a transaction that was not dereferenced:
///
/// ```compile_fail,E0277
/// # use sendmail_core::{Attach, Envelope, Message};
/// # use sendmail_sqlx::{AttachExt, SqlxConnection};
/// # async fn f<DB: sqlx::Database>(delivery: &dyn Attach, mut tx: sqlx::Transaction<'_, DB>, e: Envelope, m: Message)
/// # where DB::Connection: SqlxConnection {
/// let _ = delivery.attach(&mut tx, e, m).await;
/// # }
/// ```
///
/// This does, for whichever database:
///
/// ```
/// # use sendmail_core::{Attach, Envelope, Message};
/// # use sendmail_sqlx::{AttachExt, SqlxConnection};
/// # async fn f<DB: sqlx::Database>(delivery: &dyn Attach, mut tx: sqlx::Transaction<'_, DB>, e: Envelope, m: Message)
/// # where DB::Connection: SqlxConnection {
/// let _ = delivery.attach(&mut *tx, e, m).await;
/// # }
/// ```
pub trait AttachExt: Attach {
    /// Attaches `message` to the transaction that `connection` is in: it is sent if and only if that
    /// transaction commits, whoever commits it. In a savepoint (a nested transaction), it goes with the
    /// savepoint.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidState`](sendmail_core::ErrorKind::InvalidState): the connection is in no
    /// transaction, which the database is asked and not the driver. Others as
    /// [`Attach::attach_with`]; what each leaves is told at [`SqlDelivery`](crate::SqlDelivery).
    ///
    /// # Cancel safety
    ///
    /// The connection stays usable. Dropped half-way, the message goes along with the transaction or
    /// not; drop the transaction too if that matters. A refusal that was not awaited any more, sqlx
    /// reports at the connection's next statement, on PostgreSQL and MariaDB, as that of any statement.
    fn attach<C: SqlxConnection>(
        &self,
        connection: &mut C,
        envelope: Envelope,
        message: Message,
    ) -> impl Future<Output = Result<MessageId>> + Send;
}

impl<T: Attach + ?Sized> AttachExt for T {
    async fn attach<C: SqlxConnection>(
        &self,
        connection: &mut C,
        envelope: Envelope,
        message: Message,
    ) -> Result<MessageId> {
        self.attach_with(&mut Adapt(connection), envelope, message).await
    }
}
