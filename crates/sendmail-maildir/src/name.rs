//! The names of queue files: what must be known of a message without opening it.
// Its numbers come from outside.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use sendmail_core::{QueueId, Timestamp};
use uuid::Uuid;

/// A process that writes to or works on the queue. Its name is in the names of what it has not
/// finished, and it holds a lock on a file of that name while it lives.
pub(crate) type OwnerId = Uuid;

/// What a queue file's name says: `ID.aA.kK[.dDUE.wDELAY][.f][.t][.oOWNER]`.
///
/// A mail reader may have appended `:2,` and flags, which are read over and not kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MessageName {
    pub(crate) id: QueueId,
    /// How many attempts were made.
    pub(crate) attempts: u32,
    /// How many workers died during an attempt.
    pub(crate) kills: u32,
    /// When the next attempt is due, for messages that wait.
    pub(crate) due: Option<Due>,
    /// Whether the content is as another program wrote it.
    pub(crate) foreign: bool,
    /// Whether the log tells that it was queued.
    pub(crate) told: bool,
    /// Who wrote it, while it is not published.
    pub(crate) owner: Option<OwnerId>,
}

/// When a message is due, and how long it was to wait when that was set: a time that is further away
/// than that was set by a clock that has jumped since.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) at: Timestamp,
    pub(crate) delay_ms: u64,
}

impl Due {
    /// Whether the message is due `now`.
    pub(crate) fn is_past(self, now: Timestamp) -> bool {
        self.at <= now
    }

    /// The due time that a clock which has jumped back may still ask for; nothing if it is right.
    pub(crate) fn clamped(self, now: Timestamp) -> Option<Self> {
        let latest = now.saturating_add(std::time::Duration::from_millis(self.delay_ms));
        (self.at > latest).then_some(Self { at: latest, delay_ms: self.delay_ms })
    }
}

impl MessageName {
    /// The name of a message that is new.
    pub(crate) fn new(id: QueueId) -> Self {
        Self { id, attempts: 0, kills: 0, due: None, foreign: false, told: false, owner: None }
    }

    /// Without due time and owner: as it stands where it is due.
    pub(crate) fn published(self) -> Self {
        Self { due: None, owner: None, ..self }
    }

    pub(crate) fn due(self, due: Due) -> Self {
        Self { due: Some(due), owner: None, ..self }
    }

    pub(crate) fn owned(self, owner: OwnerId) -> Self {
        Self { owner: Some(owner), ..self }
    }

    /// The name as bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut text = format!("{}.a{}.k{}", self.id, self.attempts, self.kills);
        if let Some(due) = self.due {
            text.push_str(&format!(".d{}.w{}", due.at.as_millis(), due.delay_ms));
        }
        if self.foreign {
            text.push_str(".f");
        }
        if self.told {
            text.push_str(".t");
        }
        if let Some(owner) = self.owner {
            text.push_str(&format!(".o{owner}"));
        }
        text.into_bytes()
    }

    /// Reads a name; nothing if it is not one of ours.
    pub(crate) fn decode(name: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(name).ok()?;
        let text = text.split_once(':').map_or(text, |(base, _)| base);
        let mut parts = text.split('.');
        let id = parts.next()?.parse().ok()?;
        let attempts = number(parts.next()?, 'a')?;
        let kills = number(parts.next()?, 'k')?;
        let mut name = Self {
            id,
            attempts: u32::try_from(attempts).ok()?,
            kills: u32::try_from(kills).ok()?,
            ..Self::new(id)
        };
        let mut next = parts.next();
        if let Some(millis) = next.and_then(|part| part.strip_prefix('d')) {
            let at = Timestamp::from_millis(millis.parse().ok()?);
            name.due = Some(Due { at, delay_ms: number(parts.next()?, 'w')? });
            next = parts.next();
        }
        if next == Some("f") {
            name.foreign = true;
            next = parts.next();
        }
        if next == Some("t") {
            name.told = true;
            next = parts.next();
        }
        if let Some(owner) = next.and_then(|part| part.strip_prefix('o')) {
            name.owner = Some(parse_owner(owner)?);
            next = parts.next();
        }
        // One name has one spelling: leading zeros and signs were accepted above.
        (next.is_none() && name.encode() == text.as_bytes()).then_some(name)
    }
}

/// Reads the name of an owner; nothing if it is not in its one spelling.
pub(crate) fn parse_owner(text: &str) -> Option<OwnerId> {
    Uuid::try_parse(text).ok().filter(|owner| owner.to_string() == text)
}

fn number(part: &str, key: char) -> Option<u64> {
    part.strip_prefix(key)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_name() -> impl Strategy<Value = MessageName> {
        (
            any::<[u8; 16]>(),
            any::<u32>(),
            any::<u32>(),
            proptest::option::of((any::<i64>(), any::<u64>())),
            any::<(bool, bool)>(),
            proptest::option::of(any::<[u8; 16]>()),
        )
            .prop_map(|(id, attempts, kills, due, (foreign, told), owner)| MessageName {
                id: QueueId::from_bytes(id),
                attempts,
                kills,
                due: due.map(|(at, delay_ms)| Due { at: Timestamp::from_millis(at), delay_ms }),
                foreign,
                told,
                owner: owner.map(Uuid::from_bytes),
            })
    }

    proptest! {
        #[test]
        fn a_name_is_read_back_and_fits_every_file_system(name in any_name(), flags in "(:2,[A-Z]{0,4})?") {
            let mut bytes = name.encode();
            bytes.extend_from_slice(flags.as_bytes());
            prop_assert_eq!(MessageName::decode(&bytes), Some(name));
            prop_assert!(bytes.len() < 220);
            prop_assert!(!bytes.contains(&b'/') && bytes[0] != b'.');
        }

        #[test]
        fn other_names_are_not_ours(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(MessageName::decode(&bytes), None);
        }
    }

    #[test]
    fn a_name_has_one_spelling() {
        let id = QueueId::from_bytes([7; 16]);
        for tail in
            ["a00.k0", "a+1.k0", "a0.k0.", "a0.k0.f.f", "a0.k0.d1", "a0", "a0.k0.ox", "a-1.k0"]
        {
            assert_eq!(MessageName::decode(format!("{id}.{tail}").as_bytes()), None, "{tail}");
        }
        assert!(MessageName::decode(format!("{id}.a0.k0:2,S").as_bytes()).is_some());
    }

    #[test]
    fn a_time_further_away_than_its_delay_is_clamped() {
        let at = |ms| Timestamp::from_millis(ms);
        let due = Due { at: at(10_000), delay_ms: 3_000 };
        assert_eq!(due.clamped(at(7_000)), None);
        assert_eq!(due.clamped(at(1_000)), Some(Due { at: at(4_000), delay_ms: 3_000 }));
    }
}
