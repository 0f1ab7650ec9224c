//! The crash test: producers and processors are killed at random moments, and the ledger must balance.
//!
//! Producers run mail-only transactions through the transaction manager into one Maildir queue;
//! processors are `sendmail-queue run`; the relay is in this process, and survives. With a database,
//! producers insert rows and attach mail in its transactions, and its server is killed now and then as
//! well. When all kills are done the rest is delivered in peace, and everything is compared.

mod clean;
mod database;
mod drain;
mod group;
mod processors;
mod producers;
mod strikes;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use fastrand::Rng;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::Result;
use crate::ledger::{Account, Ledger};
use crate::plan::Plan;
use crate::producer::Progress;
use crate::queue::Queue;
use crate::relay::{Pace, Relay, Sign};
use database::Database;
pub use database::Kind;
use processors::Processors;
use producers::{Producers, Word};
use strikes::{Blow, Strike, Strikes, Victim};

/// How large a crash test is.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many processes are killed.
    pub kills: u64,
    /// How many mails are handed over, at least.
    pub mails: u64,
    /// What the random decisions follow from.
    pub seed: u64,
    /// Whose transactions take the mail along; nothing if they are the queue's own.
    pub database: Option<Kind>,
    /// The program whose hidden commands are the producers: the crash test itself.
    pub program: PathBuf,
    /// Where the queue is made.
    pub folder: PathBuf,
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    /// The comparison.
    pub account: Account,
    /// Who was killed.
    pub kills: Kills,
    /// How many mails were planned.
    pub mails: u64,
    /// Trouble that is no mistake in the ledger: a process that ended by itself, a queue that does not
    /// get empty.
    pub trouble: Vec<String>,
    /// Messages that were held because they had killed too many workers, and were released.
    pub released: u64,
    /// Transactions that were to commit and failed, because the database's server was killed.
    pub failed: u64,
}

/// Who was killed, and how many were only stopped for a while.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kills {
    /// Producers.
    pub producers: u64,
    /// Processors.
    pub processors: u64,
    /// Servers of the database.
    pub servers: u64,
    /// How many producers and processors were stopped.
    pub stops: u64,
}

impl Kills {
    /// All that were killed.
    #[must_use]
    pub fn all(&self) -> u64 {
        self.producers + self.processors + self.servers
    }
}

impl Report {
    /// Whether all is as it should be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.account.is_clean() && self.trouble.is_empty()
    }
}

/// How many producers and processors work at once.
const PRODUCERS: usize = 3;
const PROCESSORS: usize = 3;
/// How long the relay takes, so that there is always something in flight.
const PACE: Pace = Pace {
    command: Duration::from_micros(800),
    dot: (Duration::ZERO, Duration::from_millis(25)),
    deferred_percent: 4,
};

/// Runs it; `tell` hears of the progress.
///
/// # Errors
///
/// The test itself could not be carried out.
pub async fn run(options: &Options, tell: impl Fn(&str)) -> Result<Report> {
    let (sign_sender, signs) = unbounded_channel();
    let (word_sender, words) = unbounded_channel();
    let mut random = Rng::with_seed(options.seed);
    let relay = Relay::start(PACE, random.u64(..), Some(sign_sender)).await?;
    let mut queue = Queue::new(options.folder.join("queue"))?;
    let database = match options.database {
        Some(kind) => {
            let database = Database::start(kind, &options.folder).await?;
            queue.database = Some(database.url.clone());
            queue.migrate().await?;
            Some(database)
        }
        None => None,
    };
    let mut run = Run {
        ledger: Ledger::default(),
        producers: Producers::new(options.program.clone(), queue.clone(), word_sender),
        processors: Processors::new(queue.clone(), relay.address),
        strikes: Strikes::new(random.fork(), options.database),
        plans: random.fork(),
        options,
        planned: 0,
        next_number: 0,
        kills: Kills::default(),
        trouble: Vec::new(),
        failed: 0,
        relay,
        queue,
        database,
        signs,
        words,
    };
    run.fight(&tell).await?;
    tell("no more kills: delivering the rest");
    run.finish(&tell).await
}

