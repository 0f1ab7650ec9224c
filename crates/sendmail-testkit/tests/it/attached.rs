//! What is attached to a transaction that is open, in SQLite and a queue in memory.
//!
//! How markers are left is the business of another crate; here they are written as its tables say. With
//! real deliveries, a Maildir and the other databases it is shown by the package `sendmail-tests`.

use std::sync::Arc;

use sendmail_core::{Clock as _, Envelope, Message, NewMessage, QueueId, QueueStore as _};
use sendmail_testkit::{ManualClock, MemoryStore, attached};
use sqlx::{Connection as _, SqliteConnection};

const TABLE: &str = "CREATE TABLE sendmail_marker (
    id BLOB NOT NULL PRIMARY KEY, kind INTEGER NOT NULL, queue TEXT NOT NULL) WITHOUT ROWID";

/// A clock that stands still, so that time does not tell what was first.
fn clock() -> ManualClock {
    ManualClock::default()
}

async fn database() -> SqliteConnection {
    let mut database = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    sqlx::raw_sql(TABLE).execute(&mut database).await.unwrap();
    database
}

fn new(recipient: &str) -> NewMessage {
    let text = format!("Subject: for {recipient}\n\nHello.\n");
    NewMessage {
        id: QueueId::mint(clock().now()),
        envelope: Envelope::parse("shop@example.org", [recipient]).unwrap(),
        message: Message::from_raw(text.as_bytes(), clock().now(), "example.org").unwrap(),
        resource: "db-1".parse().unwrap(),
    }
}

async fn mark(tx: &mut SqliteConnection, id: QueueId, kind: i64, queue: &str) {
    let insert = sqlx::query("INSERT INTO sendmail_marker (id, kind, queue) VALUES (?, ?, ?)");
    let insert = insert.bind(id.as_bytes().to_vec()).bind(kind).bind(queue);
    insert.execute(tx).await.unwrap();
}

async fn attach(tx: &mut SqliteConnection, queue: &MemoryStore, new: &NewMessage) {
    queue.write(new).await.unwrap();
    mark(tx, new.id, 1, queue.resource_id().as_str()).await;
    queue.stage(&[new.id]).await.unwrap();
}

#[tokio::test]
async fn it_is_what_was_attached_in_order_and_gone_after_the_rollback() {
    let queue = MemoryStore::new(Arc::new(clock()));
    let mut database = database().await;
    let mut tx = database.begin().await.unwrap();
    let sent: Vec<NewMessage> = (0..20).map(|n| new(&format!("r{n}@example.net"))).collect();
    for new in &sent {
        attach(&mut tx, &queue, new).await;
    }
    let mails = attached(&mut *tx, &queue).await.unwrap();
    assert_eq!(mails.len(), sent.len());
    for (mail, new) in mails.iter().zip(&sent) {
        assert_eq!(mail.queue_id, new.id);
        assert_eq!((&mail.envelope, &mail.message), (&new.envelope, &new.message));
    }
    assert_eq!(attached(&mut *tx, &queue).await.unwrap(), mails);
    tx.rollback().await.unwrap();
    assert_eq!(attached(&mut database, &queue).await.unwrap(), []);
}

#[tokio::test]
async fn a_savepoint_takes_its_mail_with_it() {
    let queue = MemoryStore::new(Arc::new(clock()));
    let mut database = database().await;
    let mut tx = database.begin().await.unwrap();
    let (kept, undone) = (new("kept@example.net"), new("undone@example.net"));
    attach(&mut tx, &queue, &kept).await;
    let mut savepoint = tx.begin().await.unwrap();
    attach(&mut savepoint, &queue, &undone).await;
    assert_eq!(attached(&mut *savepoint, &queue).await.unwrap().len(), 2);
    savepoint.rollback().await.unwrap();
    let mails = attached(&mut *tx, &queue).await.unwrap();
    assert_eq!(mails.iter().map(|mail| mail.queue_id).collect::<Vec<_>>(), [kept.id]);
}

#[tokio::test]
async fn only_mail_of_this_queue_that_waits_for_a_decision_counts() {
    let queue = MemoryStore::new(Arc::new(clock()));
    let mut database = database().await;
    let mut tx = database.begin().await.unwrap();
    let published = new("a@example.net");
    attach(&mut tx, &queue, &published).await;
    queue.publish(&[published.id]).await.unwrap();
    // A tombstone, another queue's, and one whose message is nowhere.
    let (fenced, other) = (new("b@example.net"), new("c@example.net"));
    for new in [&fenced, &other] {
        queue.write(new).await.unwrap();
        queue.stage(&[new.id]).await.unwrap();
    }
    mark(&mut tx, fenced.id, 3, "memory").await;
    mark(&mut tx, other.id, 1, "elsewhere").await;
    mark(&mut tx, QueueId::mint(clock().now()), 1, "memory").await;
    assert_eq!(attached(&mut *tx, &queue).await.unwrap(), []);
}

#[tokio::test]
async fn a_missing_table_says_what_to_do() {
    let queue = MemoryStore::new(Arc::new(clock()));
    let mut database = SqliteConnection::connect("sqlite::memory:").await.unwrap();
    let error = attached(&mut database, &queue).await.unwrap_err();
    assert!(error.to_string().contains("migrate"), "{error}");
}
