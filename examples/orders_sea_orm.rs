//! An order and its mail in one transaction of sea-orm: both or neither, whatever dies when.
//!
//! `DATABASE_URL=… cargo run -p sendmail-examples --bin orders-sea-orm -- /tmp/queue commit`
//!
//! In place of `commit`: `rollback`, or `wait-before-commit` and `wait-after-commit`, which print `ready`
//! and wait to be killed. Afterwards `sendmail-queue run` asks the database what became of the
//! transaction, and sends the mail or throws it away.
//!
//! An application that does this needs `sendmail-sqlx` without any of its features, and the adaptor in
//! `src/adaptors/sea_orm.rs`, which it copies. The statements here are plain SQL, so that nothing hides
//! what happens; with entities it is the same transaction.

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::sync::Arc;

use sea_orm::{ConnectionTrait as _, Database, DbBackend, Statement, TransactionTrait as _};
use sendmail_clock::SystemClock;
use sendmail_core::{Attach as _, ResourceId};
use sendmail_examples::adaptors::SeaOrm;
use sendmail_examples::orders::{self, CUSTOMER, Settings};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::SqlDelivery;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let settings = Settings::read()?;
    let database = Database::connect(&settings.database_url).await?;

    // Where a service runs its migrations. Ours may run again.
    database.execute_unprepared(sendmail_sqlx::migrations::POSTGRES).await?;
    database.execute_unprepared(orders::TABLE).await?;

    // Once at the start: the queue, and which database this is. Mail is staged under the database's
    // name, so that nobody asks another one what became of it.
    let ask = Statement::from_string(DbBackend::Postgres, "SELECT resource FROM sendmail_database");
    let row = database.query_one_raw(ask).await?.ok_or("sendmail_database has no row")?;
    let resource: ResourceId = row.try_get::<String>("", "resource")?.parse()?;
    let store = MaildirStore::open(&settings.queue, MaildirOptions::default()).await?;
    let delivery = SqlDelivery::new(Arc::new(store), Arc::new(SystemClock), resource);

    // What a request does: a row, and a mail that goes along with the transaction.
    let transaction = database.begin().await?;
    let insert = Statement::from_sql_and_values(
        DbBackend::Postgres,
        "INSERT INTO orders (customer) VALUES ($1)",
        [CUSTOMER.into()],
    );
    transaction.execute_raw(insert).await?;
    let (envelope, message) = orders::confirmation(CUSTOMER)?;
    let message_id = delivery.attach_with(&mut SeaOrm(&transaction), envelope, message).await?;
    println!("attached {message_id}");

    if settings.end.commits().await? {
        transaction.commit().await?;
        println!("committed");
        settings.end.committed().await?;
    } else {
        transaction.rollback().await?;
        println!("rolled back");
    }
    Ok(database.close().await?)
}
