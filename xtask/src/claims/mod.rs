//! `cargo xtask claims` and `cargo xtask prove`: which test proves which claim.
//!
//! A test says what it proves by a line `// Proves: ID, ID` directly above it. The [`register`] knows all
//! claims; [`scan`] finds the tests; the tables in the pages are made of both.

mod counts;
mod figures;
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
    /// Write the tables in docs/guarantees.md and docs/testing.md anew
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
    problems.extend(figures_of_nothing(files));
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

/// Figures of claims and fuzz targets that there are not.
fn figures_of_nothing(files: &Files<'_>) -> Vec<String> {
    let sections = register::sections();
    let claims = sections.iter().flat_map(|section| &section.claims);
    let claims: Vec<&str> = claims.map(|claim| claim.id.as_str()).collect();
    let targets = files.keys().filter(|name| name.starts_with("fuzz/fuzz_targets"));
    let targets: Vec<&str> = targets.filter_map(|name| name.file_stem()?.to_str()).collect();
    figures::problems(&claims, &targets)
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
    tell_apart(&mut evidence.proofs, files);
    evidence
}

/// Puts the module before the name of each test that another module of its package has as well.
fn tell_apart(proofs: &mut [Proof], files: &Files<'_>) {
    let mut modules: BTreeMap<(Vec<&str>, String), BTreeSet<String>> = BTreeMap::new();
    let all = files.iter().flat_map(|(name, text)| scan::tests(name, text));
    for test in all.chain(proofs.iter().map(|proof| proof.test.clone())) {
        modules.entry((test.packages, test.name)).or_default().insert(test.module);
    }
    for Proof { test, .. } in proofs {
        let key = (test.packages.clone(), test.name.clone());
        if modules.get(&key).is_some_and(|modules| modules.len() > 1) && !test.module.is_empty() {
            let told = |name: &String| format!("{}::{name}", test.module);
            test.runs = test.runs.iter().map(told).collect();
            test.name = told(&test.name);
        }
    }
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
    let counts = [
        ("counts".to_owned(), counts::count(files).to_string()),
        ("long-runs".to_owned(), figures::long_runs()),
        ("fuzzing".to_owned(), figures::fuzzing()),
    ];
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
    fn a_name_that_two_modules_have_is_told_with_its_module() {
        let tagged = ["// Proves: I1", "#[test]", "fn twice() {}", "// Proves: I1", "#[test]"];
        let tagged = [&tagged[..], &["fn once() {}"]].concat().join("\n");
        let plain = "#[test]\nfn twice() {}\n#[test]\nfn elsewhere() {}";
        let files = Files::from([
            (Path::new("crates/sendmail-txn/src/a/b.rs"), tagged.as_str()),
            (Path::new("crates/sendmail-txn/tests/it/c.rs"), plain),
            (Path::new("crates/sendmail-smtp/tests/it/d.rs"), "#[test]\nfn once() {}"),
        ]);
        let names: Vec<String> =
            evidence(&files).proofs.into_iter().flat_map(|proof| proof.test.runs).collect();
        assert_eq!(names, ["a::b::twice", "once"]);
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
