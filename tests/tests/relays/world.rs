//! A queue on disk with a processor, on a clock that a test moves; and what can be seen of it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    Clock, DeliveryOptions, EntryState, Envelope, EventLog as _, EventSink, Filter,
    MailDelivery as _, MailEvent, MailEventKind, Mailer, Message, QueueAdmin as _, QueueId,
    QueueStore,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_processor::{ProcessorConfig, QueueProcessor};
use sendmail_smtp::{SmtpConfig, SmtpMailer};
use sendmail_testkit::ManualClock;
use sendmail_txn::{QueuedDelivery, TransactionManager};

/// Longer than any message or relay is left alone.
const LATER: Duration = Duration::from_secs(2 * 3600);

/// A queue in a directory of its own, and who works on it.
pub(crate) struct World {
    directory: tempfile::TempDir,
    store: MaildirStore,
    clock: ManualClock,
    heard: Arc<Heard>,
    /// How many events of the log were looked at.
    seen: Mutex<usize>,
}

/// What can be seen from outside after a pass.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The files of the queue: `deferred a1: a b`, one for each, with attempts and recipients.
    pub(crate) queue: String,
    /// What the log tells anew about recipients, in its order: `a sent, b deferred`.
    pub(crate) events: String,
    /// What the log tells anew about the relay: `paused`, `resumed`, or nothing.
    pub(crate) relay: String,
    /// Why the relay is not used, if it is not.
    pub(crate) trouble: Option<String>,
}

impl World {
    pub(crate) async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let clock = ManualClock::default();
        let store = open_store(directory.path(), &clock).await;
        Self { directory, store, clock, heard: Arc::default(), seen: Mutex::default() }
    }

    /// Commits a message to these recipients to the queue.
    pub(crate) async fn queue(&self, to: &[&str], options: DeliveryOptions, message: &Message) {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let store: Arc<dyn QueueStore> = Arc::new(self.store.clone());
        let manager = TransactionManager::new(clock.clone());
        let delivery = QueuedDelivery::new(store, clock);
        let envelope = Envelope::parse("from@x.example", to).unwrap().with_options(options);
        let mut transaction = manager.begin();
        delivery.send(&mut transaction, envelope, message.clone()).await.unwrap();
        manager.commit(transaction).await.into_result().unwrap();
    }

    pub(crate) fn processor(&self, relay: SmtpConfig, config: ProcessorConfig) -> QueueProcessor {
        self.processor_of(Arc::new(SmtpMailer::new(relay).unwrap()), config)
    }

    pub(crate) fn processor_of(
        &self,
        mailer: Arc<dyn Mailer>,
        config: ProcessorConfig,
    ) -> QueueProcessor {
        let builder = QueueProcessor::builder(
            Arc::new(self.store.clone()),
            mailer,
            Arc::new(self.clock.clone()),
        );
        builder.config(config).sink(self.heard.clone()).build().unwrap()
    }

    /// Tries everything that is due, once.
    pub(crate) async fn pass(&self, processor: &QueueProcessor) -> Seen {
        processor.run_once().await.unwrap();
        self.look(processor.health().relay_trouble).await
    }

    /// Lets so much time pass that everything is due again.
    pub(crate) fn wait(&self) {
        self.clock.advance(LATER);
    }

    pub(crate) async fn release_all(&self) {
        for id in self.list(EntryState::Held).await {
            self.store.release(id).await.unwrap();
        }
    }

    /// What the log of the queue tells, all of it, read as another process reads it.
    pub(crate) async fn log(&self) -> Vec<MailEvent> {
        let other = open_store(self.directory.path(), &self.clock).await;
        let page = other.read(None, 10_000).await.unwrap();
        page.events.into_iter().map(|(_, event)| event).collect()
    }

    /// Looks at files, log and relay. The log has to tell exactly what the sink was told, and besides only
    /// what an operator did.
    async fn look(&self, trouble: Option<String>) -> Seen {
        let log = self.log().await;
        let told = log.iter().filter(|event| event.kind != MailEventKind::Released);
        assert_eq!(ids(told), ids(&*self.heard.0.lock().unwrap()), "told is what the log tells");
        let from = std::mem::replace(&mut *self.seen.lock().unwrap(), log.len());
        let (about_relay, others): (Vec<_>, Vec<_>) =
            log[from..].iter().partition(|event| event.queue_id.is_none());
        let others = others.into_iter().filter(|event| event.kind != MailEventKind::Queued);
        Seen {
            queue: self.files().await,
            events: others.map(words).collect::<Vec<_>>().join(", "),
            relay: about_relay.into_iter().map(words).collect::<Vec<_>>().join(", "),
            trouble,
        }
    }

    /// The messages on disk, judged by folder, name and envelope alone. The list that an operator sees
    /// has to say the same.
    async fn files(&self) -> String {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.directory.path().join("queue")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else if let Some(message) = OnDisk::read(self.directory.path(), &path) {
                    *found.entry(message.to_string()).or_insert(0) += 1;
                }
            }
        }
        let listed = self.listed().await;
        assert_eq!(found, listed, "the list shows what is on disk");
        let line = |(text, count): (String, usize)| vec![text; count];
        found.into_iter().flat_map(line).collect::<Vec<_>>().join("; ")
    }

    async fn listed(&self) -> BTreeMap<String, usize> {
        let mut found = BTreeMap::new();
        let mut visit = |entry: sendmail_core::Entry| {
            let message = OnDisk {
                state: entry.state.as_str().to_owned(),
                attempts: entry.attempts,
                recipients: entry.recipients.iter().map(|to| to.local_part().to_owned()).collect(),
            };
            *found.entry(message.to_string()).or_insert(0) += 1;
            ControlFlow::Continue(())
        };
        self.store.list(&Filter::default(), &mut visit).await.unwrap();
        found
    }

    async fn list(&self, state: EntryState) -> Vec<QueueId> {
        let mut ids = Vec::new();
        let mut filter = Filter::default();
        filter.states = vec![state];
        let mut visit = |entry: sendmail_core::Entry| {
            ids.push(entry.id);
            ControlFlow::Continue(())
        };
        self.store.list(&filter, &mut visit).await.unwrap();
        ids
    }
}

