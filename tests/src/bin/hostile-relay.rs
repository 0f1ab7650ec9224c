//! Lets a processor work against a relay that misbehaves in every way, and measures by how much it grows.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use sendmail_tests::Result;
use sendmail_tests::hostile::{self, Heap};

/// Lets a processor work against a relay that misbehaves in every way, and measures by how much it grows.
#[derive(Parser)]
#[command(name = "hostile-relay")]
struct Arguments {
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 600)]
    seconds: u64,
    /// By how many KiB it may grow
    #[arg(long, value_name = "N", default_value_t = 1024)]
    growth: u64,
    /// With one heap for all threads that gives back what is freed: shows what the program keeps
    #[arg(long)]
    tight: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match act(&Arguments::parse()).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("hostile-relay: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn act(arguments: &Arguments) -> Result<bool> {
    hostile::prepare()?;
    let folder = tempfile::tempdir()?;
    let heap = if arguments.tight { Heap::Tight } else { Heap::Usual };
    let time = Duration::from_secs(arguments.seconds);
    let outcome = hostile::run(folder.path(), time, heap).await?;
    println!("{outcome}");
    let most = i64::try_from(arguments.growth)?;
    Ok(outcome.growth_kib() < most && outcome.wrong.is_empty())
}
