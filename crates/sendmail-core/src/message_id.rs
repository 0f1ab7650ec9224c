//! The Message-ID of a mail (RFC 5322 section 3.6.4).

use std::fmt;
use std::str::FromStr;

use crate::Timestamp;
use crate::id::mint;

/// A text is not a Message-ID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageIdError {
    /// There are no angle brackets around it.
    #[error("a Message-ID stands in angle brackets: <left@right>")]
    NoBrackets,
    /// There is not exactly one `@`, or nothing on one side of it.
    #[error("a Message-ID has exactly one @, with something on both sides of it")]
    NoAt,
    /// A control character, white space or a bracket.
    #[error("the Message-ID has {character:?} at offset {offset}, which may not stand there")]
    Character {
        /// The offending character.
        character: char,
        /// Where it stands, in bytes from 0.
        offset: usize,
    },
    /// It would not fit into a header line.
    #[error("the Message-ID has {length} bytes, at most {} are allowed", MessageId::MAX_LEN)]
    TooLong {
        /// How long it is, in bytes.
        length: usize,
    },
}

/// A Message-ID with its angle brackets: `<left@right>`.
///
/// It is data, not a key: the same message may be sent in two envelopes. It is fixed when the
/// application hands the message over.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(String);

impl MessageId {
    /// The longest Message-ID in bytes, brackets included: it fits into one header line.
    pub const MAX_LEN: usize = 900;

    /// Mints a Message-ID that no one else has, under `domain`.
    ///
    /// Characters that may not stand in a Message-ID are left out of the domain; if none remains it
    /// is `localhost`.
    #[must_use]
    pub fn mint(now: Timestamp, domain: &str) -> Self {
        let kept = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        let mut domain: String = domain.chars().filter(kept).take(255).collect();
        if domain.is_empty() {
            domain.push_str("localhost");
        }
        Self(format!("<{}@{domain}>", mint(now).simple()))
    }

    /// The Message-ID with its brackets.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MessageId {
    type Err = MessageIdError;

    fn from_str(text: &str) -> Result<Self, MessageIdError> {
        let inner = text
            .strip_prefix('<')
            .and_then(|rest| rest.strip_suffix('>'))
            .ok_or(MessageIdError::NoBrackets)?;
        let misfit = |c: char| c.is_control() || c.is_whitespace() || c == '<' || c == '>';
        if let Some((offset, character)) = inner.char_indices().find(|(_, c)| misfit(*c)) {
            return Err(MessageIdError::Character { character, offset: offset + 1 });
        }
        match inner.split_once('@') {
            Some((left, right))
                if !left.is_empty() && !right.is_empty() && !right.contains('@') => {}
            _ => return Err(MessageIdError::NoAt),
        }
        if text.len() > Self::MAX_LEN {
            return Err(MessageIdError::TooLong { length: text.len() });
        }
        Ok(Self(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // Proves: B-controls, A-injection
    #[test]
    fn a_malformed_one_is_refused() {
        for text in ["", "a@b", "<a>", "<@b>", "<a@>", "<a@b@c>", "<a b@c>", "<a@b\r\n>", "<a@b>x"]
        {
            assert!(text.parse::<MessageId>().is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn the_error_names_what_may_not_stand_there_and_where() {
        for (text, character, offset) in [
            ("<a b@c>", ' ', 2),
            ("<a@b\u{a0}c>", '\u{a0}', 4),
            ("<\u{1}a@b>", '\u{1}', 1),
            ("<a@<b>", '<', 3),
            ("<a>b@c>", '>', 2),
        ] {
            let expected = MessageIdError::Character { character, offset };
            assert_eq!(text.parse::<MessageId>(), Err(expected), "{text:?}");
        }
    }

    #[test]
    fn the_longest_is_taken_and_a_byte_more_is_not() {
        let of = |length: usize| format!("<{}@b>", "a".repeat(length - 4)).parse::<MessageId>();
        assert!(of(MessageId::MAX_LEN).is_ok());
        for length in [MessageId::MAX_LEN + 1, MessageId::MAX_LEN + 100] {
            assert_eq!(of(length), Err(MessageIdError::TooLong { length }));
        }
    }

    // Proves: A-injection, A-traversal
    #[test]
    fn minted_ones_are_well_formed_and_differ() {
        let now = Timestamp::from_millis(1);
        for domain in ["example.org", "", "mail host\r\nX: y", "[::1]"] {
            let id = MessageId::mint(now, domain);
            assert_eq!(id.as_str().parse::<MessageId>().unwrap(), id);
            assert_ne!(id, MessageId::mint(now, domain));
        }
        let id = MessageId::mint(now, "mail_1.example\r\nX: y");
        assert!(id.as_str().ends_with("@mail_1.exampleX:y>"), "{id}");
        assert!(MessageId::mint(now, " ").as_str().ends_with("@localhost>"));
    }

    proptest! {
        #[test]
        fn an_accepted_one_stays_in_its_line(text in "<.*@.*>|.*") {
            if let Ok(id) = text.parse::<MessageId>() {
                prop_assert!(!id.as_str().chars().any(char::is_control));
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
