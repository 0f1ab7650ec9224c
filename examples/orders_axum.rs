//! A web service that takes orders: a transaction per request, and in it the order, its mail and the
//! stock. A request that fails leaves none of them.
//!
//! `DATABASE_URL=… cargo run -p sendmail-examples --bin orders-axum -- /tmp/queue 127.0.0.1:8080`
//!
//! ```text
//! curl -i 127.0.0.1:8080/orders --json '{"customer": "alice@example.net", "item": "book"}'
//! ```
//!
//! The mail is sent by `sendmail-queue run`, which asks the database what became of each transaction; the
//! processor can also be a task of the service, as in `processor_task.rs`. The service itself does
//! nothing after the commit, and so nothing can be lost there.
//!
//! The layer and the extractor are in `src/adaptors/axum.rs`, made to be copied. SIGTERM or Ctrl-C ends
//! the service when the requests under way are answered; SIGKILL does no harm.

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::env;
use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json, Router, middleware};
use sendmail_clock::SystemClock;
use sendmail_examples::adaptors::{Tx, transaction_per_request};
use sendmail_examples::orders;
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::{AttachExt as _, SqlDelivery, migrate};
use sqlx::PgPool;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// What is on sale, and how many pieces there are. Whoever takes one locks its row until the commit.
const STOCK: &str = "CREATE TABLE IF NOT EXISTS stock (
    item text PRIMARY KEY,
    pieces int NOT NULL CHECK (pieces >= 0)
);
INSERT INTO stock VALUES ('book', 100), ('rarity', 0) ON CONFLICT DO NOTHING";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let (queue, address) = arguments().ok_or("give the queue's directory and an address")?;
    let pool = PgPool::connect(&orders::database_url()?).await?;

    // Where a service runs its migrations. Ours may run again.
    migrate(&pool).await?;
    sqlx::raw_sql(orders::TABLE).execute(&pool).await?;
    sqlx::raw_sql(STOCK).execute(&pool).await?;

    let store = MaildirStore::open(queue, MaildirOptions::default()).await?;
    let delivery = SqlDelivery::connect(Arc::new(store), Arc::new(SystemClock), &pool).await?;
    let service = Router::new()
        .route("/orders", post(order))
        .route_layer(middleware::from_fn_with_state(pool.clone(), transaction_per_request))
        .with_state(Shop { delivery: Arc::new(delivery) });

    let listener = TcpListener::bind(&address).await?;
    println!("listening on {}", listener.local_addr()?);
    let mut terminated = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminated.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    axum::serve(listener, service).with_graceful_shutdown(stop).await?;
    pool.close().await;
    Ok(())
}

fn arguments() -> Option<(PathBuf, String)> {
    let mut arguments = env::args().skip(1);
    Some((arguments.next()?.into(), arguments.next()?))
}

/// What the handlers need.
#[derive(Clone)]
struct Shop {
    delivery: Arc<SqlDelivery>,
}

/// What is ordered, and by whom.
#[derive(serde::Deserialize)]
struct Order {
    customer: String,
    item: String,
}

/// `POST /orders`. Whatever is returned as an error takes back all that was done before, mail included.
async fn order(
    State(shop): State<Shop>,
    mut tx: Tx,
    Json(order): Json<Order>,
) -> Result<StatusCode, Refusal> {
    let (envelope, message) =
        orders::confirmation(&order.customer).map_err(|_| Refusal::NoAddress)?;
    sqlx::query("INSERT INTO orders (customer) VALUES ($1)")
        .bind(&order.customer)
        .execute(&mut *tx)
        .await?;
    shop.delivery.attach(&mut *tx, envelope, message).await?;
    let taken = sqlx::query("UPDATE stock SET pieces = pieces - 1 WHERE item = $1 AND pieces > 0")
        .bind(&order.item)
        .execute(&mut *tx)
        .await?;
    match taken.rows_affected() {
        0 => Err(Refusal::SoldOut),
        _ => Ok(StatusCode::CREATED),
    }
}

/// Why an order was not taken.
enum Refusal {
    NoAddress,
    SoldOut,
    /// The database or the queue failed.
    Failed(Box<dyn Error + Send + Sync>),
}

impl<E: Error + Send + Sync + 'static> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let (status, told) = match self {
            Self::NoAddress => (StatusCode::UNPROCESSABLE_ENTITY, "that is no address\n"),
            Self::SoldOut => (StatusCode::CONFLICT, "sold out\n"),
            Self::Failed(error) => {
                // A service writes it into its log. The client is told that it was not its fault.
                println!("an order failed: {error}");
                (StatusCode::INTERNAL_SERVER_ERROR, "try again later\n")
            }
        };
        (status, told).into_response()
    }
}
