//! The automation of the workspace: `cargo xtask …`. Continuous integration runs the same commands.
//!
//! # The contract for tests that need outside programs
//!
//! `cargo xtask test` looks for what such tests need, installs it where it may, and tells the tests by
//! environment variables:
//!
//! * `SENDMAIL_TEST_PYTHON`: the Python of a virtual environment with zope.sendmail 7.3,
//!   repoze.sendmail 4.5 and aiosmtpd 1.4.6; unset if there is none;
//! * `SENDMAIL_TEST_NO_SKIP`: if it is `1`, a test that would skip itself fails instead;
//! * `SENDMAIL_TEST_SKIPS`: a file to which a test that skips itself appends one line,
//!   `skipped: <test>: <why>`; if it is unset, the line goes to standard error.
//!
//! Exim and OpenSMTPD, which Debian does not install beside Postfix, lie unpacked in
//! `target/interop/relays/`. Other programs are looked for on `PATH` and in `/usr/sbin`, those of PostgreSQL first in
//! `/usr/lib/postgresql/<highest version>/bin`.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

mod bench;
mod ci;
mod claims;
mod deny;
mod disk;
mod fuzz;
mod hostile;
mod mutants;
mod programs;
mod provision;
mod relays;
mod shell;
mod tally;
mod test;
mod tidy;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// The automation of the workspace.
#[derive(Parser)]
#[command(bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    Test(test::Arguments),
    Ci(ci::Arguments),
    Tidy(tidy::Arguments),
    Claims(claims::Arguments),
    Prove(claims::Prove),
    Deny(deny::Arguments),
    Fuzz(fuzz::Arguments),
    Disk(disk::Arguments),
    Hostile(hostile::Arguments),
    Mutants(mutants::Arguments),
    Bench(bench::Arguments),
    CrashTest(programs::CrashTest),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().task {
        Task::Test(arguments) => test::run(&arguments),
        Task::Ci(arguments) => ci::run(&arguments),
        Task::Tidy(_) => tidy::run(),
        Task::Claims(arguments) => claims::run(&arguments),
        Task::Prove(arguments) => claims::prove(&arguments),
        Task::Deny(arguments) => deny::run(&arguments).map(drop),
        Task::Fuzz(arguments) => fuzz::run(&arguments),
        Task::Disk(arguments) => disk::run_searches(&arguments),
        Task::Hostile(arguments) => hostile::run(&arguments),
        Task::Mutants(arguments) => mutants::run(&arguments),
        Task::Bench(arguments) => bench::run(&arguments),
        Task::CrashTest(arguments) => programs::crash_test(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            if !failure.told() {
                println!("xtask: {failure}");
            }
            ExitCode::FAILURE
        }
    }
}
