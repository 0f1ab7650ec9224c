//! What earlier runs found out about mutants.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::mutant::{Mutant, key_of};
use crate::shell::{Failure, Result};

/// What became of a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    /// A test failed.
    Caught,
    /// The tests did not come to an end.
    TimedOut,
    /// It does not compile.
    Unviable,
    /// No test noticed.
    Missed,
}

/// The outcomes of one package's mutants, by what each changes.
#[derive(Debug)]
pub(super) struct Record {
    file: PathBuf,
    outcomes: BTreeMap<String, Outcome>,
}

impl Record {
    /// Reads what is in `file`, or begins anew.
    pub(super) fn open(file: &Path) -> Result<Self> {
        let outcomes = match std::fs::read_to_string(file) {
            Ok(text) => serde_json::from_str(&text).map_err(|error| {
                Failure::new(format!("{}: {error}; delete it to begin anew", file.display()))
            })?,
            Err(_) => BTreeMap::new(),
        };
        Ok(Self { file: file.to_owned(), outcomes })
    }

    pub(super) fn write(&self) -> Result {
        let text = serde_json::to_string_pretty(&self.outcomes).map_err(|error| error.to_string());
        let written = text.and_then(|text| {
            let new = self.file.with_extension("new");
            std::fs::write(&new, text)
                .and_then(|()| std::fs::rename(&new, &self.file))
                .map_err(|error| error.to_string())
        });
        written.map_err(|error| Failure::new(format!("{}: {error}", self.file.display())))
    }

    pub(super) fn of(&self, mutant: &Mutant) -> Option<Outcome> {
        self.outcomes.get(&mutant.key()).copied()
    }

    /// Whether it need not be tried again.
    pub(super) fn is_detected(&self, mutant: &Mutant) -> bool {
        self.of(mutant).is_some_and(|outcome| outcome != Outcome::Missed)
    }

    pub(super) fn note(&mut self, mutant: &Mutant, outcome: Outcome) {
        self.outcomes.insert(mutant.key(), outcome);
    }

    pub(super) fn forget(&mut self, mutants: &[Mutant]) {
        for mutant in mutants {
            self.outcomes.remove(&mutant.key());
        }
    }

    /// Takes up what the last run of cargo-mutants left in `folder`. What it missed may be caught by the
    /// next step's tests, and is not noted yet.
    pub(super) fn take_up(&mut self, folder: &Path) -> Result {
        let Ok(text) = std::fs::read_to_string(folder.join("outcomes.json")) else { return Ok(()) };
        for (diff, outcome) in detected(&text) {
            // The diff may be missing when the run was cut off.
            if let Ok(diff) = std::fs::read_to_string(folder.join(diff)) {
                self.outcomes.insert(key_of(&diff), outcome);
            }
        }
        // So that `--fresh` is not undone by what lies here.
        let _ = std::fs::remove_dir_all(folder);
        self.write()
    }
}

/// The names of the diffs that were detected, and how. What is cut off counts as nothing.
fn detected(json: &str) -> Vec<(String, Outcome)> {
    let read: Value = serde_json::from_str(json).unwrap_or_default();
    let outcomes = read["outcomes"].as_array().map(Vec::as_slice).unwrap_or_default();
    let one = |outcome: &Value| {
        let what = match outcome["summary"].as_str()? {
            "CaughtMutant" => Outcome::Caught,
            "Timeout" => Outcome::TimedOut,
            "Unviable" => Outcome::Unviable,
            _ => return None,
        };
        Some((outcome["diff_path"].as_str()?.to_owned(), what))
    };
    outcomes.iter().filter_map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_detected_is_taken_up_once_and_kept() {
        let folder = std::env::temp_dir().join(format!("record-{}", std::process::id()));
        let out = folder.join("mutants.out");
        std::fs::create_dir_all(out.join("diff")).unwrap();
        let json = r#"{"outcomes": [
            {"scenario": "Baseline", "summary": "Success", "diff_path": null},
            {"scenario": {"Mutant": {}}, "summary": "CaughtMutant", "diff_path": "diff/a"},
            {"scenario": {"Mutant": {}}, "summary": "Timeout", "diff_path": "diff/b"},
            {"scenario": {"Mutant": {}}, "summary": "MissedMutant", "diff_path": "diff/c"},
            {"scenario": {"Mutant": {}}, "summary": "Unviable", "diff_path": "diff/gone"}]}"#;
        std::fs::write(out.join("outcomes.json"), json).unwrap();
        for name in ["a", "b", "c"] {
            let diff = format!("--- f\n+++ {name}\n@@ -1,2 +1,2 @@\n-x\n+y\n");
            std::fs::write(out.join("diff").join(name), diff).unwrap();
        }
        let file = folder.join("record.json");
        let mut record = Record::open(&file).unwrap();
        record.take_up(&out).unwrap();
        assert!(!out.exists());
        record.take_up(&out).unwrap();

        let mutant = |name: &str| Mutant::new(name, &format!("--- f\n+++ {name}\n-x\n+y\n"), "");
        let record = Record::open(&file).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        let found = ["a", "b", "c"].map(|name| record.of(&mutant(name)));
        assert_eq!(found, [Some(Outcome::Caught), Some(Outcome::TimedOut), None]);
        assert_eq!(record.outcomes.len(), 2);
    }

    #[test]
    fn what_was_missed_is_tried_again() {
        let mut record = Record { file: PathBuf::new(), outcomes: BTreeMap::new() };
        let mutant = Mutant::new("a", "diff", "");
        record.note(&mutant, Outcome::Missed);
        assert!(!record.is_detected(&mutant));
        for outcome in [Outcome::Caught, Outcome::TimedOut, Outcome::Unviable] {
            record.note(&mutant, outcome);
            assert!(record.is_detected(&mutant));
        }
        record.forget(std::slice::from_ref(&mutant));
        assert_eq!(record.of(&mutant), None);
    }

    #[test]
    fn a_file_that_was_cut_off_says_nothing() {
        assert_eq!(detected(r#"{"outcomes": [{"summary": "Caugh"#), []);
        assert_eq!(
            detected(r#"{"outcomes": [{"summary": "CaughtMutant", "diff_path": null}]}"#),
            []
        );
    }
}
