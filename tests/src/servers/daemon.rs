//! The processes of a server.

use std::ffi::OsString;
use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use super::account::Account;
use crate::Result;

/// A process that takes longer than this to end after `SIGKILL` hangs in the kernel.
const DIES_WITHIN: Duration = Duration::from_secs(30);

/// Goes on only if its parent is still the one that wanted it: one that died before the signal for its death
/// was asked for sends none.
const UNLESS_ORPHAN: &str = r#"[ "$PPID" = "$0" ] && exec "$@""#;

/// The signal by which a server ends at once.
#[derive(Debug, Clone, Copy)]
pub enum End {
    /// `SIGKILL`.
    Kill,
    /// `SIGQUIT`.
    Quit,
}

impl End {
    fn name(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Quit => "QUIT",
        }
    }

    fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Quit => Signal::QUIT,
        }
    }
}

/// A server that runs. It is stopped when this is dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    pid: Pid,
    /// Means this process even when its number means another.
    handle: OwnedFd,
    end: End,
    /// Invariant: it lives until the server has ended, because the kernel takes the end of the thread that
    /// started a process for the death of its parent.
    parent: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts `words` as `account` in `folder`, so that it ends when this process does, however that ends.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub(super) fn start(
        account: &Account,
        folder: &Path,
        words: &[OsString],
        end: End,
        log: File,
    ) -> Result<Self> {
        let mut command = account.setpriv();
        command.arg(format!("--pdeathsig={}", end.name())).args(["--", "sh", "-c", UNLESS_ORPHAN]);
        command.arg(std::process::id().to_string()).args(words);
        plain(&mut command, folder);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);

        let (started, starts) = mpsc::channel();
        let parent = thread::Builder::new().name("server".to_owned()).spawn(move || {
            let (child, handle) = match spawn(&mut command) {
                Ok(spawned) => spawned,
                Err(error) => return drop(started.send(Err(error))),
            };
            let pid = Pid::from_child(&child);
            if started.send(Ok((pid, handle))).is_ok() {
                reap(child);
            }
        })?;
        let (pid, handle) = starts.recv()??;
        Ok(Self { pid, handle, end, parent: Some(parent) })
    }

    pub(super) fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// Whether it has ended, or does so within this time.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    pub(super) fn ends_within(&self, time: Duration) -> Result<bool> {
        ends_within(&self.handle, time)
    }

    /// Kills it and all its children, and returns when none is left.
    ///
    /// # Errors
    ///
    /// They do not end.
    pub(super) fn kill_all(mut self) -> Result<()> {
        // Nobody who stands still starts or reaps children, so the list is whole and their numbers are theirs.
        send(&self.handle, Signal::STOP)?;
        let options = WaitIdOptions::STOPPED | WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        match waitid(WaitId::Pid(self.pid), options) {
            Ok(_) | Err(Errno::CHILD) => {}
            Err(error) => return Err(error.into()),
        }
        let children = children(self.pid)?;
        send(&self.handle, Signal::KILL)?;
        for child in &children {
            send(child, Signal::KILL)?;
        }
        for process in children.iter().chain([&self.handle]) {
            if !ends_within(process, DIES_WITHIN)? {
                return Err("a process of the server does not end".into());
            }
        }
        self.join();
        Ok(())
    }

    /// Waits for the thread that reaps it.
    fn join(&mut self) {
        if let Some(parent) = self.parent.take() {
            // It does nothing that could panic.
            let _ = parent.join();
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if self.parent.is_none() {
            return;
        }
        // What cannot be stopped now is stopped by the kernel when this process ends.
        let sent = send(&self.handle, self.end.signal());
        if !(sent.is_ok() && self.ends_within(DIES_WITHIN).unwrap_or(false)) {
            let _ = send(&self.handle, Signal::KILL);
        }
        self.join();
    }
}

/// Takes away what could tell a program something, except where programs are.
pub(super) fn plain(command: &mut Command, folder: &Path) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    command.env_clear().env("PATH", path).env("LC_ALL", "C").current_dir(folder);
}

fn spawn(command: &mut Command) -> std::io::Result<(Child, OwnedFd)> {
    let mut child = command.spawn()?;
    match pidfd_open(Pid::from_child(&child), PidfdFlags::empty()) {
        Ok(handle) => Ok((child, handle)),
        Err(error) => {
            let _ = child.kill();
            reap(child);
            Err(error.into())
        }
    }
}

fn reap(mut child: Child) {
    // It is our child and nobody else waits for it.
    let _ = child.wait();
}

/// Sends a signal; to a process that has ended, it does nothing.
fn send(process: &OwnedFd, signal: Signal) -> Result<()> {
    match pidfd_send_signal(process, signal) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn ends_within(process: &OwnedFd, time: Duration) -> Result<bool> {
    let deadline = Instant::now() + time;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let mut polled = [PollFd::from_borrowed_fd(process.as_fd(), PollFlags::IN)];
        match poll(&mut polled, Some(&Timespec::try_from(left)?)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The processes that `parent`, which stands still, has started.
fn children(parent: Pid) -> Result<Vec<OwnedFd>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = number.and_then(Pid::from_raw) else { continue };
        // One that ends meanwhile has no file any more.
        let stat = std::fs::read_to_string(entry.path().join("stat")).unwrap_or_default();
        if parent_in(&stat) != Some(parent.as_raw_nonzero().get()) {
            continue;
        }
        match pidfd_open(pid, PidfdFlags::empty()) {
            Ok(child) => children.push(child),
            Err(Errno::SRCH) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(children)
}

/// The parent in a line of `/proc/<pid>/stat`: the second word after the name, which stands in brackets and
/// may have brackets itself.
fn parent_in(stat: &str) -> Option<i32> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parent_is_found_behind_any_name() {
        assert_eq!(parent_in("17 (postgres) S 12 17 17 0"), Some(12));
        assert_eq!(parent_in("17 (a) R 1 (b)) S 12 17"), Some(12));
        assert_eq!(parent_in(""), None);
        assert_eq!(parent_in("17 (cut off"), None);
    }
}
