//! Making the tables, and looking at a database before it is used.

use std::sync::Arc;

use sendmail_core::ErrorKind;
use sendmail_core::mock::MockQueueStore;
use sendmail_sqlx::{SqlDelivery, migrate, migrations, resource};
use sqlx::SqlitePool;
use sqlx::sqlite::SqlitePoolOptions;

use crate::scene::{MODES, Scene, clock};

#[tokio::test]
async fn many_may_migrate_at_once_and_agree_on_the_identity() {
    for mode in MODES {
        let scene = Scene::without_tables(mode).await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let pool = SqlitePoolOptions::new().connect_with(scene.options()).await.unwrap();
            tasks.spawn(async move {
                migrate(&pool).await.unwrap();
                resource(&pool).await.unwrap()
            });
        }
        let identities = tasks.join_all().await;
        assert_eq!(identities.len(), 8);
        assert!(identities.iter().all(|identity| *identity == identities[0]), "{identities:?}");
    }
}

#[tokio::test]
async fn the_file_may_be_run_instead_and_again() {
    let scene = Scene::without_tables(MODES[0]).await;
    sqlx::raw_sql(migrations::SQLITE).execute(&scene.pool).await.unwrap();
    let identity = resource(&scene.pool).await.unwrap();
    sqlx::raw_sql(migrations::SQLITE).execute(&scene.pool).await.unwrap();
    migrate(&scene.pool).await.unwrap();
    assert_eq!(resource(&scene.pool).await.unwrap(), identity);
    let hex = identity.as_str().strip_prefix("db-").unwrap();
    assert!(hex.len() == 32 && hex.bytes().all(|byte| byte.is_ascii_hexdigit()), "{identity}");
}

/// While somebody writes, another process may start.
#[tokio::test]
async fn where_the_tables_are_there_it_only_looks() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let options = scene.options().busy_timeout(std::time::Duration::ZERO);
        let pool = SqlitePoolOptions::new().connect_with(options).await.unwrap();
        let writer = scene.pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        migrate(&pool).await.unwrap();
        writer.rollback().await.unwrap();
    }
}

#[tokio::test]
async fn databases_differ() {
    let (one, two) = (Scene::new(MODES[0]).await, Scene::new(MODES[0]).await);
    assert_ne!(resource(&one.pool).await.unwrap(), resource(&two.pool).await.unwrap());
}

async fn refusal_to_connect(pool: &SqlitePool) -> sendmail_core::Error {
    SqlDelivery::connect(Arc::new(MockQueueStore::new()), Arc::new(clock()), pool)
        .await
        .unwrap_err()
}

#[tokio::test]
async fn each_missing_table_is_named_with_its_remedy() {
    let scene = Scene::without_tables(MODES[0]).await;
    let error = refusal_to_connect(&scene.pool).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.message().contains("sendmail_sqlx::migrate(&pool)"), "{error}");

    migrate(&scene.pool).await.unwrap();
    sqlx::raw_sql("DROP TABLE sendmail_marker").execute(&scene.pool).await.unwrap();
    let error = refusal_to_connect(&scene.pool).await;
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");

    migrate(&scene.pool).await.unwrap();
    sqlx::raw_sql("DELETE FROM sendmail_database").execute(&scene.pool).await.unwrap();
    let error = refusal_to_connect(&scene.pool).await;
    assert!(error.message().contains("sendmail_database is empty"), "{error}");
}

#[tokio::test]
async fn a_database_in_memory_is_called_so() {
    let pool =
        SqlitePoolOptions::new().max_connections(1).connect("sqlite::memory:").await.unwrap();
    migrate(&pool).await.unwrap();
    let error = refusal_to_connect(&pool).await;
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains("the database is in memory"), "{error}");
}
