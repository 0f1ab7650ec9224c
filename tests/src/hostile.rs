//! A processor against a relay that misbehaves in every way: what it costs in memory, and whether each
//! message is still accounted for.

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::Signal;
use sendmail_testkit::smtp::{
    At, Certificates, Do, Mode, Phase, Script, ScriptedServer, ServerTls,
};
use tokio::process::Child;
use tokio::time::{Instant, sleep, timeout};

use crate::memory::Memory;
use crate::process::signal;
use crate::queue::{Counts, Queue};
use crate::{Result, fill, programs};

/// How many messages wait beyond those for which there was a session already.
const AHEAD: u64 = 300;
/// How many are added at once, and of what length.
const ADDED: usize = 50;
const LENGTH: usize = 2000;
/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(200);
/// After so long a misbehaving relay ends what never ends: the processor's own deadlines are minutes.
const PATIENCE: Duration = Duration::from_secs(2);
/// After how many sessions a processor is at work, and how long it may take to come to that.
const AT_WORK: u64 = 20;
const START: Duration = Duration::from_secs(60);
/// How long a processor may take to stop that is told to.
const STOP: Duration = Duration::from_secs(60);

/// What came of it.
#[derive(Debug, Clone, Default)]
pub struct Outcome {
    /// For how long.
    pub took: Duration,
    /// What was resident after the warm-up, at the most, in KiB.
    pub warm_kib: u64,
    /// What was resident in the end, at the most, in KiB.
    pub end_kib: u64,
    /// The most that was ever resident, in KiB.
    pub peak_kib: u64,
    /// How many connections the relay got.
    pub connections: u64,
    /// How many of all ways to misbehave, at how many moments each, there were.
    pub attacks: usize,
    /// How many different bad certificates were shown.
    pub certificates: usize,
    /// How many messages were queued.
    pub queued: u64,
    /// How many of them are told to be sent.
    pub sent: u64,
    /// How many transactions the relay saw begin.
    pub tried: u64,
    /// What is wrong with the account: messages that are nowhere, or told to be sent and never taken.
    pub wrong: Vec<String>,
}

impl Outcome {
    /// By how much the processor grew after the warm-up, in KiB.
    #[must_use]
    pub fn growth_kib(&self) -> i64 {
        let kib = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        kib(self.end_kib) - kib(self.warm_kib)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} connections in {} s", self.connections, self.took.as_secs())?;
        writeln!(
            f,
            "{} of {} attacks, {} bad certificates",
            self.attacks,
            Mode::ALL.len() * Phase::ALL.len(),
            self.certificates
        )?;
        writeln!(
            f,
            "{} messages queued, {} transactions begun, {} messages sent",
            self.queued, self.tried, self.sent
        )?;
        writeln!(
            f,
            "resident: {} KiB after the warm-up, {} KiB in the end, {} KiB at the most",
            self.warm_kib, self.end_kib, self.peak_kib
        )?;
        write!(f, "growth: {} KiB", self.growth_kib())?;
        self.wrong.iter().try_for_each(|wrong| write!(f, "\nWRONG: {wrong}"))
    }
}

/// How the processor's allocator is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heap {
    /// As everybody's: what is freed stays with the thread that had it, so that even a program that keeps
    /// nothing grows for minutes.
    Usual,
    /// One for all threads, which gives back what is freed: what grows then is what the program keeps.
    Tight,
}

impl Heap {
    /// Environment variables of glibc, which others ignore.
    fn settings(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Usual => &[],
            Self::Tight => &[
                ("MALLOC_ARENA_MAX", "1"),
                ("MALLOC_TRIM_THRESHOLD_", "0"),
                ("MALLOC_MMAP_THRESHOLD_", "16384"),
            ],
        }
    }
}

