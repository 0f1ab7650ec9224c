//! The race for messages: several processes claim from one queue, and nobody gets what another has.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::process::signal;
use crate::{Result, fill};

/// How many processes race.
const RACERS: usize = 4;
/// How long nobody may claim anything before it counts as all.
const SILENCE: Duration = Duration::from_secs(3);

/// What becomes of the process that has the messages first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// It has all of them and is killed: the others race to take over.
    Killed,
    /// It has half of them and is stopped while the others take the rest; then it goes on.
    Stopped,
    /// There is none.
    None,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How many messages there were.
    pub messages: usize,
    /// How many were claimed, the dead owner's claims not counted.
    pub claimed: usize,
    /// How many of them more than once.
    pub doubles: usize,
    /// How many racers got any.
    pub winners: usize,
}

impl Outcome {
    /// Whether each message was claimed exactly once.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.claimed == self.messages && self.doubles == 0
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { messages, claimed, doubles, winners } = self;
        write!(f, "{messages} messages, {claimed} claimed by {winners}, {doubles} of them twice")
    }
}

/// Fills the queue in `folder` and lets them race; `program` has the hidden command `claimer`.
///
/// # Errors
///
/// The race could not be held, or a racer ended with an error: it had lost a claim, for instance.
pub async fn run(program: &Path, folder: &Path, messages: usize, owner: Owner) -> Result<Outcome> {
    let queue = folder.join(format!("race-{owner:?}").to_lowercase());
    fill::fill(&queue, messages, 512, 500).await?;
    let (sender, claims) = unbounded_channel();
    let mut race =
        Race { program: program.to_owned(), queue, sender, claims, seen: HashMap::new() };
    let first = match owner {
        Owner::Killed => messages,
        Owner::Stopped => messages / 2,
        Owner::None => 0,
    };
    let mut early = None;
    if first > 0 {
        early = Some(race.start(usize::MAX, first)?);
        race.hear_until(first).await;
    }
    let mut racers = Vec::new();
    match (owner, early.as_mut()) {
        (Owner::Killed, Some(process)) => {
            for index in 0..RACERS {
                racers.push(race.start(index, 0)?);
            }
            process.child.start_kill()?;
            process.child.wait().await?;
            // What it had is free again, and is counted anew.
            race.seen.clear();
            early = None;
            race.hear_until(messages).await;
        }
        (_, process) => {
            if let Some(process) = process {
                signal(&process.child, Signal::STOP)?;
            }
            for index in 0..RACERS {
                racers.push(race.start(index, 0)?);
            }
            race.hear_until(messages).await;
        }
    }
    if let Some(process) = &mut early {
        signal(&process.child, Signal::CONT)?;
        process.stdin.write_all(b"go\n").await?;
    }
    racers.extend(early);
    race.hear_until(usize::MAX).await;
    for racer in racers {
        racer.finish().await?;
    }
    Ok(race.outcome(messages))
}

struct Race {
    program: PathBuf,
    queue: PathBuf,
    sender: UnboundedSender<(usize, String)>,
    claims: UnboundedReceiver<(usize, String)>,
    /// Who claimed what.
    seen: HashMap<String, Vec<usize>>,
}

struct Racer {
    child: Child,
    stdin: ChildStdin,
}

impl Race {
    /// Starts a process that claims `first` messages and waits, or claims all that it can get.
    fn start(&self, index: usize, first: usize) -> Result<Racer> {
        let mut command = Command::new(&self.program);
        command.arg("claimer").arg(&self.queue).arg(first.to_string()).kill_on_drop(true);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let stdout = child.stdout.take().ok_or("a racer has no standard output")?;
        let stdin = child.stdin.take().ok_or("a racer has no standard input")?;
        let sender = self.sender.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stdout).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                if sender.send((index, line)).is_err() {
                    break;
                }
            }
        });
        Ok(Racer { child, stdin })
    }

    /// Hears claims until there are `count`, or until nobody claims anything for a while.
    async fn hear_until(&mut self, count: usize) {
        while self.seen.values().map(Vec::len).sum::<usize>() < count {
            let Ok(Some((who, id))) = tokio::time::timeout(SILENCE, self.claims.recv()).await
            else {
                break;
            };
            self.seen.entry(id).or_default().push(who);
        }
    }

    fn outcome(&self, messages: usize) -> Outcome {
        let mut winners: Vec<usize> = self.seen.values().flatten().copied().collect();
        winners.sort_unstable();
        winners.dedup();
        Outcome {
            messages,
            claimed: self.seen.len(),
            doubles: self.seen.values().filter(|claims| claims.len() > 1).count(),
            winners: winners.len(),
        }
    }
}

impl Racer {
    /// Lets it see that there is no more, and waits for its end.
    async fn finish(mut self) -> Result<()> {
        drop(self.stdin);
        let status = self.child.wait().await?;
        if status.success() { Ok(()) } else { Err(format!("a racer ended with {status}").into()) }
    }
}
