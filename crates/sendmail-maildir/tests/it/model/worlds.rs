//! The queues on which histories are lived: on a disk, and in memory.

use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{DecisionLog, EventLog, QueueAdmin, QueueStore};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_testkit::{ManualClock, MemoryStore};

use crate::harness::files;

/// A process: its store by the traits, and how it dies.
#[derive(Clone)]
pub(super) struct Process {
    pub(super) store: Arc<dyn QueueStore>,
    pub(super) log: Arc<dyn DecisionLog>,
    pub(super) kill: Arc<dyn Fn() + Send + Sync>,
}

/// A queue of one kind.
pub(super) trait World {
    fn process(&self) -> impl Future<Output = Process>;
    fn observer(&self) -> impl Future<Output = (Arc<dyn QueueAdmin>, Arc<dyn EventLog>)>;
    /// What is left in places where nothing may be left.
    fn left_over(&self) -> Vec<PathBuf>;
}

pub(super) struct OnDisk {
    pub(super) directory: tempfile::TempDir,
    pub(super) clock: ManualClock,
}

impl OnDisk {
    async fn open(&self) -> MaildirStore {
        let mut options = MaildirOptions::default().with_clock(Arc::new(self.clock.clone()));
        // The books are checked against all of the history, and the clock jumps.
        options.history = Duration::from_secs(1 << 40);
        MaildirStore::open(self.directory.path(), options).await.unwrap()
    }
}

impl World for OnDisk {
    async fn process(&self) -> Process {
        let store = self.open().await;
        let doomed = store.clone();
        Process {
            log: Arc::new(store.clone()),
            store: Arc::new(store),
            kill: Arc::new(move || doomed.simulate_death()),
        }
    }

    async fn observer(&self) -> (Arc<dyn QueueAdmin>, Arc<dyn EventLog>) {
        let store = self.open().await;
        (Arc::new(store.clone()), Arc::new(store))
    }

    fn left_over(&self) -> Vec<PathBuf> {
        let gone = ["tmp", "new", "cur", ".lanes", ".deferred", ".held", ".claimed", ".staged"];
        let mut left: Vec<PathBuf> =
            gone.iter().flat_map(|place| files(&self.directory.path().join(place))).collect();
        // Kept for some time: the answer that a message will never be sent, and decisions that nobody
        // has said may be forgotten.
        let decided =
            |path: &PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o100 != 0;
        left.retain(|path| path.extension().is_none_or(|it| it != "fence") && !decided(path));
        left
    }
}

pub(super) struct InMemory(pub(super) MemoryStore);

impl World for InMemory {
    async fn process(&self) -> Process {
        let store = self.0.process();
        let doomed = store.clone();
        Process {
            log: Arc::new(store.clone()),
            store: Arc::new(store),
            kill: Arc::new(move || doomed.kill()),
        }
    }

    async fn observer(&self) -> (Arc<dyn QueueAdmin>, Arc<dyn EventLog>) {
        (Arc::new(self.0.clone()), Arc::new(self.0.clone()))
    }

    fn left_over(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}
