//! The shop: a table of orders, and mail that is attached to the transactions that fill it.

use std::path::Path;
use std::sync::Arc;

use sendmail_core::{Envelope, Message, QueueStore};
use sendmail_sqlx::{AttachExt as _, SqlDelivery};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool, SqlitePoolOptions};
use sqlx::{Sqlite, Transaction};

use crate::exit::{Failure, Result, SOFTWARE};
use crate::setup::Setup;

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) number: i64,
    pub(super) customer: &'static str,
}

/// How an order's transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    Commit,
    Rollback,
}

/// The shop, open.
pub(super) struct Shop {
    pool: SqlitePool,
    delivery: SqlDelivery,
}

impl Order {
    /// Its mails: to whom, and about what.
    pub(super) fn mails(&self) -> [(String, String); 2] {
        let number = self.number;
        [
            (self.customer.to_owned(), format!("Your order {number} is on its way")),
            ("warehouse@example.net".to_owned(), format!("Pack order {number}")),
        ]
    }
}

impl Shop {
    /// Opens the shop; makes its database and the tables if they are missing.
    pub(super) async fn open(database: &Path, queue: Arc<dyn QueueStore>) -> Result<Self> {
        let options = SqliteConnectOptions::new().filename(database).create_if_missing(true);
        let pool = SqlitePoolOptions::new().connect_with(options).await.map_err(broken)?;
        sqlx::raw_sql(
            "CREATE TABLE IF NOT EXISTS orders (number INTEGER PRIMARY KEY, customer TEXT NOT NULL)",
        )
        .execute(&pool)
        .await
        .map_err(broken)?;
        sendmail_sqlx::migrate(&pool).await?;
        let delivery = SqlDelivery::connect(queue, Setup::clock(), &pool).await?;
        Ok(Self { pool, delivery })
    }

    pub(super) fn pool(&self) -> &SqlitePool {
        &self.pool
    }

    /// Takes an order.
    pub(super) async fn take(&self, order: Order, end: End) -> Result<()> {
        let transaction = self.begin(order).await?;
        match end {
            End::Commit => self.commit(transaction).await,
            End::Rollback => transaction.rollback().await.map_err(broken),
        }
    }

    pub(super) async fn commit(&self, transaction: Transaction<'static, Sqlite>) -> Result<()> {
        transaction.commit().await.map_err(broken)
    }

    /// An order's transaction with all that belongs to it, short of its end. This is all that a shop has
    /// to do.
    pub(super) async fn begin(&self, order: Order) -> Result<Transaction<'static, Sqlite>> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(broken)?;
        sqlx::query("INSERT INTO orders (number, customer) VALUES (?, ?)")
            .bind(order.number)
            .bind(order.customer)
            .execute(&mut *tx)
            .await
            .map_err(broken)?;
        for (to, subject) in order.mails() {
            let (envelope, message) = mail(&to, &subject)?;
            self.delivery.attach(&mut *tx, envelope, message).await?;
        }
        Ok(tx)
    }

    /// What the table holds.
    pub(super) async fn orders(&self) -> Result<Vec<(i64, String)>> {
        let rows = sqlx::query_as("SELECT number, customer FROM orders ORDER BY number");
        rows.fetch_all(&self.pool).await.map_err(broken)
    }
}

fn mail(to: &str, subject: &str) -> Result<(Envelope, Message)> {
    let raw = format!("From: shop@example.org\nTo: {to}\nSubject: {subject}\n\nThank you.\n");
    let message = Message::from_raw(raw.as_bytes(), Setup::now(), "example.org");
    match (Envelope::parse("shop@example.org", [to]), message) {
        (Ok(envelope), Ok(message)) => Ok((envelope, message)),
        _ => Err(Failure::new(SOFTWARE, "the demo's own mail is not well-formed")),
    }
}

fn broken(error: sqlx::Error) -> Failure {
    Failure::new(SOFTWARE, format!("the demo's own database: {error}"))
}
