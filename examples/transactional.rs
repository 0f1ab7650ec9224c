//! Mail in a transaction: what is in the queue after a commit, after a rollback, and after a savepoint
//! that was rolled back to.
//!
//! `cargo run -p sendmail-examples --example transactional`

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::ops::ControlFlow;
use std::sync::Arc;

use sendmail_clock::SystemClock;
use sendmail_core::{Clock, Envelope, Filter, MailDelivery, Message, QueueAdmin};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_txn::{QueuedDelivery, TransactionManager};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    // The queue is a directory, which is made if it is missing. A service has one, and keeps it open.
    let directory = tempfile::tempdir()?;
    let store =
        MaildirStore::open(directory.path().join("queue"), MaildirOptions::default()).await?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let manager = TransactionManager::new(clock.clone());
    let delivery = QueuedDelivery::new(Arc::new(store.clone()), clock);

    // Two messages in one transaction: both will be in the queue, or none.
    let mut transaction = manager.begin();
    let (envelope, message) = mail("alice@example.net", "Your order 1001")?;
    let message_id = delivery.send(&mut transaction, envelope, message).await?;
    println!("handed over: {message_id}");
    let (envelope, message) = mail("warehouse@example.net", "Pack order 1001")?;
    delivery.send(&mut transaction, envelope, message).await?;
    assert!(queued(&store).await?.is_empty(), "before the commit nobody sees them");

    // What is pending is committed, and finished by recovery. Mostly it is empty.
    let pending = manager.commit(transaction).await.into_result()?;
    assert!(pending.is_empty());
    println!("after the commit:   {:?}", queued(&store).await?);
    assert_eq!(queued(&store).await?, ["alice@example.net", "warehouse@example.net"]);

    // A rollback leaves nothing. So does dropping the transaction, and so does the death of the process.
    let mut transaction = manager.begin();
    let (envelope, message) = mail("bob@example.net", "Your order 1002")?;
    delivery.send(&mut transaction, envelope, message).await?;
    manager.abort(transaction).await;
    println!("after the rollback: {:?}", queued(&store).await?);
    assert_eq!(queued(&store).await?.len(), 2);

    // A savepoint takes back its own mail only.
    let mut transaction = manager.begin();
    let (envelope, message) = mail("carol@example.net", "Your order 1003")?;
    delivery.send(&mut transaction, envelope, message).await?;
    let savepoint = manager.savepoint(&mut transaction).await?;
    let (envelope, message) = mail("carol@example.net", "A voucher that was not valid")?;
    delivery.send(&mut transaction, envelope, message).await?;
    manager.rollback_to(&mut transaction, &savepoint).await?;
    let pending = manager.commit(transaction).await.into_result()?;
    assert!(pending.is_empty());
    println!("after a savepoint:  {:?}", queued(&store).await?);
    assert_eq!(queued(&store).await?.len(), 3);
    Ok(())
}

/// A message to `to`. A missing Date and Message-ID are added here, once and for good.
fn mail(to: &str, subject: &str) -> Result<(Envelope, Message), Box<dyn Error>> {
    let text = format!("From: shop@example.org\nTo: {to}\nSubject: {subject}\n\nThank you.\n");
    let envelope = Envelope::parse("shop@example.org", [to])?;
    let message = Message::from_raw(text.as_bytes(), SystemClock.now(), "example.org")?;
    Ok((envelope, message))
}

/// Who is written to by the messages in the queue.
async fn queued(store: &MaildirStore) -> Result<Vec<String>, Box<dyn Error>> {
    let mut recipients = Vec::new();
    let mut visit = |entry: sendmail_core::Entry| {
        recipients.extend(entry.recipients.iter().map(ToString::to_string));
        ControlFlow::Continue(())
    };
    store.list(&Filter::default(), &mut visit).await?;
    recipients.sort_unstable();
    Ok(recipients)
}
