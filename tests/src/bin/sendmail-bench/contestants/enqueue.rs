//! Ours, queueing: transactions of this process, one after the other in each task.

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::{Clock, MailDelivery as _, QueueStore};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_tests::Result;
use sendmail_tests::peers::place;
use sendmail_txn::{QueuedDelivery, TransactionManager};
use tokio::task::JoinSet;

use super::mail;
use crate::figures::Sample;
use crate::row::Contestant;
use crate::scale::Scale;

/// Queues messages.
pub(crate) struct Enqueue {
    /// How many tasks do it at once.
    pub(crate) tasks: usize,
    /// How many messages a transaction has.
    pub(crate) at_once: usize,
    pub(crate) messages: (usize, usize),
    pub(crate) length: usize,
}

#[async_trait]
impl Contestant for Enqueue {
    fn name(&self) -> String {
        let tasks =
            if self.tasks == 1 { "1 task".to_owned() } else { format!("{} tasks", self.tasks) };
        match self.at_once {
            1 => format!("sendmail-rs, a transaction each, {tasks}"),
            many => format!("sendmail-rs, {many} in a transaction, {tasks}"),
        }
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(self.messages.0, self.messages.1);
        let folder = place::folder()?;
        let queue = Queue::open(&folder.path().join("queue")).await?;
        let mut tasks = JoinSet::new();
        let begin = Instant::now();
        for task in 0..self.tasks {
            let share = (task..messages).step_by(self.tasks).count();
            let (queue, at_once, length) = (queue.clone(), self.at_once, self.length);
            tasks.spawn(async move { queue.fill(share, at_once, length).await });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        Ok(Sample::rate(messages, begin.elapsed().as_secs_f64()))
    }
}

/// A queue into which this process commits.
#[derive(Clone)]
pub(crate) struct Queue {
    delivery: Arc<QueuedDelivery>,
    manager: Arc<TransactionManager>,
}

impl Queue {
    pub(crate) async fn open(path: &std::path::Path) -> Result<Self> {
        let store: Arc<dyn QueueStore> =
            Arc::new(MaildirStore::open(path, MaildirOptions::default()).await?);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        Ok(Self {
            delivery: Arc::new(QueuedDelivery::new(store, clock.clone())),
            manager: Arc::new(TransactionManager::new(clock)),
        })
    }

    /// Commits so many messages, so many in each transaction.
    pub(crate) async fn fill(&self, messages: usize, at_once: usize, length: usize) -> Result<()> {
        let (envelope, message) = mail(length)?;
        let mut left = messages;
        while left > 0 {
            let mut transaction = self.manager.begin();
            for _ in 0..at_once.min(left) {
                let mail = (envelope.clone(), message.clone());
                self.delivery.send(&mut transaction, mail.0, mail.1).await?;
            }
            left -= at_once.min(left);
            let pending = self.manager.commit(transaction).await.into_result()?;
            if let Some(pending) = pending.into_iter().next() {
                return Err(pending.error.into());
            }
        }
        Ok(())
    }
}
