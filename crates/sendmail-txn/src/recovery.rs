//! Recovery: what becomes of messages whose transaction was cut short.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{
    Clock, Decision, DecisionStore, Discard, Error, ErrorKind, EventSink, QueueId, QueueStore,
    ResourceId, Result, Undecided,
};

use crate::sinks::Sinks;

/// Decides messages that are written or staged and not published, by asking who decided their
/// transactions.
///
/// It may run at any time, beside live transactions, many at once, and be killed half-way: every step
/// is repeatable, and time, locks and age only say *when* to ask, never the answer. What is in doubt is
/// kept.
pub struct Recovery {
    store: Arc<dyn QueueStore>,
    clock: Arc<dyn Clock>,
    resources: BTreeMap<ResourceId, Arc<dyn DecisionStore>>,
    sinks: Sinks,
    fence_after: Duration,
    fence_timeout: Duration,
}

/// What recovery found out about one message.
#[derive(Debug)]
#[non_exhaustive]
pub enum Finding {
    /// Its transaction committed.
    Committed,
    /// Its transaction did not commit, and never will.
    Aborted,
    /// Its transaction may still do either.
    Unfinished,
    /// Its transaction is too young to be asked about while the process that wrote it lives.
    InProgress,
    /// Nobody here knows the resource that decides; only an operator can.
    UnknownResource,
    /// The one that decides could not be asked.
    NoAnswer(Error),
    /// It is not undecided: published, discarded, or never there.
    NotUndecided,
}

/// What recovery did with one message.
#[derive(Debug)]
#[non_exhaustive]
pub enum Action {
    /// It is published; workers deliver it.
    Published,
    /// It was thrown away as rolled back, and is kept for some days.
    Discarded,
    /// It was left as it is.
    Kept,
    /// What was found could not be carried out; repeat it.
    Failed(Error),
    /// There was nothing left to do: somebody else had done it.
    Nothing,
}

/// One message that recovery looked at.
#[derive(Debug)]
pub struct Recovered {
    /// Which message.
    pub id: QueueId,
    /// Who decides its transaction, where that is known.
    pub resource: Option<ResourceId>,
    /// What was found out.
    pub finding: Finding,
    /// What was done.
    pub action: Action,
}

/// What a recovery did: one entry for each message it looked at.
#[derive(Debug, Default)]
pub struct RecoveryReport {
    /// The messages, sorted by id.
    pub messages: Vec<Recovered>,
}

/// An operator's decision, where the one that decided is gone for good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ruling {
    /// The messages count as committed, and are sent.
    Committed,
    /// The messages count as rolled back, and are thrown away.
    Aborted,
}

impl RecoveryReport {
    /// How many messages are still undecided.
    #[must_use]
    pub fn kept(&self) -> usize {
        let open =
            |message: &&Recovered| matches!(message.action, Action::Kept | Action::Failed(_));
        self.messages.iter().filter(open).count()
    }
}

impl Recovery {
    /// How old a message of a live process must be before its transaction is fenced.
    pub const FENCE_AFTER: Duration = Duration::from_secs(30);

    /// How long a fence waits for a transaction that is still open.
    pub const FENCE_TIMEOUT: Duration = Duration::from_secs(2);

    /// Recovery for `store`, which can ask that store itself.
    #[must_use]
    pub fn new(store: Arc<dyn QueueStore>, clock: Arc<dyn Clock>) -> Self {
        let own = store.decision_store().map(|own| (own.resource_id().clone(), own));
        Self {
            store,
            clock,
            resources: own.into_iter().collect(),
            sinks: Sinks::default(),
            fence_after: Self::FENCE_AFTER,
            fence_timeout: Self::FENCE_TIMEOUT,
        }
    }

