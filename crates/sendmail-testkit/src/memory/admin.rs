//! [`MemoryStore`] as a [`QueueAdmin`].

use std::ops::ControlFlow;

use async_trait::async_trait;
use sendmail_core::{
    AdminOutcome, Entry, EntryDetail, EntryState, Error, ErrorKind, Filter, MailEvent,
    MailEventKind, QueueAdmin, QueueId, Result, StateCount, Statistics, Timestamp,
};

use super::state::{Item, Place, State, Wish};
use super::{MemoryStore, misuse};

#[async_trait]
impl QueueAdmin for MemoryStore {
    async fn list(
        &self,
        filter: &Filter,
        visit: &mut (dyn FnMut(Entry) -> ControlFlow<()> + Send),
    ) -> Result<()> {
        let entries = self.live("list the queue")?.entries();
        for entry in entries.into_iter().filter(|entry| filter.matches(entry)) {
            if visit(entry).is_break() {
                break;
            }
        }
        Ok(())
    }

    async fn show(&self, id: QueueId) -> Result<EntryDetail> {
        let state = self.live("show the message")?;
        let item = state.items.get(&id).filter(|item| item.place != Place::Written);
        let item = item.or_else(|| state.failed.get(&id)).or_else(|| state.discarded.get(&id));
        let history: Vec<MailEvent> =
            state.log.iter().filter(|event| event.queue_id == Some(id)).cloned().collect();
        if item.is_none() && history.is_empty() {
            let text = "neither the queue nor its history knows it";
            return Err(
                Error::new(ErrorKind::NotFound, "show the message", text).with("queue id", id)
            );
        }
        Ok(EntryDetail {
            entry: item.map(Item::entry),
            content: item.map(|item| item.new.message.as_bytes().to_vec()),
            history,
        })
    }

    async fn hold(&self, id: QueueId) -> Result<AdminOutcome> {
        let now = self.now();
        let mut state = self.live("hold the message")?;
        let Some(item) = state.items.get_mut(&id).filter(|item| !item.is_undecided()) else {
            return Ok(state.not_in_queue(id));
        };
        match item.place {
            Place::Claimed(_) => Ok(item.wishes(Wish::Hold)),
            Place::Held => Ok(AdminOutcome::Unchanged),
            _ => {
                item.place = Place::Held;
                let event = item.event(MailEventKind::Held, now);
                Ok(state.done(event))
            }
        }
    }

    async fn release(&self, id: QueueId) -> Result<AdminOutcome> {
        let now = self.now();
        let mut state = self.live("release the message")?;
        let Some(item) = state.items.get_mut(&id).filter(|item| !item.is_undecided()) else {
            return Ok(state.not_in_queue(id));
        };
        match item.place {
            Place::Claimed(_) if item.wish == Some(Wish::Hold) => {
                item.wish = None;
                Ok(AdminOutcome::Claimed)
            }
            Place::Held => {
                item.place = Place::Queued(None);
                item.kills = 0;
                let event = item.event(MailEventKind::Released, now);
                let outcome = state.done(event);
                drop(state);
                self.wake();
                Ok(outcome)
            }
            _ => Ok(AdminOutcome::Unchanged),
        }
    }

    async fn retry_now(&self, id: QueueId) -> Result<AdminOutcome> {
        let now = self.now();
        let mut state = self.live("retry the message")?;
        let outcome = state.retry_now(id, now);
        drop(state);
        self.wake();
        Ok(outcome)
    }

    async fn remove(&self, id: QueueId) -> Result<AdminOutcome> {
        let now = self.now();
        let mut state = self.live("remove the message")?;
        let item = match state.items.get_mut(&id) {
            Some(item) if item.is_undecided() => {
                let text = "its transaction is not decided; recover it first";
                return Err(misuse("remove the message", text).with("queue id", id));
            }
            Some(item) if matches!(item.place, Place::Claimed(_)) => {
                return Ok(item.wishes(Wish::Remove));
            }
            _ => {
                let failed = state.failed.remove(&id);
                state.items.remove(&id).or(failed)
            }
        };
        let Some(item) = item else { return Ok(AdminOutcome::NotFound) };
        state.gone.insert(id);
        Ok(state.done(item.event(MailEventKind::Removed, now)))
    }

