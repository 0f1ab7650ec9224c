//! What an application does with its own table, on all three databases: a row for each sale.

use sendmail_core::{Envelope, Message, Timestamp};
use sendmail_sqlx::Engine;
use sqlx::{MySql, Pool, Postgres, Sqlite};

/// An application's statements.
pub(crate) trait Rows: Engine {
    /// Makes the table.
    fn make_table(pool: &Pool<Self>) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// Inserts a row.
    fn insert(
        connection: &mut Self::Connection,
        tag: &str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// What is committed, in order.
    fn all(pool: &Pool<Self>) -> impl Future<Output = sqlx::Result<Vec<String>>> + Send;

    /// How many markers of committed mail there are.
    fn marked(pool: &Pool<Self>) -> impl Future<Output = sqlx::Result<i64>> + Send;
}

macro_rules! rows {
    ($database:ty, $place:literal) => {
        impl Rows for $database {
            async fn make_table(pool: &Pool<Self>) -> sqlx::Result<()> {
                let sql = "CREATE TABLE sales (tag varchar(64) NOT NULL)";
                sqlx::raw_sql(sql).execute(pool).await.map(drop)
            }

            async fn insert(connection: &mut Self::Connection, tag: &str) -> sqlx::Result<()> {
                let sql = concat!("INSERT INTO sales (tag) VALUES (", $place, ")");
                sqlx::query(sql).bind(tag).execute(connection).await.map(drop)
            }

            async fn all(pool: &Pool<Self>) -> sqlx::Result<Vec<String>> {
                sqlx::query_scalar("SELECT tag FROM sales ORDER BY tag").fetch_all(pool).await
            }

            async fn marked(pool: &Pool<Self>) -> sqlx::Result<i64> {
                let sql = "SELECT COUNT(*) FROM sendmail_marker WHERE kind = 1";
                sqlx::query_scalar(sql).fetch_one(pool).await
            }
        }
    };
}

rows!(Postgres, "$1");
rows!(MySql, "?");
rows!(Sqlite, "?");

/// An SQLite database in `folder`, with the tables.
pub(crate) async fn sqlite(folder: &std::path::Path) -> Pool<Sqlite> {
    use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions};
    let options = SqliteConnectOptions::new().filename(folder.join("sales.db"));
    let options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
    let pool = SqlitePoolOptions::new().max_connections(4).connect_with(options).await.unwrap();
    sendmail_sqlx::migrate(&pool).await.unwrap();
    pool
}

/// A mail to `to` at example.net.
pub(crate) fn mail_to(to: &str) -> (Envelope, Message) {
    let envelope = Envelope::parse("shop@example.org", [format!("{to}@example.net")]).unwrap();
    let text = b"Subject: Your order\n\nThank you.\n";
    (envelope, Message::from_raw(text, Timestamp::EPOCH, "example.org").unwrap())
}
