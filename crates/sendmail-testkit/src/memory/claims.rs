//! Claims and their ends, as changes of the shared state.

use sendmail_core::{
    Attempted, Claim, ClaimToken, Error, ErrorKind, MailEvent, MailEventKind, Outcome, QueueId,
    Recipient, RecipientResult, Result, Settlement, Timestamp, Verdict,
};

use super::state::{Holder, Item, Phase, Place, State, Wish};
use super::{Operation, misuse};

impl State {
    /// What is due and may be claimed by `process`, in random order.
    pub(super) fn due(&mut self, process: u64, now: Timestamp) -> Vec<QueueId> {
        let mut due: Vec<QueueId> = self
            .items
            .iter_mut()
            .filter_map(|(id, item)| {
                (!item.unreadable_by.contains(&process) && item.is_due(now)).then_some(*id)
            })
            .collect();
        self.rng.shuffle(&mut due);
        due
    }

    pub(super) fn claim(
        &mut self,
        id: QueueId,
        process: u64,
        now: Timestamp,
    ) -> (Claim, Option<MailEvent>) {
        self.next_token += 1;
        let token = ClaimToken(format!("{process}-{}", self.next_token));
        let until = self.lease.map(|lease| now.saturating_add(lease));
        let mut queued = None;
        let mut attempt = 1;
        if let Some(item) = self.items.get_mut(&id) {
            let holder = Holder { process, token: token.clone(), phase: Phase::Claimed, until };
            item.place = Place::Claimed(holder);
            attempt = item.attempts + 1;
            if !std::mem::replace(&mut item.announced, true) {
                queued = Some(item.event(MailEventKind::Queued, item.queued_at));
            }
        }
        let queued = queued.map(|event| self.log(event));
        (Claim { id, attempt, token }, queued)
    }

    pub(super) fn holder_mut(&mut self, id: QueueId) -> Option<&mut Holder> {
        match &mut self.items.get_mut(&id)?.place {
            Place::Claimed(holder) => Some(holder),
            _ => None,
        }
    }

    pub(super) fn put_back_unreadable(&mut self, id: QueueId, process: u64) {
        if let Some(item) = self.items.get_mut(&id) {
            item.place = Place::Queued(None);
            item.unreadable_by.insert(process);
        }
    }

    pub(super) fn set_damaged_aside(&mut self, id: QueueId, now: Timestamp) {
        if let Some(item) = self.items.remove(&id) {
            let event = item.event(MailEventKind::Damaged, now);
            let event = self.log(event.with_detail("the checksum does not match"));
            self.untold.push(event);
            self.keep_failed(item);
        }
    }

    /// Refuses what no worker may say.
    pub(super) fn check_settlement(&self, claim: &Claim, settlement: &Settlement) -> Result<()> {
        let operation = Operation::Settle.verb();
        let Some(Item { recipients, place: Place::Claimed(holder), .. }) =
            self.items.get(&claim.id)
        else {
            return Err(lost(operation, claim));
        };
        let handed_over = holder.phase == Phase::HandedOver;
        let Settlement::Attempted(attempted) = settlement else {
            return if handed_over {
                Err(misuse(operation, "released after the handover was recorded"))
            } else {
                Ok(())
            };
        };
        let told: Vec<&Recipient> =
            attempted.results.iter().map(|result| &result.recipient).collect();
        if told != recipients.iter().collect::<Vec<_>>() {
            return Err(misuse(operation, "not one result for each recipient, in their order"));
        }
        for result in &attempted.results {
            let accepted = matches!(result.outcome, Outcome::Accepted(_));
            let unknown = matches!(result.outcome, Outcome::Unknown(_));
            if accepted != (result.verdict == Verdict::Done) {
                return Err(misuse(operation, "accepted and done do not go together"));
            }
            if (accepted || unknown) && !handed_over {
                return Err(misuse(operation, "an acceptance without a recorded handover"));
            }
        }
        Ok(())
    }

