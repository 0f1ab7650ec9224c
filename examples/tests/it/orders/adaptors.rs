//! The adaptors by themselves: refused outside a transaction, taken along by savepoints, and telling what
//! the database said.

use std::sync::Arc;

use diesel_async::{AsyncConnection as _, AsyncPgConnection, SimpleAsyncConnection as _};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, TransactionTrait as _};
use sendmail_clock::SystemClock;
use sendmail_core::{Attach as _, ErrorKind, MarkerSink, QueueStore as _};
use sendmail_examples::adaptors::{Diesel, SeaOrm, TokioPg};
use sendmail_examples::orders::{self, CUSTOMER};
use sendmail_sqlx::{SqlDelivery, migrate};
use tokio_postgres::NoTls;

use super::scene::{Left, Scene};

type Failure = Box<dyn std::error::Error + Send + Sync>;

// Proves: D-drivers
#[tokio::test]
async fn tokio_postgres_goes_with_its_transactions() {
    let Some(scene) = Scene::new("adaptor_tokio_postgres") else { return };
    let delivery = delivery(&scene).await;
    let mut client = tokio_postgres(&scene).await;
    is_refused(&scene, &delivery, &mut TokioPg(&client)).await;

    let mut outer = client.transaction().await.unwrap();
    let kept = attach(&delivery, &mut TokioPg(&outer)).await;
    let inner = outer.transaction().await.unwrap();
    attach(&delivery, &mut TokioPg(&inner)).await;
    inner.rollback().await.unwrap();
    outer.commit().await.unwrap();
    assert_eq!(scene.left().await, Left { orders: 0, mails: vec![kept] });
}

// Proves: D-drivers
#[tokio::test]
async fn diesel_async_goes_with_its_transactions() {
    let Some(scene) = Scene::new("adaptor_diesel_async") else { return };
    let delivery = delivery(&scene).await;
    let mut connection = diesel_async(&scene).await;
    is_refused(&scene, &delivery, &mut Diesel(&mut connection)).await;

    let outer = connection.transaction::<_, Failure, _>(async |outer| {
        let kept = attach(&delivery, &mut Diesel(outer)).await;
        let inner = outer.transaction::<(), Failure, _>(async |inner| {
            attach(&delivery, &mut Diesel(inner)).await;
            Err(diesel::result::Error::RollbackTransaction.into())
        });
        inner.await.unwrap_err();
        Ok(kept)
    });
    let kept = outer.await.unwrap();
    assert_eq!(scene.left().await, Left { orders: 0, mails: vec![kept] });
}

// Proves: D-drivers
#[tokio::test]
async fn sea_orm_goes_with_its_transactions() {
    let Some(scene) = Scene::new("adaptor_sea_orm") else { return };
    let delivery = delivery(&scene).await;
    let database = Database::connect(&scene.url).await.unwrap();
    is_refused(&scene, &delivery, &mut SeaOrm(&database)).await;

    let outer = database.begin().await.unwrap();
    let kept = attach(&delivery, &mut SeaOrm(&outer)).await;
    let inner = outer.begin().await.unwrap();
    attach(&delivery, &mut SeaOrm(&inner)).await;
    inner.rollback().await.unwrap();
    outer.commit().await.unwrap();
    assert_eq!(scene.left().await, Left { orders: 0, mails: vec![kept] });
}

/// What the database may say to a marker: how to make it say so, and its code.
const SAID: [(&str, &str); 6] = [
    ("SAVEPOINT nobody", "25P01"),
    ("INSERT INTO unique_numbers VALUES (1)", "23505"),
    ("INSERT INTO unique_numbers VALUES (NULL)", "23502"),
    ("BEGIN READ ONLY; INSERT INTO unique_numbers VALUES (2)", "25006"),
    // These two are beyond diesel.
    ("INSERT INTO missing VALUES (1)", "42P01"),
    ("BEGIN; SELECT 1/0", "22012"),
];

const NUMBERS: &str =
    "CREATE TABLE unique_numbers (number int PRIMARY KEY); INSERT INTO unique_numbers VALUES (1)";

