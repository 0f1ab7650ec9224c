//! Half of a transaction with two mails and no database, for tests to kill: `half-transaction QUEUE prepared`
//! stops before the commit, `… decided` after it and before anything is published. It prints `ready` and
//! waits.

use std::error::Error;
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use sendmail_clock::SystemClock;
use sendmail_core::{
    Clock as _, DataManager as _, Envelope, Message, PrepareContext, QueueId, QueueStore,
    TransactionId,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_txn::MailDataManager;

#[derive(Parser)]
struct Arguments {
    /// The queue's directory
    queue: PathBuf,
    /// How far it gets
    until: Until,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Until {
    Prepared,
    Decided,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Arguments { queue, until } = Arguments::parse();
    let store = MaildirStore::open(queue, MaildirOptions::default()).await?;
    let store: Arc<dyn QueueStore> = Arc::new(store);
    let transaction = TransactionId::mint(SystemClock.now());
    let mut manager = MailDataManager::new(store.clone());
    for to in ["dave@example.net", "warehouse@example.net"] {
        let raw = format!("From: shop@example.org\nTo: {to}\nSubject: An order\n\nThank you.\n");
        let message = Message::from_raw(raw.as_bytes(), SystemClock.now(), "example.org")?;
        let envelope = Envelope::parse("shop@example.org", [to])?;
        manager.hand_over(QueueId::mint(SystemClock.now()), envelope, message);
    }
    let mut context = PrepareContext::new(transaction, Some(store.resource_id().clone()));
    manager.prepare(&mut context).await?;
    if until == Until::Decided {
        store.decision_log().ok_or("the queue decides nothing")?.decide(transaction).await?;
    }
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "ready")?;
    stdout.flush()?;
    drop(stdout);
    std::future::pending().await
}
