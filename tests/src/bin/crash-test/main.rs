//! Kills producers and processors at random moments and compares the ledgers: what was committed, what
//! the relay received, what is queued, what the events say.
//!
//! A failure prints the seed and keeps the queue.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use sendmail_core::{EntryState, Filter, QueueAdmin as _};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_tests::race::Owner;
use sendmail_tests::{Result, claimer, crash, producer, race};

/// How many messages several processes race for.
const RACE_MESSAGES: usize = 20_000;

/// Kills producers and processors at random moments, and compares the ledgers.
#[derive(Parser)]
#[command(name = "crash-test", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// The long run: 10,000 kills, 200,000 mails
    #[arg(long)]
    long: bool,
    /// How many processes are killed [default: 200]
    #[arg(long, value_name = "N")]
    kills: Option<u64>,
    /// How many mails are sent [default: 5000]
    #[arg(long, value_name = "N")]
    mails: Option<u64>,
    /// Whose transactions take the mail along; without it they are transactions with mail only
    #[arg(long, value_name = "DATABASE", value_enum)]
    database: Option<crash::Kind>,
    /// The seed of an earlier run, to repeat its decisions
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

/// What the test starts itself as.
#[derive(Subcommand)]
enum Role {
    /// Runs the transactions that standard input tells it
    #[command(hide = true)]
    Producer {
        queue: PathBuf,
        /// The URL of the database whose transactions they are
        #[arg(long)]
        database: Option<String>,
        /// Does everything that touches the disk in one thread, so that its calls can be counted
        #[arg(long)]
        one_thread: bool,
    },
    /// Claims messages and says which
    #[command(hide = true)]
    Claimer { queue: PathBuf, first: usize },
    /// Releases everything that is held
    #[command(hide = true)]
    Release { queue: PathBuf },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let mut runtime = tokio::runtime::Builder::new_multi_thread();
    if let Some(Role::Producer { one_thread: true, .. }) = &arguments.role {
        runtime.max_blocking_threads(1);
    }
    match runtime.enable_all().build() {
        Ok(runtime) => runtime.block_on(act(&arguments)),
        Err(error) => {
            println!("crash-test: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn act(arguments: &Arguments) -> ExitCode {
    let done = match &arguments.role {
        Some(Role::Producer { queue, database, .. }) => {
            producer::run(queue, database.as_deref()).await.map(|()| true)
        }
        Some(Role::Claimer { queue, first }) => claimer::run(queue, *first).await.map(|()| true),
        Some(Role::Release { queue }) => release(queue).await.map(|()| true),
        None => test(arguments).await,
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            println!("crash-test: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn test(arguments: &Arguments) -> Result<bool> {
    let fought = fight(arguments).await?;
    // The races are about the queue alone.
    Ok(fought && (arguments.database.is_some() || race(arguments.long).await?))
}

/// Several processes race for the messages of one that dies, of one that is stopped, and of nobody.
async fn race(long: bool) -> Result<bool> {
    let takeovers = if long { 20 } else { 1 };
    let mut races = vec![(Owner::Killed, RACE_MESSAGES); takeovers];
    races.extend([(Owner::Stopped, RACE_MESSAGES / 5), (Owner::None, RACE_MESSAGES / 5)]);
    for (owner, messages) in races {
        let folder = tempfile::Builder::new().prefix("crash-test-").tempdir()?;
        let begin = Instant::now();
        let program = std::env::current_exe()?;
        let outcome = race::run(&program, folder.path(), messages, owner).await?;
        let seconds = begin.elapsed().as_secs_f64();
        println!("race, owner {owner:?}: {outcome}, in {seconds:.1} s");
        if !outcome.is_clean() {
            println!("failed: the queue is kept in {}", folder.keep().display());
            return Ok(false);
        }
    }
    Ok(true)
}

async fn fight(arguments: &Arguments) -> Result<bool> {
    let (kills, mails) = if arguments.long { (10_000, 200_000) } else { (200, 5000) };
    let folder = tempfile::Builder::new().prefix("crash-test-").tempdir()?;
    let options = crash::Options {
        kills: arguments.kills.unwrap_or(kills),
        mails: arguments.mails.unwrap_or(mails),
        database: arguments.database,
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
        program: std::env::current_exe()?,
        folder: folder.path().to_owned(),
    };
    let with = options.database.map_or_else(String::new, |kind| format!(", with {kind:?}"));
    println!(
        "crash test{with}: {} kills, {} mails, seed {}",
        options.kills, options.mails, options.seed
    );
    let begin = Instant::now();
    let report = crash::run(&options, |text| println!("  {text}")).await;
    println!("{:.1} s", begin.elapsed().as_secs_f64());
    if let Ok(report) = &report {
        tell(report);
        if report.is_clean() {
            return Ok(true);
        }
    }
    println!(
        "failed: repeat it with --seed {}; the queue is kept in {}",
        options.seed,
        folder.keep().display()
    );
    report.map(|_| false)
}

fn tell(report: &crash::Report) {
    let crash::Kills { producers, processors, servers, stops } = report.kills;
    let servers = if servers > 0 { format!(", {servers} database servers") } else { String::new() };
    println!(
        "killed: {producers} producers, {processors} processors{servers}; stopped for a while: {stops}"
    );
    if report.failed > 0 {
        println!("{} transactions failed with the database's server", report.failed);
    }
    println!("{} mails planned; {} held and released", report.mails, report.released);
    print!("{}", report.account);
    for trouble in &report.trouble {
        println!("trouble: {trouble}");
    }
}

async fn release(queue: &Path) -> Result<()> {
    let store = MaildirStore::open(queue, MaildirOptions::default()).await?;
    let mut filter = Filter::default();
    filter.states = vec![EntryState::Held];
    let mut held = Vec::new();
    let mut visit = |entry: sendmail_core::Entry| {
        held.push(entry.id);
        std::ops::ControlFlow::Continue(())
    };
    store.list(&filter, &mut visit).await?;
    for id in held {
        store.release(id).await?;
    }
    Ok(())
}
