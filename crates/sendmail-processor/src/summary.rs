//! What a run amounted to.

use std::collections::BTreeMap;
use std::fmt;

use sendmail_core::{Attempted, Verdict};

/// How many reasons are told apart; the others are counted together.
const MAX_REASONS: usize = 20;

/// What a run amounted to. Recipients are counted unless it says messages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RunSummary {
    /// Messages with which there was an attempt.
    pub messages: u64,
    /// Accepted by the relay.
    pub delivered: u64,
    /// Given up: refused for good.
    pub failed: u64,
    /// Given up: out of time.
    pub expired: u64,
    /// To be tried again later.
    pub deferred: u64,
    /// Held until somebody decides.
    pub held: u64,
    /// Messages that were claimed and given back without an attempt.
    pub left: u64,
    /// Messages that could not be read, and were set aside or put back.
    pub unreadable: u64,
    /// Why something was left for later, and how often. At most some twenty different ones are told
    /// apart.
    pub reasons: BTreeMap<String, u64>,
}

impl RunSummary {
    /// Whether each message that was due was delivered or failed for good: nothing was left for later.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.deferred == 0 && self.held == 0 && self.left == 0 && self.reasons.is_empty()
    }

    /// Counts an attempt that was settled like this.
    pub(crate) fn count(&mut self, attempted: &Attempted) {
        self.messages += 1;
        for result in &attempted.results {
            let why = || result.outcome.reply().to_string();
            match result.verdict {
                Verdict::Done => self.delivered += 1,
                Verdict::Fail => self.failed += 1,
                Verdict::Expire => self.expired += 1,
                Verdict::Retry => {
                    self.deferred += 1;
                    self.because(why());
                }
                Verdict::Hold => {
                    self.held += 1;
                    self.because(why());
                }
            }
        }
    }

    /// Counts a message that was given back.
    pub(crate) fn leave(&mut self, why: &str) {
        self.left += 1;
        self.because(why.to_owned());
    }

    /// Counts a reason.
    pub(crate) fn because(&mut self, why: String) {
        let known = self.reasons.contains_key(&why) || self.reasons.len() < MAX_REASONS;
        let why = if known { why } else { "other reasons".to_owned() };
        *self.reasons.entry(why).or_default() += 1;
    }

    /// Adds another part of the same run.
    pub(crate) fn add(&mut self, part: Self) {
        self.messages += part.messages;
        self.delivered += part.delivered;
        self.failed += part.failed;
        self.expired += part.expired;
        self.deferred += part.deferred;
        self.held += part.held;
        self.left += part.left;
        self.unreadable += part.unreadable;
        for (why, count) in part.reasons {
            let known = self.reasons.contains_key(&why) || self.reasons.len() < MAX_REASONS;
            let why = if known { why } else { "other reasons".to_owned() };
            *self.reasons.entry(why).or_default() += count;
        }
    }
}

/// One line: `12 delivered, 1 failed, 3 left for later (450 4.2.1 not now: 3)`.
impl fmt::Display for RunSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} delivered", self.delivered)?;
        for (count, what) in [
            (self.failed, "failed"),
            (self.expired, "expired"),
            (self.held, "held"),
            (self.deferred, "deferred"),
            (self.left, "not tried"),
            (self.unreadable, "unreadable"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        for (index, (why, count)) in self.reasons.iter().enumerate() {
            let open = if index == 0 { " (" } else { "; " };
            write!(f, "{open}{why}")?;
            if *count > 1 {
                write!(f, ": {count}")?;
            }
        }
        if !self.reasons.is_empty() {
            f.write_str(")")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_says_what_was_left_and_why() {
        let mut summary = RunSummary { delivered: 2, ..RunSummary::default() };
        assert!(summary.is_complete());
        assert_eq!(summary.to_string(), "2 delivered");
        summary.leave("relay down");
        summary.leave("relay down");
        assert!(!summary.is_complete());
        assert_eq!(summary.to_string(), "2 delivered, 2 not tried (relay down: 2)");
        summary.because("a database is down".to_owned());
        assert!(summary.to_string().contains("(a database is down; relay down: 2)"), "{summary}");
    }

    #[test]
    fn reasons_are_bounded() {
        let mut summary = RunSummary::default();
        for number in 0..1000 {
            summary.because(format!("reason {number}"));
        }
        let mut whole = RunSummary::default();
        whole.add(summary);
        assert!(whole.reasons.len() <= MAX_REASONS + 1);
        assert_eq!(whole.reasons.values().sum::<u64>(), 1000);
    }
}