    async fn put_back(&self, id: QueueId) -> Result<AdminOutcome> {
        let now = self.now();
        let mut state = self.live("put the message back")?;
        let Some(mut item) = state.discarded.remove(&id) else {
            let known = state.items.contains_key(&id) || state.failed.contains_key(&id);
            return Ok(if known { AdminOutcome::Unchanged } else { AdminOutcome::NotFound });
        };
        item.place = Place::Queued(None);
        let event = item.event(MailEventKind::Released, now);
        state.items.insert(id, item);
        let event = event.with_detail("put back by an operator after it had been discarded");
        let outcome = state.done(event);
        drop(state);
        self.wake();
        Ok(outcome)
    }

    async fn set_frozen(&self, frozen: bool) -> Result<bool> {
        let before = std::mem::replace(&mut self.live("freeze the queue")?.frozen, frozen);
        self.wake();
        Ok(before != frozen)
    }

    async fn statistics(&self) -> Result<Statistics> {
        let now = self.now();
        let state = self.live("count the queue")?;
        let entries = state.entries();
        let mut statistics = Statistics::default();
        statistics.states = EntryState::ALL.map(|wanted| count(&entries, wanted, now)).to_vec();
        statistics.frozen = state.frozen;
        statistics.set_aside =
            state.unsupported.iter().map(|id| format!("{id}: a newer format")).collect();
        Ok(statistics)
    }
}

impl State {
    /// Everything that a list shows: what is only written is not in the queue yet.
    fn entries(&self) -> Vec<Entry> {
        let items = self.items.values().filter(|item| item.place != Place::Written);
        let kept = self.failed.values().chain(self.discarded.values());
        items.chain(kept).map(Item::entry).collect()
    }

    fn done(&mut self, event: MailEvent) -> AdminOutcome {
        AdminOutcome::Done(Box::new(self.log(event)))
    }

    /// For a message that is in no place from which it could be taken.
    fn not_in_queue(&self, id: QueueId) -> AdminOutcome {
        let known = self.failed.contains_key(&id);
        if known { AdminOutcome::Unchanged } else { AdminOutcome::NotFound }
    }

    fn retry_now(&mut self, id: QueueId, now: Timestamp) -> AdminOutcome {
        match self.items.get_mut(&id) {
            Some(item) if matches!(item.place, Place::Claimed(_)) => {
                return item.wishes(Wish::RetryNow);
            }
            Some(item) if item.is_undecided() => return AdminOutcome::NotFound,
            Some(item) if item.place == Place::Held => return AdminOutcome::Unchanged,
            Some(item) if matches!(item.place, Place::Deferred { .. }) => {
                item.place = Place::Queued(None);
            }
            Some(_) if !self.failed.contains_key(&id) => return AdminOutcome::Unchanged,
            _ => {}
        }
        if let Some(mut failed) = self.failed.remove(&id) {
            let mut recipients = std::mem::take(&mut failed.recipients);
            let mut item = self.items.remove(&id).unwrap_or(failed);
            item.recipients.append(&mut recipients);
            item.place = Place::Queued(None);
            item.damaged = false;
            self.items.insert(id, item);
        }
        match self.items.get(&id) {
            Some(item) => {
                let event = item.event(MailEventKind::Released, now);
                self.done(event)
            }
            None => AdminOutcome::NotFound,
        }
    }
}

impl Item {
    fn wishes(&mut self, wish: Wish) -> AdminOutcome {
        self.wish = Some(wish);
        AdminOutcome::Claimed
    }

    fn entry(&self) -> Entry {
        let state = match self.place {
            Place::Written | Place::Staged => EntryState::Staged,
            Place::Queued(_) => EntryState::Queued,
            Place::Claimed(_) => EntryState::Claimed,
            Place::Deferred { .. } => EntryState::Deferred,
            Place::Held => EntryState::Held,
            Place::Failed => EntryState::Failed,
            Place::Discarded => EntryState::Discarded,
        };
        let mut entry = Entry::new(self.new.id, state);
        entry.message_id = Some(self.new.message.message_id().clone());
        entry.attempts = self.attempts;
        entry.reverse_path = self.new.envelope.reverse_path().clone();
        entry.recipients.clone_from(&self.recipients);
        entry.queued_at = self.queued_at;
        entry.next_attempt = self.next_attempt();
        let unsent = self.is_undecided() || self.place == Place::Discarded;
        entry.resource = unsent.then(|| self.new.resource.clone());
        entry.size = self.new.message.as_bytes().len() as u64;
        entry
    }
}

fn count(entries: &[Entry], state: EntryState, now: Timestamp) -> StateCount {
    let ages = entries
        .iter()
        .filter(|entry| entry.state == state)
        .map(|entry| now.saturating_since(entry.queued_at));
    StateCount { state, count: ages.clone().count() as u64, oldest: ages.max() }
}
