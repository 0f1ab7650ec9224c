//! What a database holds when everything is over, compared with what producers were told to do and with
//! what arrived. The truth about a transaction is in its rows.

use std::collections::HashSet;

use super::arrived::Arrived;
use super::{Account, Entry, Fate, Mistake};
use crate::plan::{Mail, marker_of};

/// What is left in the database, and what was discarded in the queue.
#[derive(Debug, Default)]
pub struct Rest {
    /// The keys of the rows.
    pub rows: Vec<String>,
    /// How many markers of mails there are.
    pub mail_markers: usize,
    /// The Message-IDs of what was discarded as rolled back; none for what was never written whole. Had
    /// that been committed, its rows would be without their mail.
    pub discarded: Vec<Option<String>>,
}

/// What the rows of a transaction say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// All are there.
    Committed,
    /// None is there.
    RolledBack,
    /// Neither: only a broken database does that.
    Half,
}

/// Compares what is left with all transactions.
pub(super) fn compare<'a>(
    entries: impl Iterator<Item = &'a Entry>,
    rest: &Rest,
    arrived: &Arrived<'_>,
    account: &mut Account,
) {
    let mut left: HashSet<&str> = rest.rows.iter().map(String::as_str).collect();
    let whole: Vec<&str> = rest.discarded.iter().flatten().map(String::as_str).collect();
    let discarded: HashSet<&str> = whole.iter().copied().filter_map(marker_of).collect();
    account.rows = Some(rest.rows.len());
    account.discarded = rest.discarded.len();
    if discarded.len() < whole.len() {
        let text =
            format!("of {} that were discarded some are unknown or there twice", whole.len());
        account.mistake(Mistake::Damaged, text);
    }
    if rest.mail_markers > 0 {
        let text = format!("{} markers of mails", rest.mail_markers);
        account.mistake(Mistake::MarkerLeft, text);
    }
    for entry in entries {
        let verdict = judge(entry, &left, account);
        compare_mails(entry, verdict, arrived, account);
        check_discarded(entry, verdict, &discarded, account);
        for row in &entry.plan.rows {
            left.remove(row.key.as_str());
        }
    }
    for key in left {
        account.mistake(Mistake::PhantomRow, format!("{key}, which nobody inserted"));
    }
}

/// Whether the transaction committed, and whether it may have.
fn judge(entry: &Entry, there: &HashSet<&str>, account: &mut Account) -> Verdict {
    let (number, fate) = (entry.plan.number, entry.fate());
    for row in entry.plan.rows.iter().filter(|row| row.undone) {
        if there.contains(row.key.as_str()) {
            let text = format!("{}: its savepoint was rolled back", row.key);
            account.mistake(Mistake::PhantomRow, text);
        }
    }
    let kept = entry.plan.kept_rows().count();
    let found = entry.plan.kept_rows().filter(|row| there.contains(row.key.as_str())).count();
    let verdict = match found {
        0 => Verdict::RolledBack,
        _ if found == kept => Verdict::Committed,
        _ => Verdict::Half,
    };
    let text = format!("transaction {number}, {fate:?}: {found} of {kept} rows are there");
    match (fate, verdict) {
        (_, Verdict::Half) => account.mistake(Mistake::HalfRows, text),
        (Fate::Committed, Verdict::RolledBack) => account.mistake(Mistake::LostRow, text),
        (Fate::RolledBack, Verdict::Committed) => account.mistake(Mistake::PhantomRow, text),
        _ => {}
    }
    verdict
}

/// A mail arrived if and only if the rows are there.
fn compare_mails(entry: &Entry, verdict: Verdict, arrived: &Arrived<'_>, account: &mut Account) {
    let fate = entry.fate();
    for Mail { marker, .. } in entry.plan.kept() {
        let text = format!("{marker} of transaction {}, {fate:?}", entry.plan.number);
        match (verdict, arrived.has(marker)) {
            (Verdict::RolledBack, true) => account.mistake(Mistake::MailWithoutRow, text),
            (Verdict::Committed | Verdict::Half, false) => {
                account.mistake(Mistake::RowWithoutMail, text);
            }
            _ => {}
        }
    }
}

/// What is sent is not discarded.
fn check_discarded(
    entry: &Entry,
    verdict: Verdict,
    discarded: &HashSet<&str>,
    account: &mut Account,
) {
    for mail in entry.plan.kept().filter(|_| verdict != Verdict::RolledBack) {
        if discarded.contains(mail.marker.as_str()) {
            let text = format!("{}, and its rows are there", mail.marker);
            account.mistake(Mistake::WrongDiscard, text);
        }
    }
}