/// Lets a processor work against the relay for so long.
///
/// # Errors
///
/// Something of the test itself failed, or the processor died.
pub async fn run(folder: &Path, time: Duration, heap: Heap) -> Result<Outcome> {
    let relay = Relay::start().await?;
    let queue = Queue::new(folder.join("queue"))?;
    let mut processor = start(&queue, folder, &relay, heap)?;
    let mut outcome = watch(&mut processor, &queue, &relay, time).await?;
    signal(&processor, Signal::TERM)?;
    let status = timeout(STOP, processor.wait()).await;
    let status = status.map_err(|_| "the processor does not stop when it is told to")??;
    if !status.success() {
        outcome.wrong.push(format!("the processor ended with {status}"));
    }
    account(&queue, &relay, &mut outcome).await?;
    Ok(outcome)
}

fn start(queue: &Queue, folder: &Path, relay: &Relay, heap: Heap) -> Result<Child> {
    let authority = folder.join("authority.pem");
    std::fs::write(&authority, relay.certificates.root_pem())?;
    let config = folder.join("hostile.toml");
    let text = format!(
        "[relay]\nurl = \"smtp://shop:secret@{}?tls=opportunistic&clear-text-auth=loopback\"\n\
         ca_file = \"{}\"\nmax_connections = 16\n\n\
         [delivery]\nfirst_retry = \"1s\"\nmax_retry = \"2s\"\n",
        relay.server.address(),
        authority.display()
    );
    std::fs::write(&config, text)?;
    std::fs::set_permissions(&config, Permissions::from_mode(0o600))?;
    let mut command = queue.command(["run", "--quiet"]);
    command.envs(heap.settings().iter().copied());
    let log = std::fs::File::create(folder.join("processor.log"))?;
    Ok(command.arg("--config").arg(&config).stdout(log.try_clone()?).stderr(log).spawn()?)
}

/// Looks at the processor's memory and keeps it busy.
async fn watch(
    processor: &mut Child,
    queue: &Queue,
    relay: &Relay,
    time: Duration,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let id = processor.id().ok_or("the processor has ended")?;
    let start = Instant::now();
    let mut begin: Option<Instant> = None;
    let mut seen = Vec::new();
    while begin.is_none_or(|begin| begin.elapsed() < time) {
        let sessions = relay.sessions.load(Ordering::SeqCst);
        if begin.is_none() {
            if start.elapsed() > START {
                return Err("the processor does not come to the relay".into());
            }
            // What a program takes to start is no growth, however slow the machine is.
            seen.clear();
            begin = (sessions >= AT_WORK).then(Instant::now);
        }
        if let Some(status) = processor.try_wait()? {
            return Err(format!("the processor ended: {status}").into());
        }
        if outcome.queued < sessions + AHEAD {
            fill::fill(&queue.path, ADDED, LENGTH, ADDED).await?;
            outcome.queued += ADDED as u64;
        }
        let memory = Memory::of(id).ok_or("the processor has no memory")?;
        outcome.peak_kib = memory.peak_kib;
        seen.push(memory.now_kib);
        sleep(LOOK).await;
    }
    outcome.took = begin.unwrap_or(start).elapsed();
    // A fifth is warm-up; what came in the next fifth is compared with what came in the last.
    let fifth = (seen.len() / 5).max(1);
    let most = |part: &[u64]| part.iter().copied().max().unwrap_or_default();
    outcome.warm_kib = most(seen.get(fifth..2 * fifth).unwrap_or(&seen));
    outcome.end_kib = most(seen.get(seen.len().saturating_sub(fifth)..).unwrap_or(&seen));
    Ok(outcome)
}

/// Compares what was queued with what is told to be sent, and that with what the relay took.
async fn account(queue: &Queue, relay: &Relay, outcome: &mut Outcome) -> Result<()> {
    let (attacks, certificates) = relay.seen();
    outcome.attacks = attacks;
    outcome.certificates = certificates;
    outcome.connections = relay.sessions.load(Ordering::SeqCst);
    let sessions = relay.server.sessions();
    let lines = sessions.iter().flat_map(|session| &session.commands);
    outcome.tried = lines.filter(|command| command.line.starts_with("MAIL")).count() as u64;
    let mut sent = HashSet::new();
    for event in queue.events().await? {
        if event.kind == "sent" {
            sent.insert((event.id, event.message_id));
        }
    }
    outcome.sent = sent.len() as u64;
    let counts: Counts = queue.counts().await?;
    let there = counts.to_do() + counts.held;
    if outcome.sent + there != outcome.queued {
        let text = format!("{} queued, {} sent, {there} waiting", outcome.queued, outcome.sent);
        outcome.wrong.push(text);
    }
    if counts.failed > 0 {
        outcome.wrong.push(format!("{} failed, and nothing was refused", counts.failed));
    }
    let taken: HashSet<String> =
        relay.server.messages().iter().filter_map(|mail| message_id(&mail.bytes)).collect();
    let made_up = sent.iter().filter(|(_, message_id)| !taken.contains(message_id)).count();
    if made_up > 0 {
        outcome.wrong.push(format!("{made_up} are told to be sent, and the relay never took them"));
    }
    Ok(())
}

