//! `cargo xtask fuzz`.

use std::process::Command;

use crate::shell::{self, Failure, Result, root, succeeds};

/// How long each target runs if nobody says.
const DEFAULT_SECONDS: u64 = 20;

/// Runs the targets in `fuzz/`, each for a while.
///
/// It needs the nightly toolchain and cargo-fuzz, which are installed if they are missing.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long each target runs
    #[arg(long, value_name = "N", default_value_t = DEFAULT_SECONDS)]
    seconds: u64,
    /// Install nothing; use what is there
    #[arg(long)]
    no_install: bool,
    /// Which targets; all of them if none is named
    targets: Vec<String>,
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
    for target in chosen {
        let limit = format!("-max_total_time={}", arguments.seconds);
        // What is found goes into the first folder, which is not kept; the seeds are.
        let folders = [format!("fuzz/corpus/{target}"), format!("fuzz/seeds/{target}")];
        for folder in &folders {
            std::fs::create_dir_all(root().join(folder))
                .map_err(|error| Failure::new(format!("{folder}: {error}")))?;
        }
        let quiet = "-verbosity=0";
        let [found, seeds] = &folders;
        shell::run(nightly().args(["fuzz", "run", target, found, seeds, "--", &limit, quiet]))?;
    }
    println!("{} targets ran for {} s each", chosen.len(), arguments.seconds);
    Ok(())
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
}
