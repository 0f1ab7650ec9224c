//! `sendmail-queue`: a transactional mail queue as a daemon and a command line.
//!
//! This is the one place that names concrete layers and puts them together: the Maildir queue, the
//! SMTP and the program mailer, the databases of sqlx, the transaction manager and the processor.

// No panic that input can reach: the rule is the same in each library, and `cargo xtask tidy` wants it.
#![cfg_attr(
    not(test),
    deny(
        clippy::allow_attributes_without_reason,
        clippy::expect_used,
        clippy::get_unwrap,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unreachable,
        clippy::unwrap_in_result,
        clippy::unwrap_used
    )
)]

mod args;
mod commands;
mod config;
mod databases;
mod exit;
mod in_doubt;
mod log;
mod output;
mod recovery;
mod relay;
mod setup;
mod smtp_sink;
mod units;

use std::process::ExitCode;

use clap::Parser as _;

use crate::args::Arguments;
use crate::exit::Failure;
use crate::output::Output;

/// How many calls may wait for the disk at once; the others queue up. Each is a thread, with a stack and
/// a share of the allocator's memory, so their number bounds what the process takes.
const MAX_BLOCKING: usize = 24;

fn main() -> ExitCode {
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let wants_json = std::env::args_os().any(|word| word == "--json");
            if error.use_stderr() && wants_json {
                let why = error.to_string();
                return Output::new(true).failure(&Failure::usage(why.trim_end()));
            }
            // What cannot be printed has nobody to read it.
            let _ = error.print();
            return if error.use_stderr() { exit::USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let output = Output::new(arguments.json);
    log::start(arguments.log, arguments.json);
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    let runtime = match runtime.max_blocking_threads(MAX_BLOCKING).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return output.failure(&Failure::system("start the runtime", &error)),
    };
    let code = match runtime.block_on(commands::run(arguments, &output)) {
        Ok(code) => code.into(),
        Err(failure) => output.failure(&failure),
    };
    // What still runs on other threads is as harmless to cut as the death of the process.
    runtime.shutdown_background();
    code
}
