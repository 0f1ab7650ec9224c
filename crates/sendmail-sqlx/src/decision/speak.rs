//! The two ways in which the fence talks to a database, the same for each.

use sqlx::AssertSqlSafe;

/// Whose SQL is spoken, and whose codes are answered. Not the core's `Dialect`, which may grow: here each
/// has to be thought of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// PostgreSQL.
    Postgres,
    /// MariaDB and MySQL.
    MySql,
    /// SQLite.
    Sqlite,
}

/// What a query answered: text in every column.
pub(crate) type Rows = Vec<Vec<String>>;

/// Sends texts of ours, which have literals and no parameters: nothing is prepared, so that a connection
/// pooler between does no harm, and several statements cost one round trip.
pub trait Speak: sqlx::Database<Connection: Sync> {
    /// Whose SQL it is.
    const FLAVOUR: Flavour;

    /// Runs a text, and says how many rows it changed.
    fn tell(
        connection: &mut Self::Connection,
        sql: String,
    ) -> impl Future<Output = sqlx::Result<u64>> + Send;

    /// Runs a text, and returns the rows of all its statements.
    fn answer(
        connection: &mut Self::Connection,
        sql: String,
    ) -> impl Future<Output = sqlx::Result<Vec<Vec<String>>>> + Send;
}

macro_rules! speak {
    ($feature:literal, $database:ty, $flavour:ident) => {
        #[cfg(feature = $feature)]
        impl Speak for $database {
            const FLAVOUR: Flavour = Flavour::$flavour;

            async fn tell(connection: &mut Self::Connection, sql: String) -> sqlx::Result<u64> {
                let done = sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await?;
                Ok(done.rows_affected())
            }

            async fn answer(
                connection: &mut Self::Connection,
                sql: String,
            ) -> sqlx::Result<Vec<Vec<String>>> {
                use sqlx::Row;
                let rows = sqlx::raw_sql(AssertSqlSafe(sql)).fetch_all(connection).await?;
                // Every column is text, whatever collation the driver takes for another type.
                let text = |row: &<Self as sqlx::Database>::Row| {
                    (0..row.len()).map(|column| row.try_get_unchecked(column)).collect()
                };
                rows.iter().map(text).collect()
            }
        }
    };
}

speak!("postgres", sqlx::Postgres, Postgres);
speak!("mysql", sqlx::MySql, MySql);
speak!("sqlite", sqlx::Sqlite, Sqlite);
