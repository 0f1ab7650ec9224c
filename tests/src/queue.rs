//! The command line as a test uses it: a queue's directory, and what `sendmail-queue` says about it.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::{Result, programs};

/// A queue, and the program that works on it.
#[derive(Debug, Clone)]
pub struct Queue {
    program: PathBuf,
    /// Words that start another program, which starts ours: nothing if ours is started by itself.
    pub through: Vec<OsString>,
    /// The queue's directory.
    pub path: PathBuf,
    /// The URL of the database whose transactions take mail along, if there is one.
    pub database: Option<String>,
}

/// How many messages are where.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// In transactions that are not decided, or not finished.
    pub staged: u64,
    /// Due.
    pub queued: u64,
    /// With a processor.
    pub claimed: u64,
    /// Waiting for a time.
    pub deferred: u64,
    /// Waiting for a person.
    pub held: u64,
    /// Given up.
    pub failed: u64,
}

impl Counts {
    /// How many a processor still has to do with.
    #[must_use]
    pub fn to_do(&self) -> u64 {
        self.staged + self.queued + self.claimed + self.deferred
    }
}

/// How a processor is to be run.
#[derive(Debug, Clone)]
pub struct Processor {
    /// Its name, by which the relay knows it.
    pub name: String,
    /// Where the relay listens.
    pub relay: std::net::SocketAddr,
    /// How many connections it may open.
    pub connections: u16,
}

/// Something that happened to a message, as the log tells it.
#[derive(Debug, Clone)]
pub struct Event {
    /// When, in milliseconds since the epoch.
    pub at_ms: i64,
    /// What.
    pub kind: String,
    /// The queue id.
    pub id: String,
    /// The Message-ID.
    pub message_id: String,
    /// To whom, if it is about one recipient.
    pub recipient: String,
    /// In which attempt.
    pub attempt: u64,
    /// Why, where that is told.
    pub detail: String,
}

impl Queue {
    /// The queue in this directory, which needs not exist yet.
    ///
    /// # Errors
    ///
    /// `sendmail-queue` cannot be built.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self> {
        let (program, path) = (programs::sendmail_queue()?, path.into());
        Ok(Self { program, through: Vec::new(), path, database: None })
    }

    /// Makes the tables in the database.
    ///
    /// # Errors
    ///
    /// It could not be done.
    pub async fn migrate(&self) -> Result<()> {
        let output = self.command(["migrate"]).output().await?;
        if output.status.success() { Ok(()) } else { Err(failed("migrate", &output)) }
    }

    /// Starts a processor that runs until it is told to stop; what it has to say goes to a file beside
    /// the queue.
    ///
    /// # Errors
    ///
    /// It cannot be started.
    pub fn start(&self, processor: &Processor) -> Result<Child> {
        let beside = self.path.parent().unwrap_or(&self.path);
        let log = File::options().create(true).append(true).open(beside.join("processors.log"))?;
        let mut command = self.processor(processor)?;
        Ok(command.stdout(log.try_clone()?).stderr(log).spawn()?)
    }

    /// Delivers all that is due, and waits for the end.
    ///
    /// # Errors
    ///
    /// It failed, or something was left for later.
    pub async fn run_once(&self, processor: &Processor) -> Result<()> {
        let output = self.processor(processor)?.arg("--once").output().await?;
        if output.status.success() { Ok(()) } else { Err(failed("run --once", &output)) }
    }

    /// The command that runs a processor.
    ///
    /// # Errors
    ///
    /// Its configuration cannot be written.
    pub fn processor(&self, processor: &Processor) -> Result<Command> {
        let beside = self.path.parent().unwrap_or(&self.path);
        let config = beside.join(format!("{}.toml", processor.name));
        let text = format!(
            "[relay]\nurl = \"smtp://{}\"\nhello_name = \"{}.test\"\nmax_connections = {}\n\n\
             [delivery]\nfirst_retry = \"1s\"\n",
            processor.relay, processor.name, processor.connections
        );
        std::fs::write(&config, text)?;
        let mut command = self.command(["run", "--quiet"]);
        command.arg("--config").arg(config);
        Ok(command)
    }

    /// How many messages are where.
    ///
    /// # Errors
    ///
    /// The program failed, or said what is not understood.
    pub async fn counts(&self) -> Result<Counts> {
        let mut counts = Counts::default();
        for line in self.json(["stats"]).await? {
            let count = line["count"].as_u64().ok_or("stats printed no count")?;
            match line["state"].as_str().unwrap_or_default() {
                "staged" => counts.staged = count,
                "queued" => counts.queued = count,
                "claimed" => counts.claimed = count,
                "deferred" => counts.deferred = count,
                "held" => counts.held = count,
                "failed" => counts.failed = count,
                // Not part of the queue.
                "discarded" => {}
                other => return Err(format!("stats printed an unknown state: {other}").into()),
            }
        }
        Ok(counts)
    }

    /// The whole log.
    ///
    /// # Errors
    ///
    /// The program failed, or said what is not understood.
    pub async fn events(&self) -> Result<Vec<Event>> {
        self.json(["events"]).await?.iter().map(event).collect()
    }

    /// The Message-IDs of what was discarded as rolled back; none for what its writer was killed over
    /// before it was whole.
    ///
    /// # Errors
    ///
    /// The program failed, or said what is not understood.
    pub async fn discarded(&self) -> Result<Vec<Option<String>>> {
        let all = self.json(["list", "--state", "discarded"]).await?;
        Ok(all.iter().map(|line| line["message_id"].as_str().map(str::to_owned)).collect())
    }

    /// Decides what can be decided; whether nothing is left in doubt.
    ///
    /// # Errors
    ///
    /// The program failed.
    pub async fn recover(&self) -> Result<bool> {
        let output = self.command(["recover"]).output().await?;
        match output.status.code() {
            Some(0) => Ok(true),
            Some(75) => Ok(false),
            _ => Err(failed("recover", &output)),
        }
    }

    async fn json<const N: usize>(&self, words: [&str; N]) -> Result<Vec<Value>> {
        let output = self.command(words).output().await?;
        if !output.status.success() {
            return Err(failed(&words.join(" "), &output));
        }
        let text = String::from_utf8(output.stdout)?;
        text.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
    }

    /// Another program, started through the same words.
    #[must_use]
    pub fn through_the_same(&self, program: impl AsRef<OsStr>) -> Command {
        match self.through.split_first() {
            Some((first, rest)) => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        }
    }

    /// `sendmail-queue` with this queue and these words.
    #[must_use]
    pub fn command<const N: usize>(&self, words: [&str; N]) -> Command {
        let mut command = self.through_the_same(&self.program);
        command.arg("--json").arg("--queue").arg(&self.path).args(words);
        command.env_remove("SENDMAIL_CONFIG").env_remove("SENDMAIL_RELAY");
        match &self.database {
            Some(url) => command.env("SENDMAIL_DATABASE", url),
            None => command.env_remove("SENDMAIL_DATABASE"),
        };
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }
}

