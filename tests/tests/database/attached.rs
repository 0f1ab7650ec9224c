//! What a test sees of the mail that is attached to a transaction it will roll back.

use std::sync::Arc;

use sendmail_core::{Envelope, Message, QueueAdmin, QueueStore, Timestamp};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::{AttachExt, Engine, SqlDelivery};
use sendmail_testkit::{AttachedMail, ManualClock, MarkedConnection, attached};
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};
use sqlx::{Connection, Pool, Sqlite};

use crate::support::{Shop, Tested, on_each_server};

on_each_server! {
    is_seen_in_memory => attached_memory_postgres, attached_memory_mariadb;
    is_seen_in_a_maildir => attached_maildir_postgres, attached_maildir_mariadb;
}

async fn is_seen_in_memory<DB: Tested>(test: &str)
where
    DB::Connection: MarkedConnection,
{
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    check(&shop.pool, Arc::new(shop.queue.clone())).await;
}

async fn is_seen_in_a_maildir<DB: Tested>(test: &str)
where
    DB::Connection: MarkedConnection,
{
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    let folder = tempfile::tempdir().unwrap();
    check(&shop.pool, maildir(&folder).await).await;
}

#[tokio::test]
async fn attached_maildir_sqlite() {
    let folder = tempfile::tempdir().unwrap();
    let options = SqliteConnectOptions::new().filename(folder.path().join("db"));
    let options = options.create_if_missing(true);
    let pool: Pool<Sqlite> =
        SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
    sendmail_sqlx::migrate(&pool).await.unwrap();
    check(&pool, maildir(&folder).await).await;
}

async fn maildir(folder: &tempfile::TempDir) -> Arc<MaildirStore> {
    let path = folder.path().join("queue");
    Arc::new(MaildirStore::open(path, MaildirOptions::default()).await.unwrap())
}

/// More than fit into a millisecond, under a clock that stands still; one of them in a savepoint that is
/// rolled back.
async fn check<DB, S>(pool: &Pool<DB>, store: Arc<S>)
where
    DB: Engine,
    DB::Connection: MarkedConnection,
    S: QueueStore + QueueAdmin + 'static,
{
    let clock = Arc::new(ManualClock::default());
    let delivery = SqlDelivery::connect(store.clone(), clock, pool).await.unwrap();
    let mut tx = pool.begin().await.unwrap();
    let sent: Vec<_> = (0..10).map(|number| mail(&format!("r{number}@example.net"))).collect();
    for (number, (envelope, message)) in sent.iter().enumerate() {
        if number == 5 {
            let (envelope, message) = mail("undone@example.net");
            let mut savepoint = tx.begin().await.unwrap();
            delivery.attach(&mut *savepoint, envelope, message).await.unwrap();
            assert_eq!(attached(&mut *savepoint, &*store).await.unwrap().len(), 6);
            savepoint.rollback().await.unwrap();
        }
        delivery.attach(&mut *tx, envelope.clone(), message.clone()).await.unwrap();
    }
    let seen = attached(&mut *tx, &*store).await.unwrap();
    let seen: Vec<_> = seen
        .into_iter()
        .map(|AttachedMail { envelope, message, .. }| (envelope, message))
        .collect();
    assert_eq!(seen, sent);

    let mut other = pool.acquire().await.unwrap();
    assert_eq!(attached(&mut *other, &*store).await.unwrap(), [], "seen from outside");
    tx.rollback().await.unwrap();
    assert_eq!(attached(&mut *other, &*store).await.unwrap(), []);
}

fn mail(to: &str) -> (Envelope, Message) {
    let text = format!("Subject: for {to}\n\nThank you.\n");
    let message = Message::from_raw(text.as_bytes(), Timestamp::EPOCH, "example.org").unwrap();
    (Envelope::parse("shop@example.org", [to]).unwrap(), message)
}
