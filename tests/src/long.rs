//! The long run: a crash test in rounds, each of which is written down when it is over, so that a run that
//! was interrupted in whatever way goes on where it stopped.
//!
//! All of a run follows from one seed: the rounds' own seeds are drawn from it in order, and a round can be
//! repeated alone by its own. The state file ([`state`]) is a journal of lines; what all of them come to is
//! the ledger ([`sum`]).

pub mod record;
pub mod state;
pub mod sum;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use sendmail_clock::SystemClock;
use sendmail_core::Clock as _;

use crate::race::Owner;
use crate::{Result, crash, race};
use record::{Fight, Line, Race, Run};
use state::State;
use sum::Sum;

/// How a run starts that nothing in the state file is left of.
#[derive(Debug, Clone)]
pub struct Options {
    /// What is run, if it is a new run; one that was interrupted goes on as it began.
    pub run: Run,
    /// The state file.
    pub file: PathBuf,
    /// The program whose hidden commands are the producers: the crash test itself.
    pub program: PathBuf,
}

/// Goes on with the run that the state file knows as unfinished, or begins a new one; `tell` hears of each
/// round. Returns what the whole file comes to.
///
/// # Errors
///
/// The state file cannot be read or written, or another process has it open.
pub async fn run(options: &Options, tell: impl Fn(&str)) -> Result<Sum> {
    let mut state = State::open(&options.file)?;
    if let Some(folder) = state.broken_off() {
        tell(&format!("a round was broken off: stopping what it left, removing {folder}"));
        clear_away(Path::new(folder))?;
    }
    let run = match state.unfinished() {
        Some(run) => run.clone(),
        None => {
            state.append(Line::Run(options.run.clone()))?;
            options.run.clone()
        }
    };
    let to_do = state.to_do(&run);
    let all = run.rounds + run.races;
    tell(&format!("{run}; {} of {all} rounds are to do", to_do.len()));
    let begin = Instant::now();
    for (index, &round) in to_do.iter().enumerate() {
        let folder = tempfile::Builder::new().prefix("crash-test-").tempdir()?;
        let path = folder.path().display().to_string();
        state.append(Line::Begun { seed: run.seed, round, folder: path.clone() })?;
        let mut line = if round < run.rounds {
            Line::Fight(fight(&run, round, folder.path(), &options.program).await)
        } else {
            Line::Race(race(&run, round, folder.path(), &options.program).await)
        };
        if !line.is_clean() {
            line.keep(path);
            drop(folder.keep());
        }
        let left = remaining(begin.elapsed(), index + 1, to_do.len());
        tell(&format!("round {} of {all}: {line}; {} min to go", round + 1, left.as_secs() / 60));
        state.append(line)?;
    }
    Ok(Sum::of(state.lines()))
}

/// The seed of a round: the rounds' seeds are drawn from the run's in order.
#[must_use]
pub fn seed_of(seed: u64, round: u64) -> u64 {
    let mut random = Rng::with_seed(seed);
    (0..round).fold(random.u64(..), |_, _| random.u64(..))
}

async fn fight(run: &Run, round: u64, folder: &Path, program: &Path) -> Fight {
    let options = crash::Options {
        kills: share(run.kills, run.rounds, round),
        mails: share(run.mails, run.rounds, round),
        seed: seed_of(run.seed, round),
        database: run.database,
        program: program.to_owned(),
        folder: folder.to_owned(),
    };
    let begin = Instant::now();
    let report = crash::run(&options, |_| {}).await;
    let date = SystemClock.now().to_string();
    Fight::of(run, round, &options, report, begin.elapsed(), date)
}

async fn race(run: &Run, round: u64, folder: &Path, program: &Path) -> Race {
    let begin = Instant::now();
    let outcome = race::run(program, folder, run.race_messages, Owner::Killed).await;
    let date = SystemClock.now().to_string();
    Race::of(run, round, outcome, begin.elapsed(), date)
}

/// What falls to one of `rounds`; the first ones get what is left over.
fn share(total: u64, rounds: u64, round: u64) -> u64 {
    let rounds = rounds.max(1);
    total / rounds + u64::from(round < total % rounds)
}

/// How long the rest takes if it goes on like this.
fn remaining(took: Duration, done: usize, all: usize) -> Duration {
    let one = took.as_secs_f64() / done.max(1) as f64;
    Duration::from_secs_f64(one * all.saturating_sub(done) as f64)
}

/// Stops the processes that a round left behind whose own process was killed, and removes its folder.
///
/// Producers and racers end with their standard input, servers with their parent; processors are left.
fn clear_away(folder: &Path) -> Result<()> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let number = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok());
        let Some(pid) = number.and_then(rustix::process::Pid::from_raw) else { continue };
        // One that ends meanwhile has no file any more.
        let words = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if names(&words, folder) {
            // It may have ended by itself.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether one of a process's words is a path in this folder.
fn names(words: &[u8], folder: &Path) -> bool {
    words
        .split(|byte| *byte == 0)
        .any(|word| std::str::from_utf8(word).is_ok_and(|word| Path::new(word).starts_with(folder)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rounds_share_everything() {
        let shares: Vec<u64> = (0..3).map(|round| share(10, 3, round)).collect();
        assert_eq!(shares, [4, 3, 3]);
        assert_eq!(share(10, 0, 0), 10);
    }

    #[test]
    fn the_seed_of_a_round_follows_from_the_runs_seed_and_from_nothing_else() {
        assert_eq!(seed_of(7, 3), seed_of(7, 3));
        let mut seeds: Vec<u64> = (0..50).map(|round| seed_of(7, round)).collect();
        seeds.extend((0..50).map(|round| seed_of(8, round)));
        seeds.sort_unstable();
        seeds.dedup();
        assert_eq!(seeds.len(), 100);
    }

    #[test]
    fn only_processes_of_the_folder_are_meant() {
        let folder = Path::new("/tmp/crash-test-a");
        assert!(names(b"sendmail-queue\0run\0/tmp/crash-test-a/queue\0", folder));
        assert!(!names(b"sendmail-queue\0run\0/tmp/crash-test-ab/queue\0", folder));
        assert!(!names(b"vi\0notes on /tmp/crash-test-a\0", folder));
        assert!(!names(b"", folder));
    }

    #[test]
    fn the_rest_takes_as_long_as_what_was_done() {
        let minute = Duration::from_secs(60);
        assert_eq!(remaining(minute, 1, 4), minute * 3);
        assert_eq!(remaining(minute, 4, 4), Duration::ZERO);
    }
}