    pub(super) fn settle(
        &mut self,
        claim: &Claim,
        settlement: Settlement,
        now: Timestamp,
    ) -> Vec<MailEvent> {
        // `held` found it under this very lock.
        let Some(mut item) = self.items.remove(&claim.id) else { return Vec::new() };
        let mut events = Vec::new();
        match settlement {
            Settlement::Release(_) => item.place = Place::Queued(None),
            Settlement::Attempted(attempted) => {
                item.attempts = claim.attempt;
                events = events_of(&item, claim.attempt, &attempted, now);
                self.split(&mut item, &attempted, now);
            }
        }
        if item.recipients.is_empty() {
            if !self.failed.contains_key(&claim.id) {
                self.gone.insert(claim.id);
            }
        } else if let Some(item) = self.honour_wish(item, now, &mut events) {
            self.items.insert(claim.id, item);
        }
        events.into_iter().map(|event| self.log(event)).collect()
    }

    /// Leaves in `item` who is still to be served, and keeps who was given up.
    fn split(&mut self, item: &mut Item, attempted: &Attempted, now: Timestamp) {
        let with = |wanted: &[Verdict]| -> Vec<Recipient> {
            let wanted = attempted.results.iter().filter(|r| wanted.contains(&r.verdict));
            wanted.map(|result| result.recipient.clone()).collect()
        };
        let given_up = with(&[Verdict::Fail, Verdict::Expire]);
        if !given_up.is_empty() {
            self.keep_failed(Item { recipients: given_up, ..item.clone() });
        }
        item.recipients = with(&[Verdict::Retry, Verdict::Hold]);
        let delay = attempted.retry_after;
        item.place = if attempted.results.iter().any(|result| result.verdict == Verdict::Hold) {
            Place::Held
        } else {
            Place::Deferred { due: now.saturating_add(delay), delay }
        };
    }

    /// What an operator wished while the message was claimed; nothing is left of a removed one.
    fn honour_wish(
        &mut self,
        mut item: Item,
        now: Timestamp,
        events: &mut Vec<MailEvent>,
    ) -> Option<Item> {
        match item.wish.take() {
            Some(Wish::Hold) if item.place != Place::Held => {
                item.place = Place::Held;
                events.push(item.event(MailEventKind::Held, now));
            }
            Some(Wish::RetryNow) if item.place != Place::Held => item.place = Place::Queued(None),
            Some(Wish::Remove) => {
                events.push(item.event(MailEventKind::Removed, now));
                self.gone.insert(item.new.id);
                self.failed.remove(&item.new.id);
                return None;
            }
            Some(Wish::Hold | Wish::RetryNow) | None => {}
        }
        Some(item)
    }
}

/// The events about each recipient, in their order. Who may have got the message, and may get it again
/// once somebody decides so, is announced as such.
fn events_of(item: &Item, attempt: u32, attempted: &Attempted, now: Timestamp) -> Vec<MailEvent> {
    let events = |result: &RecipientResult| {
        let unknown = matches!(result.outcome, Outcome::Unknown(_));
        let kinds: &[MailEventKind] = match result.verdict {
            Verdict::Done => &[MailEventKind::Sent],
            Verdict::Retry if unknown => &[MailEventKind::PossibleDuplicate],
            Verdict::Retry => &[MailEventKind::Deferred],
            Verdict::Hold if unknown => &[MailEventKind::Held, MailEventKind::PossibleDuplicate],
            Verdict::Hold => &[MailEventKind::Held],
            Verdict::Fail if unknown => &[MailEventKind::PossibleDuplicate, MailEventKind::Failed],
            Verdict::Fail => &[MailEventKind::Failed],
            Verdict::Expire if unknown => {
                &[MailEventKind::PossibleDuplicate, MailEventKind::Expired]
            }
            Verdict::Expire => &[MailEventKind::Expired],
        };
        let (recipient, reply) = (&result.recipient, result.outcome.reply());
        let event = |kind: &MailEventKind| item.event(*kind, now);
        let events = kinds.iter().map(event);
        events.map(|event| event.in_attempt(attempt, recipient, reply)).collect::<Vec<_>>()
    };
    attempted.results.iter().flat_map(events).collect()
}

pub(super) fn lost(operation: &'static str, claim: &Claim) -> Error {
    Error::new(ErrorKind::LeaseLost, operation, "the claim is not held any more")
        .with("queue id", claim.id)
}
