//! Benchmarks, side by side with what they are compared with, in one run on one machine.
//!
//! Each contestant runs in turn, several times over; what is printed is the median. The figures of two
//! runs cannot be compared, the ratios within one can.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

mod commit;
mod contestants;
mod report;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use sendmail_tests::Result;

use contestants::Bench;
use report::Table;

/// Measures how fast a queue is filled and drained, beside others, in one run.
#[derive(Parser)]
#[command(name = "sendmail-bench")]
struct Arguments {
    /// Which parts; all of them if none is named
    #[arg(value_enum)]
    parts: Vec<Part>,
    /// Fewer messages and one round: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// Print JSON, one object a line
    #[arg(long)]
    json: bool,
}

const OF_1_KIB: &str = "messages of 1 KiB";

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Handing messages over to a queue, durably
    Enqueue,
    /// Delivering them to Postfix's smtp-sink
    Drain,
    /// What a mail costs a database transaction: attached, and as an outbox row
    Commit,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("sendmail-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    let (messages, rounds) = if arguments.quick { (300, 1) } else { (5000, 3) };
    let bench = Bench::new(messages)?;
    let is_wanted = |part| arguments.parts.is_empty() || arguments.parts.contains(&part);
    let print = |table: &Table| {
        println!("{}", if arguments.json { table.json() } else { table.text() });
    };
    if is_wanted(Part::Enqueue) {
        let mut table = Table::new("enqueue", messages, OF_1_KIB);
        for _ in 0..rounds {
            bench.enqueue(&mut table).await?;
        }
        print(&table);
    }
    if is_wanted(Part::Drain) {
        let mut table = Table::new("drain", messages, OF_1_KIB);
        for _ in 0..rounds {
            bench.drain(&mut table).await?;
        }
        print(&table);
    }
    if is_wanted(Part::Commit) {
        let (transactions, rounds) = if arguments.quick { (100, 1) } else { (500, 5) };
        commit::measure(transactions, rounds, print).await?;
    }
    Ok(())
}
