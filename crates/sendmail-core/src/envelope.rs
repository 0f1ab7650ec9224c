//! The envelope: who is written to, on whose behalf, and how it is to be delivered.

use std::fmt;
use std::str::FromStr;

use crate::{AddressError, Recipient, ReversePath, Timestamp};

/// The most recipients one envelope may have.
pub const MAX_RECIPIENTS: usize = 10_000;

/// Texts do not make an envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EnvelopeError {
    /// An envelope has at least one recipient.
    #[error("the envelope has no recipient")]
    NoRecipient,
    /// More recipients than one envelope may have.
    #[error("the envelope has {count} recipients, at most {MAX_RECIPIENTS} are allowed")]
    TooManyRecipients {
        /// How many there are.
        count: usize,
    },
    /// One of the recipients is not an address.
    #[error("recipient {index}: {source}")]
    Recipient {
        /// Which one, counted from 0.
        index: usize,
        /// What is wrong with it.
        source: AddressError,
    },
    /// The reverse-path is not an address.
    #[error("reverse-path: {0}")]
    ReversePath(AddressError),
    /// The tenant's name is empty, too long or has a control character.
    #[error("a tenant's name has 1 to 64 printable ASCII characters and no space")]
    Tenant,
}

/// Reverse-path, one or more recipients, and the wishes that go with them.
///
/// A recipient that is named twice is served once: the first naming counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    reverse_path: ReversePath,
    recipients: Vec<Recipient>,
    options: DeliveryOptions,
}

impl Envelope {
    /// An envelope from checked parts, with default options.
    ///
    /// # Errors
    ///
    /// No recipient, or more than [`MAX_RECIPIENTS`].
    pub fn new(
        reverse_path: ReversePath,
        recipients: impl IntoIterator<Item = Recipient>,
    ) -> Result<Self, EnvelopeError> {
        let mut seen = std::collections::HashSet::new();
        let recipients: Vec<Recipient> =
            recipients.into_iter().filter(|recipient| seen.insert(recipient.clone())).collect();
        if recipients.is_empty() {
            return Err(EnvelopeError::NoRecipient);
        }
        if recipients.len() > MAX_RECIPIENTS {
            return Err(EnvelopeError::TooManyRecipients { count: recipients.len() });
        }
        Ok(Self { reverse_path, recipients, options: DeliveryOptions::default() })
    }

    /// An envelope from texts, with default options.
    ///
    /// # Errors
    ///
    /// As [`Envelope::new`], and the first text that is not an address, by its index.
    pub fn parse<T: AsRef<str>>(
        reverse_path: &str,
        recipients: impl IntoIterator<Item = T>,
    ) -> Result<Self, EnvelopeError> {
        let reverse_path = reverse_path.parse().map_err(EnvelopeError::ReversePath)?;
        let recipients = recipients
            .into_iter()
            .enumerate()
            .map(|(index, text)| {
                let parsed = text.as_ref().parse();
                parsed.map_err(|source| EnvelopeError::Recipient { index, source })
            })
            .collect::<Result<Vec<Recipient>, _>>()?;
        Self::new(reverse_path, recipients)
    }

    /// The same envelope with other options.
    #[must_use]
    pub fn with_options(mut self, options: DeliveryOptions) -> Self {
        self.options = options;
        self
    }

    /// The same reverse-path and options for other recipients.
    ///
    /// # Errors
    ///
    /// As [`Envelope::new`].
    pub fn with_recipients(
        &self,
        recipients: impl IntoIterator<Item = Recipient>,
    ) -> Result<Self, EnvelopeError> {
        let envelope = Self::new(self.reverse_path.clone(), recipients)?;
        Ok(envelope.with_options(self.options.clone()))
    }

    /// Where trouble is reported to.
    #[must_use]
    pub fn reverse_path(&self) -> &ReversePath {
        &self.reverse_path
    }

    /// Who is written to: at least one, none twice, in the order in which they were given.
    #[must_use]
    pub fn recipients(&self) -> &[Recipient] {
        &self.recipients
    }

    /// How it is to be delivered.
    #[must_use]
    pub fn options(&self) -> &DeliveryOptions {
        &self.options
    }
}

