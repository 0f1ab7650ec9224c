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
    /// Rows that are in the database, if there is one.
    pub rows: Option<usize>,
    /// Mails that were discarded as rolled back, if there is a database.
    pub discarded: usize,
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
    /// A transaction was told to be committed, and its rows are not there.
    LostRow,
    /// A row is there that was rolled back, or that nobody inserted.
    PhantomRow,
    /// Of a transaction some rows are there and some are not.
    HalfRows,
    /// The rows are there, and a mail did not arrive.
    RowWithoutMail,
    /// A mail arrived, and the rows are not there.
    MailWithoutRow,
    /// The marker of a mail was never removed.
    MarkerLeft,
    /// A mail was discarded whose transaction committed.
    WrongDiscard,
}

impl Mistake {
    /// Every kind that there is without a database.
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

    /// Those that there are with a database as well.
    pub const WITH_ROWS: [Self; 7] = [
        Self::LostRow,
        Self::PhantomRow,
        Self::HalfRows,
        Self::RowWithoutMail,
        Self::MailWithoutRow,
        Self::MarkerLeft,
        Self::WrongDiscard,
    ];

    /// What it is called in a ledger.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Phantom => "sent after rollback",
            Self::Half => "half transactions",
            Self::Unannounced => "second copies not announced",
            Self::Double => "sent twice by the living",
            Self::TooManyEvents => "more events than in flight",
            Self::Damaged => "damaged",
            Self::BadLog => "not told of rightly",
            Self::LostRow => "rows lost",
            Self::PhantomRow => "rows after rollback",
            Self::HalfRows => "half of the rows",
            Self::RowWithoutMail => "rows without their mail",
            Self::MailWithoutRow => "mails without their rows",
            Self::MarkerLeft => "markers left",
            Self::WrongDiscard => "discarded though committed",
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
        let mut mistakes = Mistake::ALL.to_vec();
        if let Some(rows) = self.rows {
            writeln!(f, "  {:<28} {rows:>7}", "rows in the database")?;
            writeln!(f, "  {:<28} {:>7}", "discarded as rolled back", self.discarded)?;
            mistakes.extend(Mistake::WITH_ROWS);
        }
        for mistake in mistakes {
            writeln!(f, "  {:<28} {:>7}", mistake.name(), self.count(mistake))?;
            for text in self.mistakes.get(&mistake).into_iter().flatten().take(Self::TOLD) {
                writeln!(f, "      {text}")?;
            }
        }
        Ok(())
    }
}
