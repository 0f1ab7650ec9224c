//! What the benchmarks compare us with, as far as it is not a command line of its own: other mail programs
//! in places of their own, bare loops that do nothing but what must be done, and relays to send to.
//!
//! Everything listens on loopback, lies in a folder that is gone afterwards, and is stopped by its process
//! id. Except for the relays every call blocks its thread, and is meant to be measured that way.

pub mod bare;
pub mod counter;
pub mod cpu;
pub mod delay;
mod janitor;
pub mod nullmailer;
pub mod place;
pub mod postfix;
pub mod round_trips;
pub mod sink;
pub mod zope;

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::Result;

/// What it took to run a program to its end.
#[derive(Debug, Clone, PartialEq)]
pub struct Ran {
    /// From the start of its process to its end.
    pub seconds: f64,
    /// What it used of the processors, with what it started and waited for.
    pub cpu: Duration,
    /// What it printed.
    pub output: String,
}

/// Runs a program to its end.
///
/// # Errors
///
/// It cannot be started, or it fails; the error has what it said.
pub fn run(command: &mut Command) -> Result<Ran> {
    let before = cpu::of_ended_children()?;
    let begin = Instant::now();
    let output = command.stdin(Stdio::null()).output();
    let seconds = begin.elapsed().as_secs_f64();
    let output = output.map_err(|error| format!("cannot start {command:?}: {error}"))?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {text}", output.status).into());
    }
    let cpu = cpu::of_ended_children()?.saturating_sub(before);
    Ok(Ran { seconds, cpu, output: String::from_utf8(output.stdout)? })
}
