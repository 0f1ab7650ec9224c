//! Scripts, and a handover that counts.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sendmail_core::{
    DeliveryReport, Envelope, Handover, Mailer, Message, Outcome, Result, Timestamp,
};
use sendmail_program::ProgramMailer;
use tempfile::TempDir;

/// No condition that a test waits for takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A script in a directory of its own.
pub(crate) struct Script {
    dir: TempDir,
}

impl Script {
    /// `body` may say `$dir` for the directory that the script is in.
    pub(crate) fn new(body: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let head = format!("#!/bin/sh\ndir='{}'\n", dir.path().display());
        write_executable(&dir.path().join("program"), &format!("{head}{body}\n"));
        Self { dir }
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn program(&self) -> PathBuf {
        self.dir.path().join("program")
    }

    pub(crate) fn mailer(&self) -> ProgramMailer {
        ProgramMailer::new(self.program()).unwrap()
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.dir.path().join(name)).unwrap()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.dir.path().join(name).exists()
    }

    /// Makes the empty file `name`, for which the script waits.
    pub(crate) fn signal(&self, name: &str) {
        fs::write(self.dir.path().join(name), "").unwrap();
    }
}

/// Writes an executable file by another process. If this one wrote it, a program that another test
/// starts at that moment could inherit the open file, and ours would be "text file busy".
pub(crate) fn write_executable(path: &Path, text: &str) {
    let mut shell = Command::new("/bin/sh")
        .args(["-c", "cat > \"$1\" && chmod 755 \"$1\"", "sh"])
        .arg(path)
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    assert!(shell.wait().unwrap().success());
}

/// Lines of shell that wait until the file `name` is in the script's directory.
pub(crate) fn wait_for(name: &str) -> String {
    format!("while ! [ -e \"$dir/{name}\" ]; do sleep 0.02; done")
}

/// Waits until `condition` holds.
pub(crate) fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[derive(Default)]
pub(crate) struct Count(AtomicUsize);

impl Count {
    pub(crate) fn calls(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Handover for Count {
    async fn before_handover(&self) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

pub(crate) fn envelope(from: &str, to: &[&str]) -> Envelope {
    Envelope::parse(from, to).unwrap()
}

pub(crate) fn message(text: &str) -> Message {
    let raw = format!("Message-ID: <a@b>\nDate: d\n\n{text}");
    Message::from_raw(raw.as_bytes(), Timestamp::EPOCH, "b").unwrap()
}

/// Sends a small message from `a@b` to `c@d`.
pub(crate) async fn send(mailer: &ProgramMailer) -> Result<DeliveryReport> {
    mailer.send(&envelope("a@b", &["c@d"]), &message("text\n"), &Count::default()).await
}

/// As [`send`], and the one recipient's outcome.
pub(crate) async fn outcome(mailer: &ProgramMailer) -> Outcome {
    send(mailer).await.unwrap().outcomes()[0].1.clone()
}
