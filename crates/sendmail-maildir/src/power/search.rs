//! The search through all power cuts of a history.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::Path;
use std::time::Duration;

use sendmail_core::{Clock as _, Timestamp};
use sendmail_testkit::ManualClock;
use uuid::Uuid;

use super::cut::{Cut, Model, random};
use super::history::Life;
use super::image::Image;
use super::judge::settle_books;
use super::ledger::Ledger;
use super::mutations::Line;
use super::record::{Recorder, Step};
use super::scripts::Script;
use super::{Progress, place, probe};

/// A history that was lived without any trouble.
pub(crate) struct Recording {
    pub(crate) name: &'static str,
    pub(crate) base: Image,
    pub(crate) steps: Vec<Step>,
    /// When it ended.
    ended: Timestamp,
}

impl Recording {
    pub(crate) fn of(script: &Script) -> Self {
        let directory = tempfile::tempdir_in(place()).unwrap();
        let path = directory.path();
        let mut life = Life::new(path);
        if !script.from_nothing {
            // Not killed, so that nothing is left of it.
            life.open().unwrap().close();
        }
        probe::record(Recorder::begin(path).unwrap());
        let first = life.open().unwrap();
        script.run(&mut life, first);
        let recorder = probe::recorded().unwrap();
        assert_eq!(life.ledger.wrong, Vec::<String>::new(), "{}", script.name);
        Self {
            name: script.name,
            base: recorder.base,
            steps: recorder.steps,
            ended: life.clock.now(),
        }
    }

    /// How many operations there are in it.
    pub(crate) fn operations(&self) -> usize {
        self.steps.iter().filter(|step| matches!(step, Step::Did(..))).count()
    }
}

/// How it is searched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Search {
    pub(crate) model: Model,
    /// How many disks of one cut are looked at, at most.
    pub(crate) limit: usize,
    pub(crate) seed: u64,
    /// How many disks of each cut of a recovery are looked at, and of which part of the recoveries: one
    /// in so many.
    pub(crate) again: Option<(usize, u64)>,
    /// Whether the first violation ends it.
    pub(crate) until_found: bool,
}

/// What came of a search.
#[derive(Debug, Default)]
pub(crate) struct Found {
    /// After how many operations the power was cut.
    pub(crate) cuts: usize,
    /// Cuts of which not all disks were looked at.
    pub(crate) sampled: usize,
    /// Different disks, with what was promised until then.
    pub(crate) disks: usize,
    /// The same for cuts during a recovery.
    pub(crate) again: usize,
    pub(crate) violations: Vec<String>,
}

/// What was found out about a disk together with a ledger.
pub(crate) type Known = HashMap<u64, bool>;

/// Cuts the power after every step, and looks at the disks that may be left.
pub(crate) fn search(
    recording: &Recording,
    steps: &[Step],
    how: Search,
    known: &mut Known,
) -> Found {
    let directory = tempfile::tempdir_in(place()).unwrap();
    let mut found = Found::default();
    let mut seed = how.seed;
    let mut ledger = Ledger::default();
    let mut progress = Progress::of(format!("{}, {:?}", recording.name, how.model));
    for count in 0..=steps.len() {
        if let Some(Step::Noted(note)) = count.checked_sub(1).map(|last| &steps[last]) {
            ledger.note(note);
        }
        found.cuts += 1;
        let cut = Cut::new(&recording.base, &steps[..count], how.model);
        let (disks, all) = cut.disks(how.limit, &mut seed);
        found.sampled += usize::from(!all);
        for disk in disks {
            let key = key(&disk, &ledger);
            if known.contains_key(&key) {
                continue;
            }
            found.disks += 1;
            progress.tell(|| {
                let (all, wrong) = (steps.len() + 1, found.violations.len());
                let Found { cuts, disks, again, .. } = &found;
                format!(
                    "cut {cuts} of {all}, {disks} disks, {again} of cuts again, {wrong} violations"
                )
            });
            let again = how.again.filter(|(_, part)| random(&mut seed).is_multiple_of(*part));
            let path = directory.path().join("queue");
            let mut wrong = look(&disk, &ledger, recording.ended, &path, again.is_some());
            if let (Some((limit, _)), Some(recorder)) = (again, probe::recorded()) {
                wrong.extend(cut_again(
                    &recorder,
                    &ledger,
                    recording.ended,
                    limit,
                    &mut seed,
                    &path,
                    &mut found,
                ));
            }
            known.insert(key, wrong.is_empty());
            if !wrong.is_empty() {
                let what = wrong.join("; ");
                let (name, tree) = (recording.name, disk.describe());
                let violation = format!("{name}, cut after step {count}: {what}\n{tree}");
                if !how.until_found && how.model != Model::Torn {
                    // The control has to find some.
                    progress.found(std::slice::from_ref(&violation));
                }
                found.violations.push(violation);
                if how.until_found {
                    return found;
                }
            }
        }
    }
    found
}

