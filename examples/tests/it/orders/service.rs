//! The web service: a transaction per request.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use sendmail_tests::process;
use sqlx::PgPool;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::process::Child;

use super::http::post;
use super::scene::{Left, Scene};

const BOOK: &str = r#"{"customer": "alice@example.net", "item": "book"}"#;

// Proves: D-drivers
#[tokio::test]
async fn an_order_that_is_answered_is_kept_with_its_mail_whoever_dies_then() {
    let Some(scene) = Scene::new("axum_answers") else { return };
    let mut service = Service::start(&scene).await;
    assert_eq!(post(service.address, "/orders", BOOK).await.unwrap(), 201);
    assert_eq!(post(service.address, "/orders", BOOK).await.unwrap(), 201);
    service.child.kill().await.unwrap();
    let Left { orders, mails } = scene.left().await;
    assert_eq!((orders, mails.len()), (2, 2));
    assert_ne!(mails[0], mails[1]);
}

#[tokio::test]
async fn a_request_that_fails_leaves_nothing() {
    let Some(scene) = Scene::new("axum_fails") else { return };
    let service = Service::start(&scene).await;
    // The first has put in its order and attached its mail before it turns out to be sold out.
    for (body, status) in [
        (r#"{"customer": "alice@example.net", "item": "rarity"}"#, 409),
        (r#"{"customer": "alice@example.net\r\nBcc: x@y.example", "item": "book"}"#, 422),
        (r#"{"customer": "alice@example.net"}"#, 422),
        ("{", 400),
    ] {
        assert_eq!(post(service.address, "/orders", body).await.unwrap(), status, "{body}");
    }
    // The process lives: it is the database that says that the mail was rolled back.
    let report = scene.recover().await;
    assert_eq!(report.messages.len(), 1, "{report:?}");
    assert_eq!(scene.left().await, Left { orders: 0, mails: vec![] });
    assert_eq!(post(service.address, "/orders", BOOK).await.unwrap(), 201);
}

#[tokio::test]
async fn killed_within_a_request_it_leaves_nothing() {
    let Some(scene) = Scene::new("axum_dies") else { return };
    let mut service = Service::start(&scene).await;
    let pool = scene.pool().await;
    let held = hold_the_stock(&pool).await;
    let request = tokio::spawn(post(service.address, "/orders", BOOK));
    wait_until_one_waits(&pool).await;
    service.child.kill().await.unwrap();
    request.await.unwrap().expect_err("nobody is there to answer");

    // The server works on, and does not know that its client is dead: the mail stays in doubt.
    let report = scene.recover().await;
    assert_eq!((report.messages.len(), report.kept()), (1, 1), "{report:?}");
    held.rollback().await.unwrap();
    assert_eq!(scene.left().await, Left { orders: 0, mails: vec![] });
}

#[tokio::test]
async fn told_to_stop_it_answers_the_request_first() {
    let Some(scene) = Scene::new("axum_stops") else { return };
    let mut service = Service::start(&scene).await;
    let pool = scene.pool().await;
    let held = hold_the_stock(&pool).await;
    let request = tokio::spawn(post(service.address, "/orders", BOOK));
    wait_until_one_waits(&pool).await;
    process::signal(&service.child, Signal::TERM).unwrap();
    // It takes no new ones from here on, which shows that it has heard.
    let deadline = Instant::now() + Duration::from_secs(30);
    while TcpStream::connect(service.address).await.is_ok() {
        assert!(Instant::now() < deadline, "it still takes requests");
    }
    held.rollback().await.unwrap();
    assert_eq!(request.await.unwrap().unwrap(), 201);
    assert!(service.child.wait().await.unwrap().success());
    let Left { orders, mails } = scene.left().await;
    assert_eq!((orders, mails.len()), (1, 1));
}

/// The service, and where it listens.
struct Service {
    child: Child,
    address: SocketAddr,
}

impl Service {
    async fn start(scene: &Scene) -> Self {
        let program = env!("CARGO_BIN_EXE_orders-axum");
        let mut command = scene.program(program, "127.0.0.1:0");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let line = lines.next_line().await.unwrap().expect("the service did not start");
        let address = line.strip_prefix("listening on ").unwrap().parse().unwrap();
        // Read on, lest it dies of a line that nobody reads.
        tokio::spawn(
            async move { while lines.next_line().await.is_ok_and(|line| line.is_some()) {} },
        );
        Self { child, address }
    }
}

/// Locks the row that an order takes its piece from: requests stop there, with their mail attached.
async fn hold_the_stock(pool: &PgPool) -> sqlx::Transaction<'static, sqlx::Postgres> {
    let mut held = pool.begin().await.unwrap();
    let lock = "SELECT FROM stock WHERE item = 'book' FOR UPDATE";
    sqlx::query(lock).execute(&mut *held).await.unwrap();
    held
}

/// Returns when a session of this database waits for another's lock.
async fn wait_until_one_waits(pool: &PgPool) {
    let waiting = "SELECT count(*) FROM pg_stat_activity
        WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let deadline = Instant::now() + Duration::from_secs(30);
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(pool).await.unwrap() == 0 {
        assert!(Instant::now() < deadline, "no request came to the stock");
    }
}
