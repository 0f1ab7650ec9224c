//! Connections of PostgreSQL and MariaDB through which no mail is attached. After each refusal nothing is
//! left, neither a marker nor a message, and the connection works.

use std::sync::Arc;

use sendmail_core::{Error, ErrorKind};
use sendmail_sqlx::{AttachExt, SqlDelivery, migrate};
use sqlx::{MySql, Postgres};

use crate::support::{ORDER, Shop, Tested, mail, on_each_server};

on_each_server! {
    // Proves: D-outside
    in_autocommit => refused_autocommit_postgres, refused_autocommit_mariadb;
    // Proves: D-outside
    after_a_raw_commit => refused_raw_commit_postgres, refused_raw_commit_mariadb;
    in_another_database => refused_wrong_database_postgres, refused_wrong_database_mariadb;
    without_the_tables => refused_no_tables_postgres, refused_no_tables_mariadb;
    in_a_transaction_that_reads => refused_read_only_postgres, refused_read_only_mariadb;
}

async fn nothing_is_left<DB: Tested>(shop: &Shop<DB>) {
    assert_eq!(shop.undecided().await, []);
    assert!(shop.markers().await.is_empty());
}

fn is_no_transaction(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::InvalidState, "{error}");
    assert!(error.message().contains("in no transaction; begin one"), "{error}");
}

async fn in_autocommit<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    let mut connection = shop.pool.acquire().await.unwrap();
    is_no_transaction(&shop.attach(&mut connection).await.unwrap_err());
    nothing_is_left(&shop).await;
    // It is in autocommit as before: what is written now is there at once.
    DB::execute(&mut connection, ORDER).await.unwrap();
    assert_eq!(shop.orders().await, 1);
}

/// The driver still counts a transaction.
async fn after_a_raw_commit<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    let mut tx = shop.pool.begin().await.unwrap();
    DB::execute(&mut tx, ORDER).await.unwrap();
    DB::execute(&mut tx, "COMMIT").await.unwrap();
    is_no_transaction(&shop.attach(&mut tx).await.unwrap_err());
    nothing_is_left(&shop).await;
    assert_eq!(shop.orders().await, 1);
}

async fn in_another_database<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    let mut tx = shop.pool.begin().await.unwrap();
    let (envelope, message) = mail();
    let delivery = shop.delivery_for("db-0123456789abcdef0123456789abcdef");
    let error = delivery.attach(&mut *tx, envelope, message).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    assert!(error.message().contains("leads to another database"), "{error}");
    tx.rollback().await.unwrap();
    nothing_is_left(&shop).await;
}

async fn without_the_tables<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::empty(test).await else { return };
    let mut tx = shop.pool.begin().await.unwrap();
    let (envelope, message) = mail();
    let error = shop.delivery_for("db-1").attach(&mut *tx, envelope, message).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.message().contains("sendmail_sqlx::migrate(&pool)"), "{error}");
    tx.rollback().await.unwrap();
    assert_eq!(shop.undecided().await, []);
    let error = connect(&shop).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    migrate(&shop.pool).await.unwrap();
    connect(&shop).await.unwrap();
}

async fn in_a_transaction_that_reads<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    let mut tx = shop.pool.begin_with("START TRANSACTION READ ONLY").await.unwrap();
    let error = shop.attach(&mut tx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.message().contains("read-only"), "{error}");
    tx.rollback().await.unwrap();
    nothing_is_left(&shop).await;
}

async fn connect<DB: Tested>(shop: &Shop<DB>) -> sendmail_core::Result<SqlDelivery> {
    SqlDelivery::connect(Arc::new(shop.queue.clone()), shop.clock.clone(), &shop.pool).await
}

/// PostgreSQL would answer `Ok` to its COMMIT.
#[tokio::test]
async fn refused_failed_transaction_postgres() {
    let test = "refused_failed_transaction_postgres";
    let Some(shop) = Shop::<Postgres>::open(test).await else { return };
    let mut tx = shop.pool.begin().await.unwrap();
    Postgres::execute(&mut tx, "SELECT 1 / 0").await.unwrap_err();
    let error = shop.attach(&mut tx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted, "{error}");
    tx.rollback().await.unwrap();
    nothing_is_left(&shop).await;
}

#[tokio::test]
async fn refused_without_rights_postgres() {
    let test = "refused_without_rights_postgres";
    let Some(shop) = Shop::<Postgres>::open(test).await else { return };
    let mut tx = shop.pool.begin().await.unwrap();
    let role = "CREATE ROLE sendmail_stranger; SET LOCAL ROLE sendmail_stranger";
    Postgres::execute(&mut tx, role).await.unwrap();
    let error = shop.attach(&mut tx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.message().contains("grant it SELECT"), "{error}");
    tx.rollback().await.unwrap();
    nothing_is_left(&shop).await;
}

/// A crash of the server would empty the table.
#[tokio::test]
async fn refused_unlogged_table_postgres() {
    let test = "refused_unlogged_table_postgres";
    let Some(shop) = Shop::<Postgres>::open(test).await else { return };
    let mut connection = shop.pool.acquire().await.unwrap();
    let unlogged = "ALTER TABLE sendmail_marker SET UNLOGGED";
    Postgres::execute(&mut connection, unlogged).await.unwrap();
    let error = connect(&shop).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains("unlogged"), "{error}");
}

/// A statement that makes a table has committed the transaction, and the driver does not know.
// Proves: D-outside
#[tokio::test]
async fn refused_after_an_implicit_commit_mariadb() {
    let test = "refused_after_an_implicit_commit_mariadb";
    let Some(shop) = Shop::<MySql>::open(test).await else { return };
    let mut tx = shop.pool.begin().await.unwrap();
    MySql::execute(&mut tx, ORDER).await.unwrap();
    MySql::execute(&mut tx, "CREATE TABLE other (id int)").await.unwrap();
    is_no_transaction(&shop.attach(&mut tx).await.unwrap_err());
    nothing_is_left(&shop).await;
}

/// With `autocommit = 0` there is always a transaction.
#[tokio::test]
async fn attached_without_autocommit_mariadb() {
    let test = "attached_without_autocommit_mariadb";
    let Some(shop) = Shop::<MySql>::open(test).await else { return };
    let mut connection = shop.pool.acquire().await.unwrap();
    MySql::execute(&mut connection, "SET autocommit = 0").await.unwrap();
    shop.attach(&mut connection).await.unwrap();
    MySql::execute(&mut connection, "ROLLBACK").await.unwrap();
    assert!(shop.markers().await.is_empty());
    shop.attach(&mut connection).await.unwrap();
    MySql::execute(&mut connection, "COMMIT; SET autocommit = 1").await.unwrap();
    assert_eq!(shop.markers().await.len(), 1);
}

/// A rollback would not take its markers back.
#[tokio::test]
async fn refused_other_engine_mariadb() {
    let test = "refused_other_engine_mariadb";
    let Some(shop) = Shop::<MySql>::open(test).await else { return };
    let mut connection = shop.pool.acquire().await.unwrap();
    MySql::execute(&mut connection, "ALTER TABLE sendmail_marker ENGINE = Aria").await.unwrap();
    let error = connect(&shop).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.message().contains("sendmail_marker is Aria"), "{error}");
}
