//! `cargo xtask bench`: `sendmail-bench` of the package `sendmail-tests`, and whom it compares us with.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::shell::{Failure, Result, cannot_start, cargo, root};
use crate::{provision, relays};

/// Runs the benchmarks, side by side with what they are compared with, in one run.
///
/// zope.sendmail, repoze.sendmail, Postfix, nullmailer, PostgreSQL, MariaDB and strace are installed where they
/// are missing and that may be, and lettre and apalis built; whoever is still missing is named and left out.
/// Progress goes to standard error, what was measured to standard output.
#[derive(clap::Args, Default)]
pub(crate) struct Arguments {
    /// Which rows or works, as --list names them; all of them if none is named
    names: Vec<String>,
    /// Little work and one round: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// How many rounds; 5, or 1 if it is quick
    #[arg(long, value_name = "N")]
    rounds: Option<u16>,
    /// How many messages the long queue has; 1,000,000, or 5,000 if it is quick
    #[arg(long, value_name = "N")]
    queued: Option<usize>,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
    /// Measure nothing, and list the rows
    #[arg(long)]
    list: bool,
    /// Measure nothing, and draw the plots of what an earlier run has printed with --json
    #[arg(long, value_name = "FILE", conflicts_with_all = ["names", "list"])]
    plot: Option<PathBuf>,
    /// Install nothing; use what is there
    #[arg(long)]
    no_install: bool,
}

/// Debian's packages that bring somebody.
const PACKAGES: [&str; 5] = ["postfix", "postgresql", "mariadb-server", "strace", "python3-venv"];

pub(crate) fn run(arguments: &Arguments) -> Result {
    let measures = !arguments.list && arguments.plot.is_none();
    let mut bench = cargo();
    let flags = ["run", "--release", "--quiet", "--package", "sendmail-tests", "--bin"];
    bench.args(flags).args(["sendmail-bench", "--"]).args(words(arguments));
    if measures {
        provide(!arguments.no_install, &mut bench);
    }
    // What is printed is the result and nothing else, so that it can be kept.
    start(&mut bench)
}

/// Installs and builds whom it is compared with, and tells the program where they are.
fn provide(may_install: bool, bench: &mut Command) {
    let told = |what: &str, done: Result| {
        if let Err(failure) = done {
            tell(&format!("missing: {what}: {failure}"));
        }
    };
    if may_install {
        PACKAGES.iter().for_each(|name| told(name, provision::provide_package(name)));
    }
    told("nullmailer", relays::provide_nullmailer(may_install));
    match provision::python(may_install) {
        Ok(python) => drop(bench.env("SENDMAIL_TEST_PYTHON", python)),
        Err(failure) => told("zope.sendmail, repoze.sendmail", Err(failure)),
    }
    told("lettre, apalis", start(&mut peers()));
    bench.env("SENDMAIL_BENCH_PEERS", root().join("target/release/sendmail-bench-peers"));
    // Databases are to lie on the disk on which the queues lie.
    let folder = root().join("target/bench");
    match std::fs::create_dir_all(&folder) {
        Ok(()) => drop(bench.env("TMPDIR", folder)),
        Err(error) => tell(&format!("cannot make {}: {error}", folder.display())),
    }
}

/// The package with lettre and apalis, which is none of this workspace.
fn peers() -> Command {
    let mut command = cargo();
    command.args(["build", "--release", "--quiet", "--locked", "--manifest-path"]);
    command
        .arg(root().join("tests/peers/Cargo.toml"))
        .arg("--target-dir")
        .arg(root().join("target"));
    command.stdout(Stdio::null());
    command
}

/// Runs a command without saying so on standard output.
fn start(command: &mut Command) -> Result {
    let status = command.status().map_err(|error| cannot_start(command, &error))?;
    if status.success() { Ok(()) } else { Err(Failure::new(format!("it failed: {status}"))) }
}

fn tell(line: &str) {
    use std::io::Write as _;
    // Nobody is there to be told if that fails.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// The whole path of a file: the program runs in the folder of the workspace.
fn whole(file: &Path) -> String {
    std::path::absolute(file).unwrap_or_else(|_| file.to_owned()).display().to_string()
}

fn words(arguments: &Arguments) -> Vec<String> {
    let mut words = arguments.names.clone();
    let flags =
        [("--quick", arguments.quick), ("--json", arguments.json), ("--list", arguments.list)];
    words.extend(flags.iter().filter(|(_, on)| *on).map(|(flag, _)| (*flag).to_owned()));
    let values = [
        ("--rounds", arguments.rounds.map(|rounds| rounds.to_string())),
        ("--queued", arguments.queued.map(|queued| queued.to_string())),
        ("--plot", arguments.plot.as_ref().map(|file| whole(file))),
    ];
    for (flag, value) in values {
        words.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_is_passed_on_and_nothing_else() {
        let mut arguments = Arguments::default();
        assert!(words(&arguments).is_empty());
        arguments.names = vec!["drain".to_owned()];
        arguments.quick = true;
        arguments.rounds = Some(7);
        arguments.no_install = true;
        assert_eq!(words(&arguments), ["drain", "--quick", "--rounds", "7"]);
        arguments.plot = Some("run.json".into());
        let words = words(&arguments);
        assert_eq!(words[4], "--plot");
        let file = Path::new(&words[5]);
        assert!(file.is_absolute() && file.ends_with("run.json"));
    }
}
