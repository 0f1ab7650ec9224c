//! A shop: orders in a database, and a mail with each. That the two agree is what tests of the database join
//! are about: copies of the mail are there exactly where the order is.

use sendmail_core::{Envelope, Message, Timestamp};
use sendmail_sqlx::Engine;
use sqlx::{AssertSqlSafe, MySql, Pool, Postgres, Sqlite};

use crate::Result;

/// A database that takes orders.
pub trait Orders: Engine + Sized {
    /// How a transaction begins that is going to write.
    const BEGIN: &'static str;

    /// Whether one transaction that writes keeps out all others.
    const ONE_WRITER: bool;

    /// Makes the table of the orders.
    const TABLE: &'static str = "CREATE TABLE orders (number int NOT NULL)";

    /// Takes an order.
    #[must_use]
    fn order(number: u32) -> String {
        format!("INSERT INTO orders (number) VALUES ({number})")
    }

    /// Runs `sql` as one text.
    fn execute(
        connection: &mut Self::Connection,
        sql: &str,
    ) -> impl Future<Output = sqlx::Result<()>> + Send;

    /// The first column of the only row.
    fn count(pool: &Pool<Self>, sql: &str) -> impl Future<Output = sqlx::Result<i64>> + Send;
}

macro_rules! orders {
    ($database:ty, $begin:literal, $one_writer:literal) => {
        impl Orders for $database {
            const BEGIN: &'static str = $begin;
            const ONE_WRITER: bool = $one_writer;

            async fn execute(connection: &mut Self::Connection, sql: &str) -> sqlx::Result<()> {
                sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.map(drop)
            }

            async fn count(pool: &Pool<Self>, sql: &str) -> sqlx::Result<i64> {
                sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(pool).await
            }
        }
    };
}

orders!(Postgres, "BEGIN", false);
orders!(MySql, "START TRANSACTION", false);
orders!(Sqlite, "BEGIN IMMEDIATE", true);

/// Who gets the mail of an order.
#[must_use]
pub fn customer(number: u32) -> String {
    format!("customer-{number}@example.net")
}

/// The mail of an order.
///
/// # Errors
///
/// None that could happen.
pub fn mail(number: u32) -> Result<(Envelope, Message)> {
    let envelope = Envelope::parse("shop@example.org", [customer(number)])?;
    let text = format!("Message-ID: <{number}@example.org>\n\nThank you for order {number}.\n");
    let message = Message::from_raw(text.as_bytes(), Timestamp::EPOCH, "example.org")?;
    Ok((envelope, message))
}
