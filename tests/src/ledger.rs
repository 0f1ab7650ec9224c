//! The ledger: what producers were told to do and said they had done, compared with what a relay
//! received and what the log tells.

mod account;
mod arrived;
mod rows;

use std::collections::{BTreeMap, HashMap};

use crate::plan::{Ending, Mail, Plan};
use crate::producer::Progress;
use crate::queue::Event;
use crate::relay::{Copy, NEVER};
pub use account::{Account, Mistake};
use arrived::Arrived;
pub use rows::Rest;

/// What became of a transaction, as far as its producer could tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its commit returned success.
    Committed,
    /// It was rolled back, or its process died before its commit was called.
    RolledBack,
    /// Its process died in its commit.
    InDoubt,
}

#[derive(Debug)]
struct Entry {
    plan: Plan,
    progress: Option<Progress>,
}

impl Entry {
    fn fate(&self) -> Fate {
        match self.progress {
            Some(Progress::Committed) => Fate::Committed,
            Some(Progress::Committing | Progress::Uncertain) => Fate::InDoubt,
            Some(Progress::RolledBack) | None => Fate::RolledBack,
        }
    }
}

/// What a processor's life was.
#[derive(Debug, Clone, Default)]
pub struct Life {
    /// When it was killed, in milliseconds since the epoch; nothing if it ended in order.
    pub killed_at_ms: Option<i64>,
    /// How many messages it may have had in flight at once.
    pub in_flight: u64,
}

/// All transactions of a run, and all processors.
#[derive(Debug, Default)]
pub struct Ledger {
    entries: BTreeMap<u64, Entry>,
    processors: HashMap<String, Life>,
}

impl Ledger {
    /// Notes a transaction before its producer is told of it.
    pub fn plan(&mut self, plan: Plan) {
        self.entries.insert(plan.number, Entry { plan, progress: None });
    }

    /// Notes how far a producer has come with it.
    pub fn progress(&mut self, number: u64, progress: Progress) {
        if let Some(entry) = self.entries.get_mut(&number) {
            entry.progress = Some(progress);
        }
    }

    /// Whether this transaction was to commit.
    #[must_use]
    pub fn is_to_commit(&self, number: u64) -> bool {
        self.entries.get(&number).is_some_and(|entry| entry.plan.ending == Ending::Commit)
    }

    /// Notes a processor that begins.
    pub fn begins(&mut self, name: &str, in_flight: u64) {
        self.processors.insert(format!("{name}.test"), Life { killed_at_ms: None, in_flight });
    }

    /// Notes a processor that is about to be killed.
    pub fn is_killed(&mut self, name: &str, at_ms: i64) {
        if let Some(life) = self.processors.get_mut(&format!("{name}.test")) {
            life.killed_at_ms = Some(at_ms);
        }
    }

    /// Compares; also with what is left in the database, if there is one.
    #[must_use]
    pub fn compare(&self, copies: &[Copy], events: &[Event], rest: Option<&Rest>) -> Account {
        let mut account = Account::default();
        let arrived = Arrived::sort(copies, events, &mut account);
        for entry in self.entries.values() {
            entry.compare(&arrived, &mut account);
        }
        for mail in self.entries.values().flat_map(|entry| &entry.plan.mails) {
            arrived.check(mail, &self.processors, &mut account);
        }
        if let Some(rest) = rest {
            rows::compare(self.entries.values(), rest, &arrived, &mut account);
        }
        self.check_strangers(copies, &mut account);
        self.check_events(events, &mut account);
        account
    }

    fn check_strangers(&self, copies: &[Copy], account: &mut Account) {
        let known: HashMap<&str, ()> = self
            .entries
            .values()
            .flat_map(|entry| &entry.plan.mails)
            .map(|mail| (mail.marker.as_str(), ()))
            .collect();
        for copy in copies {
            if copy.marker.as_deref().is_none_or(|marker| !known.contains_key(marker)) {
                account.mistake(Mistake::Damaged, format!("a mail nobody knows: {copy:?}"));
            }
        }
    }

    fn check_events(&self, events: &[Event], account: &mut Account) {
        let duplicates = || events.iter().filter(|event| event.kind == "possible-duplicate");
        account.announced = duplicates().count();
        let mut messages: Vec<_> = duplicates().map(|event| (&event.id, event.attempt)).collect();
        messages.sort_unstable();
        messages.dedup();
        account.announced_messages = messages.len();
        let killed = self.processors.values().filter(|life| life.killed_at_ms.is_some());
        account.at_risk = killed.map(|life| life.in_flight).sum();
        if messages.len() as u64 > account.at_risk {
            let text = format!("{} messages, {} in flight", messages.len(), account.at_risk);
            account.mistake(Mistake::TooManyEvents, text);
        }
        for event in events {
            let refused = event.kind == "failed" && event.recipient == NEVER;
            // What the disk failed at stays and is tried again; whether it is lost shows elsewhere.
            let stays = event.kind == "damaged" && event.detail.contains("cannot be read");
            if !refused && !stays && ["damaged", "failed", "expired"].contains(&event.kind.as_str())
            {
                account.mistake(Mistake::Damaged, format!("{event:?}"));
            }
        }
    }
}

