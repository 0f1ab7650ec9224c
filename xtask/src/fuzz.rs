//! `cargo xtask fuzz`.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::shell::{self, Failure, Result, root, succeeds};

/// How long each target runs if nobody says.
const DEFAULT_SECONDS: u64 = 20;

/// Runs the targets in `fuzz/`, each for a while, and prints what came of each.
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
    /// Install nothing; use what is there
    #[arg(long)]
    pub(crate) no_install: bool,
    /// Which targets; all of them if none is named
    pub(crate) targets: Vec<String>,
}

/// What came of one target.
struct Ran {
    target: String,
    took: Duration,
    executions: Option<u64>,
    found: Option<u64>,
    crashed: bool,
}

/// Runs these targets for as long as each runs by default.
pub(crate) fn for_a_while(targets: Vec<String>) -> Result {
    run(&Arguments { seconds: DEFAULT_SECONDS, no_install: false, targets })
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    let manifest = root().join("fuzz/Cargo.toml");
    let text = std::fs::read_to_string(&manifest)
        .map_err(|_| Failure::new("there are no fuzz targets: fuzz/Cargo.toml does not exist"))?;
    let known = targets_of(&text);
    let unknown = arguments.targets.iter().find(|target| !known.contains(target));
    if let Some(unknown) = unknown {
        let message = format!("there is no fuzz target {unknown}; there are: {}", known.join(", "));
        return Err(Failure::new(message));
    }
    if known.is_empty() {
        return Err(Failure::new("fuzz/Cargo.toml names no targets"));
    }
    provide(!arguments.no_install)?;
    let chosen = if arguments.targets.is_empty() { &known } else { &arguments.targets };
    match &arguments.targets[..] {
        [only] => shell::run(nightly().args(["fuzz", "build", only]))?,
        _ => shell::run(nightly().args(["fuzz", "build"]))?,
    }
    let each = |target: &String| fuzz(target, arguments.seconds);
    let ran = chosen.iter().map(each).collect::<Result<Vec<Ran>>>()?;
    println!("\n{}", table(&ran));
    let crashed: Vec<&str> =
        ran.iter().filter(|ran| ran.crashed).map(|ran| ran.target.as_str()).collect();
    if crashed.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(format!("found something: {}; see fuzz/artifacts", crashed.join(", "))))
    }
}

/// Runs one target, which is built.
fn fuzz(target: &str, seconds: u64) -> Result<Ran> {
    // What is found goes into the first folder, which is not kept; the seeds are.
    let folders = [format!("fuzz/corpus/{target}"), format!("fuzz/seeds/{target}")];
    for folder in &folders {
        std::fs::create_dir_all(root().join(folder))
            .map_err(|error| Failure::new(format!("{folder}: {error}")))?;
    }
    let mut command = nightly();
    command.args(["fuzz", "run", target]).args(&folders);
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

/// The names of the `[[bin]]` tables of a manifest.
fn targets_of(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut in_bin = false;
    for line in manifest.lines().map(str::trim) {
        if line.starts_with('[') {
            in_bin = line == "[[bin]]";
        } else if let Some(("name", value)) =
            line.split_once('=').map(|(key, value)| (key.trim(), value)).filter(|_| in_bin)
        {
            names.push(value.trim().trim_matches('"').to_owned());
        }
    }
    names
}

/// The nightly cargo; through rustup, since the cargo that started us is another one.
fn nightly() -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).current_dir(root());
    command
}

fn provide(may_install: bool) -> Result {
    if !succeeds(nightly().arg("--version")) {
        if !may_install {
            return Err(Failure::new("there is no nightly toolchain; install it with rustup"));
        }
        shell::run(Command::new("rustup").args([
            "toolchain",
            "install",
            "nightly",
            "--profile",
            "minimal",
        ]))?;
    }
    if !succeeds(nightly().args(["fuzz", "--version"])) {
        if !may_install {
            return Err(Failure::new(
                "there is no cargo-fuzz; `cargo install cargo-fuzz --locked`",
            ));
        }
        shell::run(nightly().args(["install", "cargo-fuzz", "--locked"]))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_the_bins_of_the_manifest() {
        let manifest = "[package]\nname = \"fuzz\"\n\n[[bin]]\nname = \"reply\"\npath = \"r.rs\"\n\
                        \n[[bin]]\nname=\"address\"\n[lints]\nname = \"no\"\n";
        assert_eq!(targets_of(manifest), ["reply", "address"]);
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
