//! Connections through which no mail is attached. After each refusal nothing is left, neither a marker
//! nor a staged message nor an open transaction, and the connection works.

use std::sync::Arc;

use sendmail_core::mock::MockQueueStore;
use sendmail_core::{Error, ErrorKind, Message, ResourceId, Timestamp};
use sendmail_sqlx::{AttachExt, SqlDelivery};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqlitePoolOptions;

use crate::scene::{Call, MODES, ORDER, Scene, clock, mail};

/// Attaches through `connection`, which must be refused, and looks at what is left.
async fn refusal(scene: &Scene, connection: &mut SqliteConnection) -> Error {
    let delivery = scene.delivery().await;
    let (envelope, message) = mail();
    let error = delivery.attach(&mut *connection, envelope, message).await.unwrap_err();
    assert_eq!(scene.calls.staged(), []);
    let calls = scene.calls.all();
    let [.., Call::Write(written), Call::Discard(discarded)] = calls[..] else {
        panic!("what was written must go: {calls:?}")
    };
    assert_eq!(written, discarded);
    sqlx::raw_sql("SELECT 1").execute(&mut *connection).await.unwrap();
    error
}

fn is_no_transaction(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::InvalidState, "{error}");
    assert!(error.message().contains("in no transaction; begin one"), "{error}");
}

// Proves: D-outside
#[tokio::test]
async fn a_connection_of_the_pool_in_autocommit() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let mut connection = scene.pool.acquire().await.unwrap();
        is_no_transaction(&refusal(&scene, &mut connection).await);
        // It is in autocommit as before: what is written now is there at once.
        sqlx::raw_sql(ORDER).execute(&mut *connection).await.unwrap();
        assert_eq!((scene.orders().await, scene.markers().await.len()), (1, 0));
    }
}

/// The driver still counts one.
// Proves: D-outside
#[tokio::test]
async fn a_transaction_that_was_committed_behind_the_drivers_back() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let mut tx = scene.pool.begin().await.unwrap();
        sqlx::raw_sql(ORDER).execute(&mut *tx).await.unwrap();
        sqlx::raw_sql("COMMIT").execute(&mut *tx).await.unwrap();
        is_no_transaction(&refusal(&scene, &mut tx).await);
        assert_eq!((scene.orders().await, scene.markers().await.len()), (1, 0));
    }
}

#[tokio::test]
async fn a_database_without_the_tables() {
    for mode in MODES {
        let scene = Scene::without_tables(mode).await;
        let resource: ResourceId = "db-1".parse().unwrap();
        let mut store = MockQueueStore::new();
        store.expect_capabilities().return_const(sendmail_core::Capabilities::new());
        store.expect_resource_id().return_const("queue-1".parse::<ResourceId>().unwrap());
        store.expect_write().once().returning(|_| Ok(()));
        store.expect_discard().once().returning(|_, _| Ok(Vec::new()));
        let delivery = SqlDelivery::new(Arc::new(store), Arc::new(clock()), resource);
        let mut tx = scene.pool.begin().await.unwrap();
        let (envelope, message) = mail();
        let error = delivery.attach(&mut *tx, envelope, message).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
        assert!(error.message().contains("sendmail_sqlx::migrate(&pool)"), "{error}");
        assert!(error.message().contains("`migrations` folder"), "{error}");
        tx.commit().await.unwrap();
    }
}

#[tokio::test]
async fn a_connection_to_another_database() {
    for mode in MODES {
        let (scene, other) = (Scene::new(mode).await, Scene::new(mode).await);
        let mut tx = other.pool.begin().await.unwrap();
        let error = refusal(&scene, &mut tx).await;
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        assert!(error.message().contains("leads to another database"), "{error}");
        tx.commit().await.unwrap();
        assert!(other.markers().await.is_empty());
    }
}

#[tokio::test]
async fn a_connection_that_only_reads() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let options = scene.options().pragma("query_only", "1");
        let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        let error = refusal(&scene, &mut tx).await;
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.message().contains("read-only"), "{error}");
        tx.commit().await.unwrap();
    }
}

/// Another writer is in the way: it helps to try again.
#[tokio::test]
async fn a_locked_database() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let options = scene.options().busy_timeout(std::time::Duration::ZERO);
        let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
        let writer = scene.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        let error = refusal(&scene, &mut tx).await;
        assert_eq!((error.kind(), error.is_temporary()), (ErrorKind::Busy, true), "{error}");
        writer.rollback().await.unwrap();
        let (envelope, message) = mail();
        scene.delivery().await.attach(&mut *tx, envelope, message).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(scene.markers().await, scene.calls.staged());
    }
}

/// Before anything is written or asked.
#[tokio::test]
async fn a_message_that_is_too_large() {
    let scene = Scene::new(MODES[0]).await;
    let mut tx = scene.pool.begin().await.unwrap();
    let text = [&b"Message-ID: <1@example.org>\n\n"[..], &b"x\n".repeat(500)].concat();
    let message = Message::from_raw(&text, Timestamp::EPOCH, "example.org").unwrap();
    let error = scene.delivery().await.attach(&mut *tx, mail().0, message).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert_eq!(scene.calls.all(), []);
}
