//! The addresses of an envelope: reverse-path and recipient (RFC 5321 section 4.1.2, RFC 6531).

use std::fmt;
use std::str::FromStr;

/// A text is not an address that may stand in an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing is there.
    #[error("the address is empty")]
    Empty,
    /// There is no `@` outside a quoted local part, or nothing on one side of it.
    #[error("the address needs a local part, an @ and a domain")]
    NoAt,
    /// CR, LF, NUL or another control character.
    #[error("the address has a control character (byte {byte:#04x}) at offset {offset}")]
    Control {
        /// The offending byte.
        byte: u8,
        /// Where it stands, in bytes from 0.
        offset: usize,
    },
    /// A character that may not stand there unquoted: white space, a second `@`, a comma, `<`…
    #[error("the address has {character:?} at offset {offset}, which may not stand there")]
    Character {
        /// The offending character.
        character: char,
        /// Where it stands, in bytes from 0.
        offset: usize,
    },
    /// The local part is too long.
    #[error("the local part has {length} bytes, at most {} are allowed", AddressError::MAX_LOCAL)]
    LongLocalPart {
        /// How long it is, in bytes.
        length: usize,
    },
    /// The domain is too long.
    #[error("the domain has {length} bytes, at most {} are allowed", AddressError::MAX_DOMAIN)]
    LongDomain {
        /// How long it is, in bytes.
        length: usize,
    },
}

impl AddressError {
    /// The longest local part in bytes (RFC 5321 section 4.5.3.1.1).
    pub const MAX_LOCAL: usize = 64;
    /// The longest domain in bytes (RFC 5321 section 4.5.3.1.2).
    pub const MAX_DOMAIN: usize = 255;
}

/// One recipient: the forward-path of an RCPT command, without angle brackets.
///
/// It holds neither control characters nor anything that could end the command, and keeps the
/// spelling it was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Recipient(Mailbox);

/// Where trouble is reported to: the reverse-path of a MAIL command, which may be null (`<>`).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReversePath(Option<Mailbox>);

impl Recipient {
    /// The address: `local@domain`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0.text
    }

    /// What stands before the `@`, quotes included.
    #[must_use]
    pub fn local_part(&self) -> &str {
        self.0.local_part()
    }

    /// What stands after the `@`: a domain, or an address literal in brackets.
    #[must_use]
    pub fn domain(&self) -> &str {
        self.0.domain()
    }
}

impl ReversePath {
    /// The null reverse-path, of mail about which no notification may be sent.
    pub const NULL: Self = Self(None);

    /// The address, or the empty string for the null reverse-path.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_ref().map_or("", |mailbox| &mailbox.text)
    }

    /// Whether it is `<>`.
    #[must_use]
    pub fn is_null(&self) -> bool {
        self.0.is_none()
    }

    /// What stands before the `@`; nothing for the null reverse-path.
    #[must_use]
    pub fn local_part(&self) -> Option<&str> {
        self.0.as_ref().map(Mailbox::local_part)
    }

    /// What stands after the `@`; nothing for the null reverse-path.
    #[must_use]
    pub fn domain(&self) -> Option<&str> {
        self.0.as_ref().map(Mailbox::domain)
    }
}

/// The address without brackets.
impl fmt::Display for Recipient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The address without brackets; nothing at all for the null reverse-path.
impl fmt::Display for ReversePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Takes `a@b` and `<a@b>`.
impl FromStr for Recipient {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        Mailbox::parse(text).map(Self)
    }
}

/// Takes `a@b`, `<a@b>`, and for the null reverse-path `<>` or nothing.
impl FromStr for ReversePath {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.is_empty() || text == "<>" {
            return Ok(Self::NULL);
        }
        Mailbox::parse(text).map(|mailbox| Self(Some(mailbox)))
    }
}

impl From<Recipient> for ReversePath {
    fn from(recipient: Recipient) -> Self {
        Self(Some(recipient.0))
    }
}

/// A checked `local@domain`, and where its `@` is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Mailbox {
    text: String,
    at: usize,
}

#[expect(clippy::string_slice, reason = "at `at` there is an @, which is one byte: see `parse`")]
impl Mailbox {
    fn local_part(&self) -> &str {
        &self.text[..self.at]
    }

    fn domain(&self) -> &str {
        &self.text[self.at + 1..]
    }

    fn parse(text: &str) -> Result<Self, AddressError> {
        let inner = text.strip_prefix('<').and_then(|rest| rest.strip_suffix('>')).unwrap_or(text);
        if inner.is_empty() {
            return Err(AddressError::Empty);
        }
        if let Some((offset, byte)) =
            inner.bytes().enumerate().find(|(_, byte)| byte.is_ascii_control())
        {
            return Err(AddressError::Control { byte, offset });
        }
        if let Some((offset, character)) =
            inner.char_indices().find(|(_, character)| character.is_control())
        {
            return Err(AddressError::Character { character, offset });
        }
        let (local, domain) = split(inner)?;
        if local.len() > AddressError::MAX_LOCAL {
            return Err(AddressError::LongLocalPart { length: local.len() });
        }
        if domain.len() > AddressError::MAX_DOMAIN {
            return Err(AddressError::LongDomain { length: domain.len() });
        }
        let at = local.len();
        check_domain(domain, at + 1)?;
        Ok(Self { text: inner.to_owned(), at })
    }
}

