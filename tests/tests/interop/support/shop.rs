//! Shops that attach mail to transactions of an SQLite database.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sendmail_core::{Clock, Envelope, Message, QueueStore};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::{AttachExt as _, SqlDelivery};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePool};

use super::{Daemon, Queue};

/// A shop in this process.
pub(crate) struct Shop {
    path: PathBuf,
    pub(crate) pool: SqlitePool,
    delivery: SqlDelivery,
    clock: Arc<dyn Clock>,
}

impl Shop {
    /// Opens it with a database of that name beside the queue.
    pub(crate) async fn open(queue: &Queue, name: &str, clock: Arc<dyn Clock>) -> Self {
        let path = queue.beside().join(name);
        let options = SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let pool = SqlitePool::connect_with(options).await.unwrap();
        sendmail_sqlx::migrate(&pool).await.unwrap();
        let options = MaildirOptions::default().with_clock(clock.clone());
        let store = MaildirStore::open(queue.path(), options).await.unwrap();
        let store: Arc<dyn QueueStore> = Arc::new(store);
        let delivery = SqlDelivery::connect(store, clock.clone(), &pool).await.unwrap();
        Self { path, pool, delivery, clock }
    }

    pub(crate) fn url(&self) -> String {
        format!("sqlite:{}", self.path.display())
    }

    /// Commits a transaction with a mail, and tells nobody.
    pub(crate) async fn commit(&self, to: &str) {
        let raw = format!("From: shop@example.org\nTo: {to}\nSubject: Your order\n\nThank you.\n");
        let message = Message::from_raw(raw.as_bytes(), self.clock.now(), "example.org").unwrap();
        let envelope = Envelope::parse("shop@example.org", [to]).unwrap();
        let mut tx = self.pool.begin().await.unwrap();
        self.delivery.attach(&mut *tx, envelope, message).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Does something to the database.
    pub(crate) async fn execute(&self, sql: &'static str) {
        sqlx::raw_sql(sql).execute(&self.pool).await.unwrap();
    }
}

/// A shop in a process of its own, which takes an order with two mails as far as `until`
/// (`before-commit` or `after-commit`) and is then killed with `kill -9`. It is the demo's.
pub(crate) async fn die(queue: &Queue, database: &Path, until: &str, order: u32) {
    let mut command = queue.command(["demo-victim", until, &order.to_string()]);
    command.arg(database);
    let shop = Daemon::start(command);
    shop.wait_for("the shop to be as far", |line| (line == "ready").then_some(())).await;
    shop.kill().await;
}
