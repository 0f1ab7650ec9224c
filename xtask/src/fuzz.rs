//! `cargo xtask fuzz`.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::shell::{self, Failure, Result, root, succeeds};

/// How long each target runs if nobody says.
const DEFAULT_SECONDS: u64 = 20;

/// Runs the targets in `fuzz/`, each for a while, some at once, and prints what came of each.
///
/// It needs the nightly toolchain and cargo-fuzz, which are installed if they are missing. Each target
/// starts from its folder in `fuzz/seeds`, with the words of its file in `fuzz/dictionaries`, and keeps
/// what it found in `fuzz/corpus`. An input that made it fail lies in `fuzz/artifacts`: mend what it
/// shows, with a test that fails without it. Fails if any target did.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SECONDS)]
    pub(crate) seconds: u64,
    /// How many run at once; as many as there are cores, if nobody says
    #[arg(long, value_name = "N")]
    pub(crate) jobs: Option<NonZeroUsize>,
    /// Look for mistakes of memory too: `address`. There is no unsafe code of ours in which they could
    /// be, and it costs half the speed
    #[arg(long, default_value = "none")]
    pub(crate) sanitizer: String,
    /// Install nothing; use what is there
    #[arg(long)]
    pub(crate) no_install: bool,
    /// Which targets; all of them if none is named
    pub(crate) targets: Vec<String>,
}

/// A target in the manifest.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    name: String,
    /// Whether it is one of those that every run of continuous integration builds and runs: they need no
    /// feature, and so little that building them takes a minute or two.
    is_small: bool,
}

/// What came of one target.
struct Ran {
    target: String,
    took: Duration,
    executions: Option<u64>,
    found: Option<u64>,
    crashed: bool,
}

/// How targets are built and run.
struct How<'a> {
    arguments: &'a Arguments,
    /// Only small targets are wanted, so the others' dependencies are not built.
    only_small: bool,
}

impl Arguments {
    /// These targets, for as long as each runs by default.
    fn of(targets: Vec<String>, no_install: bool) -> Self {
        let sanitizer = "none".to_owned();
        Self { seconds: DEFAULT_SECONDS, jobs: None, sanitizer, no_install, targets }
    }
}

/// Runs these targets for as long as each runs by default.
pub(crate) fn for_a_while(targets: Vec<String>, no_install: bool) -> Result {
    run(&Arguments::of(targets, no_install))
}

/// Runs the small targets for as long as each runs by default.
pub(crate) fn small(no_install: bool) -> Result {
    let small = manifest()?.into_iter().filter(|target| target.is_small);
    for_a_while(small.map(|target| target.name).collect(), no_install)
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    let chosen = choose(manifest()?, &arguments.targets)?;
    provide(!arguments.no_install)?;
    let how = How { arguments, only_small: chosen.iter().all(|target| target.is_small) };
    let mut build = how.command("build");
    if let [only] = &chosen[..] {
        build.arg(&only.name);
    }
    shell::run(&mut build)?;
    let ran = fuzz_all(&chosen, &how)?;
    println!("\n{}", table(&ran));
    let crashed: Vec<&str> =
        ran.iter().filter(|ran| ran.crashed).map(|ran| ran.target.as_str()).collect();
    if crashed.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("found something: {}; see fuzz/artifacts", crashed.join(", "))))
    }
}

/// The targets that there are.
fn manifest() -> Result<Vec<Target>> {
    let text = std::fs::read_to_string(root().join("fuzz/Cargo.toml"))
        .map_err(|error| Failure::new(format!("cannot read fuzz/Cargo.toml: {error}")))?;
    let known = targets_of(&text);
    if known.is_empty() {
        return Err(Failure::new("fuzz/Cargo.toml names no targets"));
    }
    Ok(known)
}

/// Those that are named, or all.
fn choose(known: Vec<Target>, named: &[String]) -> Result<Vec<Target>> {
    if named.is_empty() {
        return Ok(known);
    }
    let find = |name: &String| {
        known.iter().find(|target| target.name == *name).cloned().ok_or_else(|| {
            let names: Vec<&str> = known.iter().map(|target| target.name.as_str()).collect();
            Failure::new(format!("there is no fuzz target {name}; there are: {}", names.join(", ")))
        })
    };
    named.iter().map(find).collect()
}

