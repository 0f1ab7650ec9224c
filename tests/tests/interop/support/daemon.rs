//! A process that runs on while a test does something to it.

use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::Notify;
use tokio::task::JoinHandle;

use super::PATIENCE;

/// A process with what it has printed so far. It is killed when it is dropped.
pub(crate) struct Daemon {
    child: Child,
    lines: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Lines {
    lines: Mutex<Vec<String>>,
    more: Notify,
}

impl Daemon {
    pub(crate) fn start(mut command: Command) -> Self {
        command.stdin(Stdio::null());
        Self::spawn(command)
    }

    /// The same, with an input that ends when it is dropped.
    pub(crate) fn start_with_input(mut command: Command) -> (Self, ChildStdin) {
        command.stdin(Stdio::piped());
        let mut daemon = Self::spawn(command);
        let input = daemon.child.stdin.take().unwrap();
        (daemon, input)
    }

    fn spawn(mut command: Command) -> Self {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().unwrap();
        let lines = Arc::new(Lines::default());
        let readers = vec![
            tokio::spawn(read(child.stdout.take().unwrap(), lines.clone())),
            tokio::spawn(read(child.stderr.take().unwrap(), lines.clone())),
        ];
        Self { child, lines, readers }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id().expect("it runs")).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// `kill -9`: it gets no chance to do anything about it.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    /// Waits until it ends by itself; returns how, and all that it printed.
    pub(crate) async fn end(mut self) -> (ExitStatus, String) {
        let ended = tokio::time::timeout(PATIENCE, self.child.wait()).await;
        let Ok(status) = ended else { panic!("it does not end: {:?}", self.lines()) };
        for reader in self.readers.drain(..) {
            reader.await.unwrap();
        }
        (status.unwrap(), self.lines().join("\n"))
    }

    /// What it has printed so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.lines.lines.lock().unwrap().clone()
    }

    /// Waits for a line of which `look` makes something.
    pub(crate) async fn wait_for<T>(&self, what: &str, look: impl Fn(&str) -> Option<T>) -> T {
        let watch = async {
            loop {
                let mut more = std::pin::pin!(self.lines.more.notified());
                more.as_mut().enable();
                if let Some(found) = self.lines().iter().find_map(|line| look(line)) {
                    return found;
                }
                more.await;
            }
        };
        match tokio::time::timeout(PATIENCE, watch).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for {what}: {:?}", self.lines()),
        }
    }
}

async fn read(stream: impl AsyncRead + Unpin, lines: Arc<Lines>) {
    let mut reader = BufReader::new(stream).lines();
    while let Ok(Some(line)) = reader.next_line().await {
        lines.lines.lock().unwrap().push(line);
        lines.more.notify_waiters();
    }
}
