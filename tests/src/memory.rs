//! How much memory another process uses, as the kernel tells it.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::Result;

/// How often a process that ends by itself is looked at.
const LOOK: Duration = Duration::from_millis(2);

/// The memory of a process, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// What is resident now.
    pub now_kib: u64,
    /// The most that ever was.
    pub peak_kib: u64,
}

impl Memory {
    /// That of the process with this id; nothing if it is gone.
    #[must_use]
    pub fn of(process: u32) -> Option<Self> {
        Self::parse(&std::fs::read_to_string(format!("/proc/{process}/status")).ok()?)
    }

    fn parse(status: &str) -> Option<Self> {
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix(" kB")?.parse().ok()
        };
        Some(Self { now_kib: field("VmRSS:")?, peak_kib: field("VmHWM:")? })
    }
}

/// Runs a command to its end, and gives the most memory that it used; of its output only the first
/// `lines` lines are read, then nobody listens any more.
///
/// The process is looked at again and again; what it takes within the last moment of its life may be
/// missed.
///
/// # Errors
///
/// It cannot be started or was never seen.
pub async fn peak_of(mut command: Command, lines: usize) -> Result<u64> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn()?;
    let process = child.id().ok_or("it has ended before it began")?;
    let stdout = child.stdout.take().ok_or("its output cannot be read")?;
    let reading = tokio::spawn(async move {
        let mut reader = BufReader::new(stdout).lines();
        for _ in 0..lines {
            if !matches!(reader.next_line().await, Ok(Some(_))) {
                return;
            }
        }
    });
    let mut peak = None;
    loop {
        peak = peak.max(Memory::of(process).map(|memory| memory.peak_kib));
        if tokio::time::timeout(LOOK, child.wait()).await.is_ok() {
            break;
        }
    }
    reading.await?;
    peak.ok_or_else(|| "the process ended before it was seen".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_tells_is_read() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t1\n";
        assert_eq!(Memory::parse(status), Some(Memory { now_kib: 1024, peak_kib: 2048 }));
        assert_eq!(Memory::parse("Name:\tzombie\n"), None);
        assert!(Memory::of(std::process::id()).is_some_and(|memory| memory.now_kib > 100));
    }
}
