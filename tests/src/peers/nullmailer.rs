//! nullmailer's `sendmail`, with folders of its own: it is unpacked, not installed, since it would take
//! Postfix's place.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use tempfile::TempDir;

use super::place;
use crate::Result;
use crate::programs::workspace_root;

/// A nullmailer that queues, and has no daemon to be woken.
#[derive(Debug)]
pub struct Nullmailer {
    temp: TempDir,
}

/// Where it is unpacked.
fn tree() -> PathBuf {
    workspace_root().join("target/interop/relays/nullmailer/usr")
}

/// Why there is none, if there is none.
#[must_use]
pub fn missing() -> Option<String> {
    let there = tree().join("sbin/sendmail").is_file();
    (!there).then(|| "nullmailer is not unpacked (`cargo xtask bench` does it)".to_owned())
}

impl Nullmailer {
    /// Makes its folders.
    ///
    /// # Errors
    ///
    /// It is not unpacked.
    pub fn new() -> Result<Self> {
        let temp = place::folder()?;
        for folder in ["bin", "sbin", "conf", "queue/queue", "queue/tmp", "queue/failed"] {
            fs::create_dir_all(temp.path().join(folder))?;
        }
        fs::write(temp.path().join("conf/me"), "relay.example.org\n")?;
        symlink(tree().join("bin/nullmailer-inject"), temp.path().join("bin/nullmailer-inject"))?;
        // It takes folders from its caller only without the rights of another user.
        let queue = temp.path().join("sbin/nullmailer-queue");
        fs::copy(tree().join("sbin/nullmailer-queue"), &queue)?;
        fs::set_permissions(&queue, PermissionsExt::from_mode(0o755))?;
        Ok(Self { temp })
    }

    /// Its `sendmail`, which queues a message that it reads.
    #[must_use]
    pub fn sendmail(&self) -> String {
        let prefix = self.temp.path().display();
        format!("NULLMAILER_TEST_PREFIX={prefix} {}", tree().join("sbin/sendmail").display())
    }

    /// How many messages it has.
    #[must_use]
    pub fn count(&self) -> usize {
        fs::read_dir(self.temp.path().join("queue/queue")).map(Iterator::count).unwrap_or_default()
    }
}
