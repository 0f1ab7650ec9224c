//! Which connections mail can be attached through, and how sqlx's become a [`MarkerSink`].

use async_trait::async_trait;
use sendmail_core::{Dialect, MarkerSink, Result};
use sqlx::AssertSqlSafe;

use crate::error::from_sqlx;

/// A connection of sqlx that mail can be attached through: `PgConnection`, `MySqlConnection` or
/// `SqliteConnection`, each with its feature. A transaction or a pooled connection leads to one: write
/// `&mut *tx`.
///
/// It is sealed: other drivers join by a [`MarkerSink`] of their own.
#[diagnostic::on_unimplemented(
    message = "mail is attached through the connection of a transaction, and `{Self}` is none",
    label = "neither `PgConnection`, `MySqlConnection` nor `SqliteConnection`",
    note = "with `let mut tx = pool.begin().await?`, write `&mut *tx`: `delivery.attach(&mut *tx, …)`",
    note = "a pool is in no transaction: begin one; and enable the feature of your database in sendmail-sqlx"
)]
pub trait SqlxConnection: sealed::Connection {}

/// One of sqlx's connections as a [`MarkerSink`].
pub(crate) struct Adapt<'a, C>(pub(crate) &'a mut C);

#[async_trait]
impl<C: SqlxConnection> MarkerSink for Adapt<'_, C> {
    fn dialect(&self) -> Dialect {
        C::DIALECT
    }

    async fn batch(&mut self, sql: &str) -> Result<()> {
        // Ours alone: ids and names that cannot end a literal, see `MarkerSink::batch`.
        let sent = self.0.batch(AssertSqlSafe(sql.to_owned())).await;
        sent.map_err(|error| from_sqlx("run a statement", error))
    }
}

pub(crate) mod sealed {
    use super::{AssertSqlSafe, Dialect};

    /// What [`Adapt`](super::Adapt) needs of a connection.
    pub trait Connection: Send {
        /// Whose SQL it understands.
        const DIALECT: Dialect;

        /// Sends `sql` as one text.
        fn batch(
            &mut self,
            sql: AssertSqlSafe<String>,
        ) -> impl Future<Output = sqlx::Result<()>> + Send;
    }
}

macro_rules! connection {
    ($feature:literal, $connection:ty, $dialect:ident) => {
        #[cfg(feature = $feature)]
        impl SqlxConnection for $connection {}

        #[cfg(feature = $feature)]
        impl sealed::Connection for $connection {
            const DIALECT: Dialect = Dialect::$dialect;

            async fn batch(&mut self, sql: AssertSqlSafe<String>) -> sqlx::Result<()> {
                sqlx::raw_sql(sql).execute(self).await.map(drop)
            }
        }
    };
}

connection!("postgres", sqlx::PgConnection, Postgres);
connection!("mysql", sqlx::MySqlConnection, MySql);
connection!("sqlite", sqlx::SqliteConnection, Sqlite);
