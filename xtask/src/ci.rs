//! `cargo xtask ci`.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::shell::{Failure, Result, cargo, root, run as run_command};
use crate::{deny, fuzz, programs, test, tidy};

/// Runs everything that continuous integration runs, and says how long each part took.
///
/// The parts are format, lints, each crate by itself, documentation, tidy, deny, all tests with nothing
/// skipped, the fuzz targets that are quick to build, and the crash tests: without a database, and with
/// each. It goes on after a failure, and prints a table at the end.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Install nothing; use what is there
    #[arg(long)]
    no_install: bool,
}

/// One part of the run.
struct Part {
    name: &'static str,
    took: Duration,
    failure: Option<Failure>,
    /// What was left out, if it did not fail.
    remark: Option<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result {
    let no_install = arguments.no_install;
    let mut parts = Vec::new();
    let remark = RefCell::new(None);
    let mut part = |name, work: &dyn Fn() -> Result| {
        println!("\n== {name}");
        let start = Instant::now();
        let failure = work().err();
        if let Some(failure) = failure.as_ref().filter(|failure| !failure.told()) {
            println!("{failure}");
        }
        parts.push(Part { name, took: start.elapsed(), failure, remark: remark.take() });
    };
    part("format", &|| run_command(cargo().args(["fmt", "--all", "--check"])));
    part("lints", &lints);
    part("each alone", &each_alone);
    part("documentation", &tidy::documentation);
    part("tidy", &tidy::run);
    part("deny", &|| {
        let arguments = deny::Arguments { no_install, require_advisories: false };
        if let deny::Advisories::NotChecked(why) = deny::run(&arguments)? {
            remark.replace(Some(format!("advisories not checked: {why}")));
        }
        Ok(())
    });
    part("tests", &|| test::run(&test::Arguments { no_skip: true, no_install, args: Vec::new() }));
    part("fuzz", &|| fuzz::small(no_install));
    part("crash test", &|| programs::default_crash_test(None));
    for (name, database) in programs::DATABASES {
        part(name, &|| programs::default_crash_test(Some(database)));
    }
    println!("\n{}", table(&parts));
    let failed = parts.iter().filter(|part| part.failure.is_some()).count();
    if failed == 0 {
        Ok(())
    } else {
        Err(Failure::new(format!("{failed} of {} parts failed", parts.len())))
    }
}

fn lints() -> Result {
    let scope = ["clippy", "--workspace", "--all-targets", "--all-features"];
    run_command(cargo().args(scope).args(["--", "--deny", "warnings"]))
}

/// Builds each crate and its tests with the features that it asks for itself: in the workspace as a whole others ask for
/// more, and a crate that forgot one would be missed.
fn each_alone() -> Result {
    let crates = root().join("crates");
    let entries = std::fs::read_dir(&crates)
        .map_err(|error| Failure::new(format!("{}: {error}", crates.display())))?;
    let mut names: Vec<_> = entries.flatten().map(|entry| entry.file_name()).collect();
    names.sort();
    for name in names {
        run_command(cargo().args(["check", "--quiet", "--package"]).arg(&name))?;
        run_command(cargo().args(["test", "--quiet", "--no-run", "--package"]).arg(&name))?;
    }
    Ok(())
}

fn table(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        let result = match (&part.failure, &part.remark) {
            (Some(failure), _) => failure.to_string(),
            (None, Some(remark)) => format!("ok, but {remark}"),
            (None, None) => "ok".to_owned(),
        };
        text += &format!("{:<15}{:>7.1} s  {result}\n", part.name, part.took.as_secs_f64());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_says_how_long_each_part_took_and_what_failed() {
        let took = Duration::from_millis(1250);
        let parts = [
            Part { name: "format", took, failure: None, remark: None },
            Part { name: "deny", took, failure: None, remark: Some("one was not seen".to_owned()) },
            Part {
                name: "tests",
                took: took * 100,
                failure: Some(Failure::new("1 failed")),
                remark: None,
            },
        ];
        assert_eq!(
            table(&parts),
            "format             1.2 s  ok\ndeny               1.2 s  ok, but one was not seen\n\
             tests            125.0 s  1 failed\n"
        );
    }
}
