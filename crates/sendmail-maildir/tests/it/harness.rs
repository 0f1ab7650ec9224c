//! A queue in a temporary directory, and the processes that have it open.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sendmail_core::{EventLog, QueueAdmin, QueueId, QueueStore};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_testkit::ManualClock;
use sendmail_testkit::suite::QueueHarness;

/// A queue of its own.
pub(crate) struct Maildir {
    pub(crate) directory: tempfile::TempDir,
    clock: ManualClock,
    processes: Mutex<Vec<(Arc<dyn QueueStore>, MaildirStore)>>,
}

impl Maildir {
    pub(crate) fn path(&self) -> PathBuf {
        self.directory.path().join("queue")
    }

    pub(crate) async fn open_store(&self) -> MaildirStore {
        let options = MaildirOptions::default().with_clock(Arc::new(self.clock.clone()));
        MaildirStore::open(self.path(), options).await.unwrap()
    }

    /// The published file of a message.
    fn file(&self, id: QueueId) -> PathBuf {
        files(&self.path())
            .into_iter()
            .find(|path| path.file_name().unwrap().to_string_lossy().starts_with(&id.to_string()))
            .unwrap()
    }
}

/// All files below a directory.
pub(crate) fn files(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(&entry.path()));
        } else {
            found.push(entry.path());
        }
    }
    found
}

#[async_trait]
impl QueueHarness for Maildir {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        Self { directory, clock: ManualClock::default(), processes: Mutex::default() }
    }

    async fn open(&self) -> Arc<dyn QueueStore> {
        let process = self.open_store().await;
        let store: Arc<dyn QueueStore> = Arc::new(process.clone());
        self.processes.lock().unwrap().push((Arc::clone(&store), process));
        store
    }

    async fn kill(&self, store: Arc<dyn QueueStore>) {
        let processes = self.processes.lock().unwrap();
        let found = processes.iter().find(|(known, _)| Arc::ptr_eq(known, &store));
        found.unwrap().1.simulate_death();
    }

    async fn admin(&self) -> Arc<dyn QueueAdmin> {
        Arc::new(self.open_store().await)
    }

    async fn log(&self) -> Arc<dyn EventLog> {
        Arc::new(self.open_store().await)
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    async fn corrupt(&self, id: QueueId) -> bool {
        let file = self.file(id);
        let mut content = std::fs::read(&file).unwrap();
        *content.last_mut().unwrap() ^= 1;
        std::fs::write(file, content).unwrap();
        true
    }

    async fn make_unsupported(&self, id: QueueId) -> bool {
        let file = self.file(id);
        let content = String::from_utf8(std::fs::read(&file).unwrap()).unwrap();
        let newer = content.replace("X-Queue-Version: 1\r\n", "X-Queue-Version: 2\r\n");
        assert_ne!(newer, content);
        std::fs::write(file, newer).unwrap();
        true
    }
}