#[tokio::test]
async fn each_tells_what_the_database_said() {
    let Some(scene) = Scene::new("adaptors_tell") else { return };
    let client = tokio_postgres(&scene).await;
    let mut connection = diesel_async(&scene).await;
    // One connection, so that the rollback comes to the same.
    let mut options = ConnectOptions::new(&scene.url);
    options.max_connections(1);
    let database = Database::connect(options).await.unwrap();
    client.batch_execute(NUMBERS).await.unwrap();
    for (sql, code) in SAID {
        says(&mut TokioPg(&client), sql, Some(code)).await;
        client.batch_execute("ROLLBACK").await.unwrap();
        let by_diesel = Some(code).filter(|code| !["42P01", "22012"].contains(code));
        says(&mut Diesel(&mut connection), sql, by_diesel).await;
        connection.batch_execute("ROLLBACK").await.unwrap();
        // A pool gives the same connection to one that asks alone.
        says(&mut SeaOrm(&database), sql, Some(code)).await;
        database.execute_unprepared("ROLLBACK").await.unwrap();
    }
}

#[tokio::test]
async fn each_tells_a_lost_connection_from_a_refusal() {
    let Some(scene) = Scene::new("adaptors_lose") else { return };
    let client = tokio_postgres(&scene).await;
    let mut connection = diesel_async(&scene).await;
    // A pool would connect anew; a transaction cannot.
    let transaction = Database::connect(&scene.url).await.unwrap().begin().await.unwrap();
    for sink in [
        &mut TokioPg(&client) as &mut dyn MarkerSink,
        &mut Diesel(&mut connection),
        &mut SeaOrm(&transaction),
    ] {
        // The first says why the session ends, where the driver hands that on; what comes then is lost.
        let _ = sink.batch("SELECT pg_terminate_backend(pg_backend_pid())").await;
        let error = sink.batch("SELECT 1").await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.is_temporary());
    }
}

async fn says(sink: &mut dyn MarkerSink, sql: &str, code: Option<&str>) {
    let error = sink.batch(sql).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Refused, "{error}");
    let told = error.context().iter().find(|(key, _)| *key == "code");
    assert_eq!(told.map(|(_, value)| value.as_str()), code, "{error}");
    // With or without a code there are the database's own words.
    let words = ["SAVEPOINT", "unique_numbers", "read-only", "missing", "zero"];
    assert!(words.iter().any(|word| error.message().contains(word)), "{error}");
}

/// On a connection in autocommit nothing may be left behind, and it must be said what is wrong.
async fn is_refused(scene: &Scene, delivery: &SqlDelivery, sink: &mut dyn MarkerSink) {
    let (envelope, message) = orders::confirmation(CUSTOMER).unwrap();
    let error = delivery.attach_with(sink, envelope, message).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState, "{error}");
    assert!(error.message().contains("the connection is in no transaction"), "{error}");
    assert_eq!(scene.rows("sendmail_marker"), 0);
    assert!(scene.store().await.undecided().await.unwrap().is_empty());
}

async fn attach(delivery: &SqlDelivery, sink: &mut dyn MarkerSink) -> String {
    let (envelope, message) = orders::confirmation(CUSTOMER).unwrap();
    delivery.attach_with(sink, envelope, message).await.unwrap().to_string()
}

/// A delivery into the queue of the scene, whose database gets its tables.
async fn delivery(scene: &Scene) -> SqlDelivery {
    let pool = scene.pool().await;
    migrate(&pool).await.unwrap();
    sqlx::raw_sql(orders::TABLE).execute(&pool).await.unwrap();
    let store = Arc::new(scene.store().await);
    SqlDelivery::connect(store, Arc::new(SystemClock), &pool).await.unwrap()
}

async fn tokio_postgres(scene: &Scene) -> tokio_postgres::Client {
    let (client, connection) = tokio_postgres::connect(&scene.url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

async fn diesel_async(scene: &Scene) -> AsyncPgConnection {
    AsyncPgConnection::establish(&scene.url).await.unwrap()
}
