//! Events: what became of every message.

use std::fmt;

use async_trait::async_trait;

use crate::{EventId, MessageId, QueueId, Recipient, Reply, Result, Timestamp};

/// The kinds of events. The list is closed: a reader may match on all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum MailEventKind {
    /// A message was committed to the queue.
    Queued,
    /// A message was thrown away because its transaction rolled back.
    Discarded,
    /// A recipient was accepted by the relay (zope's `IMailSentEvent`).
    Sent,
    /// A recipient is to be tried again later.
    Deferred,
    /// A recipient was given up for good (zope's `IMailErrorEvent`).
    Failed,
    /// A recipient was given up because its time ran out.
    Expired,
    /// A recipient may have got the message already and will get it again.
    PossibleDuplicate,
    /// A message is held until somebody releases it.
    Held,
    /// A held message was released.
    Released,
    /// A message was removed by an operator.
    Removed,
    /// A queue entry does not prove itself whole and was set aside.
    Damaged,
    /// The relay is in trouble: nothing is sent to it for a while.
    RelayPaused,
    /// The relay can be used again.
    RelayResumed,
}

impl MailEventKind {
    /// Every kind, in the order of the list above.
    pub const ALL: [Self; 13] = [
        Self::Queued,
        Self::Discarded,
        Self::Sent,
        Self::Deferred,
        Self::Failed,
        Self::Expired,
        Self::PossibleDuplicate,
        Self::Held,
        Self::Released,
        Self::Removed,
        Self::Damaged,
        Self::RelayPaused,
        Self::RelayResumed,
    ];

    /// The word that stands in logs and in JSON: `possible-duplicate`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Discarded => "discarded",
            Self::Sent => "sent",
            Self::Deferred => "deferred",
            Self::Failed => "failed",
            Self::Expired => "expired",
            Self::PossibleDuplicate => "possible-duplicate",
            Self::Held => "held",
            Self::Released => "released",
            Self::Removed => "removed",
            Self::Damaged => "damaged",
            Self::RelayPaused => "relay-paused",
            Self::RelayResumed => "relay-resumed",
        }
    }

    /// The kind of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == word)
    }
}

impl fmt::Display for MailEventKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// Something that happened to a message, to one of its recipients, or to a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MailEvent {
    /// What to deduplicate by.
    pub id: EventId,
    /// When it happened.
    pub time: Timestamp,
    /// What happened.
    pub kind: MailEventKind,
    /// Which message; nothing for events about a relay.
    pub queue_id: Option<QueueId>,
    /// The message's Message-ID, where it is known.
    pub message_id: Option<MessageId>,
    /// Which recipient, for events about one.
    pub recipient: Option<Recipient>,
    /// In which attempt, counted from 1; 0 outside attempts.
    pub attempt: u32,
    /// What the relay answered, for events that come from an answer.
    pub reply: Option<Reply>,
    /// Why, in words, where there is more to say than the reply does: one line of printable text.
    pub detail: Option<String>,
}

impl MailEvent {
    /// The longest detail that is kept, in bytes.
    pub const MAX_DETAIL: usize = 512;

    /// An event of `kind` that happens `now`, with a new id and nothing else set.
    #[must_use]
    pub fn new(kind: MailEventKind, now: Timestamp) -> Self {
        Self {
            id: EventId::mint(now),
            time: now,
            kind,
            queue_id: None,
            message_id: None,
            recipient: None,
            attempt: 0,
            reply: None,
            detail: None,
        }
    }

    /// Sets which message it is about.
    #[must_use]
    pub fn about(mut self, queue_id: QueueId, message_id: Option<&MessageId>) -> Self {
        self.queue_id = Some(queue_id);
        self.message_id = message_id.cloned();
        self
    }

    /// Sets recipient, attempt and reply.
    #[must_use]
    pub fn in_attempt(mut self, attempt: u32, recipient: &Recipient, reply: &Reply) -> Self {
        self.attempt = attempt;
        self.recipient = Some(recipient.clone());
        self.reply = Some(reply.clone());
        self
    }

    /// Sets the detail: control characters become spaces, what is too long is cut.
    #[must_use]
    pub fn with_detail(mut self, detail: &str) -> Self {
        let mut text = String::new();
        for character in detail.chars().map(|c| if c.is_control() { ' ' } else { c }) {
            if text.len() + character.len_utf8() > Self::MAX_DETAIL {
                break;
            }
            text.push(character);
        }
        self.detail = Some(text);
        self
    }
}

/// Hears what became of messages.
///
/// It is called only after what it reports is durable; it cannot fail and cannot veto. Whoever calls
/// sinks catches their panics and goes on with the next. An event may come more than once, after a
/// crash: [`MailEvent::id`] tells.
#[async_trait]
pub trait EventSink: Send + Sync {
    /// Hears one event.
    ///
    /// # Ordering
    ///
    /// Events about one message come in the order in which they happened; nothing is promised about
    /// those of different messages.
    ///
    /// # Cancel safety
    ///
    /// The caller may drop the future when it stops; what the sink had to do may then be half done.
    async fn emit(&self, event: &MailEvent);
}

/// A position in an [`EventLog`]: opaque, printable, without spaces.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Cursor(String);

impl Cursor {
    /// From a text that a log gave.
    #[must_use]
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Some events of a log, each with the cursor that stands behind it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventPage {
    /// The events; reading goes on behind the last one's cursor. Empty: there is nothing new yet.
    pub events: Vec<(Cursor, MailEvent)>,
}

/// The history of a queue, read by cursor from any process, after any restart.
#[async_trait]
pub trait EventLog: Send + Sync {
    /// Reads at most `limit` events behind `after`, or from the oldest that is kept.
    ///
    /// # Ordering
    ///
    /// Events about one attempt at a message come in their order. A cursor never skips an event that
    /// becomes durable later.
    ///
    /// # Durability
    ///
    /// Only what is durable is shown: what was read once is there after a crash.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::CursorExpired`](crate::ErrorKind::CursorExpired) if what follows the cursor is no
    /// longer kept, with the oldest cursor in the context;
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for a cursor of another log.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    async fn read(&self, after: Option<Cursor>, limit: usize) -> Result<EventPage>;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_is_read_back_and_none_is_used_twice() {
        let words: std::collections::HashSet<_> =
            MailEventKind::ALL.iter().map(|kind| kind.as_str()).collect();
        assert_eq!(words.len(), MailEventKind::ALL.len());
        for kind in MailEventKind::ALL {
            assert_eq!(MailEventKind::from_word(kind.as_str()), Some(kind));
        }
    }

    // Proves: A-log
    #[test]
    fn a_detail_is_one_short_line() {
        let event = MailEvent::new(MailEventKind::Damaged, Timestamp::EPOCH);
        let detail = event.with_detail(&format!("a\r\nb\u{1b}{}", "ü".repeat(600))).detail.unwrap();
        assert!(detail.starts_with("a  b ü"));
        assert!(detail.len() <= MailEvent::MAX_DETAIL && !detail.chars().any(char::is_control));
    }
}