/// What stands on the two sides of the `@` that ends the local part, which is a quoted string or a
/// dot-string.
///
/// Leading, trailing and doubled dots are let through: they are against the RFC, exist, and harm
/// nobody but their owner.
fn split(text: &str) -> Result<(&str, &str), AddressError> {
    if text.starts_with('"') {
        let mut characters = text.char_indices().skip(1);
        while let Some((offset, character)) = characters.next() {
            match character {
                '\\' => drop(characters.next()),
                '"' => {
                    let parts = text.split_at_checked(offset + 1);
                    return parts
                        .and_then(|(local, rest)| Some((local, rest.strip_prefix('@')?)))
                        .filter(|(_, domain)| !domain.is_empty())
                        .ok_or(AddressError::NoAt);
                }
                _ => {}
            }
        }
        return Err(AddressError::NoAt);
    }
    let (local, domain) = text.split_once('@').ok_or(AddressError::NoAt)?;
    if local.is_empty() || domain.is_empty() {
        return Err(AddressError::NoAt);
    }
    match local.char_indices().find(|(_, character)| is_special(*character)) {
        Some((offset, character)) => Err(AddressError::Character { character, offset }),
        None => Ok((local, domain)),
    }
}

/// What RFC 5322 calls specials, and white space of every kind.
fn is_special(character: char) -> bool {
    character.is_whitespace() || "()<>[]:;@\\,\"".contains(character)
}

fn check_domain(domain: &str, start: usize) -> Result<(), AddressError> {
    let literal = domain.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let (text, start) = literal.map_or((domain, start), |inner| (inner, start + 1));
    let allowed = |character: char| match literal {
        Some(_) => character.is_ascii_alphanumeric() || ".:-".contains(character),
        None => !is_special(character) && !"/?#%!'`{}|^~$&*+=".contains(character),
    };
    if let Some((offset, character)) = text.char_indices().find(|(_, c)| !allowed(*c)) {
        return Err(AddressError::Character { character, offset: start + offset });
    }
    if text.is_empty() {
        return Err(AddressError::NoAt);
    }
    if literal.is_none()
        && let Some(offset) = empty_label(text)
    {
        return Err(AddressError::Character { character: '.', offset: start + offset });
    }
    Ok(())
}

/// The offset of a dot that has no label on one of its sides.
fn empty_label(domain: &str) -> Option<usize> {
    if domain.starts_with('.') {
        return Some(0);
    }
    domain.find("..").or_else(|| domain.ends_with('.').then(|| domain.len() - 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ordinary_and_odd_addresses_are_kept_as_written() {
        for text in [
            "a@b",
            "First.Last+tag@Example.ORG",
            "\"a b\"@example.org",
            "\"a\\\"@b\"@example.org",
            "x@[192.0.2.1]",
            "x@[IPv6:2001:db8::1]",
            "jörg@münchen.example",
            "under_score@a_b.example",
            ".dots..@example.org",
        ] {
            let recipient: Recipient = text.parse().unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(recipient.as_str(), text);
            assert_eq!(format!("{}@{}", recipient.local_part(), recipient.domain()), text);
            assert_eq!(format!("<{text}>").parse::<Recipient>().unwrap(), recipient);
        }
    }

    // Proves: B-recipients, B-controls, A-injection, A-envelope
    #[test]
    fn what_could_end_or_split_a_command_is_refused() {
        for text in [
            "",
            "<>",
            "a",
            "@b",
            "a@",
            "a@b,c@d",
            "a@b c@d",
            "a b@c",
            "a@b>",
            "<a@b",
            "a@b@c",
            "a@b\r\nRCPT TO:<c@d>",
            "a\n@b",
            "a@b\0",
            "\"a\r\n\"@b",
            "\"a@b",
            "\"a\"b@c",
            "a@.b",
            "a@b.",
            "a@b..c",
            "a@[1.2.3.4",
            "a@[]",
            "a\u{85}@b",
            "a\u{a0}@b",
        ] {
            assert!(text.parse::<Recipient>().is_err(), "{text:?} was accepted");
        }
    }

    // Proves: B-controls, B-lengths
    #[test]
    fn the_error_names_the_byte_and_both_lengths() {
        let error = "a@b\rc".parse::<Recipient>().unwrap_err();
        assert_eq!(error, AddressError::Control { byte: b'\r', offset: 3 });
        let error = format!("{}@b", "a".repeat(65)).parse::<Recipient>().unwrap_err();
        assert_eq!(error.to_string(), "the local part has 65 bytes, at most 64 are allowed");
        let error = format!("a@{}", "b".repeat(256)).parse::<Recipient>().unwrap_err();
        assert_eq!(error.to_string(), "the domain has 256 bytes, at most 255 are allowed");
    }

    // Proves: B-recipients
    #[test]
    fn only_the_reverse_path_may_be_null() {
        assert!("".parse::<ReversePath>().unwrap().is_null());
        assert!("<>".parse::<ReversePath>().unwrap().is_null());
        assert_eq!(ReversePath::NULL.to_string(), "");
        assert!(!"a@b".parse::<ReversePath>().unwrap().is_null());
    }

    proptest! {
        #[test]
        fn nothing_accepted_can_leave_its_brackets(text in "\\PC*|.*@.*|[a-z\"\\\\@<>\r\n ,.]{0,20}") {
            if let Ok(recipient) = text.parse::<Recipient>() {
                let address = recipient.as_str();
                prop_assert!(!address.contains(['\r', '\n', '\0']));
                prop_assert!(address.len() <= AddressError::MAX_LOCAL + 1 + AddressError::MAX_DOMAIN);
                prop_assert_eq!(address.parse::<Recipient>().unwrap(), recipient.clone());
                prop_assert!(!recipient.domain().contains(['<', '>', ' ', ',']));
            }
        }
    }
}
