//! What an operator does with a queue.

use std::ops::ControlFlow;
use std::time::Duration;

use async_trait::async_trait;

use crate::{MailEvent, MessageId, QueueId, Recipient, ResourceId, Result, ReversePath, Timestamp};

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum EntryState {
    /// Prepared in a transaction that is not decided yet.
    Staged,
    /// Committed and due.
    Queued,
    /// With a worker.
    Claimed,
    /// Waiting for the next attempt.
    Deferred,
    /// Held until somebody releases it.
    Held,
    /// Given up; kept for people.
    Failed,
    /// Thrown away as rolled back; kept for some days. Not part of the queue: a filter means it only if
    /// it asks for this state.
    Discarded,
}

impl EntryState {
    /// Every state, in the order of a message's life.
    pub const ALL: [Self; 7] = [
        Self::Staged,
        Self::Queued,
        Self::Claimed,
        Self::Deferred,
        Self::Held,
        Self::Failed,
        Self::Discarded,
    ];

    /// The word that stands in lists and in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Staged => "staged",
            Self::Queued => "queued",
            Self::Claimed => "claimed",
            Self::Deferred => "deferred",
            Self::Held => "held",
            Self::Failed => "failed",
            Self::Discarded => "discarded",
        }
    }

    /// The state of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == word)
    }
}

/// One message in the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Entry {
    /// Its key.
    pub id: QueueId,
    /// Where it is.
    pub state: EntryState,
    /// Its Message-ID; nothing if the entry cannot be read.
    pub message_id: Option<MessageId>,
    /// How many attempts there were.
    pub attempts: u32,
    /// Who it is from.
    pub reverse_path: ReversePath,
    /// Who is still to be served; for failed entries, who was given up.
    pub recipients: Vec<Recipient>,
    /// When it was handed over.
    pub queued_at: Timestamp,
    /// When it is due, for entries that wait.
    pub next_attempt: Option<Timestamp>,
    /// Who decides its transaction, for staged entries.
    pub resource: Option<ResourceId>,
    /// The message's size in bytes.
    pub size: u64,
}

impl Entry {
    /// An entry with the given key and state and nothing else known.
    #[must_use]
    pub fn new(id: QueueId, state: EntryState) -> Self {
        Self {
            id,
            state,
            message_id: None,
            attempts: 0,
            reverse_path: ReversePath::NULL,
            recipients: Vec::new(),
            queued_at: Timestamp::EPOCH,
            next_attempt: None,
            resource: None,
            size: 0,
        }
    }
}

/// One message with what happened to it.
#[derive(Debug, Clone)]
pub struct EntryDetail {
    /// The entry; nothing when the message has left the queue.
    pub entry: Option<Entry>,
    /// The message as it is sent; nothing when it has left the queue.
    pub content: Option<Vec<u8>>,
    /// What happened, oldest first, as far as history is kept.
    pub history: Vec<MailEvent>,
}

/// Which entries are meant: those that meet all conditions that are set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Filter {
    /// In one of these states; empty: in any but [`EntryState::Discarded`].
    pub states: Vec<EntryState>,
    /// With one of these keys; empty: with any.
    pub ids: Vec<QueueId>,
    /// With one of these Message-IDs; empty: with any.
    pub message_ids: Vec<MessageId>,
    /// From this sender.
    pub reverse_path: Option<ReversePath>,
    /// To this recipient, or, if it has no `@`, to somebody in this domain.
    pub recipient: Option<String>,
    /// Handed over before this time.
    pub queued_before: Option<Timestamp>,
}

impl Filter {
    /// Whether `entry` is meant.
    #[must_use]
    pub fn matches(&self, entry: &Entry) -> bool {
        let recipient = |wanted: &String| {
            entry.recipients.iter().any(|recipient| {
                if wanted.contains('@') {
                    recipient.as_str().eq_ignore_ascii_case(wanted)
                } else {
                    recipient.domain().eq_ignore_ascii_case(wanted)
                }
            })
        };
        let id = |wanted: &Option<MessageId>| {
            wanted.as_ref().is_some_and(|id| self.message_ids.contains(id))
        };
        let any = self.states.is_empty() && entry.state != EntryState::Discarded;
        (any || self.states.contains(&entry.state))
            && (self.ids.is_empty() || self.ids.contains(&entry.id))
            && (self.message_ids.is_empty() || id(&entry.message_id))
            && self.reverse_path.as_ref().is_none_or(|path| *path == entry.reverse_path)
            && self.recipient.as_ref().is_none_or(recipient)
            && self.queued_before.is_none_or(|before| entry.queued_at < before)
    }
}

