//! `cargo xtask test`.

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

pub(crate) fn run(arguments: &Arguments) -> Result {
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

    let (mut tally, status) = count(&mut command)?;
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

/// Runs `command`, shows what it prints, and counts.
fn count(command: &mut Command) -> Result<(Tally, ExitStatus)> {
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
