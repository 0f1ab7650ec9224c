//! Recovery: what becomes of messages whose transaction was cut short, or that nobody but a database knows
//! to be committed.

mod follow;
mod pace;
mod report;
mod resource;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use sendmail_core::{
    Clock, DecisionStore, Error, ErrorKind, EventSink, QueueId, QueueStore, ResourceId, Result,
    Undecided,
};

use crate::sinks::Sinks;
pub use report::{Action, Finding, Recovered, RecoveryReport, Ruling};
use report::{kept, recovered};
use resource::Resource;

/// Decides messages that are written or staged and not published, by asking who decided their
/// transactions.
///
/// It may run at any time, beside live transactions, many at once, and be killed half-way: every step
/// is repeatable, and time, locks and age only say *when* to ask, never the answer. What is in doubt is
/// kept. In a frozen queue nothing is decided.
///
/// Now and then, and at its first run, it also looks for what whoever died after publishing a message has
/// left behind at the one that decides, and has it forgotten, once it is sure that the message is
/// published and that this is durable. A message that is committed and not there is an alarm, and stays
/// remembered.
pub struct Recovery {
    store: Arc<dyn QueueStore>,
    clock: Arc<dyn Clock>,
    resources: BTreeMap<ResourceId, Arc<Resource>>,
    /// Those that another part of the same recovery looks after.
    elsewhere: BTreeSet<ResourceId>,
    /// Whether it reports messages whose resource nobody knows.
    reports_unknown: bool,
    sinks: Sinks,
    fence_after: Duration,
    fence_timeout: Duration,
}

/// Whose messages are looked at.
#[derive(Debug, Clone, Copy)]
enum Parts<'a> {
    All,
    One(&'a ResourceId),
    /// Those of resources that nobody here knows.
    Unknown,
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
            resources: own
                .into_iter()
                .map(|(id, own)| (id, Arc::new(Resource::new(own))))
                .collect(),
            elsewhere: BTreeSet::new(),
            reports_unknown: true,
            sinks: Sinks::default(),
            fence_after: Self::FENCE_AFTER,
            fence_timeout: Self::FENCE_TIMEOUT,
        }
    }

    /// Recovery of those messages of `store` alone that `decisions` decides: a part that joins later than
    /// others, or comes and goes, beside a [`new`](Recovery::new) for what the store itself decides. It says
    /// nothing of messages whose resource it does not know.
    #[must_use]
    pub fn of(
        store: Arc<dyn QueueStore>,
        clock: Arc<dyn Clock>,
        decisions: Arc<dyn DecisionStore>,
    ) -> Self {
        let resource = decisions.resource_id().clone();
        Self {
            resources: BTreeMap::from([(resource, Arc::new(Resource::new(decisions)))]),
            reports_unknown: false,
            ..Self::new(store, clock)
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
        self.resources.insert(resource, Arc::new(Resource::new(store)));
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

    /// Looks at everything that is undecided and finishes what can be. All that decide are asked at once.
    ///
    /// # Errors
    ///
    /// The store could not say what is undecided. Everything else is in the report, message by message.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: repeat it.
    pub async fn run(&self) -> Result<RecoveryReport> {
        self.look(Parts::All).await
    }

    /// The same recovery in parts that can run apart, one for each that decides: so each has its own pace,
    /// and one that cannot be reached holds up no other.
    #[must_use]
    pub fn split(self) -> Vec<Self> {
        let all: BTreeSet<ResourceId> = self.resources.keys().cloned().collect();
        if all.is_empty() {
            return vec![self];
        }
        let part = |(index, (id, resource)): (usize, (&ResourceId, &Arc<Resource>))| Self {
            store: self.store.clone(),
            clock: self.clock.clone(),
            resources: BTreeMap::from([(id.clone(), resource.clone())]),
            elsewhere: all.iter().filter(|other| *other != id).cloned().collect(),
            reports_unknown: index == 0,
            sinks: self.sinks.clone(),
            fence_after: self.fence_after,
            fence_timeout: self.fence_timeout,
        };
        self.resources.iter().enumerate().map(part).collect()
    }

    /// Looks at everything, or a part. All resources are asked at once.
    async fn look(&self, parts: Parts<'_>) -> Result<RecoveryReport> {
        let mut groups: BTreeMap<ResourceId, Vec<Undecided>> = BTreeMap::new();
        for message in self.store.undecided().await? {
            groups.entry(message.resource.clone()).or_default().push(message);
        }
        let mut report = RecoveryReport::default();
        let meant: Vec<(&ResourceId, &Arc<Resource>)> = match parts {
            Parts::All => self.resources.iter().collect(),
            Parts::One(resource) => self.resources.get_key_value(resource).into_iter().collect(),
            Parts::Unknown => Vec::new(),
        };
        if self.is_frozen().await {
            let ids = meant.iter().filter_map(|(id, _)| groups.get(*id));
            report.messages.extend(ids.flatten().map(|message| kept(message, Finding::Frozen)));
        } else {
            let asked = meant.into_iter().map(|(id, resource)| {
                let group = groups.get(id).cloned().unwrap_or_default();
                self.recover(resource, group)
            });
            join_all(asked).await.into_iter().for_each(|part| report.add(part));
        }
        if self.reports_unknown && !matches!(parts, Parts::One(_)) {
            let known =
                |id: &ResourceId| self.resources.contains_key(id) || self.elsewhere.contains(id);
            let unknown = groups.iter().filter(|(id, _)| !known(id)).flat_map(|(_, group)| group);
            report.messages.extend(unknown.map(|message| kept(message, Finding::UnknownResource)));
        }
        report.messages.sort_by_key(|message| message.id);
        Ok(report)
    }

    /// Carries out an operator's decision about undecided messages.
    ///
    /// It is refused, and the message kept, while the process that wrote it lives, and where the one
    /// that decides can be asked and does not agree. Give all messages of a transaction, or half of it
    /// is sent. It may be done while the queue is frozen: after a restore that is the time for it. A message
    /// that was discarded already is put back with
    /// [`QueueAdmin::put_back`](sendmail_core::QueueAdmin::put_back).
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

    async fn rule(&self, message: &Undecided, ruling: Ruling) -> Recovered {
        if message.owner_alive {
            return kept(message, Finding::InProgress);
        }
        let finding = self.ask(message).await;
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