/// What became of an operator's wish.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdminOutcome {
    /// It was done; the event is durable.
    Done(Box<MailEvent>),
    /// It is so already.
    Unchanged,
    /// A worker has the message: the wish is left, and honoured when the worker settles it.
    Claimed,
    /// There is no such message.
    NotFound,
}

/// How many entries are in one state, and how old the oldest is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateCount {
    /// Which state.
    pub state: EntryState,
    /// How many.
    pub count: u64,
    /// How long ago the oldest was handed over.
    pub oldest: Option<Duration>,
}

/// Numbers of a queue, at about one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Statistics {
    /// One for each state, in the order of [`EntryState::ALL`].
    pub states: Vec<StateCount>,
    /// Whether the queue is frozen.
    pub frozen: bool,
    /// Things in the queue that cannot be messages, or not yet: what and why, in words.
    pub set_aside: Vec<String>,
}

/// The operator's side of a queue. Apart from [`QueueStore`](crate::QueueStore), so that what the
/// author of a store must write stays small.
///
/// It never takes a claimed message from its worker. All of it may be done beside running workers. What
/// a method has done is durable when it returns.
#[async_trait]
pub trait QueueAdmin: Send + Sync {
    /// Shows `visit` the entries that `filter` means, in no particular order, until it breaks off.
    /// An entry that changes its state meanwhile may be shown twice or not at all.
    ///
    /// # Errors
    ///
    /// The queue could not be read any further.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only looks.
    async fn list(
        &self,
        filter: &Filter,
        visit: &mut (dyn FnMut(Entry) -> ControlFlow<()> + Send),
    ) -> Result<()>;

    /// One message with its history, also after it has left the queue.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`](crate::ErrorKind::NotFound) if neither queue nor history knows it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only looks.
    async fn show(&self, id: QueueId) -> Result<EntryDetail>;

    /// Keeps a queued or deferred message from being sent until it is released.
    ///
    /// # Errors
    ///
    /// It could not be done.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn hold(&self, id: QueueId) -> Result<AdminOutcome>;

    /// Releases a held message: due at once.
    ///
    /// # Errors
    ///
    /// It could not be done.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn release(&self, id: QueueId) -> Result<AdminOutcome>;

    /// Makes a deferred or failed message due at once.
    ///
    /// # Errors
    ///
    /// It could not be done.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn retry_now(&self, id: QueueId) -> Result<AdminOutcome>;

    /// Removes a message that no worker has.
    ///
    /// # Errors
    ///
    /// It could not be done.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn remove(&self, id: QueueId) -> Result<AdminOutcome>;

    /// Queues a discarded message after all: due at once. For one that was discarded wrongly, because
    /// a database was restored to a time before its commit.
    ///
    /// # Errors
    ///
    /// It could not be done.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn put_back(&self, id: QueueId) -> Result<AdminOutcome>;

    /// Freezes the queue, or thaws it: see
    /// [`QueueStore::is_frozen`](crate::QueueStore::is_frozen). Messages that are with a worker
    /// are finished by it. Returns whether that changed anything.
    ///
    /// # Durability
    ///
    /// A frozen queue stays frozen over restarts of processes and machine.
    ///
    /// # Errors
    ///
    /// It could not be done.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn set_frozen(&self, frozen: bool) -> Result<bool>;

    /// Counts and ages.
    ///
    /// # Errors
    ///
    /// The queue could not be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only looks.
    async fn statistics(&self) -> Result<Statistics>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_means_what_meets_all_its_conditions() {
        let id = QueueId::mint(Timestamp::EPOCH);
        let mut entry = Entry::new(id, EntryState::Deferred);
        entry.recipients = vec!["Someone@Example.org".parse().unwrap()];
        let check = |filter: Filter| filter.matches(&entry);
        assert!(check(Filter::default()));
        assert!(check(Filter { ids: vec![id], ..Filter::default() }));
        assert!(check(Filter { recipient: Some("example.ORG".into()), ..Filter::default() }));
        assert!(check(Filter {
            recipient: Some("someone@example.org".into()),
            ..Filter::default()
        }));
        assert!(!check(Filter { recipient: Some("example.net".into()), ..Filter::default() }));
        assert!(!check(Filter {
            states: vec![EntryState::Held],
            ids: vec![id],
            ..Filter::default()
        }));
        assert!(!check(Filter { queued_before: Some(Timestamp::EPOCH), ..Filter::default() }));
    }

    #[test]
    fn discarded_messages_are_meant_only_if_asked_for() {
        let id = QueueId::mint(Timestamp::EPOCH);
        let entry = Entry::new(id, EntryState::Discarded);
        let asked = Filter { states: vec![EntryState::Discarded], ..Filter::default() };
        assert!(asked.matches(&entry));
        assert!(!Filter { ids: vec![id], ..Filter::default() }.matches(&entry));
    }
}
