//! The suites of the traits that this crate implements.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sendmail_core::{
    Clock, DataManager, EventSink, MailEvent, PrepareContext, QueueId, QueueStore, Release, Result,
    Settlement, Transaction, TransactionId,
};
use sendmail_testkit::suite::data_manager::DataManagerHarness;
use sendmail_testkit::suite::sink::EventSinkHarness;
use sendmail_testkit::{ManualClock, MemoryStore};
use sendmail_txn::{EventHandler, HandlerSink, MailDataManager, Recovery, TransactionManager};

use crate::fake::{NOW, mail};

/// A queue, and the processes whose transactions write to it.
struct Queue {
    clock: Arc<ManualClock>,
    store: MemoryStore,
    processes: Mutex<Vec<MemoryStore>>,
}

#[async_trait]
impl DataManagerHarness for Queue {
    async fn new() -> Self {
        let clock = Arc::new(ManualClock::new(NOW));
        let store = MemoryStore::new(clock.clone());
        Self { clock, store, processes: Mutex::default() }
    }

    async fn manager(&self) -> Box<dyn DataManager> {
        let process = self.store.process();
        self.processes.lock().unwrap().push(process.clone());
        Box::new(MailDataManager::new(Arc::new(process)))
    }

    async fn work(&self, manager: &mut dyn DataManager) {
        let manager: &mut dyn std::any::Any = manager;
        let manager: &mut MailDataManager = manager.downcast_mut().unwrap();
        let (envelope, message) = mail("work");
        manager.hand_over(QueueId::mint(self.clock.now()), envelope, message);
    }

    async fn visible(&self) -> usize {
        let worker = self.store.process();
        let claims = worker.claim(100).await.unwrap().claims;
        let count = claims.len();
        for claim in claims {
            worker.settle(claim, Settlement::Release(Release::NotAttempted)).await.unwrap();
        }
        count
    }

    async fn recover(&self) {
        self.processes.lock().unwrap().iter().for_each(MemoryStore::kill);
        let survivor = Arc::new(self.store.process());
        Recovery::new(survivor.clone(), self.clock.clone()).run().await.unwrap();
        survivor.sweep().await.unwrap();
    }

    fn context(&self) -> PrepareContext {
        let resource = QueueStore::resource_id(&self.store).clone();
        PrepareContext::new(TransactionId::mint(self.clock.now()), Some(resource))
    }
}

mod mail_data_manager {
    sendmail_testkit::data_manager_suite!(super::Queue);
}

/// A handler that writes down what it handles.
#[derive(Default)]
struct Diary {
    heard: Mutex<Vec<MailEvent>>,
}

#[async_trait]
impl EventHandler for Diary {
    async fn handle(&self, _transaction: &mut Transaction, event: &MailEvent) -> Result<()> {
        self.heard.lock().unwrap().push(event.clone());
        Ok(())
    }
}

struct Handler {
    diary: Arc<Diary>,
    sink: Arc<HandlerSink>,
}

#[async_trait]
impl EventSinkHarness for Handler {
    async fn new() -> Self {
        let diary = Arc::new(Diary::default());
        let manager = TransactionManager::new(Arc::new(ManualClock::new(NOW)));
        let sink = HandlerSink::new(manager, diary.clone(), Arc::new(|_, error| panic!("{error}")));
        Self { diary, sink: Arc::new(sink) }
    }

    fn sink(&self) -> Arc<dyn EventSink> {
        self.sink.clone()
    }

    async fn heard(&self) -> Vec<MailEvent> {
        self.diary.heard.lock().unwrap().clone()
    }
}

mod handler_sink {
    sendmail_testkit::event_sink_suite!(super::Handler);
}
