//! Identifiers that we mint ourselves and that may therefore stand in file names and keys.

use std::fmt;
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use uuid::Uuid;

use crate::Timestamp;

/// A text is not an identifier of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {what}: {text:?}")]
pub struct IdError {
    what: &'static str,
    text: String,
}

/// The key of one message in one queue: file name, marker, journal and claim all go by it.
///
/// It is minted anew by every hand-over (a UUIDv7, RFC 9562 section 5.7), so that the same message
/// may be sent twice and a retried transaction never meets its own traces. Ids sort by the time they were
/// minted at, and those of one process and millisecond in the order of minting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct QueueId(Uuid);

/// The id of one transaction, minted when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TransactionId(Uuid);

/// The id of one event, the same however often it is delivered: what a handler deduplicates by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(Uuid);

macro_rules! uuid_id {
    ($name:ident, $what:literal) => {
        impl $name {
            /// Mints an id whose time part is `now`; two ids minted at the same time differ.
            #[must_use]
            pub fn mint(now: Timestamp) -> Self {
                Self(mint(now))
            }

            /// From the 16 bytes of a UUID.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes of the UUID.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        /// 36 lower-case characters with hyphens.
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.hyphenated().fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            /// Takes only the form that `Display` writes, so that one id has one spelling.
            fn from_str(text: &str) -> Result<Self, IdError> {
                parse_hyphenated(text)
                    .map(Self)
                    .ok_or_else(|| IdError { what: $what, text: cut(text) })
            }
        }
    };
}

impl QueueId {
    /// The time that it was minted for: the first 48 bits of a UUIDv7, in milliseconds (RFC 9562 section
    /// 5.7). Nothing if it is no UUIDv7, and so none that was minted here.
    #[must_use]
    pub fn minted_at(&self) -> Option<Timestamp> {
        if self.0.get_version_num() != 7 {
            return None;
        }
        let [a, b, c, d, e, f, ..] = *self.as_bytes();
        let millis = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        i64::try_from(millis).ok().map(Timestamp::from_millis)
    }
}

uuid_id!(QueueId, "queue id");
uuid_id!(TransactionId, "transaction id");
uuid_id!(EventId, "event id");

/// Who decides a transaction: the name of a [`DecisionStore`](crate::DecisionStore).
///
/// 1 to 64 characters of `a-z`, `0-9`, `-` and `_`, the first of them a letter or a digit, so that it
/// can be the name of a directory everywhere.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceId(String);

impl ResourceId {
    /// The longest name, in bytes.
    pub const MAX_LEN: usize = 64;

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ResourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for ResourceId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let valid = text.len() <= Self::MAX_LEN
            && text.bytes().next().is_some_and(plain)
            && text.bytes().all(|byte| plain(byte) || byte == b'-' || byte == b'_');
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError { what: "resource id", text: cut(text) })
        }
    }
}

/// A UUIDv7 for `now`. A clock before 1970 counts as 1970: the rest keeps ids apart.
///
/// Behind the time stand a counter and 32 random bits (RFC 9562 section 6.2, method 1): what one process
/// mints within a millisecond, or while a clock stands still, sorts in the order in which it was minted.
pub(crate) fn mint(now: Timestamp) -> Uuid {
    static COUNTER: OnceLock<AtomicU64> = OnceLock::new();
    let millis = u64::try_from(now.as_millis()).unwrap_or(0);
    let nanos = u32::try_from(millis % 1000 * 1_000_000).unwrap_or(0);
    let random = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, millis / 1000, nanos));
    // It starts anywhere, so that processes do not count alike, but low enough never to wrap.
    let counter = COUNTER.get_or_init(|| AtomicU64::new(random.as_u64_pair().1 & ((1 << 41) - 1)));
    with_counter(random, counter.fetch_add(1, Ordering::Relaxed))
}

