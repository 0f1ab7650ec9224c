//! Signals to child processes.

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::Child;

use crate::Result;

/// Sends a signal to a child that is not waited for yet; to one that is, it does nothing.
///
/// # Errors
///
/// It cannot be sent.
pub fn signal(child: &Child, signal: Signal) -> Result<()> {
    let Some(id) = child.id() else { return Ok(()) };
    let pid = i32::try_from(id).ok().and_then(Pid::from_raw).ok_or("no such process id")?;
    Ok(kill_process(pid, signal)?)
}
