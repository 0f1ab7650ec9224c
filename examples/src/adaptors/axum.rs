//! A transaction per request for axum and sqlx.

use std::error::Error;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use axum::extract::{FromRequestParts, Request, State};
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sqlx::{Executor as _, PgConnection, PgPool, Postgres, Transaction};
use tokio::sync::{Mutex, OwnedMutexGuard};

/// Lets a request run in a transaction: a layer, by `from_fn_with_state(pool, transaction_per_request)`.
///
/// A response that tells of no error commits, before any of it is sent; every other rolls back, and so does
/// a handler that panics or whose client went away. A commit that fails is answered by 500.
///
/// # Errors
///
/// The transaction could not begin or not commit, or the handler kept it.
///
/// # Cancel safety
///
/// Dropped before the handler has answered, it rolls back. Dropped later, it may have committed; mail
/// that was attached knows.
pub async fn transaction_per_request(
    State(pool): State<PgPool>,
    mut request: Request,
    next: Next,
) -> Result<Response, NoTransaction> {
    let transaction = Arc::new(Mutex::new(pool.begin().await?));
    request.extensions_mut().insert(Shared(transaction.clone()));
    let response = next.run(request).await;
    // A handler that still has it, in a task that it left behind, must not work on what is committed here.
    let mut transaction = Arc::into_inner(transaction).ok_or(NoTransaction::Kept)?.into_inner();
    let status = response.status();
    if status.is_client_error() || status.is_server_error() {
        transaction.rollback().await?;
    } else {
        // If a statement failed, and the handler did not mind, COMMIT rolls back, and sqlx does not tell.
        // Any statement tells.
        transaction.execute("SELECT 1").await?;
        transaction.commit().await?;
    }
    Ok(response)
}

/// The request's transaction, for a handler. As a connection, `&mut *tx`, it goes where sqlx takes one, and
/// where mail is attached; to commit it is not the handler's affair.
pub struct Tx(OwnedMutexGuard<Transaction<'static, Postgres>>);

impl<S: Sync> FromRequestParts<S> for Tx {
    type Rejection = NoTransaction;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, NoTransaction> {
        let shared = parts.extensions.get::<Shared>().ok_or(NoTransaction::NoLayer)?;
        let guard = shared.0.clone().try_lock_owned();
        guard.map(Self).map_err(|_| NoTransaction::Taken)
    }
}

impl Deref for Tx {
    type Target = PgConnection;

    fn deref(&self) -> &PgConnection {
        &self.0
    }
}

impl DerefMut for Tx {
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.0
    }
}

/// Why a request has no transaction, or why it did not commit.
#[derive(Debug)]
pub enum NoTransaction {
    /// The database said so.
    Database(sqlx::Error),
    /// The route is not under the layer.
    NoLayer,
    /// The handler takes it twice.
    Taken,
    /// The handler did not give it back.
    Kept,
}

impl fmt::Display for NoTransaction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Database(error) => return error.fmt(f),
            Self::NoLayer => "the route is not under the layer transaction_per_request",
            Self::Taken => "the handler takes the transaction twice",
            Self::Kept => "the handler kept the transaction beyond its answer; rolled back",
        })
    }
}

impl Error for NoTransaction {}

impl From<sqlx::Error> for NoTransaction {
    fn from(error: sqlx::Error) -> Self {
        Self::Database(error)
    }
}

impl IntoResponse for NoTransaction {
    /// The client learns nothing of the database; a service writes the error into its log.
    fn into_response(self) -> Response {
        StatusCode::INTERNAL_SERVER_ERROR.into_response()
    }
}

/// What the layer hands to the extractor.
#[derive(Clone)]
struct Shared(Arc<Mutex<Transaction<'static, Postgres>>>);