/// Cuts the power after every step of a history of which a sync was taken out or put off, and looks at the
/// disks that only this makes possible. Returns what is found first, and how many disks were looked at.
pub(crate) fn search_beyond(
    recording: &Recording,
    mutated: &[Step],
    site: &Line,
    model: Model,
) -> (Option<String>, usize) {
    let directory = tempfile::tempdir_in(place()).unwrap();
    let path = directory.path().join("queue");
    let mut known = Known::new();
    let mut ledger = Ledger::default();
    // The syncs are fewer or later, and everything else is in the same order.
    let mut whole = 0;
    for count in 0..=mutated.len() {
        match count.checked_sub(1).map(|last| &mutated[last]) {
            Some(Step::Noted(note)) => ledger.note(note),
            Some(Step::Did(_, Some(_))) | None => continue,
            Some(Step::Did(_, None)) => {}
        }
        // The whole history up to the same point, with every sync that follows at once.
        whole += recording.steps[whole..].iter().position(|step| !step.is_sync()).unwrap() + 1;
        let synced = recording.steps[whole..].iter().take_while(|step| step.is_sync()).count();
        let before = Cut::new(&recording.base, &recording.steps[..whole + synced], model);
        let late =
            mutated[count..].iter().take_while(|step| step.is_sync() && !step.is_at(site)).count();
        let cut = Cut::new(&recording.base, &mutated[..count + late], model);
        for disk in cut.disks_beyond(&before) {
            if known.insert(key(&disk, &ledger), true).is_some() {
                continue;
            }
            let wrong = look(&disk, &ledger, recording.ended, &path, false);
            if !wrong.is_empty() {
                let found = format!("cut after step {count}: {}", wrong.join("; "));
                return (Some(found), known.len());
            }
        }
    }
    (None, known.len())
}

fn key(disk: &Image, ledger: &Ledger) -> u64 {
    let mut hasher = DefaultHasher::new();
    (disk.digest(), ledger).hash(&mut hasher);
    hasher.finish()
}

/// Opens this disk after the power has come back.
fn look(disk: &Image, ledger: &Ledger, at: Timestamp, path: &Path, record: bool) -> Vec<String> {
    disk.materialise(path).unwrap();
    let boot =
        Uuid::from_bytes([u8::try_from(ledger.deaths).unwrap_or(u8::MAX).saturating_add(2); 16]);
    let mut life = Life::resume(path, ledger.clone(), ManualClock::new(at), boot);
    if record {
        probe::record(Recorder::begin(path).unwrap());
    }
    let wrong = settle_books(&mut life);
    std::fs::remove_dir_all(path).unwrap();
    wrong
}

/// Cuts the power once more during a recovery.
fn cut_again(
    recorder: &Recorder,
    before: &Ledger,
    at: Timestamp,
    limit: usize,
    seed: &mut u64,
    path: &Path,
    found: &mut Found,
) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut ledger = before.clone();
    // The checks are over when everything is delivered, long before this.
    let at = at.saturating_add(Duration::from_secs(600));
    for count in 0..=recorder.steps.len() {
        if let Some(Step::Noted(note)) = count.checked_sub(1).map(|last| &recorder.steps[last]) {
            ledger.note(note);
        }
        let cut = Cut::new(&recorder.base, &recorder.steps[..count], Model::Whole);
        for disk in cut.disks(limit, seed).0 {
            found.again += 1;
            let second = look(&disk, &ledger, at, path, false);
            wrong.extend(second.iter().map(|what| format!("cut again after step {count}: {what}")));
        }
    }
    wrong
}
