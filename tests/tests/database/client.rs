//! The process `order-client`, which tests kill.

use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

/// A process of a service. It is killed when it is dropped.
pub(crate) struct Client {
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Client {
    pub(crate) fn start(url: &str, queue: &Path, way: &str) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_order-client"));
        command.arg(url).arg(queue).arg(way).kill_on_drop(true);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (stdin, stdout) = (child.stdin.take(), child.stdout.take().unwrap());
        Self { child, stdin, stdout: BufReader::new(stdout) }
    }

    /// Returns when it has come as far as `word`.
    pub(crate) async fn says(&mut self, word: &str) {
        let mut line = String::new();
        self.stdout.read_line(&mut line).await.unwrap();
        assert_eq!(line.trim_end(), word);
    }

    /// Lets it go on.
    pub(crate) async fn go_on(&mut self) {
        self.stdin.as_mut().unwrap().write_all(b"\n").await.unwrap();
    }

    /// Lets it go on, and returns when it has ended by itself.
    pub(crate) async fn end(mut self) {
        self.stdin = None;
        assert!(self.child.wait().await.unwrap().success());
    }

    /// SIGKILL.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}
