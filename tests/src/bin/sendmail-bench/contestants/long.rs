//! A processor on a queue that is much longer than what it delivers.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use sendmail_tests::Result;
use sendmail_tests::memory::Memory;
use sendmail_tests::peers::counter::Counter;
use sendmail_tests::peers::place;
use tempfile::TempDir;
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::KIB;
use super::enqueue::Queue;
use super::processor::Setup;
use crate::figures::{Metric, Sample};
use crate::row::Contestant;
use crate::scale::Scale;

/// How many are delivered, and how many if it is quick.
const DELIVERED: (usize, usize) = (20_000, 1000);
/// How many messages are queued in one transaction.
const AT_ONCE: usize = 1000;
/// When to give up.
const PATIENCE: Duration = Duration::from_secs(600);

/// Delivers the first messages of a long queue, or of one that has no more than those.
pub(crate) struct First {
    long: bool,
    /// Kept from round to round, with the number of its messages: it is hardly shorter a round later.
    queue: Mutex<Option<(TempDir, usize)>>,
}

impl First {
    pub(crate) fn of_long() -> Self {
        Self { long: true, queue: Mutex::new(None) }
    }

    pub(crate) fn of_short() -> Self {
        Self { long: false, queue: Mutex::new(None) }
    }
}

#[async_trait]
impl Contestant for First {
    fn name(&self) -> String {
        let length = if self.long { "a long queue" } else { "a queue of no more" };
        format!("sendmail-queue run, the first of {length}")
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let delivered = scale.of(DELIVERED.0, DELIVERED.1).min(scale.queued);
        if !self.long {
            return Ok(deliver(&filled(delivered).await?, delivered).await?.0);
        }
        let mut queue = self.queue.lock().await;
        let (folder, left) = match queue.take() {
            Some((folder, left)) if left >= needed(scale.queued, delivered) => (folder, left),
            _ => (filled(scale.queued).await?, scale.queued),
        };
        let (sample, gone) = deliver(&folder, delivered).await?;
        *queue = Some((folder, left.saturating_sub(gone)));
        Ok(sample)
    }
}

/// How many messages a long queue has at the least.
fn needed(queued: usize, delivered: usize) -> usize {
    (queued / 2).max(2 * delivered)
}

async fn filled(messages: usize) -> Result<TempDir> {
    let folder = place::folder()?;
    let queue = Queue::open(&folder.path().join("queue")).await?;
    queue.fill(messages, AT_ONCE, KIB).await?;
    place::settle()?;
    Ok(folder)
}

/// Delivers so many messages; what that came to, and how many were gone when it had stopped.
async fn deliver(folder: &TempDir, messages: usize) -> Result<(Sample, usize)> {
    let counter = Counter::start().await?;
    let setup = Setup { relay: counter.address, connections: 16, database: None };
    let begin = Instant::now();
    let processor = setup.start(&folder.path().join("queue"), "run")?;
    let accepted = timeout(PATIENCE, counter.reached(messages)).await??;
    let memory = Memory::of(processor.id()).ok_or("the processor has ended")?;
    let (Some(first), Some(last)) = (accepted.first, accepted.last) else {
        return Err("nothing was accepted".into());
    };
    processor.stop()?;
    let since = |then: Instant| then.saturating_duration_since(begin).as_secs_f64();
    let sample = Sample::rate(messages, since(last))
        .with(Metric::FirstMessage, since(first) * 1000.0)
        .with(Metric::Memory, memory.peak_kib as f64 / 1024.0);
    Ok((sample, counter.accepted().count))
}
