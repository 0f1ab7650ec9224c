//! A queue of very many messages: what each program that works on it takes in memory.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use sendmail_clock::SystemClock;
use sendmail_core::{Clock as _, DeliveryOptions};
use tokio::time::{Instant, sleep, timeout};

use crate::memory::{Memory, peak_of};
use crate::process::signal;
use crate::queue::{Processor, Queue};
use crate::relay::{Pace, Relay};
use crate::{Result, fill};

/// How many messages are queued in one transaction, and of what length they are.
const AT_ONCE: usize = 1000;
const LENGTH: usize = 500;
/// How long it takes to queue one, and more.
const TO_QUEUE: Duration = Duration::from_micros(1500);
/// How long the processor may deliver nothing.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where the messages wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Place {
    /// Due.
    Queued,
    /// For a time that has come when the processor starts.
    Deferred,
}

/// What each program took at the most, in KiB.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// How many messages there were.
    pub files: usize,
    /// How many were delivered while the processor was watched.
    pub delivered: usize,
    /// Of each program.
    pub peaks_kib: Vec<(&'static str, u64)>,
}

impl Outcome {
    /// The highest.
    #[must_use]
    pub fn peak_kib(&self) -> u64 {
        self.peaks_kib.iter().map(|(_, peak)| *peak).max().unwrap_or_default()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} files, {} delivered meanwhile", self.files, self.delivered)?;
        self.peaks_kib.iter().try_for_each(|(what, peak)| write!(f, "\n{what:<24} {peak:>8} KiB"))
    }
}

/// Fills a queue with `files` messages, and waits until they are due.
///
/// # Errors
///
/// One of them could not be queued.
pub async fn fill(queue: &Path, files: usize, place: Place) -> Result<()> {
    let mut options = DeliveryOptions::default();
    if place == Place::Deferred {
        // Later than it takes to queue them.
        let soon = Duration::from_secs(2) + TO_QUEUE * u32::try_from(files)?;
        options.not_before = Some(SystemClock.now().saturating_add(soon));
    }
    let mut left = files;
    while left > 0 {
        let now = left.min(10 * AT_ONCE);
        fill::fill_with(queue, now, LENGTH, AT_ONCE, &options).await?;
        left -= now;
    }
    while options.not_before.is_some_and(|due| SystemClock.now() < due) {
        sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// Lets each program work on the queue, and measures it.
///
/// # Errors
///
/// One of them failed, or nothing is delivered.
pub async fn measure(queue: &Queue, files: usize, deliveries: usize) -> Result<Outcome> {
    let mut outcome = Outcome { files, ..Outcome::default() };
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, 9));
    let idle = Processor { name: "idle".to_owned(), relay: nobody, connections: 1 };
    let mut relay_too = queue.command(["check", "--relay"]);
    relay_too.arg(format!("smtp://{}", idle.relay));
    let all = [
        ("stats", queue.command(["stats"]), usize::MAX),
        ("list | head", queue.command(["list"]), 10),
        ("list", queue.command(["list"]), usize::MAX),
        ("recover", queue.command(["recover"]), usize::MAX),
        ("check", relay_too, usize::MAX),
    ];
    for (what, command, lines) in all {
        outcome.peaks_kib.push((what, peak_of(command, lines).await?));
    }
    let (delivered, peak) = run(queue, deliveries).await?;
    outcome.delivered = delivered;
    outcome.peaks_kib.push(("run", peak));
    Ok(outcome)
}

/// How many messages a processor delivered, and what it took at the most.
async fn run(queue: &Queue, deliveries: usize) -> Result<(usize, u64)> {
    let none = (Duration::ZERO, Duration::ZERO);
    let relay = Relay::start(Pace { command: none.0, dot: none, deferred_percent: 0 }, 1, None);
    let relay = relay.await?;
    let processor =
        Processor { name: "processor".to_owned(), relay: relay.address, connections: 16 };
    let mut child = queue.start(&processor)?;
    let id = child.id().ok_or("the processor has ended")?;
    let mut last = (Instant::now(), 0);
    let mut peak = 0;
    while relay.count() < deliveries {
        let count = relay.count();
        if count > last.1 {
            last = (Instant::now(), count);
        } else if last.0.elapsed() > PATIENCE {
            return Err(format!("nothing is delivered any more after {count} messages").into());
        }
        if let Some(status) = child.try_wait()? {
            return Err(format!("the processor ended: {status}").into());
        }
        peak = Memory::of(id).map_or(peak, |memory| memory.peak_kib);
        sleep(Duration::from_millis(50)).await;
    }
    peak = Memory::of(id).map_or(peak, |memory| memory.peak_kib);
    signal(&child, Signal::TERM)?;
    timeout(PATIENCE, child.wait()).await.map_err(|_| "the processor does not stop")??;
    Ok((relay.count(), peak))
}
