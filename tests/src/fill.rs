//! Filling a queue with messages.

use std::path::Path;
use std::sync::Arc;

use sendmail_clock::SystemClock;
use sendmail_core::{Clock, Envelope, MailDelivery as _, Message, QueueStore};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_txn::{QueuedDelivery, TransactionManager};

use crate::Result;
use crate::plan::message_id;

/// Puts `count` messages of about `length` bytes into the queue, `at_once` of them in one transaction.
///
/// # Errors
///
/// One of them could not be queued.
pub async fn fill(queue: &Path, count: usize, length: usize, at_once: usize) -> Result<()> {
    let store: Arc<dyn QueueStore> =
        Arc::new(MaildirStore::open(queue, MaildirOptions::default()).await?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let manager = TransactionManager::new(clock.clone());
    let delivery = QueuedDelivery::new(store, clock);
    let mut left = count;
    while left > 0 {
        let mut transaction = manager.begin();
        for _ in 0..left.min(at_once) {
            let envelope = Envelope::parse("a@example.org", ["b@example.net"])?;
            let message = message(left, length)?;
            delivery.send(&mut transaction, envelope, message).await?;
            left -= 1;
        }
        let pending = manager.commit(transaction).await.into_result()?;
        if let Some(pending) = pending.into_iter().next() {
            return Err(pending.error.into());
        }
    }
    Ok(())
}

fn message(number: usize, length: usize) -> Result<Message> {
    let mut text = format!(
        "From: a@example.org\r\nTo: b@example.net\r\nSubject: number {number}\r\n\
         Message-ID: {}\r\nDate: Tue, 24 Nov 2026 07:08:55 +0000\r\n\r\n",
        message_id(&format!("f{number}"))
    );
    while text.len() < length {
        let line = "x".repeat((length - text.len()).clamp(2, 72) - 2);
        text.push_str(&line);
        text.push_str("\r\n");
    }
    Ok(Message::from_raw(text.as_bytes(), SystemClock.now(), "crash.test")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_as_long_as_it_should_be() {
        for length in [500, 1024, 5000] {
            let got = message(7, length).unwrap().as_bytes().len();
            assert!((length..length + 2).contains(&got), "{got} for {length}");
        }
    }
}
