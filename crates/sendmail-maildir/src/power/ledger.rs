//! The books: what was promised and what the relay got, to be compared with what a disk holds.

use std::collections::{BTreeMap, BTreeSet};

use sendmail_core::{MailEvent, MailEventKind, QueueId};

/// Something that somebody was told, or did, who relies on it from then on.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Note {
    /// A message was handed over, in this transaction.
    New { id: QueueId, group: u8, to: Vec<String>, decided_outside: bool, gives_up: bool },
    /// These are of one transaction.
    Group(Vec<QueueId>),
    /// Its caller was told that it is committed, or that it is not.
    Told(Vec<QueueId>, Told),
    /// The database has committed the transaction.
    Database(Vec<QueueId>),
    /// The relay has taken a copy for this recipient.
    Copy(QueueId, String),
    /// The relay has refused this recipient for good.
    Refused(QueueId, String),
    /// Who settled it was told that these are done with.
    Closed(QueueId, Vec<String>),
    /// These events were told.
    Events(Vec<Event>),
    /// What was told until now is older than what the log keeps.
    HistoryEnds,
    /// Whether the queue is frozen; nothing while that is being changed.
    Frozen(Option<bool>),
    /// Whether an operator holds it; nothing while that is being changed.
    Held(QueueId, Option<bool>),
    /// An operator removes it.
    Removed(QueueId),
    /// An operator puts it back who has found that it was discarded by mistake.
    PuttingBack(QueueId),
    /// A worker has died, or a machine.
    Death,
}

/// What a caller knows about its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Told {
    /// Nothing, or that it is uncertain.
    #[default]
    Nothing,
    Committed,
    RolledBack,
}

/// What is compared of an event.
pub(crate) type Event = (MailEventKind, Option<QueueId>, Option<String>);

pub(crate) fn event(event: &MailEvent) -> Event {
    (event.kind, event.queue_id, event.recipient.as_ref().map(ToString::to_string))
}

/// One message's account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Account {
    pub(crate) told: Told,
    pub(crate) group: u8,
    /// Whether a database decides, and whether it did.
    pub(crate) decided_outside: bool,
    pub(crate) database: bool,
    /// Whether it is rather given up than sent twice.
    pub(crate) gives_up: bool,
    pub(crate) removed: bool,
    pub(crate) put_back: bool,
    pub(crate) held: Option<bool>,
    pub(crate) to: BTreeMap<String, Served>,
}

/// What became of a recipient.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Served {
    pub(crate) copies: u32,
    pub(crate) refused: bool,
    /// Nothing may come any more.
    pub(crate) closed: bool,
}

impl Account {
    /// Whether somebody relies on its being sent.
    pub(crate) fn is_owed(&self) -> bool {
        !self.removed && (self.told == Told::Committed || self.database)
    }

    /// Whether nobody may ever get it.
    pub(crate) fn is_off(&self) -> bool {
        !self.put_back && (self.told == Told::RolledBack || self.decided_outside && !self.database)
    }

    pub(crate) fn is_served(&self) -> bool {
        self.to.values().all(|served| served.copies > 0 || served.refused)
    }

    pub(crate) fn is_untouched(&self) -> bool {
        self.to.values().all(|served| served.copies == 0 && !served.refused)
    }
}

/// All accounts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Ledger {
    pub(crate) accounts: BTreeMap<QueueId, Account>,
    pub(crate) events: BTreeSet<Event>,
    pub(crate) frozen: Option<bool>,
    pub(crate) deaths: u32,
    /// What was wrong at once.
    pub(crate) wrong: Vec<String>,
}

impl Ledger {
    pub(crate) fn note(&mut self, note: &Note) {
        match note {
            Note::New { id, group, to, decided_outside, gives_up } => {
                let to = to.iter().map(|name| (name.clone(), Served::default())).collect();
                let (group, decided_outside, gives_up) = (*group, *decided_outside, *gives_up);
                let account = Account {
                    group,
                    decided_outside,
                    gives_up,
                    to,
                    held: Some(false),
                    ..Account::default()
                };
                self.accounts.insert(*id, account);
            }
            Note::Group(ids) => {
                let group = ids.first().map_or(0, |id| id.as_bytes()[0]);
                self.each(ids, |account| account.group = group);
            }
            Note::PuttingBack(id) => self.each(&[*id], |account| account.put_back = true),
            Note::Told(ids, told) => self.each(ids, |account| account.told = *told),
            Note::Database(ids) => self.each(ids, |account| account.database = true),
            Note::Copy(id, name) => {
                let account = self.accounts.entry(*id).or_default();
                if account.is_off() {
                    self.wrong.push(format!("{id} was rolled back, and sent"));
                }
                let served = account.to.entry(name.clone()).or_default();
                served.copies += 1;
                if served.closed {
                    self.wrong.push(format!("{id} was sent to {name} again after it was settled"));
                }
                if account.held == Some(true) {
                    self.wrong.push(format!("{id} was sent while an operator held it"));
                }
                if self.frozen == Some(true) {
                    self.wrong.push(format!("{id} was sent from a frozen queue"));
                }
            }
            Note::Refused(id, name) => self.each(&[*id], |account| {
                account.to.entry(name.clone()).or_default().refused = true;
            }),
            Note::Closed(id, names) => self.each(&[*id], |account| {
                let closed = account.to.iter_mut().filter(|(name, _)| names.contains(name));
                closed.for_each(|(_, served)| served.closed = true);
            }),
            Note::Events(events) => self.events.extend(events.iter().cloned()),
            Note::HistoryEnds => self.events.clear(),
            Note::Frozen(frozen) => self.frozen = *frozen,
            Note::Held(id, held) => self.each(&[*id], |account| account.held = *held),
            Note::Removed(id) => self.each(&[*id], |account| account.removed = true),
            Note::Death => self.deaths += 1,
        }
    }

    fn each(&mut self, ids: &[QueueId], act: impl Fn(&mut Account)) {
        for id in ids {
            if let Some(account) = self.accounts.get_mut(id) {
                act(account);
            }
        }
    }
}
