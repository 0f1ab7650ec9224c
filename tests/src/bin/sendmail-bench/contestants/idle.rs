//! A processor that has nothing to do.

use std::fs;
use std::time::Duration;

use async_trait::async_trait;
use sendmail_tests::Result;
use sendmail_tests::peers::counter::Counter;
use sendmail_tests::peers::place;
use tokio::time::{sleep, timeout};

use super::KIB;
use super::enqueue::Queue;
use super::processor::Setup;
use crate::figures::{Metric, Sample};
use crate::row::Contestant;
use crate::scale::Scale;

/// How long it may take to come to rest.
const TO_REST: Duration = Duration::from_secs(2);
/// When to give up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Delivers one message, and is then watched.
pub(crate) struct Idle;

#[async_trait]
impl Contestant for Idle {
    fn name(&self) -> String {
        "sendmail-queue run, idle".to_owned()
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let counter = Counter::start().await?;
        let folder = place::folder()?;
        let path = folder.path().join("queue");
        let queue = Queue::open(&path).await?;
        let setup = Setup { relay: counter.address, connections: 4, database: None };
        let processor = setup.start(&path, "run")?;
        queue.fill(1, 1, KIB).await?;
        timeout(PATIENCE, counter.reached(1)).await??;
        sleep(TO_REST).await;
        let before = Activity::of(processor.id())?;
        sleep(scale.idle()).await;
        let after = Activity::of(processor.id())?;
        processor.stop()?;
        Ok(after.since(before, scale.idle()))
    }
}

/// What a process did so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Activity {
    /// How often its threads waited for something.
    wake_ups: u64,
    /// Bytes that it caused to be written to a disk.
    written: u64,
    /// Bytes that were read from a disk for it.
    read: u64,
}

impl Activity {
    fn of(process: u32) -> Result<Self> {
        let mut wake_ups = 0;
        for task in fs::read_dir(format!("/proc/{process}/task"))?.flatten() {
            // A thread may end meanwhile.
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            wake_ups += field(&status, "voluntary_ctxt_switches:").unwrap_or_default();
        }
        let io = fs::read_to_string(format!("/proc/{process}/io"))?;
        let of_io = |name| field(&io, name).ok_or("the kernel does not count bytes");
        Ok(Self { wake_ups, written: of_io("write_bytes:")?, read: of_io("read_bytes:")? })
    }

    fn since(self, before: Self, time: Duration) -> Sample {
        let kib = |now: u64, before: u64| now.saturating_sub(before) as f64 / 1024.0;
        // The threads of a pool that have ended took their count with them.
        let wake_ups = self.wake_ups.saturating_sub(before.wake_ups) as f64;
        Sample::default()
            .with(Metric::WakeUps, wake_ups / time.as_secs_f64())
            .with(Metric::Written, kib(self.written, before.written))
            .with(Metric::Read, kib(self.read, before.read))
    }
}

fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_by_their_whole_names() {
        let status = "nonvoluntary_ctxt_switches:\t9\nvoluntary_ctxt_switches:\t17\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(17));
        assert_eq!(field(status, "read_bytes:"), None);
    }

    #[test]
    fn what_was_done_before_does_not_count() {
        let before = Activity { wake_ups: 10, written: 4096, read: 0 };
        let after = Activity { wake_ups: 20, written: 8192, read: 1024 };
        let expected = Sample::default()
            .with(Metric::WakeUps, 2.0)
            .with(Metric::Written, 4.0)
            .with(Metric::Read, 1.0);
        assert_eq!(after.since(before, Duration::from_secs(5)), expected);
    }
}
