//! After the worst has happened: the queue is opened by another process, everything is recovered and
//! delivered, and the books are checked.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use sendmail_core::{EntryState, Error, MailEvent, MailEventKind, QueueId};

use super::history::{LATER, Life};
use super::ledger::{Ledger, Note, event};
use super::order;
use crate::journal::log;
use crate::name::MessageName;
use crate::queue::Queue;
use crate::wishes::Wish;

/// How often a processor looks before it must have found everything.
const ROUNDS: u32 = 8;

/// Recovers, delivers and compares. Returns what is wrong; nothing if all is well.
pub(crate) fn settle_books(life: &mut Life) -> Vec<String> {
    // Before anybody else writes to it.
    let mut late = order::check(&life.path, &life.ledger);
    life.note(Note::Death);
    life.keeps_history = true;
    match settle(life) {
        Ok(mut wrong) => {
            wrong.append(&mut late);
            wrong.append(&mut life.ledger.wrong);
            wrong
        }
        Err(error) => vec![format!("it cannot be recovered: {error}")],
    }
}

fn settle(life: &mut Life) -> Result<Vec<String>, Error> {
    let mut wrong = Vec::new();
    let queue = life.open()?;
    let frozen = queue.is_frozen()?;
    if life.ledger.frozen.is_some_and(|told| told != frozen) {
        wrong.push(format!("the queue is frozen: {frozen}, and the opposite was told"));
    }
    if frozen {
        life.work(&queue)?;
        life.note(Note::Frozen(None));
        queue.set_frozen(false)?;
    }
    life.sweep(&queue)?;
    life.recover(&queue)?;
    life.sweep(&queue)?;
    wrong.extend(check_places(&queue, &life.ledger)?);
    for _ in 0..3 {
        life.drain(&queue, ROUNDS)?;
        life.clock.advance(LATER + Duration::from_secs(1));
        life.sweep(&queue)?;
    }
    // More than once: an operator's wish that a crash brought back is honoured again.
    for _ in 0..3 {
        for id in list(&queue, EntryState::Held)?.into_keys() {
            life.note(Note::Held(id, Some(false)));
            queue.act(id, Wish::Retry, &[EntryState::Held])?;
        }
        life.drain(&queue, ROUNDS)?;
        life.clock.advance(LATER + Duration::from_secs(1));
    }
    life.drain(&queue, ROUNDS)?;
    let events = read_log(&queue)?;
    wrong.extend(check_books(&queue, &life.ledger, &events)?);
    Ok(wrong)
}

/// Each message is in one place, and what is owed is in the queue.
fn check_places(queue: &Queue, ledger: &Ledger) -> Result<Vec<String>, Error> {
    let mut wrong = Vec::new();
    let mut places: BTreeMap<QueueId, Vec<EntryState>> = BTreeMap::new();
    for state in [EntryState::Queued, EntryState::Claimed, EntryState::Deferred, EntryState::Held] {
        for (id, count) in list(queue, state)? {
            places.entry(id).or_default().extend((0..count).map(|_| state));
        }
    }
    for entry in queue.undecided()? {
        wrong.push(format!("{} is undecided for good", entry.id));
        places.entry(entry.id).or_default().push(EntryState::Staged);
    }
    let failed = list(queue, EntryState::Failed)?;
    for (id, account) in &ledger.accounts {
        let place = places.get(id).map_or(&[][..], Vec::as_slice);
        if place.len() > 1 {
            wrong.push(format!("{id} is in several places: {place:?}"));
        }
        let given_up = account.gives_up && failed.contains_key(id);
        if account.is_owed() && account.is_untouched() && place.is_empty() && !given_up {
            wrong.push(format!("{id} is lost: it was committed, and is in no place"));
        }
        if account.is_off() && !place.is_empty() {
            wrong.push(format!("{id} was rolled back, and waits as {place:?}"));
        }
    }
    Ok(wrong)
}

