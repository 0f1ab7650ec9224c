//! What a comparison came to.

use std::collections::BTreeMap;
use std::fmt;

/// What was found, counted; the first few of each kind of mistake in words.
#[derive(Debug, Default)]
pub struct Account {
    /// Transactions whose commit returned success, and their mails.
    pub committed: (usize, usize),
    /// Transactions that were rolled back, and all mails that must not arrive.
    pub rolled_back: (usize, usize),
    /// Transactions whose producer died in the commit, and their mails.
    pub in_doubt: (usize, usize),
    /// Those of them that turned out committed.
    pub in_doubt_committed: usize,
    /// Copies that arrived, by recipient.
    pub copies: usize,
    /// Second and further ones of them.
    pub second_copies: usize,
    /// Possible-duplicate events.
    pub announced: usize,
    /// How many messages these events are about, one counted for each attempt.
    pub announced_messages: usize,
    /// How many messages were in flight at most when processors were killed.
    pub at_risk: u64,
    /// Everything that must not be.
    pub mistakes: BTreeMap<Mistake, Vec<String>>,
}

/// A promise that was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mistake {
    /// A committed mail did not arrive.
    Lost,
    /// A mail arrived that was rolled back.
    Phantom,
    /// Of a transaction some mails arrived and some did not.
    Half,
    /// A second copy without an event before it.
    Unannounced,
    /// A second copy although the processor that sent the first lives.
    Double,
    /// More events than messages can have been in flight.
    TooManyEvents,
    /// A copy whose bytes or recipients are not those that were handed over, or an event that says so.
    Damaged,
    /// The log does not tell that a mail was sent, or tells it twice.
    BadLog,
}

impl Mistake {
    /// Every kind.
    pub const ALL: [Self; 8] = [
        Self::Lost,
        Self::Phantom,
        Self::Half,
        Self::Unannounced,
        Self::Double,
        Self::TooManyEvents,
        Self::Damaged,
        Self::BadLog,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Phantom => "sent after rollback",
            Self::Half => "half transactions",
            Self::Unannounced => "second copies not announced",
            Self::Double => "sent twice by the living",
            Self::TooManyEvents => "more events than in flight",
            Self::Damaged => "damaged",
            Self::BadLog => "not told of rightly",
        }
    }
}

impl Account {
    /// How many of a kind are told in full.
    const TOLD: usize = 5;

    pub(super) fn mistake(&mut self, mistake: Mistake, text: String) {
        self.mistakes.entry(mistake).or_default().push(text);
    }

    /// How often this went wrong.
    #[must_use]
    pub fn count(&self, mistake: Mistake) -> usize {
        self.mistakes.get(&mistake).map_or(0, Vec::len)
    }

    /// Whether every promise was kept.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.mistakes.is_empty()
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut transactions = |what: &str, (count, mails): (usize, usize), more: &str| {
            writeln!(f, "  {what:<28} {count:>7} transactions, {mails:>7} mails{more}")
        };
        transactions("committed", self.committed, "")?;
        transactions("rolled back", self.rolled_back, "")?;
        let more = format!(", {} turned out committed", self.in_doubt_committed);
        transactions("killed in the commit", self.in_doubt, &more)?;
        let announced = format!("{} messages", self.announced_messages);
        writeln!(f, "  {:<28} {:>7}", "copies received", self.copies)?;
        writeln!(f, "  {:<28} {:>7}", "second copies", self.second_copies)?;
        let bound = format!("about {announced}, at most {} were in flight", self.at_risk);
        writeln!(f, "  {:<28} {:>7} {bound}", "possible-duplicate events", self.announced)?;
        for mistake in Mistake::ALL {
            writeln!(f, "  {:<28} {:>7}", mistake.name(), self.count(mistake))?;
            for text in self.mistakes.get(&mistake).into_iter().flatten().take(Self::TOLD) {
                writeln!(f, "      {text}")?;
            }
        }
        Ok(())
    }
}
