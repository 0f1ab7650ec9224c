//! One that decides, and what recovery does about the messages that wait for its word.
//!
//! Invariant: nothing is forgotten before `publish` has returned for it, and nothing is discarded of
//! which it was not said that it can never be committed.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sendmail_core::{
    Decision, DecisionStore, Discard, Error, QueueId, ResourceId, Result, Undecided,
};

use super::Recovery;
use super::pace::{self, Pace};
use super::report::{Action, Finding, Recovered, RecoveryReport, again, kept, recovered};

/// How long ago a message must have been committed before it is missed: its transaction's own process
/// is done with it by then.
const MISSED_AFTER: Duration = Duration::from_secs(10 * 60);
/// How many messages that were left behind are looked for at once.
const AT_ONCE: usize = 500;
/// How often that is done in one go. What is left then is the next time's.
const MOST_BATCHES: usize = 100;

/// One that decides, with the pace at which it is asked.
pub(super) struct Resource {
    pub(super) oracle: Arc<dyn DecisionStore>,
    pace: Mutex<Pace>,
}

impl Resource {
    pub(super) fn new(oracle: Arc<dyn DecisionStore>) -> Self {
        Self { oracle, pace: Mutex::default() }
    }

    /// Its state is consistent at every point at which a panic could leave it.
    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn id(&self) -> ResourceId {
        self.oracle.resource_id().clone()
    }
}

impl Recovery {
    /// One resource's messages: what is visible is published, what may be fenced is fenced.
    pub(super) async fn recover(
        &self,
        resource: &Resource,
        group: Vec<Undecided>,
    ) -> RecoveryReport {
        let mut report = RecoveryReport::default();
        if !group.is_empty() {
            report.messages = self.settle(resource, &group).await;
        }
        report.again = self.look_again(resource, &group, &report.messages);
        let no_answer = |message: &Recovered| matches!(message.finding, Finding::NoAnswer(_));
        // Whoever does not answer is not asked for more.
        if !report.messages.iter().any(no_answer)
            && resource.pace().looks_for_left_behind(self.clock.now())
            && let Err(error) = self.tidy(resource, &mut report).await
        {
            report.trouble.push((resource.id(), error));
        }
        report
    }

    /// When to look again. Mail of transactions that the queue itself decides is published by the process
    /// that committed, and what is only being written is not committed yet: neither is waited for.
    fn look_again(
        &self,
        resource: &Resource,
        group: &[Undecided],
        messages: &[Recovered],
    ) -> Option<Duration> {
        let open: HashSet<QueueId> = messages
            .iter()
            .filter(|message| matches!(message.action, Action::Kept | Action::Failed(_)))
            .map(|message| message.id)
            .collect();
        let own = resource.oracle.resource_id() == self.store.resource_id();
        let in_doubt = group.iter().filter(|message| {
            !own && open.contains(&message.id) && (message.staged || !message.owner_alive)
        });
        let next = resource.pace().next(in_doubt, self.clock.now());
        // Where something was just decided there may be more.
        let decided =
            |message: &Recovered| matches!(message.action, Action::Published | Action::Discarded);
        next.or_else(|| messages.iter().any(decided).then_some(pace::SHORTEST))
    }

    async fn settle(&self, resource: &Resource, group: &[Undecided]) -> Vec<Recovered> {
        let oracle = resource.oracle.as_ref();
        let ids: Vec<QueueId> = group.iter().map(|message| message.id).collect();
        let visible: HashSet<QueueId> = match oracle.visible(&ids).await {
            Ok(visible) => visible.into_iter().collect(),
            Err(error) => {
                let unanswered = |message| kept(message, Finding::NoAnswer(again(&error)));
                return group.iter().map(unanswered).collect();
            }
        };
        let (committed, open): (Vec<&Undecided>, Vec<&Undecided>) =
            group.iter().partition(|message| visible.contains(&message.id));
        let mut all = self.publish(oracle, &committed).await;
        let (old, young): (Vec<&Undecided>, Vec<&Undecided>) =
            open.into_iter().partition(|message| self.may_fence(message));
        all.extend(young.into_iter().map(|message| kept(message, Finding::InProgress)));
        all.extend(self.fence(oracle, &old).await);
        all
    }

