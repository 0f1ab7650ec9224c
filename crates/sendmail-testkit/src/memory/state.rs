//! What a [`MemoryStore`](super::MemoryStore)'s processes share: every message, every decision, the
//! log. No clock and no async here: each change is one call under one lock, given the time.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use sendmail_core::{
    ClaimToken, Envelope, Error, ErrorKind, MailEvent, MailEventKind, NewMessage, QueueId,
    Recipient, ResourceId, Result, Timestamp, TransactionId,
};

use super::Operation;

/// How many workers a message may kill before it is held.
pub(super) const MAX_KILLS: u32 = 3;

/// Everything that outlives a process.
pub(super) struct State {
    pub(super) resource: ResourceId,
    pub(super) lease: Option<Duration>,
    pub(super) rng: fastrand::Rng,
    pub(super) alive: BTreeSet<u64>,
    pub(super) next_process: u64,
    pub(super) next_token: u64,
    pub(super) items: BTreeMap<QueueId, Item>,
    pub(super) failed: BTreeMap<QueueId, Item>,
    pub(super) discarded: BTreeMap<QueueId, Item>,
    /// Delivered or removed: an id is never used again.
    pub(super) gone: BTreeSet<QueueId>,
    pub(super) proposals: BTreeMap<TransactionId, Proposal>,
    /// Committed by a decision of this store, and not forgotten.
    pub(super) committed: BTreeSet<QueueId>,
    /// Fenced off: they can never be committed by this store.
    pub(super) aborted: BTreeSet<QueueId>,
    pub(super) log: VecDeque<MailEvent>,
    /// The number of the oldest event in `log`.
    pub(super) log_start: u64,
    /// Logged, and to be brought by the next `claim` or `sweep`.
    pub(super) untold: Vec<MailEvent>,
    /// Those that look as if a newer version had written them.
    pub(super) unsupported: BTreeSet<QueueId>,
    pub(super) full: bool,
    pub(super) frozen: bool,
    pub(super) faults: VecDeque<(Operation, ErrorKind)>,
}

/// A proposed decision over several messages.
pub(super) struct Proposal {
    pub(super) ids: Vec<QueueId>,
    pub(super) owner: u64,
    pub(super) decided: bool,
}

/// One message.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) new: NewMessage,
    /// Who is still to be served; for failed items, who was given up. Never empty.
    pub(super) recipients: Vec<Recipient>,
    pub(super) place: Place,
    /// The process that wrote it.
    pub(super) owner: u64,
    pub(super) queued_at: Timestamp,
    pub(super) attempts: u32,
    pub(super) kills: u32,
    /// Whether the queued-event was logged.
    pub(super) announced: bool,
    pub(super) wish: Option<Wish>,
    pub(super) damaged: bool,
    /// The processes that met it and could not read its format.
    pub(super) unreadable_by: BTreeSet<u64>,
}

/// Where a message is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Written,
    Staged,
    /// Published; not before the time, if there is one.
    Queued(Option<Timestamp>),
    Claimed(Holder),
    Deferred {
        due: Timestamp,
        delay: Duration,
    },
    Held,
    Failed,
    Discarded,
}

/// Who has a claimed message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Holder {
    pub(super) process: u64,
    pub(super) token: ClaimToken,
    pub(super) phase: Phase,
    /// When the lease ends; nothing where a claim lasts as long as its worker.
    pub(super) until: Option<Timestamp>,
}

/// How far an attempt is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Claimed,
    Begun,
    HandedOver,
}

/// What an operator wants done with a message that a worker has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Hold,
    Remove,
    RetryNow,
}

impl State {
    pub(super) fn new(resource: ResourceId, lease: Option<Duration>, seed: u64) -> Self {
        Self {
            resource,
            lease,
            rng: fastrand::Rng::with_seed(seed),
            alive: BTreeSet::new(),
            next_process: 0,
            next_token: 0,
            items: BTreeMap::new(),
            failed: BTreeMap::new(),
            discarded: BTreeMap::new(),
            gone: BTreeSet::new(),
            proposals: BTreeMap::new(),
            committed: BTreeSet::new(),
            aborted: BTreeSet::new(),
            log: VecDeque::new(),
            log_start: 0,
            untold: Vec::new(),
            unsupported: BTreeSet::new(),
            full: false,
            frozen: false,
            faults: VecDeque::new(),
        }
    }

    /// Lets a process be born.
    pub(super) fn begin_process(&mut self) -> u64 {
        self.next_process += 1;
        self.alive.insert(self.next_process);
        self.next_process
    }

    /// Makes `event` durable.
    pub(super) fn log(&mut self, event: MailEvent) -> MailEvent {
        self.log.push_back(event.clone());
        event
    }

    /// The fault that is set for `operation`, if its turn has come.
    pub(super) fn fault(&mut self, operation: Operation) -> Result<()> {
        if self.faults.front().is_some_and(|(next, _)| *next == operation)
            && let Some((_, kind)) = self.faults.pop_front()
        {
            return Err(Error::new(kind, operation.verb(), "the test wants it to fail"));
        }
        Ok(())
    }

