//! The records of the journal and their bytes.
//!
//! All numbers are little-endian; a text is its length in 32 bits and its bytes; an option is a byte
//! 0 or 1 and the value.
// Its numbers come from outside.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use sendmail_core::{
    EventId, MailEvent, MailEventKind, MessageId, QueueId, Recipient, Reply, Timestamp,
};

use crate::name::Due;

/// What a worker writes down about its claims, and the events it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Record {
    /// A message was claimed: a new life of this id in this journal begins.
    Claimed(QueueId),
    /// An attempt begins.
    Begun(QueueId),
    /// The message is about to be handed over: from here on it may have been sent.
    HandedOver(QueueId),
    /// The attempt ended, with all that is needed to carry the end out.
    Settled(QueueId, Effect),
    /// The claim was given back without an attempt.
    Released(QueueId),
    /// The end was carried out: nothing of this claim is left to do.
    Finished(QueueId),
    /// Something that is to be told.
    Event(Box<MailEvent>),
}

/// What is to be done with a claimed file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Effect {
    /// Who is still to be served; nobody: the file goes.
    pub(crate) stay: Vec<Recipient>,
    /// Who was given up: a copy for them is kept.
    pub(crate) failed: Vec<Recipient>,
    /// Whether what stays is held.
    pub(crate) hold: bool,
    pub(crate) attempts: u32,
    pub(crate) kills: u32,
    /// When what stays is due; nothing: at once.
    pub(crate) due: Option<Due>,
}

const KINDS: [MailEventKind; 13] = MailEventKind::ALL;

impl Record {
    /// The record's bytes, appended to `out`.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut to = Encoder { out };
        match self {
            Self::Claimed(id) => to.tag(1, id),
            Self::Begun(id) => to.tag(2, id),
            Self::HandedOver(id) => to.tag(3, id),
            Self::Released(id) => to.tag(5, id),
            Self::Finished(id) => to.tag(6, id),
            Self::Settled(id, effect) => {
                to.tag(4, id);
                to.effect(effect);
            }
            Self::Event(event) => {
                to.out.push(7);
                to.event(event);
            }
        }
    }

    /// Reads a record that takes up all of `bytes`; nothing if it does not.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (tag, rest) = bytes.split_first()?;
        let mut from = Decoder { rest };
        let record = match tag {
            1 => Self::Claimed(from.id()?),
            2 => Self::Begun(from.id()?),
            3 => Self::HandedOver(from.id()?),
            4 => Self::Settled(from.id()?, from.effect()?),
            5 => Self::Released(from.id()?),
            6 => Self::Finished(from.id()?),
            7 => Self::Event(Box::new(from.event()?)),
            _ => return None,
        };
        from.rest.is_empty().then_some(record)
    }
}

struct Encoder<'a> {
    out: &'a mut Vec<u8>,
}

impl Encoder<'_> {
    fn tag(&mut self, tag: u8, id: &QueueId) {
        self.out.push(tag);
        self.out.extend_from_slice(id.as_bytes());
    }

    fn u32(&mut self, value: u32) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn i64(&mut self, value: i64) {
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        // Texts are addresses, replies and details, all bounded far below this.
        self.u32(u32::try_from(text.len()).unwrap_or(u32::MAX));
        self.out.extend_from_slice(text.as_bytes());
    }

    fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.out.push(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }

    fn recipients(&mut self, recipients: &[Recipient]) {
        self.u32(u32::try_from(recipients.len()).unwrap_or(u32::MAX));
        recipients.iter().for_each(|recipient| self.text(recipient.as_str()));
    }

    fn effect(&mut self, effect: &Effect) {
        self.recipients(&effect.stay);
        self.recipients(&effect.failed);
        self.out.push(u8::from(effect.hold));
        self.u32(effect.attempts);
        self.u32(effect.kills);
        self.option(effect.due, |to, due| {
            to.i64(due.at.as_millis());
            to.out.extend_from_slice(&due.delay_ms.to_le_bytes());
        });
    }

    fn event(&mut self, event: &MailEvent) {
        self.out.extend_from_slice(event.id.as_bytes());
        self.i64(event.time.as_millis());
        let kind = KINDS.iter().position(|kind| *kind == event.kind).unwrap_or(KINDS.len());
        self.out.push(u8::try_from(kind).unwrap_or(u8::MAX));
        self.option(event.queue_id, |to, id| to.out.extend_from_slice(id.as_bytes()));
        self.option(event.message_id.as_ref(), |to, id| to.text(id.as_str()));
        self.option(event.recipient.as_ref(), |to, recipient| to.text(recipient.as_str()));
        self.u32(event.attempt);
        self.option(event.reply.as_ref(), |to, reply| to.text(&reply.to_string()));
        self.option(event.detail.as_deref(), Self::text);
    }
}

