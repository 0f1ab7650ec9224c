//! The lines of a state file.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::crash::{self, Kind};
use crate::{Result, race};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum Line {
    /// A run begins.
    Run(Run),
    /// A round begins; without a result behind it, it was broken off.
    Begun {
        /// The run's seed.
        seed: u64,
        /// Which round.
        round: u64,
        /// Where its queue is.
        folder: String,
    },
    /// A round of kills is over.
    Fight(Fight),
    /// A race for the messages of one that was killed is over.
    Race(Race),
}

/// What a run consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// What all of it follows from.
    pub seed: u64,
    /// Whose transactions take the mail along; nothing if they are the queue's own.
    pub database: Option<Kind>,
    /// How many rounds of kills there are.
    pub rounds: u64,
    /// How many processes are killed in all of them.
    pub kills: u64,
    /// How many mails are handed over in all of them.
    pub mails: u64,
    /// How many races follow.
    pub races: u64,
    /// For how many messages each.
    pub race_messages: usize,
}

/// A round of kills.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Fight {
    /// The run's seed.
    pub seed: u64,
    /// Which round.
    pub round: u64,
    /// The round's own seed.
    pub round_seed: u64,
    /// When it was over, UTC.
    pub date: String,
    /// How long it took.
    pub seconds: f64,
    /// The command that repeats it.
    pub command: String,
    /// Producers that were killed.
    pub producers: u64,
    /// Processors that were killed.
    pub processors: u64,
    /// Database servers that were killed.
    pub servers: u64,
    /// Processes that were stopped for a while.
    pub stops: u64,
    /// Mails that were handed over.
    pub mails: u64,
    /// Transactions whose commit returned success.
    pub committed: u64,
    /// Transactions that were rolled back.
    pub rolled_back: u64,
    /// Transactions whose producer was killed in the commit.
    pub in_doubt: u64,
    /// Copies that arrived.
    pub copies: u64,
    /// Second and further ones of them.
    pub second_copies: u64,
    /// Possible-duplicate events.
    pub events: u64,
    /// Committed mails that did not arrive.
    pub lost: u64,
    /// Mails that arrived although they were rolled back.
    pub phantom: u64,
    /// Transactions of which some mails arrived.
    pub half: u64,
    /// Every broken promise, those three included, by its name.
    pub mistakes: BTreeMap<String, u64>,
    /// What else went wrong.
    pub trouble: Vec<String>,
    /// Where the queue is kept, if something went wrong.
    pub kept: Option<String>,
}

/// A race of several processes for the messages of one that was killed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Race {
    /// The run's seed.
    pub seed: u64,
    /// Which round.
    pub round: u64,
    /// When it was over, UTC.
    pub date: String,
    /// How long it took.
    pub seconds: f64,
    /// How many messages there were.
    pub messages: usize,
    /// How many of them were claimed.
    pub claimed: usize,
    /// How many of them twice.
    pub doubles: usize,
    /// What else went wrong.
    pub trouble: Vec<String>,
    /// Where the queue is kept, if something went wrong.
    pub kept: Option<String>,
}

impl Line {
    /// Whether no promise was broken in it.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        match self {
            Self::Run(_) | Self::Begun { .. } => true,
            Self::Fight(fight) => fight.mistakes.is_empty() && fight.trouble.is_empty(),
            Self::Race(race) => {
                race.claimed == race.messages && race.doubles == 0 && race.trouble.is_empty()
            }
        }
    }

    /// Notes where the queue is kept.
    pub(super) fn keep(&mut self, folder: String) {
        match self {
            Self::Fight(fight) => fight.kept = Some(folder),
            Self::Race(race) => race.kept = Some(folder),
            Self::Run(_) | Self::Begun { .. } => {}
        }
    }
}