    /// Brings back what dead workers, and workers whose lease ran out, had claimed.
    pub(super) fn take_over(&mut self, now: Timestamp) -> Vec<MailEvent> {
        let ids: Vec<QueueId> = self.items.keys().copied().collect();
        let mut events = Vec::new();
        for id in ids {
            let Some(mut item) = self.items.remove(&id) else { continue };
            let fate = match &item.place {
                Place::Claimed(holder) if !self.holds(holder, now) => item.survive(now),
                _ => Fate::stay(),
            };
            events.extend(fate.events.into_iter().map(|event| self.log(event)));
            if fate.failed {
                item.place = Place::Failed;
                self.keep_failed(item);
            } else {
                self.items.insert(id, item);
            }
        }
        events
    }

    /// Whether a holder still holds.
    pub(super) fn holds(&self, holder: &Holder, now: Timestamp) -> bool {
        match holder.until {
            Some(until) => now < until,
            None => self.alive.contains(&holder.process),
        }
    }

    /// Keeps a given-up message, beside what was given up of it before.
    pub(super) fn keep_failed(&mut self, mut item: Item) {
        item.place = Place::Failed;
        let id = item.new.id;
        if let Some(mut earlier) = self.failed.remove(&id) {
            earlier.recipients.append(&mut item.recipients);
            item.recipients = earlier.recipients;
        }
        self.failed.insert(id, item);
    }

    /// Keeps a message that was thrown away as rolled back.
    pub(super) fn keep_discarded(&mut self, mut item: Item) {
        item.place = Place::Discarded;
        self.discarded.insert(item.new.id, item);
    }

    /// The ids in a proposal that is not decided.
    pub(super) fn proposed(&self, id: QueueId) -> Option<&Proposal> {
        self.proposals.values().find(|proposal| !proposal.decided && proposal.ids.contains(&id))
    }
}

/// What a message's fate is after its worker died.
struct Fate {
    events: Vec<MailEvent>,
    failed: bool,
}

impl Fate {
    fn stay() -> Self {
        Self { events: Vec::new(), failed: false }
    }
}

impl Item {
    pub(super) fn new(new: NewMessage, owner: u64, now: Timestamp) -> Self {
        Self {
            recipients: new.envelope.recipients().to_vec(),
            new,
            place: Place::Written,
            owner,
            queued_at: now,
            attempts: 0,
            kills: 0,
            announced: false,
            wish: None,
            damaged: false,
            unreadable_by: BTreeSet::new(),
        }
    }

    pub(super) fn is_undecided(&self) -> bool {
        matches!(self.place, Place::Written | Place::Staged)
    }

    /// Who is still to be served, and how.
    pub(super) fn envelope(&self) -> Result<Envelope> {
        self.new
            .envelope
            .with_recipients(self.recipients.iter().cloned())
            .map_err(|error| Error::new(ErrorKind::Damaged, "load the message", error.to_string()))
    }

    /// An event about this message, outside any attempt.
    pub(super) fn event(&self, kind: MailEventKind, now: Timestamp) -> MailEvent {
        MailEvent::new(kind, now).about(self.new.id, Some(self.new.message.message_id()))
    }

    pub(super) fn publish(&mut self) {
        self.place = Place::Queued(self.new.envelope.options().not_before);
    }

    /// Whether it is due. A due time further away than its own delay is clamped: the clock jumped.
    pub(super) fn is_due(&mut self, now: Timestamp) -> bool {
        match &mut self.place {
            Place::Queued(not_before) => not_before.is_none_or(|time| time <= now),
            Place::Deferred { due, delay } => {
                *due = (*due).min(now.saturating_add(*delay));
                *due <= now
            }
            _ => false,
        }
    }

    /// When it is due, for lists.
    pub(super) fn next_attempt(&self) -> Option<Timestamp> {
        match &self.place {
            Place::Queued(not_before) => Some(not_before.unwrap_or(self.queued_at)),
            Place::Deferred { due, .. } => Some(*due),
            _ => None,
        }
    }

    /// What becomes of it when its worker died.
    fn survive(&mut self, now: Timestamp) -> Fate {
        use sendmail_core::AmbiguousPolicy as Policy;
        let phase = match &self.place {
            Place::Claimed(holder) => holder.phase,
            _ => return Fate::stay(),
        };
        self.place = Place::Queued(None);
        if phase == Phase::Claimed {
            return Fate::stay();
        }
        self.attempts += 1;
        self.kills += 1;
        let mut fate = Fate::stay();
        let policy = self.new.envelope.options().ambiguous;
        let died = "the worker died after the message was handed over";
        if phase == Phase::HandedOver {
            // Whatever the policy: an operator may let a held or failed message be sent again.
            fate.events = self.per_recipient(MailEventKind::PossibleDuplicate, now, died);
            match policy {
                Policy::Retry => {}
                Policy::Hold => {
                    self.place = Place::Held;
                    fate.events.push(self.event(MailEventKind::Held, now).with_detail(died));
                }
                Policy::Drop => {
                    fate.events.extend(self.per_recipient(MailEventKind::Failed, now, died));
                    fate.failed = true;
                }
            }
        }
        if self.kills >= MAX_KILLS && !fate.failed && self.place != Place::Held {
            self.place = Place::Held;
            let event = self.event(MailEventKind::Held, now);
            fate.events.push(event.with_detail("three workers died with this message"));
        }
        fate
    }

    fn per_recipient(&self, kind: MailEventKind, now: Timestamp, detail: &str) -> Vec<MailEvent> {
        let event = |recipient: &Recipient| {
            let mut event = self.event(kind, now).with_detail(detail);
            event.attempt = self.attempts;
            event.recipient = Some(recipient.clone());
            event
        };
        self.recipients.iter().map(event).collect()
    }
}
