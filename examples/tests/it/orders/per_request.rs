//! The layer that gives each request a transaction, with handlers that do what they should not.

use std::net::SocketAddr;

use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post as on_post;
use axum::{Router, middleware};
use sendmail_examples::adaptors::{Tx, transaction_per_request};
use sendmail_examples::orders;
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::oneshot;

use super::http::post;
use super::scene::Scene;

#[tokio::test]
async fn a_good_answer_commits_and_every_other_rolls_back() {
    let Some(scene) = Scene::new("per_request_answers") else { return };
    let server = Server::start(&scene).await;
    for (path, status, orders) in [
        ("/good", 201, 1),
        ("/moved", 303, 2),
        ("/refused", 404, 2),
        // It does not mind that a statement failed. The database does.
        ("/careless", 500, 2),
        ("/twice", 500, 2),
        ("/bare", 500, 2),
        ("/good", 201, 3),
    ] {
        assert_eq!(post(server.address, path, "").await.unwrap(), status, "{path}");
        assert_eq!(scene.rows("orders"), orders, "{path}");
    }
}

#[tokio::test]
async fn a_handler_that_panics_or_keeps_it_does_not_commit() {
    let Some(scene) = Scene::new("per_request_panics") else { return };
    let mut server = Server::start(&scene).await;
    post(server.address, "/panics", "").await.expect_err("it died of the panic");
    assert_eq!(post(server.address, "/keeps", "").await.unwrap(), 500);
    server.let_go.recv().await.unwrap().send(()).unwrap();
    // When the pool is closed, every transaction has ended.
    server.pool.close().await;
    assert_eq!(scene.rows("orders"), 0);
}

#[tokio::test]
async fn a_client_that_goes_away_takes_its_transaction_along() {
    let Some(scene) = Scene::new("per_request_gone") else { return };
    let mut server = Server::start(&scene).await;
    let request = tokio::spawn(post(server.address, "/waits", ""));
    let mut waiting = server.let_go.recv().await.unwrap();
    request.abort();
    // The handler is dropped while it waits.
    waiting.closed().await;
    server.pool.close().await;
    assert_eq!(scene.rows("orders"), 0);
}

/// A service whose handlers put in an order each, and then do something.
struct Server {
    address: SocketAddr,
    pool: PgPool,
    /// From handlers that wait: until it is sent something, or dropped.
    let_go: UnboundedReceiver<oneshot::Sender<()>>,
}

type Waiting = UnboundedSender<oneshot::Sender<()>>;

impl Server {
    async fn start(scene: &Scene) -> Self {
        let pool = scene.pool().await;
        sqlx::raw_sql(orders::TABLE).execute(&pool).await.unwrap();
        let (sender, let_go) = unbounded_channel();
        let router = Router::new()
            .route("/good", on_post(good))
            .route("/moved", on_post(moved))
            .route("/refused", on_post(refused))
            .route("/careless", on_post(careless))
            .route("/twice", on_post(twice))
            .route("/panics", on_post(panics))
            .route("/keeps", on_post(keeps))
            .route("/waits", on_post(waits))
            .route_layer(middleware::from_fn_with_state(pool.clone(), transaction_per_request))
            .route("/bare", on_post(good))
            .with_state(sender);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { address, pool, let_go }
    }
}

async fn order(tx: &mut Tx) {
    let insert = "INSERT INTO orders (customer) VALUES ('alice@example.net')";
    sqlx::query(insert).execute(&mut **tx).await.unwrap();
}

async fn good(mut tx: Tx) -> StatusCode {
    order(&mut tx).await;
    StatusCode::CREATED
}

async fn moved(mut tx: Tx) -> StatusCode {
    order(&mut tx).await;
    StatusCode::SEE_OTHER
}

async fn refused(mut tx: Tx) -> StatusCode {
    order(&mut tx).await;
    StatusCode::NOT_FOUND
}

async fn careless(mut tx: Tx) -> StatusCode {
    order(&mut tx).await;
    sqlx::query("SELECT 1/0").execute(&mut *tx).await.unwrap_err();
    StatusCode::CREATED
}

async fn twice(_: Tx, _: Tx) -> StatusCode {
    StatusCode::CREATED
}

async fn panics(mut tx: Tx) -> StatusCode {
    order(&mut tx).await;
    panic!("as the test wants it");
}

async fn keeps(State(waiting): State<Waiting>, mut tx: Tx) -> StatusCode {
    order(&mut tx).await;
    tokio::spawn(wait(waiting, tx));
    StatusCode::CREATED
}

async fn waits(State(waiting): State<Waiting>, mut tx: Tx) -> StatusCode {
    order(&mut tx).await;
    wait(waiting, tx).await;
    StatusCode::CREATED
}

async fn wait(waiting: Waiting, _tx: Tx) {
    let (sender, receiver) = oneshot::channel();
    waiting.send(sender).unwrap();
    receiver.await.unwrap();
}