fn message_id(bytes: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().find(|line| line.to_ascii_lowercase().starts_with("message-id:"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

/// The relay: every other session takes one message and ends in order, the others misbehave, each in
/// another way.
struct Relay {
    server: ScriptedServer,
    certificates: Arc<Certificates>,
    sessions: Arc<AtomicU64>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    attacks: BTreeSet<usize>,
    certificates: BTreeSet<usize>,
}

impl Relay {
    async fn start() -> Result<Self> {
        let certificates = Arc::new(Certificates::new());
        let (sessions, seen) = (Arc::default(), Arc::<Mutex<Seen>>::default());
        let choice = Choice {
            valid: certificates.valid(),
            bad: certificates.bad().into_iter().map(|(_, tls)| tls).collect(),
            seen: seen.clone(),
        };
        let count: Arc<AtomicU64> = Arc::clone(&sessions);
        let choose = move |number| {
            count.fetch_add(1, Ordering::SeqCst);
            choice.script(number)
        };
        let server = ScriptedServer::start_each(choose).await?;
        Ok(Self { server, certificates, sessions, seen })
    }

    fn seen(&self) -> (usize, usize) {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        (seen.attacks.len(), seen.certificates.len())
    }
}

struct Choice {
    valid: ServerTls,
    bad: Vec<ServerTls>,
    seen: Arc<Mutex<Seen>>,
}

impl Choice {
    /// What a session follows, by its number, counted from 1.
    fn script(&self, number: usize) -> Script {
        let script = Script::new().with("AUTH PLAIN").for_at_most(PATIENCE);
        let taken = script.clone().on(At::Dot, Do::reply_and_close("250 2.0.0 taken"));
        if number.is_multiple_of(2) {
            return if number.is_multiple_of(4) {
                taken.starttls(self.valid.clone())
            } else {
                taken
            };
        }
        let turn = number / 2;
        if turn % 20 == 19 {
            let which = turn / 20 % self.bad.len();
            self.note(|seen| seen.certificates.insert(which));
            return taken.starttls(self.bad[which].clone());
        }
        // The two numbers have no common divisor: all pairs come.
        let (mode, phase) = (turn % Mode::ALL.len(), turn % Phase::ALL.len());
        let pair = mode * Phase::ALL.len() + phase;
        self.note(|seen| seen.attacks.insert(pair));
        let (mode, phase) = (Mode::ALL[mode], Phase::ALL[phase]);
        let needs_tls = matches!(phase, Phase::StartTls | Phase::Handshake);
        let over_tls = needs_tls || (turn / (Mode::ALL.len() * Phase::ALL.len())) % 2 == 1;
        let script = script.on(phase.at(), mode.action(phase));
        let script = match phase {
            // RSET is said if a transaction was begun and not ended.
            Phase::Rset => script.on(At::Data, Do::reply("451 4.3.0 later")),
            _ => script.on(At::Dot, Do::reply_and_close("250 2.0.0 taken")),
        };
        let script = if turn.is_multiple_of(3) { script.without("PIPELINING") } else { script };
        if over_tls { script.starttls(self.valid.clone()) } else { script }
    }

    fn note(&self, change: impl FnOnce(&mut Seen) -> bool) {
        change(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Builds what the run needs, so that it is not counted.
///
/// # Errors
///
/// It cannot be built.
pub fn prepare() -> Result<()> {
    programs::sendmail_queue().map(drop)
}
