//! Outside programs that tests need: found, or the test skips itself and says so.
//!
//! The contract is that of `cargo xtask test`: `SENDMAIL_TEST_NO_SKIP=1` makes a test fail that would
//! skip itself, and the file that `SENDMAIL_TEST_SKIPS` names gets a line for each that does.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{Done, finish};

/// Where a program is: on `PATH`, or where Debian puts what servers need. Nothing means that the test
/// has skipped itself.
pub(crate) fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    folders.extend(["/usr/sbin", "/sbin", "/usr/lib/dovecot"].map(PathBuf::from));
    let found = folders.iter().map(|folder| folder.join(name)).find(|file| file.is_file());
    if found.is_none() {
        skip(&format!("{name} is not installed"));
    }
    found
}

/// A Python with zope.sendmail and repoze.sendmail. Nothing means that the test has skipped itself.
pub(crate) fn zope_python() -> Option<PathBuf> {
    let python = match std::env::var_os("SENDMAIL_TEST_PYTHON") {
        Some(python) => PathBuf::from(python),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/interop/venv/bin/python"),
    };
    if python.is_file() {
        return Some(python);
    }
    skip("there is no Python with zope.sendmail and repoze.sendmail");
    None
}

/// Whether this runs as root; if not, the test has skipped itself.
pub(crate) fn root(why: &str) -> bool {
    let root = is_root();
    if !root {
        skip(&format!("only root can {why}"));
    }
    root
}

pub(crate) fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Says that the running test skips itself, or fails it where that is not wanted.
pub(crate) fn skip(why: &str) {
    // A test runs on a thread of its own, which has its name.
    let thread = std::thread::current();
    let line = format!("skipped: {}: {why}\n", thread.name().unwrap_or("a test"));
    assert_ne!(std::env::var("SENDMAIL_TEST_NO_SKIP").as_deref(), Ok("1"), "{line}");
    match std::env::var_os("SENDMAIL_TEST_SKIPS") {
        Some(file) => {
            let mut file =
                std::fs::OpenOptions::new().create(true).append(true).open(file).unwrap();
            file.write_all(line.as_bytes()).unwrap();
        }
        None => std::io::stderr().write_all(line.as_bytes()).unwrap(),
    }
}

/// Runs a Python program of `python/` with these arguments; it has to succeed.
pub(crate) async fn python(python: &Path, program: &str, arguments: &[&Path]) -> Done {
    let mut command = Command::new(python);
    command.arg("-c").arg(program).args(arguments);
    finish(command, b"").await.exits(0)
}