/// Each recipient got what was promised, and not more than was announced.
fn check_books(queue: &Queue, ledger: &Ledger, log: &[MailEvent]) -> Result<Vec<String>, Error> {
    let mut wrong = Vec::new();
    let mut announced: BTreeMap<(QueueId, String), u32> = BTreeMap::new();
    for told in log.iter().filter(|event| event.kind == MailEventKind::PossibleDuplicate) {
        if let (Some(id), Some(recipient)) = (told.queue_id, &told.recipient) {
            *announced.entry((id, recipient.to_string())).or_default() += 1;
        }
    }
    let kept = failed_recipients(queue)?;
    let failed = list(queue, EntryState::Failed)?;
    for (id, account) in &ledger.accounts {
        for (name, served) in &account.to {
            let told = announced.get(&(*id, name.clone())).copied().unwrap_or(0);
            if served.copies > 1 + told {
                let copies = served.copies;
                wrong.push(format!("{copies} copies of {id} to {name}, {told} announced"));
            }
            if served.copies > 1 && account.gives_up {
                wrong.push(format!("{id} was sent twice to {name}, against its policy"));
            }
            if told > ledger.deaths {
                wrong.push(format!(
                    "{told} announcements of {id} to {name}, by {} deaths",
                    ledger.deaths
                ));
            }
            let is_told = log.iter().any(|told| {
                let about = told.recipient.as_ref().map(ToString::to_string);
                let kinds = [MailEventKind::Sent, MailEventKind::PossibleDuplicate];
                kinds.contains(&told.kind)
                    && told.queue_id == Some(*id)
                    && about.as_ref() == Some(name)
            });
            if account.is_owed() && served.copies > 0 && !is_told && !ledger.is_old {
                wrong.push(format!("{id} was sent to {name}, and the log does not tell"));
            }
            let is_kept = kept.contains(&(*id, name.clone()));
            let given_up = account.gives_up && told > 0 && is_kept;
            if account.is_owed() && served.copies == 0 && !served.refused && !given_up {
                wrong.push(format!("{id} to {name} is lost"));
            }
            if account.is_owed() && served.refused && !is_kept {
                wrong.push(format!("{id} to {name} failed and was not kept"));
            }
        }
        if account.spoiled && account.is_untouched() && !failed.contains_key(id) {
            wrong.push(format!("{id} was damaged, and is not kept with the failed mail"));
        }
        let group = ledger.accounts.values().filter(|other| other.group == account.group);
        if !account.is_untouched() && group.into_iter().any(|other| other.is_untouched()) {
            wrong.push(format!("half a transaction: {id} was sent, another of it was not"));
        }
    }
    let known: std::collections::BTreeSet<_> = log.iter().map(event).collect();
    for told in ledger.events.difference(&known) {
        wrong.push(format!("an event was told and is not in the log: {told:?}"));
    }
    // What the disk fails at stays where it is, and is told of by the same kind of event.
    let is_given_up = |event: &&MailEvent| {
        let why = event.detail.as_deref().unwrap_or_default();
        event.kind == MailEventKind::Damaged && !why.contains("cannot be read")
    };
    for damaged in log.iter().filter(is_given_up) {
        let account = damaged.queue_id.and_then(|id| ledger.accounts.get(&id));
        if account.is_some_and(super::ledger::Account::is_owed) {
            wrong.push(format!("damaged, and it was committed: {:?}", damaged.queue_id));
        }
    }
    for entry in queue.undecided()? {
        wrong.push(format!("{} is undecided for good", entry.id));
    }
    Ok(wrong)
}

/// How many files there are of each message in a state.
fn list(queue: &Queue, state: EntryState) -> Result<BTreeMap<QueueId, usize>, Error> {
    let mut found = BTreeMap::new();
    let mut each = |_: &crate::disk::Dir, file: &[u8], _| {
        if let Some(name) = MessageName::decode(file) {
            *found.entry(name.id).or_default() += 1;
        }
        Ok(ControlFlow::Continue(()))
    };
    let listed = queue.for_each_file(state, &mut each);
    listed.map_err(|error| Error::io("list the queue", error)).map(|_| found)
}

/// For whom there is something with the failed mail.
fn failed_recipients(
    queue: &Queue,
) -> Result<std::collections::BTreeSet<(QueueId, String)>, Error> {
    let mut found = std::collections::BTreeSet::new();
    let mut each = |dir: &crate::disk::Dir, file: &[u8], _| {
        if let Some(name) = MessageName::decode(file)
            && let Ok(content) = queue.read_message(dir, file, name)
        {
            let recipients = content.loaded.envelope.recipients();
            found.extend(recipients.iter().map(|recipient| (name.id, recipient.to_string())));
        }
        Ok(ControlFlow::Continue(()))
    };
    let listed = queue.for_each_file(EntryState::Failed, &mut each);
    listed.map_err(|error| Error::io("list the queue", error)).map(|_| found)
}

fn read_log(queue: &Queue) -> Result<Vec<MailEvent>, Error> {
    let mut events = Vec::new();
    let mut cursor = None;
    loop {
        let page = log::read(&queue.layout.journal, cursor.as_ref(), 1000)?;
        let Some((last, _)) = page.events.last() else { return Ok(events) };
        cursor = Some(last.clone());
        events.extend(page.events.into_iter().map(|(_, event)| event));
    }
}