struct Run<'a> {
    options: &'a Options,
    queue: Queue,
    database: Option<Database>,
    relay: Relay,
    ledger: Ledger,
    producers: Producers,
    processors: Processors,
    strikes: Strikes,
    plans: Rng,
    planned: u64,
    next_number: u64,
    kills: Kills,
    trouble: Vec<String>,
    failed: u64,
    signs: UnboundedReceiver<Sign>,
    words: UnboundedReceiver<Word>,
}

impl Run<'_> {
    /// Until all kills are done and all mails handed over.
    async fn fight(&mut self, tell: &impl Fn(&str)) -> Result<()> {
        let mut told = Instant::now();
        while self.kills.all() < self.options.kills || self.planned < self.options.mails {
            self.keep_up()?;
            self.plan().await?;
            if self.kills.all() < self.options.kills && self.kill_is_due() {
                let strike = self.strikes.next();
                self.carry_out(strike).await?;
            } else {
                self.hear(Duration::from_millis(10)).await;
            }
            if told.elapsed() > Duration::from_secs(5) {
                told = Instant::now();
                tell(&self.progress());
            }
        }
        Ok(())
    }

    /// Keeps the numbers of producers and processors up; whoever ended without being killed is trouble.
    fn keep_up(&mut self) -> Result<()> {
        self.trouble.extend(self.producers.group.buried()?);
        self.trouble.extend(self.processors.group.buried()?);
        while self.producers.group.members().len() < PRODUCERS {
            self.producers.start()?;
        }
        while self.processors.group.members().len() < PROCESSORS {
            self.start_processor()?;
        }
        self.producers.group.continue_those_due()?;
        self.processors.group.continue_those_due()
    }

    /// Gives producers their next transactions: as many as keep step with the kills.
    async fn plan(&mut self) -> Result<()> {
        while self.planned < self.share_of_mails(self.kills.all() + 1)
            && let Some(producer) = self.producers.idlest()
        {
            let (number, random) = (self.next_number, &mut self.plans);
            let plan = match self.database {
                Some(_) => Plan::draw_with_rows(number, random),
                None => Plan::draw(number, random),
            };
            self.next_number += 1;
            self.planned += plan.mails.len() as u64;
            self.ledger.plan(plan.clone());
            self.producers.tell(producer, &plan).await?;
        }
        Ok(())
    }

    fn share_of_mails(&self, kills: u64) -> u64 {
        let share = self.options.mails * kills / self.options.kills.max(1);
        share.min(self.options.mails)
    }

    /// Not before the mails that belong to the kills so far were planned.
    fn kill_is_due(&self) -> bool {
        self.strikes.is_due() && self.planned >= self.share_of_mails(self.kills.all())
    }

    async fn carry_out(&mut self, strike: Strike) -> Result<()> {
        match strike.victim {
            Victim::Producer(which) => {
                let Some(producer) = self.producers.group.nth(which) else { return Ok(()) };
                if strike.awaits_sign {
                    self.hear_of_commit(producer).await;
                }
                tokio::time::sleep(strike.delay).await;
                match strike.blow {
                    Blow::Stop(pause) => self.stop_producer(producer, pause)?,
                    Blow::Kill => self.kill_producer(producer)?,
                    Blow::KillTwice(after) => {
                        self.kill_producer(producer)?;
                        let next = self.producers.start()?;
                        tokio::time::sleep(after).await;
                        self.kill_producer(next)?;
                    }
                }
            }
            Victim::Processor(which) => {
                let Some(id) = self.processors.group.nth(which) else { return Ok(()) };
                if strike.awaits_sign {
                    self.hear_of_dot(id).await;
                }
                tokio::time::sleep(strike.delay).await;
                match strike.blow {
                    Blow::Stop(pause) => self.stop_processor(id, pause)?,
                    Blow::Kill => self.kill_processor(id)?,
                    Blow::KillTwice(after) => {
                        self.kill_processor(id)?;
                        let next = self.start_processor()?;
                        tokio::time::sleep(after).await;
                        self.kill_processor(next)?;
                    }
                }
            }
            Victim::Server(down) => {
                if let Some(database) = &mut self.database {
                    self.kills.servers += u64::from(database.strike(down));
                }
            }
        }
        Ok(())
    }

    fn kill_producer(&mut self, producer: u64) -> Result<()> {
        self.kills.producers += 1;
        self.producers.kill(producer)
    }

    fn kill_processor(&mut self, id: u64) -> Result<()> {
        self.kills.processors += 1;
        self.ledger.is_killed(&Processors::name(id), crate::now_ms());
        self.processors.group.kill(id).map(drop)
    }

    fn stop_producer(&mut self, producer: u64, pause: Duration) -> Result<()> {
        self.kills.stops += 1;
        self.producers.group.stop(producer, pause)
    }

    fn stop_processor(&mut self, id: u64, pause: Duration) -> Result<()> {
        self.kills.stops += 1;
        self.processors.group.stop(id, pause)
    }

    fn start_processor(&mut self) -> Result<u64> {
        let id = self.processors.start()?;
        self.ledger.begins(&Processors::name(id), u64::from(Processors::CONNECTIONS));
        Ok(id)
    }

    /// Notes what processes and relay say, for at most `time`.
    async fn hear(&mut self, time: Duration) {
        let until = tokio::time::Instant::now() + time;
        while let Ok(heard) = tokio::time::timeout_at(until, self.hear_one()).await {
            drop(heard);
        }
    }

    /// Waits until this producer is about to commit; not for long, as it may have nothing to do.
    async fn hear_of_commit(&mut self, producer: u64) {
        let wanted = |heard: &Heard| matches!(heard, Heard::Committing(from) if *from == producer);
        self.hear_until(wanted).await;
    }

    /// Waits until the relay has read a final dot from this processor; not for long.
    async fn hear_of_dot(&mut self, id: u64) {
        let client = format!("{}.test", Processors::name(id));
        let wanted = |heard: &Heard| match heard {
            Heard::Relay(Sign::Dot(from) | Sign::Replied(from)) => *from == client,
            Heard::Committing(_) | Heard::Other => false,
        };
        self.hear_until(wanted).await;
    }

    async fn hear_until(&mut self, wanted: impl Fn(&Heard) -> bool) {
        let until = tokio::time::Instant::now() + Duration::from_millis(200);
        while let Ok(heard) = tokio::time::timeout_at(until, self.hear_one()).await {
            if wanted(&heard) {
                break;
            }
        }
    }

    async fn hear_one(&mut self) -> Heard {
        tokio::select! {
            Some(word) = self.words.recv() => self.note(word),
            Some(sign) = self.signs.recv() => Heard::Relay(sign),
            else => Heard::Other,
        }
    }

    fn note(&mut self, word: Word) -> Heard {
        self.producers.note(&word);
        let Word { producer, number, progress, remark } = word;
        self.ledger.progress(number, progress);
        if progress == Progress::Committing {
            return Heard::Committing(producer);
        }
        let failed = progress != Progress::Committed && self.ledger.is_to_commit(number);
        if failed && self.database.as_ref().is_some_and(Database::is_excuse) {
            self.failed += 1;
            return Heard::Other;
        }
        if failed || progress == Progress::Committed && !remark.is_empty() {
            self.trouble.push(format!("transaction {number}: {progress:?}: {remark}"));
        }
        Heard::Other
    }

    /// How many servers were killed, where there is one.
    fn servers(&self) -> String {
        match self.options.database.filter(|kind| Database::has_server(*kind)) {
            Some(_) => format!(", {} servers", self.kills.servers),
            None => String::new(),
        }
    }

    fn progress(&self) -> String {
        format!(
            "{} of {} kills ({} producers, {} processors{}), {} stops, {} of {} mails, {} copies",
            self.kills.all(),
            self.options.kills,
            self.kills.producers,
            self.kills.processors,
            self.servers(),
            self.kills.stops,
            self.planned,
            self.options.mails,
            self.relay.count()
        )
    }
}

/// What was heard.
enum Heard {
    Committing(u64),
    Relay(Sign),
    Other,
}
