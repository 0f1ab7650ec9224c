//! What must hold on every disk that a power cut may leave.

use std::collections::BTreeMap;

use super::cut::Model;
use super::mutations::{Finding, Line, Mutation, TABLE, is_in, mutate, sites};
use super::scripts::SCRIPTS;
use super::search::{Found, Known, Recording, Search, search, search_beyond};
use super::{chosen, is_long};

/// A search of the size that every run can afford.
const SHORT: Search = Search {
    model: Model::Whole,
    limit: 16,
    seed: 0x5eed,
    again: Some((2, 200)),
    until_found: false,
};

/// The same as far as it goes.
fn how() -> Search {
    if is_long() { Search { limit: 4096, again: Some((64, 10)), ..SHORT } } else { SHORT }
}

/// Searches all histories, and prints what it has looked at.
fn search_all(how: Search) -> Vec<String> {
    let mut violations = Vec::new();
    println!("{how:?}");
    println!(
        "| history | operations N | cuts | disks | disks of cuts in a recovery | violations |"
    );
    println!("|---|---|---|---|---|---|");
    for script in chosen() {
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
    none(&search_all(how()));
}

/// As btrfs does when it replays its log.
// Proves: I2, I3, I8
#[test]
fn an_old_name_that_a_power_cut_leaves_does_no_harm() {
    none(&search_all(Search { model: Model::TwoNames, again: None, ..how() }));
}

fn none(violations: &[String]) {
    let first = violations.first().map_or("", String::as_str);
    assert!(violations.is_empty(), "{} violations, the first:\n{first}", violations.len());
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

/// Every sync that there is in the source has a row in the table, and every row is true: each sync that is
/// taken out, or put off, is found, or there is a reason why nothing is.
// Proves: I3, I4, I8, I17
#[test]
fn every_sync_is_needed_where_it_is() {
    let sites = sites();
    let mut labels: Vec<&str> = sites.values().map(String::as_str).collect();
    labels.sort_unstable();
    let mut rows: Vec<&str> = TABLE.iter().map(|(label, ..)| *label).collect();
    rows.sort_unstable();
    assert_eq!(labels, rows, "every sync needs a row, and every row a sync");
    let recordings: BTreeMap<&str, Recording> =
        SCRIPTS.iter().map(|script| (script.name, Recording::of(script))).collect();
    println!(
        "| sync | taken out or late | found in | disks | what is wrong then |\n|---|---|---|---|---|"
    );
    let mut untrue = Vec::new();
    for (label, without, late) in TABLE {
        let site = sites.iter().find(|(_, name)| name == label).unwrap().0;
        for (mutation, finding) in [(Mutation::Without, without), (Mutation::Late, late)] {
            let (cells, holds) = check_row(&recordings, site, mutation, *finding);
            println!("| {label} | {mutation:?} | {cells} |");
            if !holds {
                untrue.push(format!(
                    "{label}, {mutation:?}: {finding:?} is not what is found: {cells}"
                ));
            }
        }
    }
    assert!(untrue.is_empty(), "{}", untrue.join("\n"));
}

/// Whether a mutation is found where the table says so. That nothing is found elsewhere takes long.
fn check_row(
    recordings: &BTreeMap<&str, Recording>,
    site: &Line,
    mutation: Mutation,
    finding: Finding,
) -> (String, bool) {
    let search = |recording: &Recording, model| {
        let mutated = mutate(&recording.steps, site, mutation);
        search_beyond(recording, &mutated, site, model)
    };
    let first = |what: &str| what.split(';').next().unwrap_or_default().to_owned();
    match finding {
        Finding::In(history, model) => match search(&recordings[history], model) {
            (Some(what), disks) => {
                (format!("{history}, {model:?} | {disks} | {}", first(&what)), true)
            }
            (None, disks) => (format!("nowhere | {disks} | nothing"), false),
        },
        Finding::Outside(why) => (format!("- | - | {why}"), true),
        Finding::No(why) => {
            let mut all = recordings.values().filter(|recording| is_in(&recording.steps, site));
            let reached = all.clone().count() > 0;
            let found = if is_long() {
                all.find_map(|recording| search(recording, Model::Whole).0)
            } else {
                None
            };
            (
                format!("- | - | {why} {}", found.as_deref().map(first).unwrap_or_default()),
                reached && found.is_none(),
            )
        }
    }
}
