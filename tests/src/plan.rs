//! What a producer is told to do: the same data in the ledger and on the producer's standard input.

use fastrand::Rng;
use serde::{Deserialize, Serialize};

/// The domain of the Message-IDs by which mails are recognised.
const DOMAIN: &str = "crash.test";

/// One transaction.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Plan {
    /// Which one.
    pub number: u64,
    /// Its mails.
    pub mails: Vec<Mail>,
    /// Its rows: none where there is no database.
    pub rows: Vec<Row>,
    /// Whether what is kept goes through savepoints as well, which are released.
    pub nested: bool,
    /// Whether it is a transaction of a database that tells what its commit came to.
    pub honest: bool,
    /// How it ends.
    pub ending: Ending,
}

/// How a transaction ends, if its process lives that long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ending {
    /// It commits.
    Commit,
    /// It aborts before anything is prepared; in a database: it rolls back.
    Abort,
    /// It commits, and another participant votes no; in a database: a statement of it fails, and it is
    /// dropped.
    Refused,
    /// It aborts when its mail is prepared already; in a database: it is dropped, for no reason.
    AbortPrepared,
}

/// One mail.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Mail {
    /// What it is recognised by, wherever it turns up.
    pub marker: String,
    /// Who gets it.
    pub recipients: Vec<String>,
    /// How many bytes it has, if that is not less than its header takes.
    pub length: usize,
    /// Whether it is taken back by rolling back to a savepoint.
    pub undone: bool,
}

/// One row.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Row {
    /// Its key.
    pub key: String,
    /// Whether it is taken back by rolling back to a savepoint.
    pub undone: bool,
}

/// Something that a transaction in a database does.
#[derive(Debug, Clone, Copy)]
pub enum Item<'a> {
    /// It inserts a row.
    Row(&'a Row),
    /// It attaches a mail.
    Mail(&'a Mail),
}

impl Item<'_> {
    /// Whether it is taken back by rolling back to a savepoint.
    #[must_use]
    pub fn undone(&self) -> bool {
        match self {
            Self::Row(row) => row.undone,
            Self::Mail(mail) => mail.undone,
        }
    }
}

impl Plan {
    /// A transaction of 1 to 5 mails, of which about a third rolls back.
    #[must_use]
    pub fn draw(number: u64, random: &mut Rng) -> Self {
        let ending = match random.u8(0..12) {
            0 | 1 => Ending::Abort,
            2 => Ending::Refused,
            3 => Ending::AbortPrepared,
            _ => Ending::Commit,
        };
        let with_savepoint = random.u8(0..5) == 0;
        let count = if random.bool() { 1 } else { random.u64(2..=5) };
        let mails = (0..count).map(|index| {
            let undone = with_savepoint && index > 0 && random.bool();
            let long = random.u8(0..20) == 0;
            let to = if random.u8(0..4) == 0 { random.u8(2..=3) } else { 1 };
            Mail {
                marker: format!("t{number}-m{index}"),
                recipients: (0..to).map(|n| format!("r{n}@example.net")).collect(),
                length: random.usize(..if long { 60_000 } else { 1500 }),
                undone,
            }
        });
        Self::of_mails(number, mails.collect(), ending)
    }

    /// A transaction with these mails and nothing else.
    #[must_use]
    pub fn of_mails(number: u64, mails: Vec<Mail>, ending: Ending) -> Self {
        Self { number, mails, rows: Vec::new(), nested: false, honest: false, ending }
    }

    /// The same with 1 to 3 rows, for a database.
    #[must_use]
    pub fn draw_with_rows(number: u64, random: &mut Rng) -> Self {
        let mut plan = Self::draw(number, random);
        let with_savepoint = random.u8(0..5) == 0;
        let rows = (0..random.u64(1..=3)).map(|index| Row {
            key: format!("t{number}-r{index}"),
            undone: with_savepoint && index > 0 && random.bool(),
        });
        plan.rows = rows.collect();
        plan.nested = random.u8(0..5) == 0;
        plan.honest = random.u8(0..4) == 0;
        plan
    }

