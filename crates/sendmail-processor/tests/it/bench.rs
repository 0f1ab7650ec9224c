//! A queue, a mailer, a processor and a clock, put together for a test.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    Clock, DeliveryOptions, Entry, EntryState, Envelope, EventSink, Filter, MailEvent,
    MailEventKind, Message, NewMessage, QueueAdmin, QueueId, QueueStore,
};
use sendmail_processor::{ProcessorBuilder, ProcessorConfig, QueueProcessor};
use sendmail_testkit::{ManualClock, MemoryStore, TestMailer};

pub(crate) const DAY: Duration = Duration::from_secs(86_400);

pub(crate) struct Bench {
    pub(crate) clock: ManualClock,
    pub(crate) store: MemoryStore,
    pub(crate) mailer: TestMailer,
    pub(crate) heard: Heard,
}

/// A sink that remembers.
#[derive(Clone, Default)]
pub(crate) struct Heard(Arc<Mutex<Vec<MailEvent>>>);

impl Heard {
    pub(crate) fn events(&self) -> Vec<MailEvent> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn kinds_of(&self, id: QueueId) -> Vec<MailEventKind> {
        let events = self.events();
        events.iter().filter(|e| e.queue_id == Some(id)).map(|e| e.kind).collect()
    }

    pub(crate) fn count(&self, kind: MailEventKind) -> usize {
        self.events().iter().filter(|event| event.kind == kind).count()
    }
}

#[async_trait]
impl EventSink for Heard {
    async fn emit(&self, event: &MailEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Bench {
    pub(crate) fn new() -> Self {
        Self::with(MemoryStore::new)
    }

    pub(crate) fn with(make: impl FnOnce(Arc<dyn Clock>) -> MemoryStore) -> Self {
        let clock = ManualClock::default();
        let store = make(Arc::new(clock.clone()));
        Self { clock, store, mailer: TestMailer::new(), heard: Heard::default() }
    }

    /// A processor of the bench's own process.
    pub(crate) fn builder(&self) -> ProcessorBuilder {
        self.builder_on(&self.store)
    }

    /// A processor of some process.
    pub(crate) fn builder_on(&self, store: &MemoryStore) -> ProcessorBuilder {
        let clock = Arc::new(self.clock.clone());
        QueueProcessor::builder(Arc::new(store.clone()), Arc::new(self.mailer.clone()), clock)
            .sink(Arc::new(self.heard.clone()))
    }

    pub(crate) fn processor(&self) -> QueueProcessor {
        self.builder().build().unwrap()
    }

    pub(crate) fn processor_with(&self, set: impl FnOnce(&mut ProcessorConfig)) -> QueueProcessor {
        let mut config = ProcessorConfig::default();
        set(&mut config);
        self.builder().config(config).build().unwrap()
    }

    pub(crate) async fn queue(&self, to: &[&str]) -> QueueId {
        self.queue_with(to, |_| {}).await
    }

    pub(crate) async fn queue_with(
        &self,
        to: &[&str],
        set: impl FnOnce(&mut DeliveryOptions),
    ) -> QueueId {
        let mut options = DeliveryOptions::default();
        set(&mut options);
        let now = self.clock.now();
        let new = NewMessage {
            id: QueueId::mint(now),
            envelope: Envelope::parse("sender@example.org", to).unwrap().with_options(options),
            message: Message::from_raw(b"Subject: x\r\n\r\nHello.\r\n", now, "example.org")
                .unwrap(),
            resource: QueueStore::resource_id(&self.store).clone(),
        };
        self.store.write(&new).await.unwrap();
        self.store.publish(&[new.id]).await.unwrap();
        new.id
    }

    /// Writes and stages a message, as some process.
    pub(crate) async fn queue_staged(&self, store: &MemoryStore) -> QueueId {
        let now = self.clock.now();
        let new = NewMessage {
            id: QueueId::mint(now),
            envelope: Envelope::parse("sender@example.org", ["a@example.net"]).unwrap(),
            message: Message::from_raw(b"Subject: x\r\n\r\nHello.\r\n", now, "example.org")
                .unwrap(),
            resource: QueueStore::resource_id(store).clone(),
        };
        store.write(&new).await.unwrap();
        store.stage(&[new.id]).await.unwrap();
        new.id
    }

    pub(crate) async fn entries(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let mut visit = |entry| {
            entries.push(entry);
            std::ops::ControlFlow::Continue(())
        };
        self.store.list(&Filter::default(), &mut visit).await.unwrap();
        entries.sort_by_key(|entry| (entry.id, entry.state));
        entries
    }

    /// State, attempts and recipients of everything in the queue.
    pub(crate) async fn shown(&self) -> Vec<(EntryState, u32, Vec<String>)> {
        let texts = |entry: &Entry| entry.recipients.iter().map(ToString::to_string).collect();
        let entries = self.entries().await;
        entries.iter().map(|entry| (entry.state, entry.attempts, texts(entry))).collect()
    }

    pub(crate) async fn count(&self, state: EntryState) -> usize {
        self.entries().await.iter().filter(|entry| entry.state == state).count()
    }

    /// Lets time pass, from one sleeper to the next, until `reached`.
    pub(crate) async fn pass_time_until(&self, mut reached: impl FnMut() -> bool) {
        for _ in 0..200_000 {
            for _ in 0..50 {
                if reached() {
                    return;
                }
                tokio::task::yield_now().await;
            }
            self.clock.advance_to_next().await;
        }
        panic!("it does not come to that, however much time passes");
    }

    /// Lets the other tasks run until each waits for something.
    pub(crate) async fn let_others_run(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }
}

/// Whether two texts have the same words in another order.
pub(crate) fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}
