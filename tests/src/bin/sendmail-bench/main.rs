//! Benchmarks, side by side with what they are compared with, in one run on one machine.
//!
//! Each contestant runs in turn, several times over; what is printed is the median. The figures of two
//! runs cannot be compared, the ratios within one can.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "this program talks to the person who started it"
)]

mod contestants;
mod figures;
mod plot;
mod report;
mod row;
mod rows;
mod run;
mod scale;
mod works;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sendmail_tests::Result;

use contestants::enqueue::Queue;
use report::Machine;
use scale::Scale;

/// How many rounds there are, unless another number is asked for.
const ROUNDS: usize = 5;

/// Measures how fast mail is queued and delivered, beside others, in one run.
#[derive(Parser)]
#[command(name = "sendmail-bench")]
struct Arguments {
    /// Which rows or works; all of them if none is named
    names: Vec<String>,
    /// Little work and one round: whether it works, not how fast it is
    #[arg(long)]
    quick: bool,
    /// How many rounds; 5, or 1 if it is quick
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
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
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Where the plots are written
    #[arg(long, value_name = "DIR", default_value = "docs/benchmarks")]
    plots: PathBuf,
    /// Queue messages and do nothing else: what is traced
    #[arg(long, value_name = "DIR", hide = true)]
    enqueue_into: Option<PathBuf>,
    /// How many
    #[arg(long, value_name = "N", hide = true, default_value_t = 0)]
    messages: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sendmail-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> Result<()> {
    if let Some(queue) = &arguments.enqueue_into {
        return Queue::open(queue).await?.fill(arguments.messages, 1, contestants::KIB).await;
    }
    if let Some(file) = &arguments.plot {
        for written in plot::draw(file, &arguments.plots)? {
            println!("{}", written.display());
        }
        return Ok(());
    }
    let rows = rows::named(&arguments.names)?;
    if arguments.list {
        for row in rows {
            println!("{:<24} {:<24} {}", row.name, row.work, row.metric.name());
        }
        return Ok(());
    }
    measure(arguments, rows).await
}

async fn measure(arguments: &Arguments, rows: Vec<row::Row>) -> Result<()> {
    let scale = Scale::new(arguments.quick, arguments.queued);
    let rounds = arguments.rounds.map_or(if arguments.quick { 1 } else { ROUNDS }, usize::from);
    // It is built before anything is measured.
    contestants::processor::program()?;
    let machine = Machine::look(rounds, arguments.quick);
    println!("{}", if arguments.json { machine.json().to_string() } else { machine.text() });
    let mut outcomes = Vec::new();
    for (work, rows) in run::by_work(rows) {
        let tell = |line: &str| eprintln!("{line}");
        let outcome = run::measure(work, rows, rounds, &scale, &tell).await;
        if arguments.json {
            report::lines(&outcome).iter().for_each(|line| println!("{line}"));
        } else {
            println!("{}", report::text(&outcome));
        }
        outcomes.push(outcome);
    }
    if !arguments.json {
        print!("{}", report::summary(&outcomes));
    }
    Ok(())
}