    /// Lets it ask `store` as well: a database, or another queue.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::InvalidInput`] if one of that resource id is there already: the wrong one of the
    /// two would call committed mail rolled back.
    pub fn with_decision_store(mut self, store: Arc<dyn DecisionStore>) -> Result<Self> {
        let resource = store.resource_id().clone();
        if self.resources.contains_key(&resource) {
            let message = "two decision stores go by one resource id; give each its own";
            let error = Error::new(ErrorKind::InvalidInput, "set up the recovery", message);
            return Err(error.with("resource id", resource));
        }
        self.resources.insert(resource, store);
        Ok(self)
    }

    /// Tells `sink` of what is discarded.
    #[must_use]
    pub fn with_sink(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.sinks.push(sink);
        self
    }

    /// Fences messages of live processes when they are this old, in place of
    /// [`FENCE_AFTER`](Recovery::FENCE_AFTER). The answer does not depend on it.
    #[must_use]
    pub fn with_fence_after(mut self, age: Duration) -> Self {
        self.fence_after = age;
        self
    }

    /// Lets a fence wait this long, in place of [`FENCE_TIMEOUT`](Recovery::FENCE_TIMEOUT).
    #[must_use]
    pub fn with_fence_timeout(mut self, timeout: Duration) -> Self {
        self.fence_timeout = timeout;
        self
    }

    /// Looks at everything that is undecided and finishes what can be.
    ///
    /// # Errors
    ///
    /// The store could not say what is undecided. Everything else is in the report, message by message.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: repeat it.
    pub async fn run(&self) -> Result<RecoveryReport> {
        let mut groups: BTreeMap<ResourceId, Vec<Undecided>> = BTreeMap::new();
        for message in self.store.undecided().await? {
            groups.entry(message.resource.clone()).or_default().push(message);
        }
        let mut report = RecoveryReport::default();
        for (resource, group) in groups {
            match self.resources.get(&resource) {
                Some(oracle) => self.recover(oracle.as_ref(), group, &mut report).await,
                None => report
                    .messages
                    .extend(group.iter().map(|message| kept(message, Finding::UnknownResource))),
            }
        }
        report.messages.sort_by_key(|message| message.id);
        Ok(report)
    }

    /// Carries out an operator's decision about undecided messages.
    ///
    /// It is refused, and the message kept, while the process that wrote it lives, and where the one
    /// that decides can be asked and does not agree. Give all messages of a transaction, or half of it
    /// is sent.
    ///
    /// # Errors
    ///
    /// The store could not say what is undecided.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: repeat it.
    pub async fn decide(&self, ids: &[QueueId], ruling: Ruling) -> Result<RecoveryReport> {
        let undecided = self.store.undecided().await?;
        let by_id: HashMap<QueueId, Undecided> =
            undecided.into_iter().map(|message| (message.id, message)).collect();
        let mut report = RecoveryReport::default();
        for id in ids {
            let recovered = match by_id.get(id) {
                Some(message) => self.rule(message, ruling).await,
                None => Recovered {
                    id: *id,
                    resource: None,
                    finding: Finding::NotUndecided,
                    action: Action::Nothing,
                },
            };
            report.messages.push(recovered);
        }
        Ok(report)
    }

    /// One resource's messages: what is visible is published, what may be fenced is fenced.
    async fn recover(
        &self,
        oracle: &dyn DecisionStore,
        group: Vec<Undecided>,
        report: &mut RecoveryReport,
    ) {
        let ids: Vec<QueueId> = group.iter().map(|message| message.id).collect();
        let (visible, trouble) = match oracle.visible(&ids).await {
            Ok(visible) => (visible.into_iter().collect::<HashSet<_>>(), None),
            Err(error) => (HashSet::new(), Some(error)),
        };
        let (committed, open): (Vec<_>, Vec<_>) =
            group.into_iter().partition(|message| visible.contains(&message.id));
        report.messages.extend(self.publish(oracle, &committed).await);
        for message in &open {
            let recovered = match &trouble {
                Some(error) => kept(message, Finding::NoAnswer(again(error))),
                None if self.may_fence(message) => self.fence(oracle, message).await,
                None => kept(message, Finding::InProgress),
            };
            report.messages.push(recovered);
        }
    }