impl Fight {
    pub(super) fn of(
        run: &Run,
        round: u64,
        options: &crash::Options,
        report: Result<crash::Report>,
        took: Duration,
        date: String,
    ) -> Self {
        let mut fight = Self {
            seed: run.seed,
            round,
            round_seed: options.seed,
            date,
            seconds: tenths(took),
            command: command(options),
            ..Self::default()
        };
        match report {
            Ok(report) => fight.take(report),
            Err(error) => fight.trouble.push(error.to_string()),
        }
        fight
    }

    fn take(&mut self, report: crash::Report) {
        use crate::ledger::Mistake;

        let account = report.account;
        let count = |count: usize| count as u64;
        self.producers = report.kills.producers;
        self.processors = report.kills.processors;
        self.servers = report.kills.servers;
        self.stops = report.kills.stops;
        self.mails = report.mails;
        self.committed = count(account.committed.0);
        self.rolled_back = count(account.rolled_back.0);
        self.in_doubt = count(account.in_doubt.0);
        self.copies = count(account.copies);
        self.second_copies = count(account.second_copies);
        self.events = count(account.announced);
        self.lost = count(account.count(Mistake::Lost));
        self.phantom = count(account.count(Mistake::Phantom));
        self.half = count(account.count(Mistake::Half));
        for (mistake, texts) in &account.mistakes {
            self.mistakes.insert(mistake.name().to_owned(), count(texts.len()));
            // The rest of them is in the queue that is kept.
            let told = texts.iter().take(5);
            self.trouble.extend(told.map(|text| format!("{}: {text}", mistake.name())));
        }
        self.trouble.extend(report.trouble);
    }

    /// All that were killed.
    #[must_use]
    pub fn kills(&self) -> u64 {
        self.producers + self.processors + self.servers
    }
}

impl Race {
    pub(super) fn of(
        run: &Run,
        round: u64,
        outcome: Result<race::Outcome>,
        took: Duration,
        date: String,
    ) -> Self {
        let mut race = Self {
            seed: run.seed,
            round,
            date,
            seconds: tenths(took),
            messages: run.race_messages,
            ..Self::default()
        };
        match outcome {
            Ok(outcome) => (race.claimed, race.doubles) = (outcome.claimed, outcome.doubles),
            Err(error) => race.trouble.push(error.to_string()),
        }
        race
    }
}

/// The word by which the command line knows a database.
#[must_use]
pub fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Sqlite => "sqlite",
        Kind::Postgres => "postgres",
        Kind::MariaDb => "mariadb",
    }
}

/// What a person types to repeat a round.
fn command(options: &crash::Options) -> String {
    let crash::Options { kills, mails, seed, .. } = options;
    let with =
        options.database.map_or_else(String::new, |kind| format!(" --database {}", word(kind)));
    format!("cargo xtask crash-test{with} --kills {kills} --mails {mails} --seed {seed}")
}

fn tenths(took: Duration) -> f64 {
    (took.as_secs_f64() * 10.0).round() / 10.0
}

impl fmt::Display for Run {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, rounds, kills, mails, races, race_messages, .. } = self;
        let with = self.database.map_or("no database", word);
        write!(
            f,
            "long run, {with}: seed {seed}, {kills} kills and {mails} mails in {rounds} rounds"
        )?;
        if *races > 0 {
            write!(f, ", {races} races for {race_messages} messages")?;
        }
        Ok(())
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Run(run) => write!(f, "{run}"),
            Self::Begun { round, folder, .. } => write!(f, "round {} in {folder}", round + 1),
            Self::Fight(fight) => write!(
                f,
                "{} kills, {} mails, {} lost, {} after rollback, {} half, {} second copies, {} events, {:.0} s",
                fight.kills(),
                fight.mails,
                fight.lost,
                fight.phantom,
                fight.half,
                fight.second_copies,
                fight.events,
                fight.seconds
            ),
            Self::Race(race) => write!(
                f,
                "race for {} messages, {} claimed, {} of them twice, {:.0} s",
                race.messages, race.claimed, race.doubles, race.seconds
            ),
        }?;
        if self.is_clean() { Ok(()) } else { write!(f, ": FAILED") }
    }
}
