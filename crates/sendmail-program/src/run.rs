//! One run of the program, from its start to its end.

use std::fs::File;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group};
use sendmail_core::Outcome;
use tokio::process::{Child, Command};
use tokio::sync::OwnedSemaphorePermit;

use crate::exit::{End, outcome};
use crate::output::{Gathered, Output};

/// Where the program finds other programs.
pub const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What the program's environment takes over from ours.
const INHERITED: [&str; 4] = ["HOME", "USER", "LOGNAME", "TZ"];

/// How long the end of a killed program is waited for. It is immediate, unless the program hangs in
/// the kernel; its place is then given up and the process left to the system.
const END_OF_THE_KILLED: Duration = Duration::from_secs(10);

/// What one run needs and may not get: made before the handover is announced.
pub(crate) struct Ready {
    pub(crate) input: File,
    pub(crate) output: Output,
}

/// What is needed to run the program, once or several times.
pub(crate) struct Runner<'a> {
    pub(crate) program: &'a Path,
    pub(crate) time_limit: Duration,
    /// The place among the programs that may run at once; every run holds on to it until its end.
    pub(crate) place: Arc<OwnedSemaphorePermit>,
}

impl Runner<'_> {
    /// Starts the program, waits for its end, and tells the outcome of its recipients.
    ///
    /// The first poll starts it, and nothing is awaited before that. From then on a task of its own
    /// watches it, whatever becomes of this future.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, the program goes on, and how it ended is not told.
    pub(crate) async fn run(&self, arguments: &[&str], ready: Ready) -> Outcome {
        let Output { gathered, stdout, stderr } = ready.output;
        let mut command = Command::new(self.program);
        command
            .args(arguments)
            .env_clear()
            .env("PATH", PATH)
            .envs(INHERITED.iter().filter_map(|name| Some((name, std::env::var_os(name)?))))
            .current_dir("/")
            .process_group(0)
            .kill_on_drop(false)
            .stdin(ready.input)
            .stdout(stdout)
            .stderr(stderr);
        match command.spawn() {
            Ok(child) => {
                let place = Arc::clone(&self.place);
                let watching = tokio::spawn(watch(child, gathered, self.time_limit, place));
                watching.await.unwrap_or_else(|_stopped| outcome(End::Unseen, ""))
            }
            Err(error) if may_have_started(&error) => outcome(End::Unseen, &error.to_string()),
            Err(error) => outcome(End::NotStarted, &error.to_string()),
        }
    }
}

/// Whether the program may run although its start is said to have failed.
///
/// The start is an error, too, if the program runs and the runtime cannot watch it: it can register
/// nothing more (no room for another watch, no memory), or has trouble without a number.
fn may_have_started(error: &io::Error) -> bool {
    match error.raw_os_error() {
        Some(code) => [Errno::NOSPC, Errno::NOMEM].iter().any(|e| e.raw_os_error() == code),
        None => true,
    }
}

/// Waits for the program's end, and sees to it that there is one.
async fn watch(
    mut child: Child,
    mut output: Gathered,
    time_limit: Duration,
    _place: Arc<OwnedSemaphorePermit>,
) -> Outcome {
    let end = tokio::select! {
        status = child.wait() => status.map_or(End::Unseen, end_of),
        never = output.read_on() => match never {},
        () = tokio::time::sleep(time_limit) => kill(&mut child).await,
    };
    outcome(end, &output.into_text())
}

/// Kills the program and all that it started in its process group.
async fn kill(child: &mut Child) -> End {
    // Invariant: there is a process id until the end was seen, and until then nobody else has it.
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(id) = id {
        // It fails only where there is nobody left to kill.
        let _ = kill_process_group(id, Signal::KILL);
    }
    match tokio::time::timeout(END_OF_THE_KILLED, child.wait()).await {
        // It was quicker than we.
        Ok(Ok(status)) if status.code().is_some() => end_of(status),
        _ => End::TimedOut,
    }
}

fn end_of(status: ExitStatus) -> End {
    match (status.code(), status.signal()) {
        (Some(code), _) => End::Exited(code),
        (None, Some(signal)) => End::Signalled(signal),
        (None, None) => End::Unseen,
    }
}