    /// What it does in a database, in this order: rows and mails in turn.
    #[must_use]
    pub fn items(&self) -> Vec<Item<'_>> {
        let (mut rows, mut mails) = (self.rows.iter(), self.mails.iter());
        let mut items = Vec::with_capacity(rows.len() + mails.len());
        while rows.len() + mails.len() > 0 {
            items.extend(rows.next().map(Item::Row));
            items.extend(mails.next().map(Item::Mail));
        }
        items
    }

    /// The rows that are there if it commits.
    pub fn kept_rows(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| !row.undone)
    }

    /// The mails that are sent if it commits.
    pub fn kept(&self) -> impl Iterator<Item = &Mail> {
        self.mails.iter().filter(|mail| !mail.undone)
    }
}

impl Mail {
    /// Its bytes on the wire, the same for every copy.
    #[must_use]
    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!(
            "From: Shop <shop@example.org>\r\nTo: {}\r\nSubject: {}\r\nMessage-ID: {}\r\n\
             Date: Tue, 24 Nov 2026 07:08:55 +0000\r\n\r\n",
            self.recipients.join(", "),
            self.marker,
            message_id(&self.marker)
        );
        // Lines that start with dots, or are nothing but a dot, are the ones that get lost.
        let end = ".\r\n..\r\nthe end\r\n";
        let mut random = Rng::with_seed(self.length as u64);
        while let left @ 2.. = self.length.saturating_sub(text.len() + end.len()) {
            let room = random.usize(2..76).min(left);
            // One byte left over would be no line.
            let room = if left - room == 1 { left } else { room };
            let dots = ".".repeat(random.usize(0..3).min(room - 2));
            let fill = "x".repeat(room - 2 - dots.len());
            text.push_str(&format!("{dots}{fill}\r\n"));
        }
        text.push_str(end);
        text.into_bytes()
    }
}

/// The Message-ID of the mail with this marker.
#[must_use]
pub fn message_id(marker: &str) -> String {
    format!("<{marker}@{DOMAIN}>")
}

/// The marker of the mail with this Message-ID, if it is one of ours.
#[must_use]
pub fn marker_of(message_id: &str) -> Option<&str> {
    message_id.strip_prefix('<')?.strip_suffix('>')?.strip_suffix(DOMAIN)?.strip_suffix('@')
}

/// The marker of a mail, by its header.
#[must_use]
pub fn marker_in(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let header = text.split("\r\n\r\n").next()?;
    let line = header.lines().find_map(|line| line.strip_prefix("Message-ID: "))?;
    marker_of(line.trim()).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mail_is_recognised_by_its_bytes_and_by_its_message_id() {
        let mut random = Rng::with_seed(1);
        for number in 0..50 {
            for mail in Plan::draw(number, &mut random).mails {
                assert_eq!(marker_in(&mail.bytes()).as_deref(), Some(mail.marker.as_str()));
                assert_eq!(marker_of(&message_id(&mail.marker)), Some(mail.marker.as_str()));
            }
        }
        assert_eq!(marker_of("<a@example.org>"), None);
    }

    #[test]
    fn a_mail_is_as_long_as_it_should_be() {
        for length in (400..600).chain([1024, 10_000]) {
            let (marker, recipients) = ("t1".to_owned(), vec!["a@example.net".to_owned()]);
            let mail = Mail { marker, recipients, length, undone: false };
            assert_eq!(mail.bytes().len(), length);
        }
    }

    #[test]
    fn the_first_mail_of_a_transaction_is_never_undone() {
        let mut random = Rng::with_seed(2);
        assert!((0..500).all(|number| Plan::draw(number, &mut random).kept().next().is_some()));
    }

    #[test]
    fn a_transaction_in_a_database_has_rows_and_does_everything_once() {
        let mut random = Rng::with_seed(3);
        let plans: Vec<Plan> = (0..500).map(|n| Plan::draw_with_rows(n, &mut random)).collect();
        for plan in &plans {
            assert!(plan.kept_rows().next().is_some() && plan.rows.len() <= 3);
            assert_eq!(plan.items().len(), plan.rows.len() + plan.mails.len());
        }
        let undone = |plan: &Plan, mail| {
            let is_mail = |item: &Item<'_>| matches!(item, Item::Mail(_));
            plan.items().iter().any(|item| item.undone() && is_mail(item) == mail)
        };
        assert!([true, false].into_iter().all(|mail| plans.iter().any(|plan| undone(plan, mail))));
        let rolled_back = plans.iter().filter(|plan| plan.ending != Ending::Commit).count();
        assert!((120..220).contains(&rolled_back), "about a third rolls back: {rolled_back}");
    }
}
