//! The whole life of a mail of ours: attached, committed, claimed, delivered, gone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sendmail_core::{EntryState, QueueAdmin as _};
use sendmail_maildir::MaildirStore;
use sendmail_tests::Result;
use sendmail_tests::peers::counter::Counter;
use sendmail_tests::peers::place;
use tokio::time::{sleep, timeout};

use super::commit::{Database, With};
use super::processor::Setup;
use crate::figures::Sample;
use crate::row::Contestant;
use crate::scale::Scale;

/// How often it is looked whether everything is gone.
const LOOK: Duration = Duration::from_millis(5);
/// When to give up.
const PATIENCE: Duration = Duration::from_secs(600);

/// Rows with mail, and a processor beside that runs as another process.
pub(crate) struct Life {
    pub(crate) database: Arc<Database>,
    pub(crate) connections: usize,
    pub(crate) messages: (usize, usize),
}

#[async_trait]
impl Contestant for Life {
    fn name(&self) -> String {
        format!("sendmail-rs, attached, and sendmail-queue run, {}", self.database.kind.name())
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(self.messages.0, self.messages.1);
        let database = self.database.create()?;
        let folder = place::folder()?;
        let path = folder.path().join("queue");
        let counter = Counter::start().await?;
        let writers = database.writers(&path).await?;
        let setup = Setup {
            relay: counter.address,
            connections: self.connections,
            database: Some(database.url.clone()),
        };
        let processor = setup.start(&path, "run")?;
        let begin = Instant::now();
        writers.run(With::Attached, messages).await?;
        // It is looked into the queue only when there is hardly anything left: looking costs something.
        timeout(PATIENCE, counter.reached(messages)).await??;
        gone(writers.store(), begin).await?;
        let seconds = begin.elapsed().as_secs_f64();
        processor.stop()?;
        Ok(Sample::rate(messages, seconds))
    }
}

/// Waits until nothing is left to do.
async fn gone(store: &MaildirStore, begin: Instant) -> Result<()> {
    loop {
        let statistics = store.statistics().await?;
        let count = |wanted: &[EntryState]| -> u64 {
            let states = statistics.states.iter().filter(|state| wanted.contains(&state.state));
            states.map(|state| state.count).sum()
        };
        let lost = count(&[EntryState::Held, EntryState::Failed]);
        if lost > 0 {
            return Err(format!("{lost} messages were not delivered").into());
        }
        let to_do =
            [EntryState::Staged, EntryState::Queued, EntryState::Claimed, EntryState::Deferred];
        let left = count(&to_do);
        if left == 0 {
            return Ok(());
        }
        if begin.elapsed() > PATIENCE {
            return Err(format!("the processor has left {left} messages").into());
        }
        sleep(LOOK).await;
    }
}
