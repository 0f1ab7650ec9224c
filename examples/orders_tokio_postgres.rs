//! An order and its mail in one transaction of tokio-postgres: both or neither, whatever dies when.
//!
//! `DATABASE_URL=… cargo run -p sendmail-examples --bin orders-tokio-postgres -- /tmp/queue commit`
//!
//! In place of `commit`: `rollback`, or `wait-before-commit` and `wait-after-commit`, which print `ready`
//! and wait to be killed. Afterwards `sendmail-queue run` asks the database what became of the
//! transaction, and sends the mail or throws it away.
//!
//! An application that does this needs `sendmail-sqlx` without any of its features, and so without sqlx,
//! and the adaptor in `src/adaptors/tokio_postgres.rs`, which it copies.

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::sync::Arc;

use sendmail_clock::SystemClock;
use sendmail_core::{Attach as _, ResourceId};
use sendmail_examples::adaptors::TokioPg;
use sendmail_examples::orders::{self, CUSTOMER, Settings};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::SqlDelivery;
use tokio_postgres::NoTls;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let settings = Settings::read()?;
    let (mut client, connection) = tokio_postgres::connect(&settings.database_url, NoTls).await?;
    // The connection does the talking, and ends with its client.
    let talking = tokio::spawn(connection);

    // Where a service runs its migrations. Ours may run again.
    client.batch_execute(sendmail_sqlx::migrations::POSTGRES).await?;
    client.batch_execute(orders::TABLE).await?;

    // Once at the start: the queue, and which database this is. Mail is staged under the database's
    // name, so that nobody asks another one what became of it.
    let row = client.query_one("SELECT resource FROM sendmail_database", &[]).await?;
    let resource: ResourceId = row.try_get::<_, &str>(0)?.parse()?;
    let store = MaildirStore::open(&settings.queue, MaildirOptions::default()).await?;
    let delivery = SqlDelivery::new(Arc::new(store), Arc::new(SystemClock), resource);

    // What a request does: a row, and a mail that goes along with the transaction.
    let transaction = client.transaction().await?;
    transaction.execute("INSERT INTO orders (customer) VALUES ($1)", &[&CUSTOMER]).await?;
    let (envelope, message) = orders::confirmation(CUSTOMER)?;
    let message_id = delivery.attach_with(&mut TokioPg(&transaction), envelope, message).await?;
    println!("attached {message_id}");

    if settings.end.commits().await? {
        transaction.commit().await?;
        println!("committed");
        settings.end.committed().await?;
    } else {
        transaction.rollback().await?;
        println!("rolled back");
    }
    drop(client);
    Ok(talking.await??)
}
