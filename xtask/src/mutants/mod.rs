//! `cargo xtask mutants`.

mod copy;
mod mutant;
mod plan;
mod record;
mod tally;

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::shell::{self, Failure, Result, announce, cannot_start, cargo, output, root, succeeds};
use mutant::Mutant;
use plan::{Part, Plan, Step};
use record::{Outcome, Record};

/// Changes what decides about mail, one place at a time, and looks whether the tests notice.
///
/// `mutants.toml` says which files belong to which scope, which tests have to notice, and which mutants
/// are known to change nothing, each with the reason. It needs cargo-mutants, which is installed if it is
/// missing. All scopes take hours: what was found out is kept in `target/mutants`, and the next run goes
/// on from there. Only what was missed is tried again, and what changed since. It fails if a mutant is
/// missed that is not explained, and if an explained one does not exist or is caught.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Forget what earlier runs found out about these scopes
    #[arg(long)]
    fresh: bool,
    /// Only print what is known; run nothing
    #[arg(long, conflicts_with = "fresh")]
    report: bool,
    /// Install nothing; use what is there
    #[arg(long)]
    no_install: bool,
    /// Only the mutants of this package
    #[arg(long, short)]
    package: Option<String>,
    /// Which scopes; all of them if none is named
    scopes: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    let text = std::fs::read_to_string(root().join("mutants.toml"))
        .map_err(|error| Failure::new(format!("cannot read mutants.toml: {error}")))?;
    let plan = Plan::parse(&text)?;
    let scopes = plan.choose(&arguments.scopes)?;
    provide(!arguments.no_install)?;
    let mut rows = Vec::new();
    for scope in &scopes {
        let mut row = tally::Row::new(scope);
        let of_package = |part: &&Part| {
            arguments.package.as_ref().is_none_or(|package| *package == part.package)
        };
        for part in plan.parts_of(scope).filter(of_package) {
            let mutants = list(part)?;
            let mut record = Record::open(&folder_of(part).join("record.json"))?;
            if !arguments.report {
                let _alone = lock(part)?;
                if arguments.fresh {
                    record.forget(&mutants);
                }
                test(part, &mutants, &mut record)?;
            }
            row.add(&mutants, &record, &plan.explained);
        }
        rows.push(row);
    }
    let all = arguments.package.is_none() && scopes.len() == plan.scopes().len();
    tally::report(&rows, &plan.explained, all)
}

/// Where a package's copy of the workspace is, and what is known of its mutants.
fn folder_of(part: &Part) -> PathBuf {
    root().join("target/mutants").join(&part.package)
}

/// Held while the copy is in use: two scopes may run at once if they change different packages.
fn lock(part: &Part) -> Result<File> {
    let folder = folder_of(part);
    let cannot = |error: std::io::Error| Failure::new(format!("{}: {error}", folder.display()));
    std::fs::create_dir_all(&folder).map_err(cannot)?;
    let file = File::create(folder.join("lock")).map_err(cannot)?;
    file.try_lock().map_err(|_| {
        Failure::new(format!("another run is changing {}; wait for it", part.package))
    })?;
    Ok(file)
}

/// The mutants of the files of `part`, as they are now.
fn list(part: &Part) -> Result<Vec<Mutant>> {
    let mut command = cargo_mutants();
    command.args(["--no-config", "--list", "--json"]).args(part.selection());
    let text = output(command.current_dir(root()))
        .ok_or_else(|| Failure::new(format!("cannot list the mutants of {}", part.package)))?;
    Mutant::parse_list(&text, &root())
}

/// Tests what is not known of `mutants`: by the first step's tests, and what these miss by the next's.
fn test(part: &Part, mutants: &[Mutant], record: &mut Record) -> Result {
    let folder = folder_of(part);
    // What an interrupted run found out and could not write down.
    record.take_up(&folder.join("mutants.out"))?;
    let tree = folder.join("tree");
    copy::workspace(&tree)?;
    part.files().try_for_each(|file| copy::touch(&tree.join(file)))?;
    let mut left: Vec<&Mutant> =
        mutants.iter().filter(|mutant| !record.is_detected(mutant)).collect();
    println!(
        "\n== {}: {} of {} mutants of {}",
        part.scope,
        left.len(),
        mutants.len(),
        part.package
    );
    for step in &part.steps {
        if left.is_empty() {
            break;
        }
        println!("-- {} mutants against {step}", left.len());
        run_step(part, step, mutants, &left, &folder)?;
        record.take_up(&folder.join("mutants.out"))?;
        left.retain(|mutant| !record.is_detected(mutant));
    }
    for mutant in left {
        record.note(mutant, Outcome::Missed);
    }
    record.write()
}

fn run_step(part: &Part, step: &Step, all: &[Mutant], chosen: &[&Mutant], folder: &Path) -> Result {
    let config = folder.join("config.toml");
    std::fs::write(&config, mutant::config_for(all, chosen))
        .map_err(|error| Failure::new(format!("{}: {error}", config.display())))?;
    // At the lowest priority, since it takes hours in which somebody may want to work; and with bounded
    // memory, since a mutant may well be a loop without end that collects something.
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -v 8388608; exec nice -n 19 \"$@\"", "mutants"]);
    command.arg(cargo().get_program()).args(["mutants", "--in-place"]);
    command.arg("--config").arg(&config).arg("--output").arg(folder);
    command.args(["--no-shuffle", "--caught", "--unviable", "--timeout", "120"]);
    command.args(part.selection()).args(step.arguments()).current_dir(folder.join("tree"));
    // What a property does not show in 64 cases it should be asked less obliquely. Of a failure nobody
    // wants to see the smallest, and none is to be remembered: it was the mutant's.
    command.env("PROPTEST_CASES", "64").env("PROPTEST_MAX_SHRINK_ITERS", "0");
    command.env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "true");
    // Nobody reads them, and they take longer than the tests.
    command.env("RUST_BACKTRACE", "0");
    command.env_remove("CARGO_TARGET_DIR");
    announce(&command);
    let status = command.status().map_err(|error| cannot_start(&command, &error))?;
    match status.code() {
        // All were caught; some were missed; some ran out of time.
        Some(0 | 2 | 3) => Ok(()),
        _ => Err(Failure::new(format!("cargo-mutants failed: {status}; see {}", folder.display()))),
    }
}

fn cargo_mutants() -> Command {
    let mut command = cargo();
    command.arg("mutants");
    command
}

fn provide(may_install: bool) -> Result {
    if succeeds(cargo_mutants().arg("--version")) {
        return Ok(());
    }
    if !may_install {
        return Err(Failure::new(
            "there is no cargo-mutants; `cargo install cargo-mutants --locked`",
        ));
    }
    shell::run(cargo().args(["install", "cargo-mutants", "--locked"]))
}
