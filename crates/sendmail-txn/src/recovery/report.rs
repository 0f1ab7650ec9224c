//! What a recovery says about its work.

use std::time::Duration;

use sendmail_core::{Error, QueueId, ResourceId, Undecided};

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
    /// An operator has frozen the queue: nothing is decided.
    Frozen,
    /// An alarm: its transaction committed some time ago, and neither the queue nor its history knows the
    /// message. Its file is gone, or was discarded and can be put back. What the one that decides
    /// remembers of it is kept.
    Missing,
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

/// What a recovery did.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// One entry for each message it looked at, sorted by id.
    pub messages: Vec<Recovered>,
    /// How many records of committed messages were forgotten that somebody who died had left behind.
    pub forgotten: usize,
    /// How many old records the housekeeping of those that decide removed.
    pub swept: usize,
    /// What could not be done beside the messages, and at whose place.
    pub trouble: Vec<(ResourceId, Error)>,
    /// When to look again, where something is in doubt that may soon be decided, or has just been;
    /// otherwise whenever it suits.
    pub again: Option<Duration>,
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
    /// How many messages are still undecided, or missing.
    #[must_use]
    pub fn kept(&self) -> usize {
        let open =
            |message: &&Recovered| matches!(message.action, Action::Kept | Action::Failed(_));
        self.messages.iter().filter(open).count()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.messages.extend(other.messages);
        self.forgotten += other.forgotten;
        self.swept += other.swept;
        self.trouble.extend(other.trouble);
        self.again = self.again.into_iter().chain(other.again).min();
    }
}

pub(super) fn recovered(message: &Undecided, finding: Finding, action: Action) -> Recovered {
    Recovered { id: message.id, resource: Some(message.resource.clone()), finding, action }
}

pub(super) fn kept(message: &Undecided, finding: Finding) -> Recovered {
    recovered(message, finding, Action::Kept)
}

/// An error that is told of several messages.
pub(super) fn again(error: &Error) -> Error {
    Error::new(error.kind(), error.operation(), error.message())
}