async fn open_store(directory: &Path, clock: &ManualClock) -> MaildirStore {
    let options = MaildirOptions::default().with_clock(Arc::new(clock.clone()));
    MaildirStore::open(directory.join("queue"), options).await.unwrap()
}

/// A queue file: where it is, and what its name and its envelope say.
struct OnDisk {
    state: String,
    attempts: u32,
    recipients: Vec<String>,
}

impl OnDisk {
    /// Nothing if the file is no message: a journal, a lock.
    fn read(base: &Path, path: &Path) -> Option<Self> {
        let inside = path.strip_prefix(base).unwrap().to_str().unwrap();
        let folder = inside.split('/').nth(1)?;
        let state = match folder {
            "new" | "cur" | ".lanes" => "queued",
            ".journal" | ".owners" => return None,
            other => other.trim_start_matches('.'),
        };
        let content = std::fs::read(path).unwrap();
        let text = String::from_utf8_lossy(&content);
        let to = text.lines().map_while(|line| line.starts_with("X-").then_some(line));
        let to = to.filter_map(|line| line.strip_prefix("X-Envelope-To: <"));
        let recipients: Vec<String> =
            to.map(|address| address.split('@').next().unwrap().to_owned()).collect();
        let name = inside.rsplit('/').next().unwrap();
        let attempts = name.split('.').nth(1)?.strip_prefix('a')?.parse().ok()?;
        Some(Self { state: state.to_owned(), attempts, recipients })
    }
}

impl std::fmt::Display for OnDisk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} a{}: {}", self.state, self.attempts, self.recipients.join(" "))
    }
}

/// Who is told as it happens.
#[derive(Default)]
struct Heard(Mutex<Vec<MailEvent>>);

#[async_trait]
impl EventSink for Heard {
    async fn emit(&self, event: &MailEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// What is told about a relay comes beside what is told about messages: only each for itself is in order.
fn ids<'a>(events: impl IntoIterator<Item = &'a MailEvent>) -> Vec<String> {
    let mut ids: Vec<String> = events.into_iter().map(|event| event.id.to_string()).collect();
    ids.sort_unstable();
    ids
}

fn words(event: &MailEvent) -> String {
    let kind = event.kind.as_str();
    match &event.recipient {
        Some(recipient) => format!("{} {kind}", recipient.local_part()),
        None => kind.trim_start_matches("relay-").to_owned(),
    }
}
