//! Programs that tests run: our own, which is built when it is needed, and those of others, without
//! which a test skips itself and says so.

use std::env;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::Result;

/// The binary `sendmail-queue`: the one that `SENDMAIL_QUEUE_BIN` names, or that of this workspace in
/// the profile of this test, brought up to date once for each process.
///
/// # Errors
///
/// It cannot be built.
pub fn sendmail_queue() -> Result<PathBuf> {
    static BUILT: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| build_sendmail_queue().map_err(|error| error.to_string()));
    built.clone().map_err(Into::into)
}

fn build_sendmail_queue() -> Result<PathBuf> {
    if let Some(given) = env::var_os("SENDMAIL_QUEUE_BIN") {
        return Ok(given.into());
    }
    let folder = profile_folder()?;
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--package", "sendmail-cli", "--bin", "sendmail-queue"]);
    cargo.arg("--manifest-path").arg(workspace_root().join("Cargo.toml"));
    if let Some(target) = folder.parent() {
        cargo.arg("--target-dir").arg(target);
    }
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    // What cargo has told us of this package is not passed on: build scripts that look at such variables
    // would run again, and all that rests on them would be built anew, here and the next time elsewhere.
    for (name, _) in env::vars_os() {
        let is_of_a_package =
            |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
        if name.to_str().is_some_and(is_of_a_package) {
            cargo.env_remove(name);
        }
    }
    if !cargo.status()?.success() {
        return Err("sendmail-queue could not be built".into());
    }
    Ok(folder.join("sendmail-queue"))
}

/// Where this program was built: `target/debug`, `target/release`.
fn profile_folder() -> Result<PathBuf> {
    let program = env::current_exe()?;
    let folder = program.parent().ok_or("this program is in no folder")?;
    let folder = if folder.ends_with("deps") { folder.parent().unwrap_or(folder) } else { folder };
    Ok(folder.to_owned())
}

/// The root of the workspace.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package).to_owned()
}

/// A program of somebody else, on `PATH` or in `/usr/sbin`.
#[must_use]
pub fn find(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.map(|folder| folder.join(name)).find(|program| program.is_file())
}

/// The program that `test` needs; nothing if it is not there: then the test has said that it is
/// skipped, and returns.
///
/// # Panics
///
/// If it is not there and `SENDMAIL_TEST_NO_SKIP` is `1`.
#[must_use]
pub fn needs(test: &str, name: &str) -> Option<PathBuf> {
    let program = find(name);
    if program.is_none() {
        skip(test, &format!("{name} is not installed"));
    }
    program
}

/// The Python that has zope.sendmail; otherwise as [`needs`].
///
/// # Panics
///
/// As [`needs`].
#[must_use]
pub fn needs_python(test: &str) -> Option<PathBuf> {
    let python = python();
    if python.is_none() {
        skip(test, "there is no Python with zope.sendmail");
    }
    python
}

/// The Python that has zope.sendmail, if there is one.
#[must_use]
pub fn python() -> Option<PathBuf> {
    let given = env::var_os("SENDMAIL_TEST_PYTHON").map(PathBuf::from);
    let installed = workspace_root().join("target/interop/venv/bin/python");
    given.or(Some(installed)).filter(|python| python.is_file())
}

/// Says that `test` is skipped, and why.
///
/// # Panics
///
/// If `SENDMAIL_TEST_NO_SKIP` is `1`.
pub fn skip(test: &str, why: &str) {
    assert!(
        env::var_os("SENDMAIL_TEST_NO_SKIP").is_none_or(|value| value != "1"),
        "{test} must not be skipped, and {why}"
    );
    let line = format!("skipped: {test}: {why}\n");
    let file = env::var_os("SENDMAIL_TEST_SKIPS");
    let written = file.and_then(|file| {
        let mut file = OpenOptions::new().append(true).create(true).open(file).ok()?;
        file.write_all(line.as_bytes()).ok()
    });
    if written.is_none() {
        // A test's standard error is shown to whoever wants to know.
        let _ = std::io::stderr().write_all(line.as_bytes());
    }
}