impl Entry {
    fn compare(&self, arrived: &Arrived<'_>, account: &mut Account) {
        let number = self.plan.number;
        let kept: Vec<&Mail> = self.plan.kept().collect();
        let missing: Vec<&str> =
            kept.iter().map(|mail| mail.marker.as_str()).filter(|m| !arrived.has(m)).collect();
        for mail in self.plan.mails.iter().filter(|mail| mail.undone) {
            if arrived.has(&mail.marker) {
                let text = format!("{}: its savepoint was rolled back", mail.marker);
                account.mistake(Mistake::Phantom, text);
            }
        }
        let add = |count: &mut (usize, usize), mails| {
            count.0 += 1;
            count.1 += mails;
        };
        match self.fate() {
            Fate::Committed => {
                add(&mut account.committed, kept.len());
                for marker in missing {
                    account.mistake(Mistake::Lost, format!("{marker} of transaction {number}"));
                }
            }
            Fate::RolledBack => {
                add(&mut account.rolled_back, self.plan.mails.len());
                for mail in kept.iter().filter(|mail| arrived.has(&mail.marker)) {
                    let text = format!("{} ({:?})", mail.marker, self.plan.ending);
                    account.mistake(Mistake::Phantom, text);
                }
            }
            Fate::InDoubt => {
                add(&mut account.in_doubt, kept.len());
                account.in_doubt_committed += usize::from(missing.is_empty());
                if !missing.is_empty() && missing.len() < kept.len() {
                    let text = format!(
                        "transaction {number}: {} of {} missing: {}",
                        missing.len(),
                        kept.len(),
                        missing.join(" ")
                    );
                    account.mistake(Mistake::Half, text);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::{Row, message_id};
    use crate::relay::digest;

    /// Two mails in one transaction, which committed; sent by two processors, the first of which died.
    struct Case {
        ledger: Ledger,
        copies: Vec<Copy>,
        events: Vec<Event>,
        rest: Option<Rest>,
    }

    fn mail(marker: &str) -> Mail {
        let recipients = vec!["a@example.net".to_owned()];
        Mail { marker: marker.to_owned(), recipients, length: 300, undone: false }
    }

    fn copy(marker: &str, client: &str, at_ms: i64) -> Copy {
        let mail = mail(marker);
        let (digest, recipients) = (digest(&mail.bytes()), mail.recipients);
        let client = client.to_owned();
        Copy { marker: Some(mail.marker), recipients, client, at_ms, digest }
    }

    fn event(kind: &str, marker: &str, at_ms: i64) -> Event {
        Event {
            at_ms,
            kind: kind.to_owned(),
            id: marker.to_owned(),
            message_id: message_id(marker),
            recipient: "a@example.net".to_owned(),
            attempt: 1,
            detail: String::new(),
        }
    }

    fn case() -> Case {
        let mut ledger = Ledger::default();
        let mails = vec![mail("one"), mail("two")];
        ledger.plan(Plan::of_mails(1, mails, Ending::Commit));
        ledger.progress(1, Progress::Committed);
        ledger.begins("p1", 2);
        ledger.is_killed("p1", 15);
        ledger.begins("p2", 2);
        let copies = vec![
            copy("one", "p1.test", 10),
            copy("two", "p1.test", 11),
            copy("two", "p2.test", 30),
        ];
        let events = vec![
            event("sent", "one", 12),
            event("possible-duplicate", "two", 20),
            event("sent", "two", 31),
        ];
        Case { ledger, copies, events, rest: None }
    }

    /// The same with two rows, a third that is taken back, and a transaction that was rolled back.
    fn case_with_rows() -> Case {
        let mut case = case();
        let row = |key: &str| Row { key: key.to_owned(), undone: key == "undone" };
        let mut plan = Plan::of_mails(1, vec![mail("one"), mail("two")], Ending::Commit);
        plan.rows = vec![row("a"), row("b"), row("undone")];
        case.ledger.plan(plan);
        case.ledger.progress(1, Progress::Committed);
        let mut plan = Plan::of_mails(2, vec![mail("three")], Ending::Abort);
        plan.rows = vec![row("c")];
        case.ledger.plan(plan);
        let rows = vec!["a".to_owned(), "b".to_owned()];
        let discarded = vec![Some(message_id("three")), None];
        case.rest = Some(Rest { rows, mail_markers: 0, discarded });
        case
    }

    #[track_caller]
    fn check_with_rows(change: impl FnOnce(&mut Case, &mut Rest), wanted: &[Mistake]) {
        let mut case = case_with_rows();
        let mut rest = case.rest.take().unwrap();
        change(&mut case, &mut rest);
        case.rest = Some(rest);
        check_case(&case, wanted);
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Case), wanted: &[Mistake]) {
        let mut case = case();
        change(&mut case);
        check_case(&case, wanted);
    }

    #[track_caller]
    fn check_case(case: &Case, wanted: &[Mistake]) {
        let account = case.ledger.compare(&case.copies, &case.events, case.rest.as_ref());
        let found: Vec<Mistake> = account.mistakes.keys().copied().collect();
        assert_eq!(found, wanted, "{account}");
    }

    #[test]
    fn an_announced_second_copy_after_a_death_is_no_mistake() {
        check(|_| {}, &[]);
    }

    #[test]
    fn every_broken_promise_is_found() {
        check(|case| drop(case.copies.remove(0)), &[Mistake::Lost]);
        check(|case| case.ledger.progress(1, Progress::RolledBack), &[Mistake::Phantom]);
        check(
            |case| {
                case.ledger.progress(1, Progress::Committing);
                case.copies.remove(0);
                case.events.remove(0);
            },
            &[Mistake::Half],
        );
        check(|case| drop(case.events.remove(1)), &[Mistake::Unannounced]);
        check(|case| case.events[1].at_ms = 40, &[Mistake::Unannounced]);
        check(|case| case.copies[2].client = "p1.test".to_owned(), &[Mistake::Double]);
        check(|case| case.ledger.begins("p1", 2), &[Mistake::Double, Mistake::TooManyEvents]);
        check(|case| case.copies[2].digest = 0, &[Mistake::Damaged]);
        check(|case| case.copies[0].marker = None, &[Mistake::Lost, Mistake::Damaged]);
        check(
            |case| case.copies[0].recipients[0].insert(0, 'x'),
            &[Mistake::Lost, Mistake::Damaged, Mistake::BadLog],
        );
        check(|case| drop(case.events.remove(2)), &[Mistake::BadLog]);
        check(|case| case.events.push(event("damaged", "one", 50)), &[Mistake::Damaged]);
    }

    #[test]
    fn a_savepoint_that_was_rolled_back_takes_its_mail_with_it() {
        check(
            |case| {
                let mut mails = vec![mail("one"), mail("two")];
                mails[1].undone = true;
                case.ledger.plan(Plan::of_mails(1, mails, Ending::Commit));
                case.ledger.progress(1, Progress::Committed);
            },
            &[Mistake::Phantom],
        );
    }

    #[test]
    fn rows_and_mails_of_one_transaction_are_no_mistake() {
        check_with_rows(|_, _| {}, &[]);
        check_with_rows(|case, _| case.ledger.progress(1, Progress::Committing), &[]);
        check_with_rows(
            |case, rest| {
                case.ledger.progress(1, Progress::Uncertain);
                (case.copies, case.events, rest.rows) = (Vec::new(), Vec::new(), Vec::new());
                rest.discarded.extend(["one", "two"].map(|marker| Some(message_id(marker))));
            },
            &[],
        );
    }

    #[test]
    fn rows_that_do_not_match_are_found() {
        let all_gone = |case: &mut Case| {
            case.ledger.progress(1, Progress::Committing);
            (case.copies, case.events) = (Vec::new(), Vec::new());
        };
        check_with_rows(|case, _| all_gone(case), &[Mistake::RowWithoutMail]);
        check_with_rows(
            |case, rest| {
                case.ledger.progress(1, Progress::Committing);
                rest.rows.clear();
            },
            &[Mistake::MailWithoutRow],
        );
        check_with_rows(
            |case, _| drop(case.copies.remove(0)),
            &[Mistake::Lost, Mistake::RowWithoutMail],
        );
        check_with_rows(|_, rest| drop(rest.rows.pop()), &[Mistake::HalfRows]);
        check_with_rows(|_, rest| rest.rows.clear(), &[Mistake::LostRow, Mistake::MailWithoutRow]);
        check_with_rows(
            |case, _| case.ledger.progress(1, Progress::RolledBack),
            &[Mistake::Phantom, Mistake::PhantomRow],
        );
        check_with_rows(
            |_, rest| rest.rows.push("c".to_owned()),
            &[Mistake::PhantomRow, Mistake::RowWithoutMail, Mistake::WrongDiscard],
        );
        for stranger in ["undone", "nobody's"] {
            check_with_rows(|_, rest| rest.rows.push(stranger.to_owned()), &[Mistake::PhantomRow]);
        }
    }

    #[test]
    fn what_is_left_in_the_database_and_the_queue_is_found() {
        check_with_rows(|_, rest| rest.mail_markers = 1, &[Mistake::MarkerLeft]);
        check_with_rows(
            |_, rest| rest.discarded.push(Some(message_id("one"))),
            &[Mistake::WrongDiscard],
        );
        check_with_rows(
            |_, rest| rest.discarded.push(Some("<a@example.org>".to_owned())),
            &[Mistake::Damaged],
        );
    }
}