    /// Whether it is time to ask for good. A message that a live process has written and not staged is
    /// one that it is working on, however old.
    fn may_fence(&self, message: &Undecided) -> bool {
        let age = self.clock.now().saturating_since(message.since);
        !message.owner_alive || (message.staged && age >= self.fence_after)
    }

    async fn fence(&self, oracle: &dyn DecisionStore, message: &Undecided) -> Recovered {
        match oracle.fence(message.id, self.fence_timeout).await {
            Ok(Decision::Committed) => {
                let action = self.publish_one(oracle, message.id).await;
                recovered(message, Finding::Committed, action)
            }
            Ok(Decision::Aborted) => {
                recovered(message, Finding::Aborted, self.discard(message.id).await)
            }
            Ok(Decision::Unfinished) => kept(message, Finding::Unfinished),
            Err(error) => kept(message, Finding::NoAnswer(error)),
        }
    }

    /// Publishes in one call; where that fails, one by one, so that none keeps back the others.
    async fn publish(&self, oracle: &dyn DecisionStore, committed: &[Undecided]) -> Vec<Recovered> {
        let ids: Vec<QueueId> = committed.iter().map(|message| message.id).collect();
        let mut all = Vec::with_capacity(ids.len());
        if ids.is_empty() {
            return all;
        }
        if self.store.publish(&ids).await.is_ok() {
            forget(oracle, &ids).await;
            let published = |message| recovered(message, Finding::Committed, Action::Published);
            return committed.iter().map(published).collect();
        }
        for message in committed {
            let action = self.publish_one(oracle, message.id).await;
            all.push(recovered(message, Finding::Committed, action));
        }
        all
    }

    async fn publish_one(&self, oracle: &dyn DecisionStore, id: QueueId) -> Action {
        match self.store.publish(&[id]).await {
            Ok(()) => {
                forget(oracle, &[id]).await;
                Action::Published
            }
            Err(error) => Action::Failed(error),
        }
    }

    async fn discard(&self, id: QueueId) -> Action {
        match self.store.discard(&[id], Discard::Fenced).await {
            Ok(events) if events.is_empty() => Action::Nothing,
            Ok(events) => {
                for event in &events {
                    self.sinks.emit(event).await;
                }
                Action::Discarded
            }
            Err(error) => Action::Failed(error),
        }
    }

    async fn rule(&self, message: &Undecided, ruling: Ruling) -> Recovered {
        if message.owner_alive {
            return kept(message, Finding::InProgress);
        }
        let finding = match self.resources.get(&message.resource) {
            None => Finding::UnknownResource,
            Some(oracle) => match oracle.fence(message.id, self.fence_timeout).await {
                Ok(Decision::Committed) => Finding::Committed,
                Ok(Decision::Aborted) => Finding::Aborted,
                Ok(Decision::Unfinished) => Finding::Unfinished,
                Err(error) => Finding::NoAnswer(error),
            },
        };
        let action = match (&finding, ruling) {
            (Finding::Committed, Ruling::Aborted)
            | (Finding::Aborted, Ruling::Committed)
            | (Finding::Unfinished, _) => Action::Kept,
            (_, Ruling::Committed) => match self.store.publish(&[message.id]).await {
                Ok(()) => Action::Published,
                Err(error) => Action::Failed(error),
            },
            (_, Ruling::Aborted) => self.discard(message.id).await,
        };
        recovered(message, finding, action)
    }
}

/// Only ever called after `publish` returned. A failure leaves records that do no harm.
async fn forget(oracle: &dyn DecisionStore, ids: &[QueueId]) {
    let _ = oracle.forget(ids).await;
}

fn recovered(message: &Undecided, finding: Finding, action: Action) -> Recovered {
    Recovered { id: message.id, resource: Some(message.resource.clone()), finding, action }
}

fn kept(message: &Undecided, finding: Finding) -> Recovered {
    recovered(message, finding, Action::Kept)
}

/// An error that is told of several messages.
fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.operation(), error.message())
}
