//! The processor as a task inside a service: delivers in the background, tells an event sink, and stops
//! in order.
//!
//! `cargo run -p sendmail-examples --example processor_task`

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::sync::Arc;

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::{
    Clock, Envelope, EventSink, MailDelivery, MailEvent, MailEventKind, Message, QueueStore,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_processor::{QueueProcessor, Recovered};
use sendmail_smtp::{SmtpConfig, SmtpMailer};
use sendmail_testkit::smtp::{At, Do, Script, ScriptedServer};
use sendmail_txn::{QueuedDelivery, Recovery, TransactionManager};
use tokio::sync::mpsc;

#[tokio::main]
pub(crate) async fn main() -> Result<(), Box<dyn Error>> {
    // In place of your relay: an SMTP server on loopback that refuses its second recipient.
    let script = Script::new().on(At::Rcpt(2), Do::reply("550 5.1.1 no such user"));
    let relay = ScriptedServer::start(script).await?;

    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let directory = tempfile::tempdir()?;
    let store =
        MaildirStore::open(directory.path().join("queue"), MaildirOptions::default()).await?;
    let store: Arc<dyn QueueStore> = Arc::new(store);
    let mailer = Arc::new(SmtpMailer::new(SmtpConfig::from_url(&relay.url())?)?);

    // Once at the start of the service. `recovery` settles what a dead process left undecided.
    let (sender, mut events) = mpsc::unbounded_channel();
    let recovery = TransactionRecovery(Recovery::new(store.clone(), clock.clone()));
    let processor = QueueProcessor::builder(store.clone(), mailer, clock.clone())
        .sink(Arc::new(Teller(sender)))
        .recovery(Arc::new(recovery))
        .build()?;
    let running = processor.spawn();

    // Somewhere in a request: a transaction with mail in it. The commit wakes the processor.
    let manager = TransactionManager::new(clock.clone());
    let delivery = QueuedDelivery::new(store, clock);
    let envelope =
        Envelope::parse("shop@example.org", ["alice@example.net", "nobody@example.net"])?;
    let text = b"From: shop@example.org\nTo: alice@example.net\nSubject: Hello\n\nHello.\n";
    let message = Message::from_raw(text, SystemClock.now(), "example.org")?;
    let mut transaction = manager.begin();
    delivery.send(&mut transaction, envelope, message).await?;
    let pending = manager.commit(transaction).await.into_result()?;
    assert!(pending.is_empty());

    // What a service does with events is its own affair; this one waits for both recipients' fates.
    let (mut sent, mut failed) = (0, 0);
    while sent + failed < 2 {
        let event = events.recv().await.ok_or("the processor is gone")?;
        let recipient = event.recipient.as_ref().map_or("-", |recipient| recipient.as_str());
        let reply = event.reply.as_ref().map_or(String::new(), ToString::to_string);
        println!("{:<8} {recipient:<20} {reply}", event.kind);
        sent += i32::from(event.kind == MailEventKind::Sent);
        failed += i32::from(event.kind == MailEventKind::Failed);
    }
    assert_eq!((sent, failed), (1, 1));
    println!("health: {:?}", processor.health());

    // At the end of the service: claim nothing more, finish what is on the wire, give back the rest.
    running.stop();
    let summary = running.join().await?;
    println!("stopped: {summary}");
    assert!(summary.is_complete());
    Ok(())
}

/// Passes events on to whoever listens.
struct Teller(mpsc::UnboundedSender<MailEvent>);

#[async_trait]
impl EventSink for Teller {
    async fn emit(&self, event: &MailEvent) {
        // Nobody listens any more: the event is in the queue's log all the same.
        let _ = self.0.send(event.clone());
    }
}

/// The processor knows nothing of transactions: this joins the two crates.
struct TransactionRecovery(Recovery);

#[async_trait]
impl sendmail_processor::Recovery for TransactionRecovery {
    fn name(&self) -> &str {
        "recover transactions"
    }

    async fn recover(&self) -> sendmail_core::Result<Recovered> {
        let report = self.0.run().await?;
        Ok(Recovered::default().again_after(report.again))
    }
}
