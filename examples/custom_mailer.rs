//! The smallest mailer of one's own that is of use: it drops each message as a file into a folder, for a
//! staging system whose mail must not leave the house.
//!
//! It is plugged into the processor like every other, and keeps the whole contract of `Mailer`: the
//! tests of this member run the conformance suite of `sendmail-testkit` on it.
//!
//! `cargo run -p sendmail-examples --example custom_mailer`

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::{
    Clock, DeliveryReport, Envelope, ErrorKind, Handover, MailDelivery, Mailer, Message, Outcome,
    QueueStore, Reply,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_processor::QueueProcessor;
use sendmail_txn::{QueuedDelivery, TransactionManager};

/// Drops messages into a folder, each in a file of its own: a `Return-Path:` line, a `Delivered-To:`
/// line for each recipient, and the message, byte for byte.
pub(crate) struct DropFolder {
    folder: PathBuf,
    name: String,
    count: AtomicU64,
}

impl DropFolder {
    /// A mailer for a folder that exists.
    #[must_use]
    pub(crate) fn new(folder: &Path) -> Self {
        let name = format!("folder:{}", folder.display());
        Self { folder: folder.to_owned(), name, count: AtomicU64::new(0) }
    }

    fn write(&self, envelope: &Envelope, message: &Message) -> std::io::Result<()> {
        let number = self.count.fetch_add(1, Ordering::Relaxed);
        let name = format!("{}-{number}.eml", std::process::id());
        let beside = self.folder.join(format!(".{name}"));
        let mut file = fs::File::create(&beside)?;
        write!(file, "Return-Path: <{}>\r\n", envelope.reverse_path())?;
        for recipient in envelope.recipients() {
            write!(file, "Delivered-To: {recipient}\r\n")?;
        }
        file.write_all(message.as_bytes())?;
        // "Accepted" means that responsibility has passed on: not before it is durable.
        file.sync_all()?;
        fs::rename(&beside, self.folder.join(&name))?;
        fs::File::open(&self.folder)?.sync_all()
    }
}

#[async_trait]
impl Mailer for DropFolder {
    fn relay(&self) -> &str {
        &self.name
    }

    async fn send(
        &self,
        envelope: &Envelope,
        message: &Message,
        handover: &dyn Handover,
    ) -> sendmail_core::Result<DeliveryReport> {
        // The relay's trouble, here the folder's, is an error: nobody was attempted, and the message
        // is tried again when the folder is back. It costs the message nothing.
        self.probe().await?;
        // Announced before what cannot be taken back. If that is refused, nothing is written.
        handover.before_handover().await?;
        // From here on there is an outcome for each recipient and never an error. A real service would
        // write on a thread that may block; `rename` decides, so that a failure leaves nothing behind.
        let outcome = match self.write(envelope, message) {
            Ok(()) => Outcome::Accepted(Reply::local(250, "2.0.0", "written")),
            Err(error) => Outcome::Deferred(Reply::local(451, "4.3.0", error.to_string())),
        };
        Ok(DeliveryReport::same(envelope, &outcome))
    }

    fn check(&self, _: &Envelope) -> sendmail_core::Result<()> {
        Ok(()) // There is no envelope that a folder cannot take.
    }

    async fn probe(&self) -> sendmail_core::Result<()> {
        if self.folder.is_dir() {
            return Ok(());
        }
        let message = "the folder is not there; make it, and mail goes on by itself";
        Err(sendmail_core::Error::new(ErrorKind::Unreachable, "drop the message", message)
            .with("folder", self.folder.display()))
    }

    async fn close(&self) {} // It keeps nothing open.
}

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    let directory = tempfile::tempdir()?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store =
        MaildirStore::open(directory.path().join("queue"), MaildirOptions::default()).await?;
    let store: Arc<dyn QueueStore> = Arc::new(store);
    let manager = TransactionManager::new(clock.clone());
    let delivery = QueuedDelivery::new(store.clone(), clock.clone());

    let text = b"From: shop@example.org\nTo: alice@example.net\nSubject: Hello\n\nHello.\n";
    let message = Message::from_raw(text, clock.now(), "example.org")?;
    let envelope = Envelope::parse("shop@example.org", ["alice@example.net"])?;
    let mut transaction = manager.begin();
    delivery.send(&mut transaction, envelope, message).await?;
    let pending = manager.commit(transaction).await.into_result()?;
    assert!(pending.is_empty());

    // The folder is missing: the pass ends, says why, and the message waits without losing an attempt.
    let folder = directory.path().join("outbox");
    let mailer = Arc::new(DropFolder::new(&folder));
    let processor = QueueProcessor::builder(store, mailer, clock).build()?;
    let summary = processor.run_once().await?;
    assert!(!summary.is_complete());
    println!("without the folder: {} delivered, {} left", summary.delivered, summary.left);

    fs::create_dir(&folder)?;
    let summary = processor.run_once().await?;
    assert_eq!(summary.delivered, 1);
    println!("with the folder:    {} delivered, {} left", summary.delivered, summary.left);
    for file in fs::read_dir(&folder)? {
        println!("\n{}", fs::read_to_string(file?.path())?);
    }
    Ok(())
}