/// Runs all of them, some at once; what came of each is in their order.
fn fuzz_all(targets: &[Target], how: &How<'_>) -> Result<Vec<Ran>> {
    let cores = || std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let jobs = how.arguments.jobs.map_or_else(cores, NonZeroUsize::get);
    let waiting: Mutex<VecDeque<(usize, &str)>> =
        Mutex::new(targets.iter().map(|target| target.name.as_str()).enumerate().collect());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    let work = || {
        std::iter::from_fn(next)
            .map(|(at, target)| Ok((at, fuzz(target, how)?)))
            .collect::<Result<Vec<_>>>()
    };
    let mut ran = std::thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.min(targets.len())).map(|_| scope.spawn(work)).collect();
        let mut ran = Vec::new();
        for worker in workers {
            ran.extend(worker.join().map_err(|_| Failure::new("a worker panicked"))??);
        }
        Ok::<_, Failure>(ran)
    })?;
    ran.sort_by_key(|(at, _)| *at);
    Ok(ran.into_iter().map(|(_, ran)| ran).collect())
}

impl How<'_> {
    /// `cargo fuzz WHAT`, which builds in one way whatever is asked for.
    fn command(&self, what: &str) -> Command {
        let mut command = nightly();
        command.args(["fuzz", what, "--sanitizer", &self.arguments.sanitizer]);
        if self.only_small {
            command.arg("--no-default-features");
        }
        command
    }
}

/// Runs one target, which is built.
fn fuzz(target: &str, how: &How<'_>) -> Result<Ran> {
    // What is found goes into the first folder, which is not kept; the seeds are.
    let folders = [format!("fuzz/corpus/{target}"), format!("fuzz/seeds/{target}")];
    for folder in &folders {
        std::fs::create_dir_all(root().join(folder))
            .map_err(|error| Failure::new(format!("{folder}: {error}")))?;
    }
    let mut command = how.command("run");
    command.arg(target).args(&folders);
    let seconds = how.arguments.seconds;
    command.args(["--", &format!("-max_total_time={seconds}"), "-timeout=20"]);
    command.args(["-verbosity=0", "-print_final_stats=1"]);
    let dictionary = format!("fuzz/dictionaries/{target}.dict");
    if Path::new(&root().join(&dictionary)).exists() {
        command.arg(format!("-dict={}", root().join(&dictionary).display()));
    }
    shell::announce(&command);
    let start = Instant::now();
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| shell::cannot_start(&command, &error))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let crashed = !output.status.success();
    if crashed {
        print!("{said}");
    }
    Ok(Ran {
        target: target.to_owned(),
        took: start.elapsed(),
        executions: statistic(&said, "number_of_executed_units"),
        found: statistic(&said, "new_units_added"),
        crashed,
    })
}

/// One of libFuzzer's last words: `stat::NAME: NUMBER`.
fn statistic(said: &str, name: &str) -> Option<u64> {
    let value = |line: &str| Some(line.strip_prefix("stat::")?.strip_prefix(name)?.to_owned());
    said.lines().rev().find_map(value)?.strip_prefix(':')?.trim().parse().ok()
}

fn table(ran: &[Ran]) -> String {
    let number = |value: Option<u64>| value.map_or_else(|| "?".to_owned(), |it| it.to_string());
    let mut text = format!(
        "{:<14}{:>9}{:>14}{:>8}{:>9}\n",
        "target", "seconds", "executions", "found", "crashes"
    );
    for one in ran {
        text += &format!(
            "{:<14}{:>9}{:>14}{:>8}{:>9}\n",
            one.target,
            one.took.as_secs(),
            number(one.executions),
            number(one.found),
            u8::from(one.crashed)
        );
    }
    text
}

