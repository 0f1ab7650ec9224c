//! Kills producers and processors at random moments and compares the ledgers: what was committed, what
//! the relay received, what is queued, what the events say.
//!
//! A failure prints the seed and keeps the queue. The long run does the same in rounds, and remembers each.

#![expect(clippy::print_stdout, reason = "this program talks to the person who started it")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use clap::{Parser, Subcommand};
use sendmail_core::{EntryState, Filter, QueueAdmin as _};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_tests::long::record::Run;
use sendmail_tests::long::state::State;
use sendmail_tests::long::sum::Sum;
use sendmail_tests::race::Owner;
use sendmail_tests::{Result, claimer, crash, long, producer, race};

/// How many messages several processes race for.
const RACE_MESSAGES: usize = 20_000;

/// Kills producers and processors at random moments, and compares the ledgers.
#[derive(Parser)]
#[command(name = "crash-test", args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(subcommand)]
    role: Option<Role>,
    /// The long run: 10,000 kills, 200,000 mails and 20 races in rounds; goes on where it stopped
    #[arg(long)]
    long: bool,
    /// Only adds up what the long runs so far came to
    #[arg(long, conflicts_with = "long")]
    report: bool,
    /// In how many rounds the long run kills [default: 50]
    #[arg(long, value_name = "N", requires = "long")]
    rounds: Option<u64>,
    /// How many takeover races end the long run [default: 20; none with a database]
    #[arg(long, value_name = "N", requires = "long")]
    races: Option<u64>,
    /// Where the rounds of long runs are written down [default: long-DATABASE.jsonl in
    /// target/crash-test]
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
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
    if arguments.long {
        return long_run(arguments).await;
    }
    if arguments.report {
        let sum = Sum::of(&State::read(&state_file(arguments)?)?);
        println!("{sum}");
        return Ok(sum.is_clean());
    }
    let fought = fight(arguments).await?;
    // The races are about the queue alone.
    Ok(fought && (arguments.database.is_some() || race().await?))
}

/// Goes on with the long run, or begins one, and adds up all there were.
async fn long_run(arguments: &Arguments) -> Result<bool> {
    let races = if arguments.database.is_some() { 0 } else { 20 };
    let run = Run {
        seed: arguments.seed.unwrap_or_else(|| fastrand::u64(..)),
        database: arguments.database,
        rounds: arguments.rounds.unwrap_or(50),
        kills: arguments.kills.unwrap_or(10_000),
        mails: arguments.mails.unwrap_or(200_000),
        races: arguments.races.unwrap_or(races),
        race_messages: RACE_MESSAGES,
    };
    let file = state_file(arguments)?;
    println!("each round is written down in {}", file.display());
    let options = long::Options { run, file, program: std::env::current_exe()? };
    let sum = long::run(&options, |text| println!("{text}")).await?;
    println!("{sum}");
    Ok(sum.is_clean())
}

/// Beside the profiles' folders, one file for each database.
fn state_file(arguments: &Arguments) -> Result<PathBuf> {
    if let Some(file) = &arguments.state {
        return Ok(file.clone());
    }
    let program = std::env::current_exe()?;
    let target = program.ancestors().nth(2).ok_or("this program has no folder")?;
    let name = arguments.database.map_or("mail", long::record::word);
    Ok(target.join("crash-test").join(format!("long-{name}.jsonl")))
}

/// Several processes race for the messages of one that dies, of one that is stopped, and of nobody.
async fn race() -> Result<bool> {
    let few = RACE_MESSAGES / 5;
    let races = [(Owner::Killed, RACE_MESSAGES), (Owner::Stopped, few), (Owner::None, few)];
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
    let folder = tempfile::Builder::new().prefix("crash-test-").tempdir()?;
    let options = crash::Options {
        kills: arguments.kills.unwrap_or(200),
        mails: arguments.mails.unwrap_or(5000),
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
