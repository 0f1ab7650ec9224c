//! How a mail goes along in the transaction of a driver other than sqlx, and how a request of axum gets a
//! transaction: one file for each, made to be copied into an application.
//!
//! An adaptor for a driver lends the connection to [`Attach::attach_with`](sendmail_core::Attach::attach_with), which
//! sends one text of its own through it. Whether there is a transaction, only the database is asked: an
//! adaptor reports what it said, word for word, and its code where the driver tells, because by the code
//! the error gets its name.

mod axum;
mod diesel_async;
mod sea_orm;
mod tokio_postgres;

pub use axum::{NoTransaction, Tx, transaction_per_request};
pub use diesel_async::Diesel;
pub use sea_orm::SeaOrm;
pub use tokio_postgres::TokioPg;
