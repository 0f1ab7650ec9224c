//! The folder of a server, which is gone when the process that made it is gone.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::account::Account;
use crate::Result;

/// Reads until the process that has the other end is gone, and removes the folder. A server's last
/// processes may still write into it just then, so it tries more than once.
const JANITOR: &str = r#"
cat >/dev/null
for attempt in 1 2 3 4 5 6 7 8 9 10; do
    rm -rf -- "$0" && exit
    sleep 0.5
done
"#;

/// A folder. It is removed when this is dropped, and when the process ends in any other way: a janitor, a
/// process of its own, sees the end of a pipe.
#[derive(Debug)]
pub(super) struct Scratch {
    path: PathBuf,
    account: Account,
    janitor: Child,
}

impl Scratch {
    /// Makes a folder that only `account` and root may enter.
    ///
    /// # Errors
    ///
    /// The file system or the system refuses it.
    pub(super) fn new(name: &str, account: &Account) -> Result<Self> {
        let prefix = format!("sendmail-tests-{name}-");
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir()?;
        account.own(folder.path())?;
        let mut janitor = Command::new("sh");
        janitor.args(["-c", JANITOR]).arg(folder.path()).current_dir("/");
        janitor.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A key that interrupts the test is not for the janitor.
        let janitor = janitor.process_group(0).spawn()?;
        Ok(Self { path: folder.keep(), account: *account, janitor })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a file that only `account` and root may read.
    ///
    /// # Errors
    ///
    /// The file system refuses it.
    pub(super) fn write(&self, name: &str, content: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        io::Write::write_all(&mut self.open(&path)?, content.as_bytes())?;
        Ok(path)
    }

    /// A file to which something is added.
    ///
    /// # Errors
    ///
    /// The file system refuses it.
    pub(super) fn append(&self, name: &str) -> Result<File> {
        self.open(&self.path.join(name))
    }

    fn open(&self, path: &Path) -> Result<File> {
        let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
        self.account.own(path)?;
        Ok(file)
    }

    /// The last lines of a file, as a person wants to see them.
    pub(super) fn end_of(&self, name: &str) -> String {
        const LINES: usize = 20;
        let bytes = std::fs::read(self.path.join(name)).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        drop(self.janitor.stdin.take());
        // What cannot be removed stays where temporary files are.
        let _ = self.janitor.wait();
    }
}