/// How a message is to be delivered. The default is: now, for as long as the queue tries, in the
/// ordinary lane, and again after an ambiguous end.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DeliveryOptions {
    /// Not offered to a relay before this time.
    pub not_before: Option<Timestamp>,
    /// Given up after this time, in place of the processor's lifetime for messages.
    pub expires: Option<Timestamp>,
    /// What to do when it may or may not have been sent.
    pub ambiguous: AmbiguousPolicy,
    /// Which lane it waits in.
    pub priority: Priority,
    /// On whose behalf it waits; messages of different tenants are served in turn.
    pub tenant: Option<Tenant>,
}

/// What to do with a message when the connection was lost after the final dot, so that nobody can
/// know whether the relay took it (RFC 5321 section 4.5.3.2.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum AmbiguousPolicy {
    /// Send it again: a second copy is better than none.
    #[default]
    Retry,
    /// Hold it until an operator decides.
    Hold,
    /// Give it up, and keep it with the failed mail: none is better than two.
    Drop,
}

impl AmbiguousPolicy {
    /// The word that stands in queue files and on command lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Retry => "retry",
            Self::Hold => "hold",
            Self::Drop => "drop",
        }
    }

    /// The policy of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Retry, Self::Hold, Self::Drop].into_iter().find(|policy| policy.as_str() == word)
    }
}

/// How urgent a message is beside others of the same queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Priority {
    /// Bulk mail, which waits while anything else is due.
    Low,
    /// Ordinary mail.
    #[default]
    Normal,
    /// Mail somebody is waiting for: a password reset.
    High,
}

impl Priority {
    /// The word that stands in queue files and on command lines.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Normal => "normal",
            Self::High => "high",
        }
    }

    /// The priority of that word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Low, Self::Normal, Self::High].into_iter().find(|level| level.as_str() == word)
    }
}

/// The name of a tenant: 1 to 64 printable ASCII characters without a space.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tenant(String);

impl Tenant {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Tenant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for Tenant {
    type Err = EnvelopeError;

    fn from_str(text: &str) -> Result<Self, EnvelopeError> {
        let fits = (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
        fits.then(|| Self(text.to_owned())).ok_or(EnvelopeError::Tenant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: B-recipients, B-lengths, A-flood
    #[test]
    fn an_envelope_has_one_to_many_recipients() {
        assert_eq!(Envelope::parse::<&str>("a@b", []), Err(EnvelopeError::NoRecipient));
        let many: Vec<String> = (0..=MAX_RECIPIENTS).map(|i| format!("r{i}@b")).collect();
        let error = Envelope::parse("a@b", &many).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the envelope has 10001 recipients, at most 10000 are allowed"
        );
        assert!(Envelope::parse("", ["c@d"]).unwrap().reverse_path().is_null());
    }

    // Proves: B-recipients
    #[test]
    fn the_error_names_the_index() {
        let error = Envelope::parse("a@b", ["c@d", "e@f,g@h"]).unwrap_err();
        assert!(matches!(error, EnvelopeError::Recipient { index: 1, .. }), "{error}");
        assert!(matches!(Envelope::parse("a", ["c@d"]), Err(EnvelopeError::ReversePath(_))));
    }

    #[test]
    fn a_recipient_named_twice_is_served_once() {
        let envelope = Envelope::parse("a@b", ["c@d", "e@f", "c@d"]).unwrap();
        let recipients: Vec<_> = envelope.recipients().iter().map(Recipient::as_str).collect();
        assert_eq!(recipients, ["c@d", "e@f"]);
    }

    #[test]
    fn every_word_is_read_back() {
        for policy in [AmbiguousPolicy::Retry, AmbiguousPolicy::Hold, AmbiguousPolicy::Drop] {
            assert_eq!(AmbiguousPolicy::from_word(policy.as_str()), Some(policy));
        }
        for priority in [Priority::Low, Priority::Normal, Priority::High] {
            assert_eq!(Priority::from_word(priority.as_str()), Some(priority));
        }
        assert!("a b".parse::<Tenant>().is_err());
        assert_eq!("acme".parse::<Tenant>().unwrap().as_str(), "acme");
    }
}
