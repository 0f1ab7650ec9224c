//! What must hold on every disk that a power cut may leave.

use super::cut::Model;
use super::history::SCRIPTS;
use super::search::{Found, Known, Recording, Search, search};

/// A search of the size that every run can afford.
const SHORT: Search = Search {
    model: Model::Whole,
    limit: 16,
    seed: 0x5eed,
    again: Some((2, 200)),
    until_found: false,
};

/// Searches all histories, and prints what it has looked at.
fn search_all(how: Search) -> Vec<String> {
    let mut violations = Vec::new();
    println!("{how:?}");
    println!(
        "| history | operations N | cuts | disks | disks of cuts in a recovery | violations |"
    );
    println!("|---|---|---|---|---|---|");
    for script in &SCRIPTS {
        let recording = Recording::of(script);
        let found = search(&recording, &recording.steps, how, &mut Known::new());
        let Found { cuts, disks, again, .. } = found;
        let (name, operations, count) =
            (script.name, recording.operations(), found.violations.len());
        println!("| {name} | {operations} | {cuts} | {disks} | {again} | {count} |");
        violations.extend(found.violations);
    }
    violations
}

// Proves: I1, I2, I3, I4, I5, I6, I8, I9, I10, I20
// Proves: F-write-power, F-prepare-power, F-window-power, F-decide-power, F-publish-power
// Proves: F-claim-power, F-send-power, F-dot-power, F-record-power, F-unlink-power
#[test]
fn no_power_cut_loses_or_invents_a_mail() {
    let violations = search_all(SHORT);
    assert!(
        violations.is_empty(),
        "{} violations, the first:\n{}",
        violations.len(),
        violations[0]
    );
}

/// The control: a disk that tears renames apart is not one that the queue can live on, and the search
/// must see that.
#[test]
fn a_disk_that_tears_renames_is_found_to_lose_mail() {
    let torn = Search { model: Model::Torn, again: None, ..SHORT };
    for name in ["one message", "several messages", "database"] {
        let script = SCRIPTS.iter().find(|script| script.name == name).unwrap();
        let recording = Recording::of(script);
        let found = search(&recording, &recording.steps, torn, &mut Known::new());
        let lost = found.violations.iter().any(|what| what.contains("lost"));
        assert!(lost, "{name}: {:?}", found.violations);
    }
}
