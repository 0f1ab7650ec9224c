//! `cargo xtask prove`.

use std::collections::{BTreeMap, BTreeSet};

use super::scan::Test;
use super::{Files, evidence, proven, register};
use crate::shell::{Failure, Result};
use crate::{fuzz, test};

/// Runs the tests that prove claims, and shows that each of them ran.
///
/// The ids are those of `docs/guarantees.md`; one that ends in `-` means all that begin so: `F-publish-`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Which claims
    #[arg(required = true, value_name = "ID")]
    ids: Vec<String>,
    /// Install nothing; use what is there
    #[arg(long)]
    no_install: bool,
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    let texts = crate::tidy::texts()?;
    let files: Files<'_> =
        texts.iter().map(|(name, text)| (name.as_path(), text.as_str())).collect();
    let evidence = evidence(&files);
    let proven = proven(&evidence.proofs);
    let mut tests = Vec::new();
    for claim in register::sections().iter().flat_map(|section| &section.claims) {
        if arguments.ids.iter().any(|id| means(id, &claim.id)) {
            println!("{}: {}: {}", claim.id, claim.what, claim.means);
            tests.extend(proven.get(claim.id.as_str()).into_iter().flatten().copied());
        }
    }
    if tests.is_empty() {
        let message =
            format!("no test proves {}; see docs/guarantees.md", arguments.ids.join(", "));
        return Err(Failure::new(message));
    }
    for (package, names) in by_package(&tests) {
        if package == "fuzz" {
            fuzz::for_a_while(
                names.into_iter().map(str::to_owned).collect(),
                arguments.no_install,
            )?;
        } else {
            test::run_named(package, &names, arguments.no_install)?;
        }
    }
    Ok(())
}

fn means(asked: &str, id: &str) -> bool {
    asked == id || (asked.ends_with('-') && id.starts_with(asked))
}

/// What each package is to run.
fn by_package<'a>(tests: &[&'a Test]) -> BTreeMap<&'static str, BTreeSet<&'a str>> {
    let mut all: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for test in tests {
        for package in &test.packages {
            all.entry(package).or_default().extend(test.runs.iter().map(String::as_str));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_means_itself_and_a_prefix_all_that_begin_so() {
        assert!(means("I1", "I1") && !means("I1", "I10") && !means("I", "I1"));
        assert!(means("F-publish-", "F-publish-kill") && !means("F-publish-", "F-prepare-kill"));
    }

    #[test]
    fn each_package_runs_what_is_its_own() {
        let test = |name: &str, packages: &[&'static str]| Test {
            name: name.to_owned(),
            module: String::new(),
            packages: packages.to_vec(),
            runs: vec![name.to_owned()],
        };
        let (one, suite) = (test("one", &["a"]), test("case", &["a", "b"]));
        let all = by_package(&[&one, &suite, &one]);
        assert_eq!(all["a"], BTreeSet::from(["case", "one"]));
        assert_eq!(all["b"], BTreeSet::from(["case"]));
    }
}
