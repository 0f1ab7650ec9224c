//! Filling a queue with messages.

use std::path::Path;
use std::sync::Arc;

use sendmail_clock::SystemClock;
use sendmail_core::{Clock, DeliveryOptions, Envelope, MailDelivery as _, Message, QueueStore};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_txn::{QueuedDelivery, TransactionManager};

use crate::Result;
use crate::plan::Mail;

/// Puts `count` messages of `length` bytes into the queue, `at_once` of them in one transaction.
///
/// # Errors
///
/// One of them could not be queued.
pub async fn fill(queue: &Path, count: usize, length: usize, at_once: usize) -> Result<()> {
    fill_with(queue, count, length, at_once, &DeliveryOptions::default()).await
}

/// As [`fill`], with these options for each message.
///
/// # Errors
///
/// As [`fill`].
pub async fn fill_with(
    queue: &Path,
    count: usize,
    length: usize,
    at_once: usize,
    options: &DeliveryOptions,
) -> Result<()> {
    commit_with(queue, &mails(count, length), at_once, options).await
}

/// Commits these mails, `at_once` of them in one transaction.
///
/// # Errors
///
/// One of them could not be queued.
pub async fn commit(queue: &Path, mails: &[Mail], at_once: usize) -> Result<()> {
    commit_with(queue, mails, at_once, &DeliveryOptions::default()).await
}

async fn commit_with(
    queue: &Path,
    mails: &[Mail],
    at_once: usize,
    options: &DeliveryOptions,
) -> Result<()> {
    let store: Arc<dyn QueueStore> =
        Arc::new(MaildirStore::open(queue, MaildirOptions::default()).await?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let manager = TransactionManager::new(clock.clone());
    let delivery = QueuedDelivery::new(store, clock);
    for mails in mails.chunks(at_once) {
        let mut transaction = manager.begin();
        for mail in mails {
            let envelope = Envelope::parse("shop@example.org", &mail.recipients)?;
            let envelope = envelope.with_options(options.clone());
            let message = Message::from_raw(&mail.bytes(), SystemClock.now(), "crash.test")?;
            delivery.send(&mut transaction, envelope, message).await?;
        }
        let pending = manager.commit(transaction).await.into_result()?;
        if let Some(pending) = pending.into_iter().next() {
            return Err(pending.error.into());
        }
    }
    Ok(())
}

/// The mails with which a queue is filled.
#[must_use]
pub fn mails(count: usize, length: usize) -> Vec<Mail> {
    let mail = |number| Mail {
        marker: format!("f{number}"),
        recipients: vec!["r0@example.net".to_owned()],
        length,
        undone: false,
    };
    (0..count).map(mail).collect()
}