struct Decoder<'a> {
    rest: &'a [u8],
}

impl<'a> Decoder<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(count)?;
        self.rest = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn id(&mut self) -> Option<QueueId> {
        self.array().map(QueueId::from_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn time(&mut self) -> Option<Timestamp> {
        self.array().map(i64::from_le_bytes).map(Timestamp::from_millis)
    }

    fn bool(&mut self) -> Option<bool> {
        match self.take(1)? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = usize::try_from(self.u32()?).ok()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    /// An option whose value is read by `read`: the outer option says whether the bytes were right.
    fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<Option<T>> {
        if self.bool()? { Some(Some(read(self)?)) } else { Some(None) }
    }

    fn recipients(&mut self) -> Option<Vec<Recipient>> {
        (0..self.u32()?).map(|_| self.text()?.parse().ok()).collect()
    }

    fn effect(&mut self) -> Option<Effect> {
        Some(Effect {
            stay: self.recipients()?,
            failed: self.recipients()?,
            hold: self.bool()?,
            attempts: self.u32()?,
            kills: self.u32()?,
            due: self.option(|from| {
                let at = from.time()?;
                Some(Due { at, delay_ms: from.array().map(u64::from_le_bytes)? })
            })?,
        })
    }

    fn event(&mut self) -> Option<MailEvent> {
        let id = EventId::from_bytes(self.array()?);
        let time = self.time()?;
        let kind = *KINDS.get(usize::from(*self.take(1)?.first()?))?;
        let mut event = MailEvent::new(kind, time);
        event.id = id;
        event.queue_id = self.option(Self::id)?;
        event.message_id = self.option(|from| from.text()?.parse::<MessageId>().ok())?;
        event.recipient = self.option(|from| from.text()?.parse().ok())?;
        event.attempt = self.u32()?;
        event.reply = self.option(|from| from.text()?.parse::<Reply>().ok())?;
        event.detail = self.option(|from| from.text().map(str::to_owned))?;
        Some(event)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_id() -> impl Strategy<Value = QueueId> {
        any::<[u8; 16]>().prop_map(QueueId::from_bytes)
    }

    fn recipients() -> impl Strategy<Value = Vec<Recipient>> {
        prop::collection::vec("[a-z]{1,8}@[a-z]{1,8}", 0..4)
            .prop_map(|texts| texts.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn any_event() -> impl Strategy<Value = MailEvent> {
        (any_id(), 0usize..13, any::<i64>(), any::<u32>(), 200u16..600, "\\PC{0,40}", recipients())
            .prop_map(|(id, kind, time, attempt, code, text, to)| {
                let mut event = MailEvent::new(KINDS[kind], Timestamp::from_millis(time));
                let message_id = "<a@b>".parse().unwrap();
                if attempt % 3 > 0 {
                    event = event.about(id, (attempt % 2 == 0).then_some(&message_id));
                }
                if let Some(recipient) = to.first() {
                    event = event.in_attempt(attempt, recipient, &Reply::new(code, &text));
                } else {
                    event = event.with_detail(&text);
                }
                event
            })
    }

    pub(crate) fn any_record() -> impl Strategy<Value = Record> {
        let effect = (recipients(), recipients(), any::<bool>(), any::<(u32, u32, i64, u64)>());
        prop_oneof![
            any_id().prop_map(Record::Claimed),
            any_id().prop_map(Record::Begun),
            any_id().prop_map(Record::HandedOver),
            any_id().prop_map(Record::Released),
            any_id().prop_map(Record::Finished),
            any_event().prop_map(|event| Record::Event(Box::new(event))),
            (any_id(), effect).prop_map(
                |(id, (stay, failed, hold, (attempts, kills, at, delay_ms)))| {
                    let due =
                        (at % 2 == 0).then(|| Due { at: Timestamp::from_millis(at), delay_ms });
                    Record::Settled(id, Effect { stay, failed, hold, attempts, kills, due })
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn a_record_is_read_back(record in any_record()) {
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Record::decode(&bytes), Some(record));
            bytes.pop();
            prop_assert_eq!(Record::decode(&bytes), None);
        }

        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Record::decode(&bytes);
        }
    }
}