/// Puts the lowest 42 bits of `counter` behind the time, around the bits that say what kind of UUID it is.
fn with_counter(uuid: Uuid, counter: u64) -> Uuid {
    let mut bytes = uuid.into_bytes();
    // Masked to a byte at most.
    let byte = |shift: u32, mask: u64| u8::try_from((counter >> shift) & mask).unwrap_or(0);
    bytes[6] = 0x70 | byte(38, 0x0f);
    bytes[7] = byte(30, 0xff);
    bytes[8] = 0x80 | byte(24, 0x3f);
    bytes[9] = byte(16, 0xff);
    bytes[10] = byte(8, 0xff);
    bytes[11] = byte(0, 0xff);
    Uuid::from_bytes(bytes)
}

fn parse_hyphenated(text: &str) -> Option<Uuid> {
    let uuid = Uuid::try_parse(text).ok()?;
    let mut buffer = Uuid::encode_buffer();
    (uuid.hyphenated().encode_lower(&mut buffer) == text).then_some(uuid)
}

/// What of a refused text may go into a message.
fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ids_minted_together_differ_and_later_ones_sort_later() {
        let early = QueueId::mint(Timestamp::from_millis(1000));
        let late = QueueId::mint(Timestamp::from_millis(2000));
        assert_ne!(early, QueueId::mint(Timestamp::from_millis(1000)));
        assert!(early < late);
        assert!(early.to_string() < late.to_string());
    }

    #[test]
    fn ids_of_one_millisecond_sort_as_they_were_minted() {
        let now = Timestamp::from_millis(1000);
        let ids: Vec<QueueId> = (0..1000).map(|_| QueueId::mint(now)).collect();
        assert!(ids.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn a_counter_leaves_time_version_and_variant_alone() {
        let plain = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 7, 8_000_000));
        for counter in [0, 1, 0xff_ffff, (1 << 42) - 1, u64::MAX] {
            let uuid = with_counter(plain, counter);
            assert_eq!(uuid.get_version_num(), 7);
            assert_eq!(uuid.get_variant(), uuid::Variant::RFC4122);
            assert_eq!(uuid.as_bytes()[..6], plain.as_bytes()[..6]);
            assert_eq!(uuid.as_bytes()[12..], plain.as_bytes()[12..]);
        }
        assert!(with_counter(plain, 0x3f_ffff_ffff) < with_counter(plain, 0x40_0000_0000));
    }

    #[test]
    fn an_id_tells_when_it_was_minted() {
        for millis in [0, 1, 999, 1_764_000_000_123] {
            let now = Timestamp::from_millis(millis);
            assert_eq!(QueueId::mint(now).minted_at(), Some(now));
        }
        assert_eq!(QueueId::from_bytes([0xab; 16]).minted_at(), None);
    }

    // Proves: A-traversal
    #[test]
    fn only_one_spelling_is_accepted() {
        let id = QueueId::from_bytes([0xab; 16]);
        let text = id.to_string();
        assert_eq!(text.parse(), Ok(id));
        assert!(text.to_uppercase().parse::<QueueId>().is_err());
        assert!(text.replace('-', "").parse::<QueueId>().is_err());
        assert!(format!("{{{text}}}").parse::<QueueId>().is_err());
    }

    // Proves: A-traversal
    #[test]
    fn a_resource_id_is_a_safe_directory_name() {
        for bad in ["", ".", "..", "a/b", "A", "-a", "a b", "ä", "a\n", &"a".repeat(65)] {
            assert!(bad.parse::<ResourceId>().is_err(), "{bad:?}");
        }
        for good in ["a", "orders-db", "queue_2", &"a".repeat(64)] {
            assert_eq!(good.parse::<ResourceId>().unwrap().as_str(), good);
        }
    }

    proptest! {
        #[test]
        fn bytes_and_text_round_trip(bytes: [u8; 16]) {
            let id = TransactionId::from_bytes(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert_eq!(id.as_bytes(), &bytes);
        }

        #[test]
        fn parsing_never_panics(text in ".*") {
            let _ = text.parse::<QueueId>();
            let _ = text.parse::<ResourceId>();
        }
    }
}
