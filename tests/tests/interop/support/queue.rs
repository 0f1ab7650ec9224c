//! A queue in a directory of its own, worked with through the command line.

use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use super::{Done, binary, finish, until};

/// A queue, and the configuration file that goes with it.
pub(crate) struct Queue {
    temp: TempDir,
    path: PathBuf,
    configured: bool,
}

impl Queue {
    /// A queue that is still to be made.
    pub(crate) fn new() -> Self {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("queue");
        Self { temp, path, configured: false }
    }

    /// A queue at a place of the test's choosing.
    pub(crate) fn at(path: &Path) -> Self {
        Self { path: path.to_owned(), ..Self::new() }
    }

    /// The same with a configuration file that says this.
    pub(crate) fn configured(mut self, toml: &str) -> Self {
        self.configure(toml);
        self
    }

    /// Writes the configuration file, which nobody else may read.
    pub(crate) fn configure(&mut self, toml: &str) {
        let path = self.config();
        std::fs::write(&path, toml).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        self.configured = true;
    }

    /// A file with a password, which nobody else may read.
    pub(crate) fn password_file(&self, password: &str) -> PathBuf {
        let path = self.temp.path().join("password");
        std::fs::write(&path, format!("{password}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        path
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.temp.path().join("config.toml")
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A directory beside the queue, for whatever a test needs.
    pub(crate) fn beside(&self) -> &Path {
        self.temp.path()
    }

    /// `sendmail-queue` with this queue and configuration, its environment free of others.
    pub(crate) fn command<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Command {
        let mut command = Command::new(binary());
        for name in ["SENDMAIL_QUEUE", "SENDMAIL_RELAY", "SENDMAIL_DATABASE", "SENDMAIL_CONFIG"] {
            command.env_remove(name);
        }
        command.arg("--queue").arg(&self.path);
        if self.configured {
            command.arg("--config").arg(self.config());
        }
        command.args(arguments);
        command
    }

    /// Runs a command to its end.
    pub(crate) async fn run<A: AsRef<OsStr>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Done {
        finish(self.command(arguments), b"").await
    }

    /// Queues a message, and returns its Message-ID: what `send` prints, and nothing else.
    pub(crate) async fn send(&self, to: &[&str], mail: impl AsRef<[u8]>) -> String {
        let arguments = ["send", "-f", "from@example.org"].iter().chain(to);
        let done = finish(self.command(arguments), mail.as_ref()).await.exits(0);
        assert_eq!(done.stderr, "");
        let id = done.stdout.strip_suffix('\n').unwrap();
        assert!(id.starts_with('<') && id.ends_with('>') && !id.contains('\n'), "{id:?}");
        id.to_owned()
    }

    /// Delivers what is due to `relay`.
    pub(crate) async fn run_once(&self, relay: &str) -> Done {
        self.run(["--relay", relay, "run", "--once"]).await
    }

    /// Delivers to `relay` until the queue holds nothing that waits.
    pub(crate) async fn drain(&self, relay: &str) {
        until("the queue to be empty", || async {
            self.run_once(relay).await;
            let waiting = |entry: &Value| entry["state"] != "failed";
            (!self.list().await.iter().any(waiting)).then_some(())
        })
        .await;
    }

    /// What `list` says.
    pub(crate) async fn list(&self) -> Vec<Value> {
        self.run(["--json", "list"]).await.exits(0).json()
    }

    /// The only entry that `list` shows.
    pub(crate) async fn only_entry(&self) -> Value {
        let mut entries = self.list().await;
        assert_eq!(entries.len(), 1, "{entries:?}");
        entries.remove(0)
    }

    /// What `events` says.
    pub(crate) async fn events(&self) -> Vec<Value> {
        self.run(["--json", "events"]).await.exits(0).json()
    }

    /// The events of a kind.
    pub(crate) async fn events_of(&self, kind: &str) -> Vec<Value> {
        let mut events = self.events().await;
        events.retain(|event| event["kind"] == kind);
        events
    }

    /// The only file below `folder` of the queue.
    pub(crate) fn only_file(&self, folder: &str) -> PathBuf {
        let mut files = files_in(&self.path.join(folder));
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }
}

/// The files in a directory and below it.
pub(crate) fn files_in(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        // What goes while it is looked at is not there.
        for entry in std::fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.is_symlink() { folders.push(path) } else { found.push(path) }
        }
    }
    found.sort_unstable();
    found
}
