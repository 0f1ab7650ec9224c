//! [`MemoryStore`] as a [`QueueStore`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    Capabilities, Claim, Claimed, DecisionLog, DecisionStore, Discard, Error, ErrorKind, Loaded,
    MailEvent, MailEventKind, NewMessage, QueueId, QueueStore, ResourceId, Result, Settlement,
    Step, SweepReport, Timestamp, Undecided, Unsettled,
};

use super::claims::lost;
use super::state::{Item, Phase, Place, State};
use super::{MemoryStore, Operation, misuse};

#[async_trait]
impl QueueStore for MemoryStore {
    fn resource_id(&self) -> &ResourceId {
        &self.process.shared.resource
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new();
        capabilities.max_message_len = self.process.shared.max_message_len;
        capabilities.lease = self.process.shared.lease;
        capabilities
    }

    fn decision_log(&self) -> Option<Arc<dyn DecisionLog>> {
        Some(Arc::new(self.clone()))
    }

    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>> {
        Some(Arc::new(self.clone()))
    }

    async fn write(&self, new: &NewMessage) -> Result<()> {
        let operation = Operation::Write.verb();
        let now = self.now();
        let length = new.message.as_bytes().len();
        let most = self.process.shared.max_message_len;
        let mut state = self.live(operation)?;
        state.fault(Operation::Write)?;
        if length > most {
            let text = format!("the message has {length} bytes, at most {most} are allowed");
            return Err(Error::new(ErrorKind::InvalidInput, operation, text));
        }
        if let Some(item) = state.items.get(&new.id) {
            return if same(&item.new, new) { Ok(()) } else { Err(taken(new.id)) };
        }
        if state.gone.contains(&new.id) || state.failed.contains_key(&new.id) {
            return Err(taken(new.id));
        }
        if state.full {
            return Err(Error::new(ErrorKind::Full, operation, "the queue is full"));
        }
        state.items.insert(new.id, Item::new(new.clone(), self.process.number, now));
        Ok(())
    }

    async fn stage(&self, ids: &[QueueId]) -> Result<()> {
        let mut state = self.live(Operation::Stage.verb())?;
        state.fault(Operation::Stage)?;
        for id in ids {
            if !state.is_known(*id) {
                return Err(unknown(Operation::Stage.verb(), *id));
            }
            if let Some(item) = state.items.get_mut(id)
                && item.place == Place::Written
            {
                item.place = Place::Staged;
            }
        }
        drop(state);
        self.wake();
        Ok(())
    }

    async fn publish(&self, ids: &[QueueId]) -> Result<()> {
        let operation = Operation::Publish.verb();
        let mut state = self.live(operation)?;
        state.fault(Operation::Publish)?;
        for id in ids {
            state.publish(*id)?;
        }
        drop(state);
        self.wake();
        Ok(())
    }

    async fn discard(&self, ids: &[QueueId], why: Discard) -> Result<Vec<MailEvent>> {
        let operation = "discard messages";
        let now = self.now();
        let mut state = self.live(operation)?;
        let mut events = Vec::new();
        for id in ids {
            let Some(item) = state.items.get(id).filter(|item| item.is_undecided()) else {
                continue;
            };
            if state.committed.contains(id) {
                return Err(misuse(operation, "the message is committed").with("queue id", id));
            }
            let event = item.event(MailEventKind::Discarded, now);
            if let Some(item) = state.items.remove(id)
                && why == Discard::Fenced
            {
                state.keep_discarded(item);
                events.push(state.log(event));
            }
        }
        Ok(events)
    }

    async fn undecided(&self) -> Result<Vec<Undecided>> {
        let state = self.live("list undecided messages")?;
        let undecided = state.items.values().filter(|item| item.is_undecided());
        Ok(undecided
            .map(|item| Undecided {
                id: item.new.id,
                resource: item.new.resource.clone(),
                staged: item.place == Place::Staged,
                since: item.queued_at,
                owner_alive: state.alive.contains(&item.owner),
            })
            .collect())
    }

    async fn known(&self, ids: &[QueueId]) -> Result<Vec<QueueId>> {
        let state = self.live("look for published messages")?;
        Ok(ids.iter().copied().filter(|id| state.is_published(*id)).collect())
    }

    async fn is_frozen(&self) -> Result<bool> {
        Ok(self.live("find out whether the queue is frozen")?.frozen)
    }

