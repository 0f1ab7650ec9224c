//! The system calls of ours, counted by strace in a run that does nothing else: it is much slower for it.

mod trace;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use async_trait::async_trait;
use sendmail_tests::peers::{self, place, sink};
use sendmail_tests::{Result, programs};

use super::KIB;
use super::enqueue::Queue;
use super::processor::Setup;
use super::relay::{Distance, Relay};
use crate::figures::{Metric, Sample, Stage};
use crate::row::Contestant;
use crate::scale::Scale;
use trace::Counts;

/// How many messages, and how many if it is quick.
const MESSAGES: (usize, usize) = (2000, 200);
/// How many connections the processor has.
const CONNECTIONS: usize = 16;

fn missing() -> Option<String> {
    let missing = programs::find("strace").is_none();
    missing.then(|| "strace is not installed (Debian: strace)".to_owned())
}

/// Queueing, one message in each transaction, one after the other.
pub(crate) struct OfEnqueue;

#[async_trait]
impl Contestant for OfEnqueue {
    fn name(&self) -> String {
        "sendmail-rs, a transaction each, traced".to_owned()
    }

    fn missing(&self) -> Option<String> {
        missing()
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(MESSAGES.0, MESSAGES.1);
        let run = |messages: usize| {
            let folder = place::folder()?;
            let mut command = Command::new(std::env::current_exe()?);
            command.arg("--enqueue-into").arg(folder.path().join("queue"));
            command.args(["--messages", &messages.to_string()]);
            traced(&command, folder.path())
        };
        let stages = [Stage::Enqueue, Stage::Runtime];
        Ok(per_message(&run(0)?, &run(messages)?, messages, &stages))
    }
}

/// Claiming, delivering and settling: a processor that drains a queue.
pub(crate) struct OfProcessor;

#[async_trait]
impl Contestant for OfProcessor {
    fn name(&self) -> String {
        format!("sendmail-queue run, {CONNECTIONS} connections, traced")
    }

    fn missing(&self) -> Option<String> {
        missing().or_else(sink::missing)
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(MESSAGES.0, MESSAGES.1);
        let (without, with) = (drained(0).await?, drained(messages).await?);
        let stages = [Stage::Claim, Stage::Deliver, Stage::Settle, Stage::Runtime];
        Ok(per_message(&without, &with, messages, &stages))
    }
}

async fn drained(messages: usize) -> Result<Counts> {
    let folder = place::folder()?;
    let queue = folder.path().join("queue");
    Queue::open(&queue).await?.fill(messages, 100, KIB).await?;
    let relay = Relay::start(Distance::Near).await?;
    let setup = Setup { relay: relay.address, connections: CONNECTIONS, database: None };
    let mut command = setup.command(&queue, "run")?;
    command.arg("--once");
    traced(&command, folder.path())
}

/// Runs a command below strace, and counts.
fn traced(command: &Command, folder: &Path) -> Result<Counts> {
    let file: PathBuf = folder.join("trace");
    let mut strace = Command::new(programs::find("strace").ok_or("strace is not installed")?);
    strace.args(["-f", "-qq", "-y", "-e", "signal=none", "-o"]).arg(&file);
    strace.arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => strace.env(name, value),
            None => strace.env_remove(name),
        };
    }
    peers::run(&mut strace)?;
    let text = String::from_utf8_lossy(&fs::read(&file)?).into_owned();
    Ok(trace::count(&text, &folder.join("queue").display().to_string()))
}

/// What each message costs: what is more than without any.
fn per_message(without: &Counts, with: &Counts, messages: usize, stages: &[Stage]) -> Sample {
    stages.iter().fold(Sample::default(), |sample, stage| {
        let (before, after) = (without.of(*stage), with.of(*stage));
        let each = |before: usize, after: usize| (after as f64 - before as f64) / messages as f64;
        sample
            .with(Metric::Calls(*stage), each(before.calls, after.calls))
            .with(Metric::Syncs(*stage), each(before.syncs, after.syncs))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_start_costs_is_no_message() {
        let line = "7 fsync(5</q/tmp/x>) = 0\n";
        let (without, with) = (trace::count(line, "/q"), trace::count(&line.repeat(21), "/q"));
        let sample = per_message(&without, &with, 10, &[Stage::Enqueue]);
        let expected = Sample::default()
            .with(Metric::Calls(Stage::Enqueue), 2.0)
            .with(Metric::Syncs(Stage::Enqueue), 2.0);
        assert_eq!(sample, expected);
    }
}