fn failed(what: &str, output: &std::process::Output) -> crate::Error {
    let text = String::from_utf8_lossy(&output.stderr);
    format!("sendmail-queue {what}: {}: {text}", output.status).into()
}

fn event(value: &Value) -> Result<Event> {
    let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
    let time = text("time");
    Ok(Event {
        at_ms: parse_time(&time).ok_or_else(|| format!("an event has no time: {value}"))?,
        kind: text("kind"),
        id: text("id"),
        message_id: text("message_id"),
        recipient: text("recipient"),
        attempt: value["attempt"].as_u64().unwrap_or_default(),
        detail: value["detail"].as_str().unwrap_or_default().to_owned(),
    })
}

/// Reads `2026-11-24T07:08:55.123Z` as milliseconds since the epoch.
fn parse_time(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, between: [char; 2]| -> Option<Vec<i64>> {
        text.split(between).map(|part| part.parse().ok()).collect()
    };
    let [year, month, day] = numbers(date, ['-', '-'])?.try_into().ok()?;
    let [hour, minute, second, millis] = numbers(time, [':', '.'])?.try_into().ok()?;
    let leap = |year: i64| (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let before = usize::try_from(month - 1).ok().filter(|months| *months < 12)?;
    let years: i64 = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum();
    let days = years + lengths[..before].iter().sum::<i64>() + day - 1;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + millis)
}

/// The files that are left in a queue that is empty and should not be: not those that are kept on
/// purpose, which are the log, what was discarded, and for some time decisions and fences.
#[must_use]
pub fn left_overs(queue: &Path) -> Vec<PathBuf> {
    let kept = [".journal", ".discarded", ".failed", ".owners"];
    let mut found = Vec::new();
    let mut folders = vec![queue.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let (name, path) = (entry.file_name(), entry.path());
            if path.is_dir() {
                if !kept.iter().any(|kept| name == *kept) {
                    folders.push(path);
                }
            } else if folder != queue && !is_decision(&name.to_string_lossy()) {
                found.push(path);
            }
        }
    }
    found
}

fn is_decision(name: &str) -> bool {
    name.ends_with(".fence") || name.contains(".tx.o")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        assert_eq!(parse_time("1970-01-01T00:00:00.000Z"), Some(0));
        assert_eq!(parse_time("2000-02-29T00:00:00.000Z"), Some(951_782_400_000));
        assert_eq!(parse_time("2026-11-24T07:08:55.123Z"), Some(1_795_504_135_123));
        assert_eq!(parse_time("2026-11-24"), None);
    }
}
