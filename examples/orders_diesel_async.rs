//! An order and its mail in one transaction of diesel-async: both or neither, whatever dies when.
//!
//! `DATABASE_URL=… cargo run -p sendmail-examples --bin orders-diesel-async -- /tmp/queue commit`
//!
//! In place of `commit`: `rollback`, or `wait-before-commit` and `wait-after-commit`, which print `ready`
//! and wait to be killed. Afterwards `sendmail-queue run` asks the database what became of the
//! transaction, and sends the mail or throws it away.
//!
//! An application that does this needs `sendmail-sqlx` without any of its features, and so without sqlx,
//! and the adaptor in `src/adaptors/diesel_async.rs`, which it copies.

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::sync::Arc;

use diesel::{ExpressionMethods as _, QueryDsl as _, result::Error as DieselError};
use diesel_async::{
    AsyncConnection as _, AsyncPgConnection, RunQueryDsl as _, SimpleAsyncConnection as _,
};
use sendmail_clock::SystemClock;
use sendmail_core::{Attach as _, ResourceId};
use sendmail_examples::adaptors::Diesel;
use sendmail_examples::orders::{self, CUSTOMER, Settings};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::SqlDelivery;

/// The tables of the program, as diesel knows them.
mod schema {
    diesel::table! {
        orders (id) {
            id -> BigInt,
            customer -> Text,
        }
    }

    diesel::table! {
        sendmail_database (one) {
            one -> Bool,
            resource -> Text,
        }
    }
}

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let settings = Settings::read()?;
    let mut connection = AsyncPgConnection::establish(&settings.database_url).await?;

    // Where a service runs its migrations. Ours may run again.
    connection.batch_execute(sendmail_sqlx::migrations::POSTGRES).await?;
    connection.batch_execute(orders::TABLE).await?;

    // Once at the start: the queue, and which database this is. Mail is staged under the database's
    // name, so that nobody asks another one what became of it.
    let ask = schema::sendmail_database::table.select(schema::sendmail_database::resource);
    let resource: ResourceId = ask.first::<String>(&mut connection).await?.parse()?;
    let store = MaildirStore::open(&settings.queue, MaildirOptions::default()).await?;
    let delivery = SqlDelivery::new(Arc::new(store), Arc::new(SystemClock), resource);

    // What a request does: a row, and a mail that goes along with the transaction.
    let ended = connection
        .transaction::<_, Failure, _>(async |connection| {
            diesel::insert_into(schema::orders::table)
                .values(schema::orders::customer.eq(CUSTOMER))
                .execute(connection)
                .await?;
            let (envelope, message) = orders::confirmation(CUSTOMER)?;
            let message_id =
                delivery.attach_with(&mut Diesel(connection), envelope, message).await?;
            println!("attached {message_id}");
            if settings.end.commits().await? {
                Ok(())
            } else {
                Err(DieselError::RollbackTransaction.into())
            }
        })
        .await;

    match ended {
        Ok(()) => {
            println!("committed");
            Ok(settings.end.committed().await?)
        }
        Err(error) if error.downcast_ref() == Some(&DieselError::RollbackTransaction) => {
            println!("rolled back");
            Ok(())
        }
        Err(error) => Err(error),
    }
}
