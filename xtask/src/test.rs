//! `cargo xtask test`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::provision::{self, Provisions};
use crate::shell::{Failure, Result, announce, cannot_start, cargo, root};
use crate::tally::Tally;

/// Runs all tests of the workspace.
///
/// Some tests need outside programs (Postfix, Exim, OpenSMTPD, mutt, Dovecot, strace, PostgreSQL, MariaDB,
/// zope.sendmail, repoze.sendmail, aiosmtpd). Debian packages are installed if they are missing and this
/// runs as root; Python packages go into `target/interop/venv`, and mail servers that cannot be installed
/// beside Postfix are unpacked into `target/interop/relays`. No service is started: a test starts the servers that it
/// needs itself, on free ports of loopback and in temporary folders. A test whose program is missing skips itself, and is listed at the end. The last
/// line is a summary: `N passed, N failed, N skipped`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Let tests that would skip themselves fail instead
    #[arg(long)]
    pub(crate) no_skip: bool,
    /// Install nothing; use what is there
    #[arg(long)]
    pub(crate) no_install: bool,
    /// Passed on to `cargo test`: names of tests, `-p PACKAGE`, a second `--`
    #[arg(last = true)]
    pub(crate) args: Vec<String>,
}

/// Runs all tests of a package whose names contain one of these, and fails if one of the names was not
/// among those that passed: a test that is not there proves nothing, and neither does one that was skipped.
/// A name may have its module before it.
pub(crate) fn run_named(package: &str, names: &BTreeSet<&str>, no_install: bool) -> Result {
    let mut args = vec!["-p".to_owned(), package.to_owned(), "--".to_owned()];
    args.extend(names.iter().map(|name| name.rsplit("::").next().unwrap_or(name).to_owned()));
    let mut left = names.clone();
    run_hearing(&Arguments { no_skip: true, no_install, args }, &mut |line| {
        if let Some(passed) = passed(line) {
            left.retain(|name| !is(passed, name));
        }
    })?;
    if left.is_empty() {
        return Ok(());
    }
    let left: Vec<&str> = left.into_iter().collect();
    Err(Failure::new(format!("{package} did not run {}", left.join(", "))))
}

/// The test that a line says has passed: `test a::b::name ... ok`.
fn passed(line: &str) -> Option<&str> {
    let path = line.trim_end().strip_prefix("test ")?.strip_suffix(" ... ok")?;
    Some(path.trim_end_matches(" - should panic"))
}

/// Whether a test is meant by a name; unit tests are in a module `tests` of theirs.
fn is(path: &str, name: &str) -> bool {
    let path = path.replace("::tests::", "::");
    path.strip_suffix(name).is_some_and(|before| before.is_empty() || before.ends_with("::"))
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    run_hearing(arguments, &mut |_| {})
}

fn run_hearing(arguments: &Arguments, hear: &mut dyn FnMut(&str)) -> Result {
    let provisions = provision::provide(!arguments.no_install);
    let folder = root().join("target/interop");
    let skips = folder.join("skips");
    std::fs::create_dir_all(&folder)
        .and_then(|()| std::fs::write(&skips, ""))
        .map_err(|error| Failure::new(format!("cannot write {}: {error}", skips.display())))?;

    let mut command = cargo();
    command.args(["test", "--all-features", "--no-fail-fast"]);
    if !arguments.args.iter().any(|word| word.starts_with("-p") || word == "--package") {
        command.arg("--workspace");
    }
    command.args(&arguments.args).env("SENDMAIL_TEST_SKIPS", &skips);
    match &provisions.python {
        Some(python) => command.env("SENDMAIL_TEST_PYTHON", python),
        None => command.env_remove("SENDMAIL_TEST_PYTHON"),
    };
    if arguments.no_skip {
        command.env("SENDMAIL_TEST_NO_SKIP", "1");
    }

    let (mut tally, status) = count(&mut command, hear)?;
    let skipped = lines_of(&skips);
    tally.skipped_themselves(skipped.len());
    report(&provisions, &skipped);
    if !status.success() && tally.failed == 0 {
        println!("a test binary did not build, or died before it could report");
        tally.failed = 1;
    }
    println!("{tally}");
    if status.success() && tally.failed == 0 {
        Ok(())
    } else {
        Err(Failure::already_told(tally.to_string()))
    }
}

/// Runs `command`, shows what it prints, counts, and lets `hear` have each line.
fn count(command: &mut Command, hear: &mut dyn FnMut(&str)) -> Result<(Tally, ExitStatus)> {
    announce(command);
    let mut child =
        command.stdout(Stdio::piped()).spawn().map_err(|error| cannot_start(command, &error))?;
    let mut tally = Tally::default();
    if let Some(stdout) = child.stdout.take() {
        let mut reader = BufReader::new(stdout);
        let mut line = Vec::new();
        // A test may print what is not UTF-8.
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            let text = String::from_utf8_lossy(&line);
            print!("{text}");
            tally.add_line(&text);
            hear(&text);
            line.clear();
        }
    }
    let status = child.wait().map_err(|error| Failure::new(format!("lost cargo: {error}")))?;
    Ok((tally, status))
}

fn lines_of(file: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    text.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

fn report(provisions: &Provisions, skipped: &[String]) {
    println!();
    for (what, why) in &provisions.missing {
        println!("missing: {what}: {why}");
    }
    for line in skipped {
        println!("{line}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tests_that_passed_count_as_run() {
        assert_eq!(passed("test a::b::name ... ok\n"), Some("a::b::name"));
        assert_eq!(passed("test name ... ok"), Some("name"));
        assert_eq!(passed("test name - should panic ... ok"), Some("name"));
        for other in ["test name ... FAILED", "test name ... ignored", "test result: ok. 1 passed"]
        {
            assert_eq!(passed(other), None, "{other}");
        }
    }

    #[test]
    fn a_test_is_meant_by_its_name_and_by_its_module_and_name() {
        for name in ["name", "b::name", "a::b::name"] {
            assert!(is("a::b::name", name) && is("a::b::tests::name", name), "{name}");
        }
        assert!(is("name", "name") && !is("a::other_name", "name") && !is("c::name", "b::name"));
    }
}
