//! One mutant, as cargo-mutants lists it.

use std::collections::HashMap;
use std::path::Path;

use serde::Deserialize;

use crate::shell::{Failure, Result};

/// One change to one place of the source.
#[derive(Debug, Clone)]
pub(super) struct Mutant {
    /// `FILE:LINE:COLUMN: replace … in …`
    name: String,
    /// As a unified diff.
    diff: String,
    /// The line of the source in which it begins, without white space around it.
    line: String,
}

/// What is read of the JSON.
#[derive(Deserialize)]
struct Listed {
    name: String,
    file: String,
    span: Span,
    diff: String,
}

#[derive(Deserialize)]
struct Span {
    start: Start,
}

#[derive(Deserialize)]
struct Start {
    line: usize,
}

impl Mutant {
    /// Reads what `cargo mutants --list --json` prints of the workspace in `root`.
    pub(super) fn parse_list(json: &str, root: &Path) -> Result<Vec<Self>> {
        let listed: Vec<Listed> = serde_json::from_str(json)
            .map_err(|error| Failure::new(format!("cannot read the list of mutants: {error}")))?;
        let mut sources = HashMap::new();
        let with_line = |listed: Listed| {
            let Listed { name, file, span, diff } = listed;
            let source: &mut String = sources.entry(file).or_insert_with_key(|file| {
                std::fs::read_to_string(root.join(file)).unwrap_or_default()
            });
            let line = source.lines().nth(span.start.line.saturating_sub(1)).unwrap_or_default();
            Self { name, diff, line: line.trim().to_owned() }
        };
        Ok(listed.into_iter().map(with_line).collect())
    }

    #[cfg(test)]
    pub(super) fn new(name: &str, diff: &str, line: &str) -> Self {
        Self { name: name.to_owned(), diff: diff.to_owned(), line: line.to_owned() }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn line(&self) -> &str {
        &self.line
    }

    /// Its name without line and column, which change with what stands above it.
    pub(super) fn lasting_name(&self) -> String {
        let Some((place, what)) = self.name.split_once(": ") else { return self.name.clone() };
        let file = place.split(':').next().unwrap_or(place);
        format!("{file}: {what}")
    }

    /// What it changes, and what stands around that: it is another one when either changes.
    pub(super) fn key(&self) -> String {
        key_of(&self.diff)
    }
}

/// A diff without its positions.
pub(super) fn key_of(diff: &str) -> String {
    let lines = diff.lines().filter(|line| !line.starts_with("@@ ")).map(str::trim_end);
    lines.collect::<Vec<_>>().join("\n")
}

/// A configuration of cargo-mutants that leaves `chosen` of `all`.
pub(super) fn config_for(all: &[Mutant], chosen: &[&Mutant]) -> String {
    let mut text = String::from("exclude_re = [\n");
    for mutant in all.iter().filter(|mutant| !chosen.iter().any(|other| other.name == mutant.name))
    {
        // What JSON says of such a text TOML reads in the same way.
        text += &format!("{},\n", serde_json::Value::from(exactly(&mutant.name)));
    }
    text + "]\n"
}

/// A regular expression that matches `name` alone.
fn exactly(name: &str) -> String {
    let mut expression = String::from("^");
    for character in name.chars() {
        // Not the others: some of them mean something with a backslash.
        if r"\.+*?()|[]{}^$#&-~".contains(character) {
            expression.push('\\');
        }
        expression.push(character);
    }
    expression + "$"
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAME: &str = "crates/a/src/b.rs:12:5: replace <impl Eq for A>::eq -> bool with true";

    #[test]
    fn a_list_is_read_with_the_lines_of_the_source() {
        let folder = std::env::temp_dir().join(format!("mutants-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("b.rs"), "one\n  two\n").unwrap();
        let json = r#"[{"name": "b.rs:2:3: replace x", "file": "b.rs", "package": "p",
            "span": {"start": {"line": 2, "column": 3}, "end": {"line": 2, "column": 4}},
            "replacement": "x", "diff": "--- b.rs\n@@ -1 +1 @@\n-two\n+x\n"}]"#;
        let mutants = Mutant::parse_list(json, &folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!((mutants.len(), mutants[0].line()), (1, "two"));
        assert_eq!(mutants[0].key(), "--- b.rs\n-two\n+x");
        assert!(Mutant::parse_list("{}", &folder).is_err());
    }

    #[test]
    fn a_lasting_name_has_no_position() {
        let mutant = Mutant::new(NAME, "", "");
        let expected = "crates/a/src/b.rs: replace <impl Eq for A>::eq -> bool with true";
        assert_eq!(mutant.lasting_name(), expected);
    }

    #[test]
    fn all_but_the_chosen_are_excluded_word_for_word() {
        let (one, other) =
            (Mutant::new(NAME, "", ""), Mutant::new("a.rs:1:2: replace + with *", "", ""));
        let all = [one.clone(), other.clone()];
        assert_eq!(config_for(&all, &[&one, &other]), "exclude_re = [\n]\n");
        let config = config_for(&all, &[&one]);
        let read: toml::Table = config.parse().unwrap();
        let expression = read["exclude_re"][0].as_str().unwrap();
        assert_eq!(expression, r"^a\.rs:1:2: replace \+ with \*$");
    }
}
