//! `cargo xtask crash-test`: a program of the package `sendmail-tests`, built for release.

use crate::provision;
use crate::shell::{Result, cargo, run};

/// Kills producers and processors at random moments, and compares the ledgers.
///
/// The kills are SIGKILL. Compared are what was committed, what the relay received, what is queued and
/// what the events say.
#[derive(clap::Args, Default)]
pub(crate) struct CrashTest {
    /// The database whose transactions take the mail along: sqlite, postgres or mariadb; without it they
    /// are transactions with mail only
    #[arg(long, value_name = "DATABASE")]
    database: Option<String>,
    /// The long run: 10,000 kills, 200,000 mails and 20 races in rounds; goes on where it stopped
    #[arg(long)]
    long: bool,
    /// Only adds up what the long runs so far came to
    #[arg(long)]
    report: bool,
    /// In how many rounds the long run kills
    #[arg(long, value_name = "N")]
    rounds: Option<u64>,
    /// How many takeover races end the long run
    #[arg(long, value_name = "N")]
    races: Option<u64>,
    /// How many processes are killed
    #[arg(long, value_name = "N")]
    kills: Option<u64>,
    /// How many messages are sent
    #[arg(long, value_name = "N")]
    mails: Option<u64>,
    /// The seed of an earlier run, to repeat it
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

pub(crate) fn crash_test(arguments: &CrashTest) -> Result {
    let needed = match arguments.database.as_deref() {
        Some("postgres") => Some("postgresql"),
        Some("mariadb") => Some("mariadb-server"),
        _ => None,
    };
    if let Some(package) = needed {
        provision::provide_package(package)?;
    }
    program("crash-test", &crash_test_words(arguments))
}

/// The crash tests that continuous integration runs, besides the one without a database, and their
/// databases.
pub(crate) const DATABASES: [(&str, &str); 3] =
    [("crash sqlite", "sqlite"), ("crash postgres", "postgres"), ("crash mariadb", "mariadb")];

/// The default crash test, as continuous integration runs it: with one of [`DATABASES`], or without.
pub(crate) fn default_crash_test(database: Option<&str>) -> Result {
    let words = database.map(|name| ["--database".to_owned(), name.to_owned()]);
    program("crash-test", &words.into_iter().flatten().collect::<Vec<_>>())
}

fn crash_test_words(arguments: &CrashTest) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    words.extend(arguments.long.then(|| "--long".to_owned()));
    words.extend(arguments.report.then(|| "--report".to_owned()));
    if let Some(database) = &arguments.database {
        words.extend(["--database".to_owned(), database.clone()]);
    }
    let numbers = [
        ("--rounds", arguments.rounds),
        ("--races", arguments.races),
        ("--kills", arguments.kills),
        ("--mails", arguments.mails),
        ("--seed", arguments.seed),
    ];
    for (flag, number) in numbers {
        if let Some(number) = number {
            words.extend([flag.to_owned(), number.to_string()]);
        }
    }
    words
}

fn program(name: &str, words: &[String]) -> Result {
    let flags = ["run", "--release", "--package", "sendmail-tests", "--bin", name, "--"];
    run(cargo().args(flags).args(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_passed_on_and_nothing_else() {
        let mut arguments = CrashTest::default();
        assert!(crash_test_words(&arguments).is_empty());
        arguments.long = true;
        arguments.seed = Some(7);
        assert_eq!(crash_test_words(&arguments), ["--long", "--seed", "7"]);
        arguments.database = Some("sqlite".to_owned());
        let words = ["--long", "--database", "sqlite", "--seed", "7"];
        assert_eq!(crash_test_words(&arguments), words);
    }
}
