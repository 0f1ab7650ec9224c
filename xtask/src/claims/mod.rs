//! `cargo xtask claims` and `cargo xtask prove`: which test proves which claim.
//!
//! A test says what it proves by a line `// Proves: ID, ID` directly above it. The [`register`] knows all
//! claims; [`scan`] finds the tests; the tables in the pages are made of both.

mod counts;
mod matrix;
mod prove;
mod register;
mod scan;
mod tables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use crate::shell::{Failure, Result, root};
pub(crate) use prove::{Arguments as Prove, run as prove};
use scan::Proof;

/// Shows for each claim of the register how many tests prove it, and which claims have none.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write the tables in docs/guarantees.md and the counts in docs/testing.md anew
    #[arg(long)]
    write: bool,
}

/// The pages with generated parts.
const GUARANTEES: &str = "docs/guarantees.md";
const TESTING: &str = "docs/testing.md";

/// The files of the tree that are text, by their names relative to the workspace.
pub(crate) type Files<'a> = BTreeMap<&'a Path, &'a str>;

/// What the tree proves.
struct Evidence {
    proofs: Vec<Proof>,
    /// Tags that prove nothing, with their files and lines.
    problems: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    let texts = crate::tidy::texts()?;
    let files: Files<'_> =
        texts.iter().map(|(name, text)| (name.as_path(), text.as_str())).collect();
    if arguments.write {
        for (page, written) in pages(&files).map_err(Failure::new)? {
            std::fs::write(root().join(page), written)
                .map_err(|error| Failure::new(format!("{page}: {error}")))?;
        }
    }
    let evidence = evidence(&files);
    let proven = proven(&evidence.proofs);
    for claim in register::sections().iter().flat_map(|section| &section.claims) {
        let tests = proven.get(claim.id.as_str()).map_or(0, Vec::len);
        println!("{:<18} {tests:>3}  {}", claim.id, claim.what);
    }
    let problems = problems_of(&evidence);
    for problem in &problems {
        println!("{problem}");
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("{} problems", problems.len())))
    }
}

/// What is wrong with claims, tags and the generated tables.
pub(crate) fn check(files: &Files<'_>) -> Vec<String> {
    let mut problems = problems_of(&evidence(files));
    match pages(files) {
        Ok(pages) => {
            for (page, written) in pages {
                if files.get(Path::new(page)).is_none_or(|text| *text != written) {
                    problems
                        .push(format!("{page} is not current: run `cargo xtask claims --write`"));
                }
            }
        }
        Err(why) => problems.push(why),
    }
    problems
}

/// Tags that prove nothing, tags of no claim, claims without a tag.
fn problems_of(evidence: &Evidence) -> Vec<String> {
    let sections = register::sections();
    let claims = sections.iter().flat_map(|section| &section.claims);
    let known: BTreeSet<&str> = claims.map(|claim| claim.id.as_str()).collect();
    let proven = proven(&evidence.proofs);
    let mut problems = evidence.problems.clone();
    for (id, tests) in &proven {
        if !known.contains(id) {
            let names: Vec<&str> = tests.iter().map(|test| test.name.as_str()).collect();
            problems.push(format!("no claim is called {id}, which {} proves", names.join(", ")));
        }
    }
    let missing: Vec<&str> = known.into_iter().filter(|id| !proven.contains_key(id)).collect();
    if !missing.is_empty() {
        problems.push(format!("{} claims have no test: {}", missing.len(), missing.join(" ")));
    }
    problems
}

fn evidence(files: &Files<'_>) -> Evidence {
    let mut evidence = Evidence { proofs: Vec::new(), problems: Vec::new() };
    for (name, text) in files {
        if name.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let (proofs, problems) = scan::scan(name, text);
        evidence.proofs.extend(proofs);
        let told = |(line, why)| format!("{}: line {line}: {why}", name.display());
        evidence.problems.extend(problems.into_iter().map(told));
    }
    evidence
}

/// The tests of each id that is named.
fn proven(proofs: &[Proof]) -> tables::Proven<'_> {
    let mut proven = tables::Proven::new();
    for Proof { ids, test } in proofs {
        for id in ids {
            proven.entry(id).or_default().push(test);
        }
    }
    proven
}

/// The pages as they should be.
fn pages(files: &Files<'_>) -> std::result::Result<Vec<(&'static str, String)>, String> {
    let evidence = evidence(files);
    let proven = proven(&evidence.proofs);
    let part =
        |section: &register::Section| (section.name.to_owned(), tables::section(section, &proven));
    let parts: Vec<_> = register::sections().iter().map(part).collect();
    let counts = [("counts".to_owned(), counts::count(files).to_string())];
    let write = |page: &'static str, parts: &[(String, String)]| {
        let text = files.get(Path::new(page)).ok_or_else(|| format!("there is no {page}"))?;
        let written = tables::write(text, parts).map_err(|why| format!("{page}: {why}"))?;
        Ok::<_, String>((page, written))
    };
    Ok(vec![write(GUARANTEES, &parts)?, write(TESTING, &counts)?])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of one source file, without the list of claims that it does not prove.
    fn problems(text: &str) -> Vec<String> {
        let text = text.replace("PROVES", "// Proves:");
        let name = Path::new("crates/sendmail-txn/tests/it/a.rs");
        let mut problems = problems_of(&evidence(&Files::from([(name, text.as_str())])));
        problems.retain(|problem| !problem.contains("claims have no test"));
        problems
    }

    #[test]
    fn an_unknown_id_is_found() {
        assert_eq!(problems("PROVES I1, F-write-kill\n#[test]\nfn one() {}\n"), [""; 0]);
        let unknown = problems("PROVES I1, I99\n#[test]\nfn one() {}\n");
        assert_eq!(unknown, ["no claim is called I99, which one proves"]);
    }

    #[test]
    fn a_tag_without_a_test_is_named_with_its_line() {
        let found = problems("\nPROVES I1\nconst A: u8 = 1;\n");
        let wanted =
            "crates/sendmail-txn/tests/it/a.rs: line 2: there is no test directly below the tag";
        assert_eq!(found, [wanted]);
    }

    #[test]
    fn a_claim_without_a_test_is_named() {
        let name = Path::new("crates/sendmail-txn/tests/it/a.rs");
        let text = ["// Proves: I1", "#[test]", "fn one() {}"].join("\n");
        let found = problems_of(&evidence(&Files::from([(name, text.as_str())])));
        assert!(found[0].contains("claims have no test") && found[0].contains(" I2 "), "{found:?}");
        assert!(!found[0].contains(" I1 "), "{found:?}");
    }
}