    async fn claim(&self, max: usize) -> Result<Claimed> {
        self.heard(*self.process.shared.changes.borrow());
        let now = self.now();
        let mut state = self.live(Operation::Claim.verb())?;
        state.fault(Operation::Claim)?;
        let mut claimed = Claimed::default();
        if state.frozen {
            return Ok(claimed);
        }
        claimed.events.append(&mut state.untold);
        claimed.events.extend(state.take_over(now));
        let process = self.process.number;
        for id in state.due(process, now).into_iter().take(max) {
            let (claim, queued) = state.claim(id, process, now);
            claimed.events.extend(queued);
            claimed.claims.push(claim);
        }
        Ok(claimed)
    }

    async fn load(&self, claim: &Claim) -> Result<Loaded> {
        let operation = Operation::Load.verb();
        let now = self.now();
        let mut state = self.held(claim, operation)?;
        state.fault(Operation::Load)?;
        if state.unsupported.contains(&claim.id) {
            state.put_back_unreadable(claim.id, self.process.number);
            return Err(Error::new(ErrorKind::Unsupported, operation, "a newer format")
                .with("queue id", claim.id));
        }
        let item = &state.items[&claim.id];
        if item.damaged {
            state.set_damaged_aside(claim.id, now);
            return Err(Error::new(ErrorKind::Damaged, operation, "the checksum does not match")
                .with("queue id", claim.id));
        }
        Ok(Loaded {
            envelope: item.envelope()?,
            message: item.new.message.clone(),
            queued_at: item.queued_at,
        })
    }

    async fn renew(&self, claim: &Claim) -> Result<()> {
        let until = self.lease_end();
        let mut state = self.held(claim, "renew the claim")?;
        if let Some(holder) = state.holder_mut(claim.id) {
            holder.until = until;
        }
        Ok(())
    }

    async fn record(&self, claim: &Claim, step: Step) -> Result<()> {
        let operation = Operation::Begin.verb();
        let mut state = self.held(claim, operation)?;
        let (fault, from, to) = match step {
            Step::Begin => (Operation::Begin, Phase::Claimed, Phase::Begun),
            Step::Handover => (Operation::Handover, Phase::Begun, Phase::HandedOver),
        };
        state.fault(fault)?;
        let Some(holder) = state.holder_mut(claim.id) else { return Err(lost(operation, claim)) };
        if holder.phase != from && holder.phase != to {
            let text = format!("{step:?} was recorded when the attempt was {:?}", holder.phase);
            return Err(misuse(operation, text));
        }
        holder.phase = to;
        Ok(())
    }

    async fn settle(
        &self,
        claim: Claim,
        settlement: Settlement,
    ) -> std::result::Result<Vec<MailEvent>, Unsettled> {
        let now = self.now();
        let settled = self.held(&claim, Operation::Settle.verb()).and_then(|mut state| {
            state.fault(Operation::Settle)?;
            state.check_settlement(&claim, &settlement)?;
            Ok(state.settle(&claim, settlement, now))
        });
        self.wake();
        settled.map_err(|error| Unsettled { claim, error })
    }

    async fn announce(&self, event: &MailEvent) -> Result<()> {
        let operation = "announce the event";
        if !matches!(event.kind, MailEventKind::RelayPaused | MailEventKind::RelayResumed) {
            return Err(misuse(operation, "only events about a relay are announced"));
        }
        let mut state = self.live(operation)?;
        if !state.log.iter().any(|known| known.id == event.id) {
            state.log(event.clone());
        }
        Ok(())
    }

    async fn wait_for_work(&self, timeout: Duration) {
        let heard = self.heard.load(Ordering::Relaxed);
        let mut changes = self.process.shared.changes.subscribe();
        tokio::select! {
            // The sender lives as long as `self`.
            changed = changes.wait_for(|change| *change > heard) => {
                if let Ok(change) = changed {
                    self.heard(*change);
                }
            }
            () = self.process.shared.clock.sleep(timeout) => {}
        }
    }

    async fn sweep(&self) -> Result<SweepReport> {
        let now = self.now();
        let mut state = self.live(Operation::Sweep.verb())?;
        state.fault(Operation::Sweep)?;
        let mut report = SweepReport::default();
        report.events.append(&mut state.untold);
        report.events.extend(state.take_over(now));
        if !state.frozen {
            report.published = state.publish_decided()?;
            let abandoned = state.discard_abandoned(now);
            report.removed = abandoned.len();
            report.events.extend(abandoned);
        }
        report.set_aside =
            state.unsupported.iter().map(|id| format!("{id}: a newer format")).collect();
        drop(state);
        self.wake();
        Ok(report)
    }
}

