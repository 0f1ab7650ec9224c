//! `cargo xtask deny`: licences, sources and advisories of dependencies, by cargo-deny.

use crate::shell::{self, Failure, Result, cargo, succeeds};

/// Checks licences, duplicates, sources and advisories of all dependencies.
///
/// It needs cargo-deny, which is installed if it is missing. The database of advisories is fetched from
/// the network; where that cannot be done the output says that they were not checked, and why.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Install nothing; use what is there
    #[arg(long)]
    pub(crate) no_install: bool,
    /// Fail if the database of advisories cannot be fetched
    #[arg(long)]
    pub(crate) require_advisories: bool,
}

/// Bans, licences and sources: what can be told without the network.
const OFFLINE: [&str; 7] =
    ["deny", "--all-features", "check", "--hide-inclusion-graph", "bans", "licenses", "sources"];
/// The database of advisories.
const FETCH: [&str; 4] = ["deny", "--all-features", "fetch", "db"];
/// Advisories, with the database as it was fetched.
const ADVISORIES: [&str; 5] = ["deny", "--all-features", "check", "--disable-fetch", "advisories"];

/// What is known of advisories.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Advisories {
    /// They were looked at, and there is none that counts.
    Checked,
    /// They were not looked at, and why.
    NotChecked(String),
}

pub(crate) fn run(arguments: &Arguments) -> Result<Advisories> {
    let may_install = !arguments.no_install;
    if !succeeds(cargo().args(["deny", "--version"])) {
        if !may_install {
            return Err(Failure::new(
                "there is no cargo-deny; `cargo install cargo-deny --locked`",
            ));
        }
        shell::run(cargo().args(["install", "cargo-deny", "--locked"]))?;
    }
    let advisories = check(&mut |words| shell::run(cargo().args(words)))?;
    if let Advisories::NotChecked(why) = &advisories {
        if arguments.require_advisories {
            return Err(Failure::new(format!("advisories were not checked: {why}")));
        }
        println!("advisories were NOT checked: {why}");
    }
    Ok(advisories)
}

/// All checks, by what runs cargo with some words.
fn check(cargo: &mut dyn FnMut(&[&str]) -> Result) -> Result<Advisories> {
    cargo(&OFFLINE)?;
    if let Err(failure) = cargo(&FETCH) {
        return Ok(Advisories::NotChecked(format!("their database is out of reach: {failure}")));
    }
    cargo(&ADVISORIES)?;
    Ok(Advisories::Checked)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the checks with a cargo that fails at the words that hold `fails`; returns what it was told.
    fn told(fails: &str) -> (Result<Advisories>, Vec<String>) {
        let mut told = Vec::new();
        let result = check(&mut |words| {
            let words = words.join(" ");
            let fails = !fails.is_empty() && words.contains(fails);
            told.push(words);
            if fails { Err(Failure::new("it failed")) } else { Ok(()) }
        });
        (result, told)
    }

    // Proves: A-advisory
    #[test]
    fn advisories_are_checked_and_fail_the_run() {
        let (result, all) = told("");
        assert_eq!(result.unwrap(), Advisories::Checked);
        for check in ["bans", "licenses", "sources", "advisories"] {
            let asked = |words: &&String| words.contains(" check ") && words.contains(check);
            let words = all.iter().find(asked).unwrap_or_else(|| panic!("{check} is not checked"));
            assert!(words.contains("--all-features"), "{words}");
            assert!(told(check).0.is_err(), "{check} that fails fails the run");
        }
        assert!(
            all.iter().position(|w| w.contains("fetch db"))
                < all.iter().position(|w| w.ends_with(" advisories"))
        );
    }

    // Proves: A-advisory
    #[test]
    fn a_database_out_of_reach_is_never_a_check() {
        let (result, all) = told("fetch db");
        let Advisories::NotChecked(why) = result.unwrap() else {
            panic!("it says that it checked")
        };
        assert!(why.contains("out of reach: it failed"), "{why}");
        assert!(!all.iter().any(|words| words.ends_with("advisories")), "{all:?}");
    }

    // Proves: A-advisory, A-secrets
    #[test]
    fn the_configuration_denies_what_it_should() {
        let text = std::fs::read_to_string(shell::root().join("deny.toml")).unwrap();
        for line in [
            "yanked = \"deny\"",
            "wildcards = \"deny\"",
            "unknown-registry = \"deny\"",
            "unknown-git = \"deny\"",
            "crate = \"lettre\"",
            "deny = [\"tracing\"]",
        ] {
            assert!(text.lines().any(|each| each == line), "{line} is not in deny.toml");
        }
        assert!(!text.contains("ignore ="), "an advisory is ignored without anybody knowing why");
    }
}