    /// Whether it is time to ask for good. A message that a live process has written and not staged is
    /// one that it is working on, however old.
    fn may_fence(&self, message: &Undecided) -> bool {
        let age = self.clock.now().saturating_since(message.since);
        !message.owner_alive || (message.staged && age >= self.fence_after)
    }

    async fn fence(&self, oracle: &dyn DecisionStore, old: &[&Undecided]) -> Vec<Recovered> {
        if old.is_empty() {
            return Vec::new();
        }
        if self.is_frozen().await {
            return old.iter().map(|message| kept(message, Finding::Frozen)).collect();
        }
        let ids: Vec<QueueId> = old.iter().map(|message| message.id).collect();
        let mut answers: std::collections::HashMap<QueueId, Result<Decision>> =
            oracle.fence_all(&ids, self.fence_timeout).await.into_iter().collect();
        let (mut committed, mut aborted, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for message in old.iter().copied() {
            match answers.remove(&message.id) {
                Some(Ok(Decision::Committed)) => committed.push(message),
                Some(Ok(Decision::Aborted)) => aborted.push(message),
                Some(Ok(Decision::Unfinished)) | None => {
                    all.push(kept(message, Finding::Unfinished));
                }
                Some(Err(error)) => all.push(kept(message, Finding::NoAnswer(error))),
            }
        }
        all.extend(self.publish(oracle, &committed).await);
        all.extend(self.discard_all(&aborted).await);
        all
    }

    /// Publishes in one call; where that fails, one by one, so that none keeps back the others.
    async fn publish(
        &self,
        oracle: &dyn DecisionStore,
        committed: &[&Undecided],
    ) -> Vec<Recovered> {
        let ids: Vec<QueueId> = committed.iter().map(|message| message.id).collect();
        let mut all = Vec::with_capacity(ids.len());
        if ids.is_empty() {
            return all;
        }
        if self.store.publish(&ids).await.is_ok() {
            forget(oracle, &ids).await;
            let published =
                |message: &&Undecided| recovered(message, Finding::Committed, Action::Published);
            return committed.iter().map(published).collect();
        }
        for message in committed {
            let action = match self.store.publish(&[message.id]).await {
                Ok(()) => {
                    forget(oracle, &[message.id]).await;
                    Action::Published
                }
                Err(error) => Action::Failed(error),
            };
            all.push(recovered(message, Finding::Committed, action));
        }
        all
    }

    /// Discards in one call; where that fails, one by one, so that none keeps back the others.
    async fn discard_all(&self, aborted: &[&Undecided]) -> Vec<Recovered> {
        if aborted.is_empty() {
            return Vec::new();
        }
        if self.is_frozen().await {
            return aborted.iter().map(|message| kept(message, Finding::Frozen)).collect();
        }
        let ids: Vec<QueueId> = aborted.iter().map(|message| message.id).collect();
        let mut all = Vec::with_capacity(ids.len());
        if let Ok(events) = self.store.discard(&ids, Discard::Fenced).await {
            let told: HashSet<QueueId> = events.iter().filter_map(|event| event.queue_id).collect();
            for event in &events {
                self.sinks.emit(event).await;
            }
            for message in aborted {
                let done = told.contains(&message.id);
                let action = if done { Action::Discarded } else { Action::Nothing };
                all.push(thrown_away(message, action));
            }
            return all;
        }
        for message in aborted {
            let action = self.discard(message.id).await;
            all.push(thrown_away(message, action));
        }
        all
    }

    pub(super) async fn discard(&self, id: QueueId) -> Action {
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

    /// Forgets what somebody who died between publishing and forgetting left behind, misses what is not
    /// there, and lets the one that decides clean up.
    async fn tidy(&self, resource: &Resource, report: &mut RecoveryReport) -> Result<()> {
        let oracle = resource.oracle.as_ref();
        let mut looked_at: HashSet<QueueId> = HashSet::new();
        for _ in 0..MOST_BATCHES {
            // Those that stay are told again and again: what is behind them must not starve.
            let limit = looked_at.len() + AT_ONCE;
            let mut left = oracle.remembered(MISSED_AFTER, limit).await?;
            let last = left.len() < limit;
            left.retain(|id| looked_at.insert(*id));
            if left.is_empty() {
                break;
            }
            self.tidy_batch(resource, left, report).await?;
            if last {
                break;
            }
        }
        report.swept += oracle.sweep().await?;
        Ok(())
    }

    async fn tidy_batch(
        &self,
        resource: &Resource,
        mut left: Vec<QueueId>,
        report: &mut RecoveryReport,
    ) -> Result<()> {
        // In this order: what leaves the undecided afterwards is found among the published.
        let undecided = self.store.undecided().await?;
        let undecided: HashSet<QueueId> = undecided.iter().map(|message| message.id).collect();
        left.retain(|id| !undecided.contains(id));
        let known = self.store.known(&left).await?;
        if self.is_frozen().await {
            return Ok(());
        }
        // That it is known is not yet that it is durable: whoever published it may have died before the
        // sync.
        let mut durable = known.clone();
        if !known.is_empty() && self.store.publish(&known).await.is_err() {
            // One that cannot be published, such as a copy that a restore brought back, keeps none back.
            durable.clear();
            for id in &known {
                match self.store.publish(&[*id]).await {
                    Ok(()) => durable.push(*id),
                    Err(error) => report.messages.push(Recovered {
                        id: *id,
                        resource: Some(resource.id()),
                        finding: Finding::Committed,
                        action: Action::Failed(error),
                    }),
                }
            }
        }
        if !durable.is_empty() {
            resource.oracle.forget(&durable).await?;
            report.forgotten += durable.len();
        }
        let known: HashSet<QueueId> = known.into_iter().collect();
        let missing = left.into_iter().filter(|id| !known.contains(id)).map(|id| Recovered {
            id,
            resource: Some(resource.id()),
            finding: Finding::Missing,
            action: Action::Kept,
        });
        report.messages.extend(missing);
        Ok(())
    }

    /// Whether nothing may be decided. If that cannot be found out, nothing may.
    pub(super) async fn is_frozen(&self) -> bool {
        self.store.is_frozen().await.unwrap_or(true)
    }

    /// What the one that decides says for good about one message.
    pub(super) async fn ask(&self, message: &Undecided) -> Finding {
        let Some(resource) = self.resources.get(&message.resource) else {
            return Finding::UnknownResource;
        };
        match resource.oracle.fence(message.id, self.fence_timeout).await {
            Ok(Decision::Committed) => Finding::Committed,
            Ok(Decision::Aborted) => Finding::Aborted,
            Ok(Decision::Unfinished) => Finding::Unfinished,
            Err(error) => Finding::NoAnswer(error),
        }
    }
}

/// A message that was to be thrown away. If it was not there any more, the answer is no news of its
/// transaction: when another recovery had published it meanwhile, and had it forgotten, whoever still asks
/// hears that nothing is remembered.
fn thrown_away(message: &Undecided, action: Action) -> Recovered {
    let finding = match action {
        Action::Nothing => Finding::NotUndecided,
        _ => Finding::Aborted,
    };
    recovered(message, finding, action)
}

/// Only ever called after `publish` returned. A failure leaves records that do no harm, and are found
/// later.
async fn forget(oracle: &dyn DecisionStore, ids: &[QueueId]) {
    let _later: std::result::Result<(), Error> = oracle.forget(ids).await;
}
