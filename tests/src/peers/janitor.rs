//! Servers that do not outlive this process, however it ends.

use std::ffi::OsStr;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// A shell, a process of its own, that waits for the end of a pipe and then stops something. That is when
/// this is dropped, and when this process ends in any other way.
#[derive(Debug)]
pub(super) struct Janitor(Child);

impl Janitor {
    /// Starts one with a script that is given these words, and reads its standard input to the end before it
    /// stops anything.
    ///
    /// # Errors
    ///
    /// There is no shell.
    pub(super) fn start<S: AsRef<OsStr>>(
        script: &str,
        words: impl IntoIterator<Item = S>,
    ) -> io::Result<Self> {
        let mut command = Command::new("sh");
        command.args(["-c", script, "janitor"]).args(words).current_dir("/");
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        // A key that interrupts a measurement is not for the janitor.
        Ok(Self(command.process_group(0).spawn()?))
    }
}

impl Drop for Janitor {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // There is nobody to tell if it fails.
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_its_work_when_it_is_dropped_and_not_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let (before, after) = (folder.path().join("before"), folder.path().join("after"));
        let script = r#"touch "$1"; cat >/dev/null; [ -e "$1" ] && touch "$2""#;
        let janitor = Janitor::start(script, [&before, &after]).expect("a shell");
        assert!(!after.exists());
        drop(janitor);
        assert!(before.exists() && after.exists());
    }
}