/// The `[[bin]]` tables of a manifest.
fn targets_of(manifest: &str) -> Vec<Target> {
    let mut targets: Vec<Target> = Vec::new();
    let mut in_bin = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_bin = line == "[[bin]]";
        }
        match line.split_once('=').map(|(key, value)| (key.trim(), value.trim())) {
            Some(("name", value)) if in_bin => {
                targets.push(Target { name: value.trim_matches('"').to_owned(), is_small: true });
            }
            Some(("required-features", _)) if in_bin => {
                if let Some(target) = targets.last_mut() {
                    target.is_small = false;
                }
            }
            _ => {}
        }
    }
    targets
}

/// The nightly cargo; through rustup, since the cargo that started us is another one.
fn nightly() -> Command {
    let mut command = shell::in_workspace("rustup");
    command.args(["run", "nightly", "cargo"]);
    command
}

fn provide(may_install: bool) -> Result {
    let toolchain = ["rustup", "toolchain", "install", "nightly", "--profile", "minimal"];
    let cargo_fuzz = ["rustup", "run", "nightly", "cargo", "install", "cargo-fuzz", "--locked"];
    if !succeeds(nightly().arg("--version")) {
        install("the nightly toolchain", &toolchain, may_install)?;
    }
    if !succeeds(nightly().args(["fuzz", "--version"])) {
        install("cargo-fuzz", &cargo_fuzz, may_install)?;
    }
    Ok(())
}

/// Installs what is missing, or says what to do.
fn install(what: &str, words: &[&str], may_install: bool) -> Result {
    let by_hand = words.join(" ");
    let [program, arguments @ ..] = words else { return Ok(()) };
    if !may_install {
        return Err(Failure::new(format!("fuzzing needs {what}; `{by_hand}` installs it")));
    }
    shell::run(Command::new(program).args(arguments)).map_err(|error| {
        Failure::new(format!("fuzzing needs {what}, which cannot be installed: {error}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_bins_of_the_manifest() {
        let manifest = "[package]\nname = \"fuzz\"\n\n[[bin]]\nname = \"reply\"\npath = \"r.rs\"\n\
                        required-features = [\"more\"]\n\n[[bin]]\nname=\"address\"\n\
                        [lints]\nname = \"no\"\n";
        let target = |name: &str, is_small| Target { name: name.to_owned(), is_small };
        let known = vec![target("reply", false), target("address", true)];
        assert_eq!(targets_of(manifest), known);
        assert_eq!(choose(known.clone(), &[]).unwrap(), known);
        assert_eq!(choose(known.clone(), &["address".to_owned()]).unwrap(), known[1..]);
        let unknown = choose(known, &["adress".to_owned()]).unwrap_err().to_string();
        assert_eq!(unknown, "there is no fuzz target adress; there are: reply, address");
    }

    #[test]
    fn the_small_targets_are_those_of_every_run() {
        let small = manifest().unwrap().into_iter().filter(|target| target.is_small);
        let mut names: Vec<String> = small.map(|target| target.name).collect();
        names.sort();
        let wanted =
            ["address", "config", "file_name", "journal", "message", "queue_file", "reply"];
        assert_eq!(names, wanted);
    }

    #[test]
    fn what_cannot_be_installed_is_named_with_its_command() {
        let told = |words: &[&str], may| install("a thing", words, may).unwrap_err().to_string();
        assert_eq!(told(&["get", "it"], false), "fuzzing needs a thing; `get it` installs it");
        assert_eq!(
            told(&["false"], true),
            "fuzzing needs a thing, which cannot be installed: `false` failed: exit status: 1"
        );
    }

    #[test]
    fn the_last_words_of_a_fuzzer_make_a_table() {
        let said = "noise\nstat::number_of_executed_units: 4711\nstat::new_units_added: 12\n";
        let executions = statistic(said, "number_of_executed_units");
        assert_eq!(executions, Some(4711));
        assert_eq!(statistic(said, "average_exec_per_sec"), None);
        let took = Duration::from_millis(20_400);
        let fine =
            Ran { target: "reply".into(), took, executions, found: Some(12), crashed: false };
        let dead =
            Ran { target: "sink".into(), took, executions: None, found: None, crashed: true };
        assert_eq!(
            table(&[fine, dead]),
            "target          seconds    executions   found  crashes\n\
             reply                20          4711      12        0\n\
             sink                 20             ?       ?        1\n"
        );
    }
}
