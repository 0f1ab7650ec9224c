//! Mail that joins a database transaction which the application begins and commits: PostgreSQL,
//! MariaDB, MySQL or SQLite.
//!
//! A service changes rows and attaches a mail in one transaction. If the transaction committed, the mail
//! goes out; if it did not, it never does: whatever is killed, whenever, and whoever calls COMMIT.
//!
//! ```no_run
//! # #[cfg(feature = "postgres")] mod example {
//! use std::sync::Arc;
//!
//! use sendmail_core::{Clock, Envelope, Message, QueueStore};
//! use sendmail_sqlx::{AttachExt, SqlDelivery};
//!
//! type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;
//!
//! /// Once, at the start.
//! async fn start(
//!     pool: &sqlx::PgPool,
//!     queue: Arc<dyn QueueStore>,
//!     clock: Arc<dyn Clock>,
//! ) -> Result<SqlDelivery> {
//!     sendmail_sqlx::migrate(pool).await?;
//!     Ok(SqlDelivery::connect(queue, clock, pool).await?)
//! }
//!
//! /// For each order.
//! async fn order(
//!     pool: &sqlx::PgPool,
//!     delivery: &SqlDelivery,
//!     clock: &dyn Clock,
//!     customer: &str,
//! ) -> Result<()> {
//!     let envelope = Envelope::parse("shop@example.org", [customer])?;
//!     let text = b"Subject: Your order\n\nThank you.\n";
//!     let message = Message::from_raw(text, clock.now(), "example.org")?;
//!
//!     let mut tx = pool.begin().await?;
//!     sqlx::query("INSERT INTO orders (customer) VALUES ($1)").bind(customer).execute(&mut *tx).await?;
//!     delivery.attach(&mut *tx, envelope, message).await?;
//!     tx.commit().await?; // Nothing else to call.
//!     Ok(())
//! }
//! # }
//! ```
//!
//! # How
//!
//! [`SqlDelivery`] writes the message into the queue, where nobody sees it, and inserts a
//! row of its own, the *marker*, in the transaction. Nobody has to be told of the commit: whoever works
//! on the queue asks the database for the marker. No marker does not mean "rolled back", since a COMMIT
//! may still run; so it inserts a *tombstone* under the same key, which decides the question for good.
//!
//! A connection that is in no transaction is refused, and the database is asked whether it is: in the
//! message that inserts the marker, so that it costs no round trip. So is a connection to another
//! database than the delivery was made for.
//!
//! | | round trips of `attach` | what it sends |
//! |---|---|---|
//! | PostgreSQL, MariaDB, MySQL | one | a savepoint made and released, the insert; as one text |
//! | SQLite | none | a question that fails before it does anything, the insert |
//!
//! # Savepoints
//!
//! A mail goes with its savepoint: attached in a nested transaction (`tx.begin()`) that is rolled back,
//! or followed by a `ROLLBACK TO` an earlier savepoint, it is not sent.
//!
//! # Events
//!
//! `SqlEventConsumer` calls a handler with each event of a queue, in a transaction that also moves the
//! consumer's cursor: what the handler does in that database happens exactly once.
//!
//! # Tables
//!
//! `sendmail_database` (which database this is), `sendmail_marker` and `sendmail_cursor`. `migrate` makes
//! them, or the texts in [`migrations`], run by whatever runs yours. The application's role needs SELECT
//! on the first, and SELECT, INSERT and DELETE on the second.
//!
//! # Other drivers
//!
//! Whatever can send a text to the database is a [`MarkerSink`](sendmail_core::MarkerSink) in a few
//! lines, and mail is attached by [`Attach::attach_with`](sendmail_core::Attach::attach_with). For that no
//! feature is needed, and sqlx is not built.
//!
//! # Features
//!
//! None is on by default.
//!
//! | feature | what it brings |
//! |---|---|
//! | `postgres` | `PgConnection` and `PgPool` |
//! | `mysql` | `MySqlConnection` and `MySqlPool`: MariaDB 10.11 and later; MySQL 8 has the same SQL and is untested |
//! | `sqlite` | `SqliteConnection` and `SqlitePool` |
//!
//! **What is absent.** No outbox table with the mail's text in the database; no hook after the commit; no
//! two-phase commit of the database; no trust in clocks. TLS for database connections is the
//! application's choice of sqlx's features. This crate knows the traits of `sendmail-core` and no queue.

// No panic that input can reach: the rule is the same in each library, and `cargo xtask tidy` wants it.
#![cfg_attr(
    not(test),
    deny(
        clippy::allow_attributes_without_reason,
        clippy::expect_used,
        clippy::get_unwrap,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unreachable,
        clippy::unwrap_in_result,
        clippy::unwrap_used
    )
)]

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod attach;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod connection;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod decision;
mod delivery;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod engine;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod error;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod events;
#[cfg(fuzzing)]
pub mod fuzz;
mod marker;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod migrate;
pub mod migrations;
mod refusal;
#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
mod transaction;

pub use delivery::SqlDelivery;

#[cfg(any(feature = "postgres", feature = "mysql", feature = "sqlite"))]
pub use {
    attach::AttachExt,
    connection::SqlxConnection,
    decision::SqlDecisionStore,
    engine::Engine,
    events::{
        Consumed, EventDatabase, EventSource, EventTrouble, SqlEventConsumer, SqlEventHandler,
        StartAt, TroubleHook,
    },
    migrate::{migrate, resource},
    transaction::{Commit, InDoubt, MailTransaction, SqlDataManager},
};
