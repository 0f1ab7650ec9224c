//! The real `sendmail-queue`: found or built, and run to its end.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::PATIENCE;

/// Where the binary is: `SENDMAIL_QUEUE_BIN`, or built once from this workspace.
pub(crate) fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| sendmail_tests::programs::sendmail_queue().unwrap())
}

/// A program that has come to its end.
#[derive(Debug)]
pub(crate) struct Done {
    /// Its exit code; nothing if a signal killed it.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Done {
    /// Itself, if it exited like that.
    #[track_caller]
    pub(crate) fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// What it printed to standard output, one JSON object a line.
    #[track_caller]
    pub(crate) fn json(&self) -> Vec<serde_json::Value> {
        let parse = |line: &str| match serde_json::from_str(line) {
            Ok(value) => value,
            Err(error) => panic!("{line:?} is no JSON: {error}"),
        };
        self.stdout.lines().map(parse).collect()
    }

    /// Everything it printed.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }
}

/// Runs `command` to its end with `input` on its standard input. If it hangs it is killed, and the test
/// fails.
pub(crate) async fn finish(mut command: Command, input: &[u8]) -> Done {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    let name = command.as_std().get_program().to_owned();
    let arguments: Vec<_> = command.as_std().get_args().map(OsStr::to_owned).collect();
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => panic!("cannot start {}: {error}", name.display()),
    };
    let mut stdin = child.stdin.take().unwrap();
    let feed = async move {
        // Whoever needs no input may be gone before it got it.
        let _ = stdin.write_all(input).await;
        drop(stdin);
    };
    let both = async { tokio::join!(feed, child.wait_with_output()).1 };
    match tokio::time::timeout(PATIENCE, both).await {
        Ok(output) => output.unwrap().into(),
        Err(_) => panic!("{} {arguments:?} hangs", name.display()),
    }
}
