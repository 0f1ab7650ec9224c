//! The databases of sqlx that mail can be attached in, and how each makes and shows its tables.

/// A database that mail can be attached in: `sqlx::Postgres`, `sqlx::MySql` or `sqlx::Sqlite`, each with
/// its feature. It is sealed.
#[diagnostic::on_unimplemented(
    message = "mail cannot be attached in `{Self}`",
    note = "sendmail-sqlx knows `sqlx::Postgres`, `sqlx::MySql` and `sqlx::Sqlite`, each with its feature"
)]
pub trait Engine: sealed::Steps + crate::decision::Speak {}

pub(crate) mod sealed {
    use sendmail_core::Dialect;
    use sqlx::{Pool, Result};

    use crate::SqlxConnection;

    /// What differs between the databases.
    pub trait Steps: sqlx::Database<Connection: SqlxConnection> {
        /// Whose SQL it is.
        const DIALECT: Dialect;

        /// Makes the tables, while nobody else does.
        fn migrate(pool: &Pool<Self>) -> impl Future<Output = Result<()>> + Send;

        /// What `sendmail_database` says: by [`IDENTITY`](super::IDENTITY), or by
        /// [`COMPLETE`](super::COMPLETE).
        fn identity(
            pool: &Pool<Self>,
            sql: &'static str,
        ) -> impl Future<Output = Result<Option<String>>> + Send;

        /// Why it cannot be relied on to decide, if so.
        fn flaw(pool: &Pool<Self>) -> impl Future<Output = Result<Option<String>>> + Send;
    }
}

/// Fails when a table that attaching needs is missing. The joins are outer ones, so that the row comes also
/// where there is nothing else.
pub(crate) const IDENTITY: &str =
    "SELECT d.resource FROM sendmail_database d LEFT JOIN sendmail_marker m ON 1 = 0";

/// Fails when any table is missing.
pub(crate) const COMPLETE: &str = "SELECT d.resource FROM sendmail_database d \
     LEFT JOIN sendmail_marker m ON 1 = 0 LEFT JOIN sendmail_cursor c ON 1 = 0";

#[cfg(feature = "postgres")]
mod postgres {
    use sendmail_core::Dialect;
    use sqlx::{Pool, Postgres, Result};

    use super::{Engine, sealed::Steps};

    impl Engine for Postgres {}

    impl Steps for Postgres {
        const DIALECT: Dialect = Dialect::Postgres;

        async fn migrate(pool: &Pool<Self>) -> Result<()> {
            // READ COMMITTED: what another made while this one waited for the lock must be seen.
            let mut tx = pool.begin_with("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
            // "IF NOT EXISTS" alone does not keep two from making the same table. Any number will do.
            sqlx::raw_sql("SELECT pg_advisory_xact_lock(7810193428805481061)")
                .execute(&mut *tx)
                .await?;
            sqlx::raw_sql(crate::migrations::POSTGRES).execute(&mut *tx).await?;
            tx.commit().await
        }

        async fn identity(pool: &Pool<Self>, sql: &'static str) -> Result<Option<String>> {
            sqlx::query_scalar(sql).fetch_optional(pool).await
        }

        async fn flaw(pool: &Pool<Self>) -> Result<Option<String>> {
            // An unlogged table is emptied by a crash of the server.
            let unlogged = "SELECT 1 FROM pg_class WHERE oid = 'sendmail_marker'::regclass \
                            AND relpersistence <> 'p'";
            let found: Option<i32> = sqlx::query_scalar(unlogged).fetch_optional(pool).await?;
            let flaw = "the table sendmail_marker is unlogged or temporary, and a crash of the server \
                        forgets what is in it; make it an ordinary table";
            Ok(found.map(|_| flaw.to_owned()))
        }
    }
}

#[cfg(feature = "mysql")]
mod mysql {
    use sendmail_core::Dialect;
    use sqlx::{MySql, Pool, Result};

    use super::{Engine, sealed::Steps};

    impl Engine for MySql {}

    impl Steps for MySql {
        const DIALECT: Dialect = Dialect::MySql;

        async fn migrate(pool: &Pool<Self>) -> Result<()> {
            let mut connection = pool.acquire().await?;
            // The lock is the connection's, and a pool must not get it back with the lock held.
            connection.close_on_drop();
            let lock = "SELECT COALESCE(GET_LOCK('sendmail_rs_migrate', 60), 0)";
            let locked: i64 = sqlx::query_scalar(lock).fetch_one(&mut *connection).await?;
            if locked != 1 {
                let message = "another process has been making the tables for a minute";
                return Err(std::io::Error::new(std::io::ErrorKind::TimedOut, message).into());
            }
            sqlx::raw_sql(crate::migrations::MYSQL).execute(&mut *connection).await?;
            Ok(())
        }

        async fn identity(pool: &Pool<Self>, sql: &'static str) -> Result<Option<String>> {
            sqlx::query_scalar(sql).fetch_optional(pool).await
        }

        async fn flaw(pool: &Pool<Self>) -> Result<Option<String>> {
            let other = "SELECT CAST(CONCAT(table_name, ' is ', engine) AS CHAR) \
                         FROM information_schema.tables WHERE table_schema = DATABASE() AND table_name \
                         IN ('sendmail_database', 'sendmail_marker') AND engine <> 'InnoDB' LIMIT 1";
            let found: Option<String> = sqlx::query_scalar(other).fetch_optional(pool).await?;
            Ok(found.map(|found| {
                format!(
                    "the table {found}: a rollback does not take back what is written to it; \
                     ALTER TABLE … ENGINE = InnoDB"
                )
            }))
        }
    }
}

#[cfg(feature = "sqlite")]
mod sqlite {
    use sendmail_core::Dialect;
    use sqlx::{Pool, Result, Sqlite};

    use super::{Engine, sealed::Steps};

    impl Engine for Sqlite {}

    impl Steps for Sqlite {
        const DIALECT: Dialect = Dialect::Sqlite;

        async fn migrate(pool: &Pool<Self>) -> Result<()> {
            let mut tx = pool.begin_with("BEGIN IMMEDIATE").await?;
            sqlx::raw_sql(crate::migrations::SQLITE).execute(&mut *tx).await?;
            tx.commit().await
        }

        async fn identity(pool: &Pool<Self>, sql: &'static str) -> Result<Option<String>> {
            sqlx::query_scalar(sql).fetch_optional(pool).await
        }

        async fn flaw(pool: &Pool<Self>) -> Result<Option<String>> {
            let no_file = "SELECT 1 FROM pragma_database_list WHERE name = 'main' AND file = ''";
            let found: Option<i32> = sqlx::query_scalar(no_file).fetch_optional(pool).await?;
            let flaw = "the database is in memory: it ends with this process, no other can ask it what \
                        became of a transaction, and each connection may have one of its own; use a file \
                        (or, in a test with one connection, SqlDelivery::new)";
            Ok(found.map(|_| flaw.to_owned()))
        }
    }
}
