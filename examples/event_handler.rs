//! An event handler: reads the queue's log by cursor, and answers each event in a new transaction, after
//! the one it is about has long been committed.
//!
//! A shop wants to know when a customer could not be reached. The handler writes to the shop, in a
//! transaction of its own, and each event is handled once although the consumer is "restarted".
//!
//! `cargo run -p sendmail-examples --example event_handler`

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::{
    Clock, Cursor, Envelope, MailDelivery, MailEvent, MailEventKind, Message, QueueStore,
    Transaction,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_processor::QueueProcessor;
use sendmail_testkit::{Answer, TestMailer};
use sendmail_txn::{CursorStore, EventConsumer, EventHandler, QueuedDelivery, TransactionManager};

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let maildir =
        MaildirStore::open(directory.path().join("queue"), MaildirOptions::default()).await?;
    let store: Arc<dyn QueueStore> = Arc::new(maildir.clone());
    let manager = TransactionManager::new(clock.clone());
    let delivery = Arc::new(QueuedDelivery::new(store.clone(), clock.clone()));

    // A mailer that knows one customer and not the other, in place of a relay.
    let mailer = TestMailer::new();
    mailer.on("gone@example.net", Answer::Reply(550, "5.1.1 no such user"));
    let processor = QueueProcessor::builder(store, Arc::new(mailer.clone()), clock).build()?;

    // Two orders, and a pass of the processor: one customer is reached, one is not.
    for customer in ["alice@example.net", "gone@example.net"] {
        let mut transaction = manager.begin();
        let (envelope, message) = mail(customer, "Your order")?;
        delivery.send(&mut transaction, envelope, message).await?;
        let pending = manager.commit(transaction).await.into_result()?;
        assert!(pending.is_empty());
    }
    println!("first pass:  {}", processor.run_once().await?);

    // The consumer may run in another process, and be behind: the log waits for it.
    let cursor_file = directory.path().join("cursor");
    let consumer = || {
        EventConsumer::new(
            Arc::new(maildir.clone()),
            Arc::new(CursorFile(cursor_file.clone())),
            manager.clone(),
            Arc::new(TellTheShop { delivery: delivery.clone() }),
            Arc::new(|event: &MailEvent, error| println!("{}: {error}", event.kind)),
        )
    };
    let consumed = consumer().poll().await?;
    println!("handled {} events", consumed.handled);
    println!("second pass: {}", processor.run_once().await?);
    assert_eq!(mailer.copies_to("orders@shop.example"), 1);

    // A consumer that starts anew goes on behind the cursor. It sees the events about the shop's own
    // mail, and nothing twice.
    let consumed = consumer().poll().await?;
    println!("handled {} more", consumed.handled);
    println!("third pass:  {}", processor.run_once().await?);
    assert_eq!(mailer.copies_to("orders@shop.example"), 1);
    Ok(())
}

/// Writes to the shop about customers who cannot be reached.
struct TellTheShop {
    delivery: Arc<dyn MailDelivery>,
}

#[async_trait]
impl EventHandler for TellTheShop {
    async fn handle(
        &self,
        transaction: &mut Transaction,
        event: &MailEvent,
    ) -> sendmail_core::Result<()> {
        let Some(recipient) = &event.recipient else { return Ok(()) };
        let given_up = matches!(event.kind, MailEventKind::Failed | MailEventKind::Expired);
        // Failed mail to the shop itself is no reason to write to it again.
        if !given_up || recipient.as_str() == "orders@shop.example" {
            return Ok(());
        }
        println!("{} could not be reached", recipient);
        let (envelope, message) = mail("orders@shop.example", "A customer cannot be reached")
            .map_err(|error| {
                let kind = sendmail_core::ErrorKind::InvalidInput;
                sendmail_core::Error::new(kind, "write to the shop", error.to_string())
            })?;
        // An event comes at least once: after a crash between this commit and the cursor's saving it
        // comes again. A handler for which that matters records `event.id` in this transaction too.
        self.delivery.send(transaction, envelope, message).await?;
        Ok(())
    }
}

/// Keeps the cursor in a file. An application with a database keeps it in a row.
struct CursorFile(PathBuf);

#[async_trait]
impl CursorStore for CursorFile {
    async fn load(&self) -> sendmail_core::Result<Option<Cursor>> {
        match std::fs::read_to_string(&self.0) {
            Ok(text) => Ok(Some(Cursor::new(text))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(sendmail_core::Error::io("load the cursor", error)),
        }
    }

    async fn save(&self, cursor: &Cursor) -> sendmail_core::Result<()> {
        // Durable on return: the file is synced, renamed over the old one, and its directory synced.
        let beside = self.0.with_extension("new");
        let directory = self.0.parent().unwrap_or(std::path::Path::new("."));
        std::fs::write(&beside, cursor.as_str())
            .and_then(|()| std::fs::File::open(&beside)?.sync_all())
            .and_then(|()| std::fs::rename(&beside, &self.0))
            .and_then(|()| std::fs::File::open(directory)?.sync_all())
            .map_err(|error| sendmail_core::Error::io("save the cursor", error))
    }
}

fn mail(to: &str, subject: &str) -> Result<(Envelope, Message), Box<dyn Error>> {
    let text = format!("From: shop@example.org\nTo: {to}\nSubject: {subject}\n\nThank you.\n");
    let envelope = Envelope::parse("shop@example.org", [to])?;
    let message = Message::from_raw(text.as_bytes(), SystemClock.now(), "example.org")?;
    Ok((envelope, message))
}