impl MemoryStore {
    /// The state, if `claim` is still its claimer's.
    fn held(
        &self,
        claim: &Claim,
        operation: &'static str,
    ) -> Result<std::sync::MutexGuard<'_, State>> {
        let now = self.now();
        let state = self.lock();
        let holds = |item: &Item| match &item.place {
            Place::Claimed(holder) => holder.token == claim.token && state.holds(holder, now),
            _ => false,
        };
        if state.alive.contains(&self.process.number)
            && state.items.get(&claim.id).is_some_and(holds)
        {
            Ok(state)
        } else {
            Err(lost(operation, claim))
        }
    }

    fn lease_end(&self) -> Option<Timestamp> {
        self.process.shared.lease.map(|lease| self.now().saturating_add(lease))
    }
}

impl State {
    /// Whether a message by that id is or was in the queue.
    fn is_known(&self, id: QueueId) -> bool {
        self.items.contains_key(&id) || self.failed.contains_key(&id) || self.gone.contains(&id)
    }

    /// Whether the queue or its history knows it as published.
    fn is_published(&self, id: QueueId) -> bool {
        let told = |event: &MailEvent| {
            event.queue_id == Some(id) && event.kind != MailEventKind::Discarded
        };
        self.items.get(&id).is_some_and(|item| !item.is_undecided())
            || self.failed.contains_key(&id)
            || self.log.iter().any(told)
    }

    fn publish(&mut self, id: QueueId) -> Result<()> {
        let operation = Operation::Publish.verb();
        let Some(item) = self.items.get(&id) else {
            let known = self.is_known(id);
            return if known { Ok(()) } else { Err(unknown(operation, id)) };
        };
        if !item.is_undecided() {
            return Ok(());
        }
        if self.proposed(id).is_some() {
            return Err(misuse(operation, "its transaction is proposed and not decided")
                .with("queue id", id));
        }
        let ours = item.new.resource == self.resource;
        if ours && self.aborted.contains(&id) {
            return Err(
                Error::new(ErrorKind::Aborted, operation, "it was fenced off").with("queue id", id)
            );
        }
        if ours {
            self.committed.insert(id);
        }
        if let Some(item) = self.items.get_mut(&id) {
            item.publish();
        }
        Ok(())
    }

    /// Publishes what was decided and left; how many they were.
    fn publish_decided(&mut self) -> Result<usize> {
        let left: Vec<QueueId> = self
            .items
            .iter()
            .filter(|(id, item)| item.is_undecided() && self.committed.contains(id))
            .map(|(id, _)| *id)
            .collect();
        for id in &left {
            self.publish(*id)?;
        }
        Ok(left.len())
    }

    /// Throws away what dead processes left of transactions that this store decides and never did.
    fn discard_abandoned(&mut self, now: Timestamp) -> Vec<MailEvent> {
        let dead: Vec<_> = self
            .proposals
            .iter()
            .filter(|(_, proposal)| !proposal.decided && !self.alive.contains(&proposal.owner))
            .map(|(id, _)| *id)
            .collect();
        for transaction in dead {
            let proposal = self.proposals.remove(&transaction);
            self.aborted.extend(proposal.into_iter().flat_map(|proposal| proposal.ids));
        }
        let proposed: BTreeSet<QueueId> =
            self.proposals.values().flat_map(|proposal| proposal.ids.iter().copied()).collect();
        let abandoned: Vec<QueueId> = self
            .items
            .iter()
            .filter(|(id, item)| {
                item.is_undecided()
                    && item.new.resource == self.resource
                    && !self.alive.contains(&item.owner)
                    && !self.committed.contains(id)
                    && !proposed.contains(id)
            })
            .map(|(id, _)| *id)
            .collect();
        let mut events = Vec::new();
        for id in abandoned {
            if let Some(item) = self.items.remove(&id) {
                self.aborted.insert(id);
                events.push(self.log(item.event(MailEventKind::Discarded, now)));
                self.keep_discarded(item);
            }
        }
        events
    }
}

fn same(a: &NewMessage, b: &NewMessage) -> bool {
    a.envelope == b.envelope && a.message == b.message && a.resource == b.resource
}

fn taken(id: QueueId) -> Error {
    Error::new(ErrorKind::InvalidInput, Operation::Write.verb(), "another message has this id")
        .with("queue id", id)
}

fn unknown(operation: &'static str, id: QueueId) -> Error {
    misuse(operation, "no message by this id was written").with("queue id", id)
}
