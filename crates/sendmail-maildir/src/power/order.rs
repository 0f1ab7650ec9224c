//! The order that the window after the final dot asks for: whoever may get a second copy is announced, and
//! that is durable, before the copy is sent.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use sendmail_core::{MailEventKind, QueueId};

use super::ledger::Ledger;
use super::probe;
use crate::disk::Dir;
use crate::journal::record::Record;
use crate::journal::segment::{Records, START};
use crate::journal::{segment_name, sequences};

/// How often each recipient was announced.
pub(crate) type Announced = BTreeMap<(QueueId, String), u32>;

/// What the journals of the queue at `path` hold: every record that is whole, whether or not readers of the
/// log are shown it yet. An event that was written twice counts once.
pub(crate) fn announced(path: &Path) -> Announced {
    probe::unseen(|| {
        let (mut found, mut seen) = (Announced::new(), HashSet::new());
        let Ok(journal) = Dir::open(&path.join(".journal")) else { return found };
        for sequence in sequences(&journal).unwrap() {
            let file = journal.open_file(&segment_name(sequence), false).unwrap();
            let mut records = Records::new(&file, START, None).unwrap();
            while let Some((record, _)) = records.next_record().unwrap() {
                if let Record::Event(event) = record
                    && event.kind == MailEventKind::PossibleDuplicate
                    && let (Some(id), Some(recipient)) = (event.queue_id, &event.recipient)
                    && seen.insert(*event.id.as_bytes())
                {
                    *found.entry((id, recipient.to_string())).or_default() += 1;
                }
            }
        }
        found
    })
}

/// Who got a copy that had not been announced when it was sent: a disk that may be left at any moment after
/// that holds an announcement for each copy but the first.
pub(crate) fn check(path: &Path, ledger: &Ledger) -> Vec<String> {
    let is_second = |copies: u32| copies > 1;
    let mut served = ledger.accounts.values().flat_map(|account| account.to.values());
    if ledger.is_old || !served.any(|served| is_second(served.copies)) {
        return Vec::new();
    }
    let announced = announced(path);
    let mut wrong = Vec::new();
    for (id, account) in &ledger.accounts {
        for (name, served) in account.to.iter().filter(|(_, served)| is_second(served.copies)) {
            let told = announced.get(&(*id, name.clone())).copied().unwrap_or(0);
            if served.copies > 1 + told {
                let copies = served.copies;
                wrong.push(format!(
                    "copy {copies} of {id} to {name} was sent before it was announced: {told} on the disk"
                ));
            }
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::super::cut::Model;
    use super::super::history::Life;
    use super::super::ledger::Note;
    use super::super::mutations::{Mutation, mutate, sites};
    use super::super::record::Step;
    use super::super::scripts::SCRIPTS;
    use super::super::search::{Known, Recording, Search, search};
    use std::collections::HashSet;

    const UNTIL_FOUND: Search =
        Search { model: Model::Whole, limit: 8, seed: 1, again: None, until_found: true };

    fn takeover() -> Recording {
        Recording::of(SCRIPTS.iter().find(|script| script.name == "takeover").unwrap())
    }

    fn sent_before_announced(recording: &Recording, steps: &[Step]) -> bool {
        let found = search(recording, steps, UNTIL_FOUND, &mut Known::new());
        found.violations.iter().any(|what| what.contains("before it was announced"))
    }

    /// Where the first second copy of a history is, and who gets it.
    fn second_copy(steps: &[Step]) -> (usize, String) {
        let mut first = HashSet::new();
        for (at, step) in steps.iter().enumerate() {
            if let Step::Noted(Note::Copy(id, to)) = step
                && !first.insert((*id, to.clone()))
            {
                return (at, to.clone());
            }
        }
        panic!("there is none");
    }

    /// The judge sees the order: what is announced after the copy is found, though in the end there are as
    /// many announcements as there should be.
    // Proves: I8
    #[test]
    fn a_second_copy_that_is_announced_only_afterwards_is_found() {
        let recording = takeover();
        assert!(!sent_before_announced(&recording, &recording.steps));
        let death = |step: &Step| matches!(step, Step::Noted(Note::Death));
        let mut early = recording.steps.clone();
        let copy = early.remove(second_copy(&early).0);
        // As soon as the first worker is dead.
        let dead = early.iter().position(death).unwrap();
        early.insert(dead + 1, copy);
        assert!(sent_before_announced(&recording, &early));
    }

    /// It is not enough that it was written.
    // Proves: I8
    #[test]
    fn a_second_copy_whose_announcement_is_not_durable_is_found() {
        let recording = takeover();
        let sites = sites();
        let (site, _) =
            sites.iter().find(|(_, name)| name.as_str() == "takeover.rs: write_down").unwrap();
        let mut steps = mutate(&recording.steps, site, Mutation::Without);
        // Before any later sync of the same journal.
        let (at, name) = second_copy(&steps);
        let copy = steps.remove(at);
        let tells = |step: &Step| match step {
            Step::Did(super::super::record::Change::Write { bytes, .. }, _) => {
                bytes.windows(name.len()).any(|part| part == name.as_bytes())
            }
            _ => false,
        };
        let dead = steps.iter().position(|step| matches!(step, Step::Noted(Note::Death))).unwrap();
        let told = dead + steps[dead..].iter().position(tells).unwrap();
        steps.insert(told + 1, copy);
        assert!(sent_before_announced(&recording, &steps));
        // With the sync between the two it is not.
        let whole = &recording.steps;
        let (copy, _) = second_copy(whole);
        assert!(!sent_before_announced(&recording, &whole[..=copy]));
    }

    /// Nor is it enough in a life without a power cut, where nothing is lost.
    // Proves: I8
    #[test]
    fn a_living_queue_is_judged_by_the_order_too() {
        let directory = tempfile::tempdir().unwrap();
        let mut life = Life::new(directory.path());
        let queue = life.start();
        let id = life.send(&queue, &["a@x"]);
        let claim = queue.claim(1).unwrap().claims.remove(0);
        let to = queue.load(&claim).unwrap().envelope.recipients().to_vec();
        life.attempt(id, 1, &to);
        assert_eq!(life.ledger.wrong, [""; 0]);
        life.attempt(id, 1, &to);
        assert!(life.ledger.wrong.iter().any(|what| what.contains("before it was announced")));
    }
}
