//! The suites' way to a [`MemoryStore`].

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{EventLog, QueueAdmin, QueueId, QueueStore};
use sendmail_testkit::suite::QueueHarness;
use sendmail_testkit::{ManualClock, MemoryStore};

/// A queue in memory and the processes that have it open.
pub(crate) struct Memory {
    clock: ManualClock,
    observer: MemoryStore,
    processes: Mutex<Vec<(Arc<dyn QueueStore>, MemoryStore)>>,
}

impl Memory {
    pub(crate) fn with(make: impl FnOnce(Arc<ManualClock>) -> MemoryStore) -> Self {
        let clock = ManualClock::default();
        let observer = make(Arc::new(clock.clone()));
        Self { clock, observer, processes: Mutex::default() }
    }

    /// A further process, seen through `wrap`.
    pub(crate) fn open_as(
        &self,
        wrap: impl FnOnce(MemoryStore) -> Arc<dyn QueueStore>,
    ) -> Arc<dyn QueueStore> {
        let process = self.observer.process();
        let store = wrap(process.clone());
        self.processes.lock().unwrap().push((Arc::clone(&store), process));
        store
    }
}

#[async_trait]
impl QueueHarness for Memory {
    async fn new() -> Self {
        Self::with(|clock| MemoryStore::new(clock))
    }

    async fn open(&self) -> Arc<dyn QueueStore> {
        self.open_as(|process| Arc::new(process))
    }

    async fn kill(&self, store: Arc<dyn QueueStore>) {
        let processes = self.processes.lock().unwrap();
        let of = processes.iter().find(|(known, _)| Arc::ptr_eq(known, &store));
        of.expect("a process of this harness").1.kill();
    }

    async fn admin(&self) -> Arc<dyn QueueAdmin> {
        Arc::new(self.observer.clone())
    }

    async fn log(&self) -> Arc<dyn EventLog> {
        Arc::new(self.observer.clone())
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }

    async fn corrupt(&self, id: QueueId) -> bool {
        self.observer.corrupt(id)
    }

    async fn make_unsupported(&self, id: QueueId) -> bool {
        self.observer.make_unsupported(id)
    }

    async fn expire_history(&self) -> bool {
        self.observer.expire_history(2);
        true
    }
}

/// The same with leases.
pub(crate) struct Leased(Memory);

#[async_trait]
impl QueueHarness for Leased {
    async fn new() -> Self {
        Self(Memory::with(|clock| MemoryStore::leased(clock, Duration::from_secs(30))))
    }

    async fn open(&self) -> Arc<dyn QueueStore> {
        self.0.open().await
    }

    async fn kill(&self, store: Arc<dyn QueueStore>) {
        self.0.kill(store).await;
    }

    async fn admin(&self) -> Arc<dyn QueueAdmin> {
        self.0.admin().await
    }

    async fn log(&self) -> Arc<dyn EventLog> {
        self.0.log().await
    }

    fn clock(&self) -> &ManualClock {
        self.0.clock()
    }
}
