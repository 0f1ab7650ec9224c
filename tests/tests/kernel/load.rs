//! Producers and processors at work, until something happens to the file system below them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use rustix::process::Signal;
use sendmail_tests::now_ms;
use sendmail_tests::plan::Plan;
use sendmail_tests::process::signal;
use sendmail_tests::producer::Progress;
use sendmail_tests::queue::Processor;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout};
use tokio::task::JoinHandle;

use crate::support::{PATIENCE, PRODUCER, Scene};

/// How many producers there are, and how many processors.
const PRODUCERS: u64 = 2;
const PROCESSORS: usize = 2;
/// How many transactions a producer has before it at once.
const AT_ONCE: usize = 3;
/// How many messages a processor may have claimed when its machine crashes.
const IN_FLIGHT: u64 = 64;

/// All of them at work.
pub(crate) struct Load {
    producers: Vec<(Child, JoinHandle<Vec<Account>>)>,
    processors: Vec<(Processor, Child)>,
    logs: PathBuf,
    shared: Arc<Shared>,
}

/// A transaction, and how far it is known to have come.
struct Account {
    plan: Plan,
    progress: Option<Progress>,
}

#[derive(Default)]
struct Shared {
    /// How many transactions were acknowledged.
    committed: AtomicUsize,
    /// How many were refused that were to commit.
    refused: AtomicUsize,
    /// Nothing more is to begin.
    stops: AtomicBool,
}

impl Load {
    /// Starts them. What the processors say goes to files in `logs`, which is on another disk.
    pub(crate) fn start(scene: &mut Scene, logs: &Path, seed: u64) -> Self {
        let mut load = Self::without_producers(scene, logs);
        for number in 0..PRODUCERS {
            let mut command = scene.queue.through_the_same(PRODUCER);
            command.arg("producer").arg(&scene.queue.path).kill_on_drop(true);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
            let mut child = command.spawn().unwrap();
            let producer = Producer {
                stdin: child.stdin.take(),
                lines: BufReader::new(child.stdout.take().unwrap()).lines(),
                random: fastrand::Rng::with_seed(seed.wrapping_add(number)),
                next: number,
                accounts: Vec::new(),
                shared: Arc::clone(&load.shared),
            };
            load.producers.push((child, tokio::spawn(producer.run())));
        }
        load
    }

    /// Starts processors alone.
    pub(crate) fn without_producers(scene: &mut Scene, logs: &Path) -> Self {
        let mut processors = Vec::new();
        for number in 0..PROCESSORS {
            let name = format!("p{number}");
            let log = std::fs::File::create(logs.join(&name)).unwrap();
            let processor = Processor { name, relay: scene.relay.address, connections: 4 };
            let mut command = scene.queue.processor(&processor).unwrap();
            command.args(["--log", "warn"]);
            command.stdout(log.try_clone().unwrap()).stderr(log);
            scene.ledger.begins(&processor.name, IN_FLIGHT);
            processors.push((processor, command.spawn().unwrap()));
        }
        let (producers, shared) = (Vec::new(), Arc::default());
        Self { producers, processors, logs: logs.to_owned(), shared }
    }

    /// Waits until so many transactions were acknowledged.
    pub(crate) async fn until_committed(&self, count: usize) {
        self.until(|| self.shared.committed.load(Ordering::SeqCst) >= count).await;
    }

    /// Waits until so many transactions were refused that were to commit.
    pub(crate) async fn until_refused(&self, count: usize) {
        self.until(|| self.shared.refused.load(Ordering::SeqCst) >= count).await;
    }

    /// Waits until so many more were acknowledged.
    pub(crate) async fn until_more_committed(&self, count: usize) {
        self.until_committed(self.committed() + count).await;
    }

    /// Waits until so many more were refused.
    pub(crate) async fn until_more_refused(&self, count: usize) {
        self.until_refused(self.shared.refused.load(Ordering::SeqCst) + count).await;
    }

    /// Waits until every processor has told one of these.
    pub(crate) async fn until_told(&self, words: &[&str]) {
        let told = |(processor, _): &(Processor, Child)| {
            let log = self.log(processor);
            words.iter().any(|words| log.contains(words))
        };
        self.until(|| self.processors.iter().all(told)).await;
    }

    /// What a processor has said so far.
    fn log(&self, processor: &Processor) -> String {
        std::fs::read_to_string(self.logs.join(&processor.name)).unwrap()
    }

    /// How many transactions were acknowledged.
    pub(crate) fn committed(&self) -> usize {
        self.shared.committed.load(Ordering::SeqCst)
    }

    /// Waits until it is there.
    pub(crate) async fn until(&self, there: impl Fn() -> bool) {
        let wait = async {
            while !there() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        let shared = &self.shared;
        let (committed, refused) = (&shared.committed, &shared.refused);
        let waited = tokio::time::timeout(PATIENCE, wait).await;
        let logs = || self.processors.iter().map(|(processor, _)| self.log(processor));
        assert!(
            waited.is_ok(),
            "no progress after {committed:?} commits and {refused:?} refusals: {:?}",
            logs().collect::<Vec<_>>()
        );
    }

    /// Stops all in whatever they do.
    pub(crate) fn freeze(&self) {
        let producers = self.producers.iter().map(|(child, _)| child);
        let processors = self.processors.iter().map(|(_, child)| child);
        producers.chain(processors).for_each(|child| signal(child, Signal::STOP).unwrap());
    }

    /// Stops the processors, or lets them go on.
    pub(crate) fn signal_processors(&self, what: Signal) {
        self.processors.iter().for_each(|(_, child)| signal(child, what).unwrap());
    }

    /// Lets all of them come to an end in order: the producers, whose words are entered into the books, and
    /// when nothing is left to deliver, the processors.
    pub(crate) async fn drain(mut self, scene: &mut Scene) {
        self.shared.stops.store(true, Ordering::SeqCst);
        for (mut child, run) in self.producers.drain(..) {
            enter(scene, run.await.unwrap());
            assert!(child.wait().await.unwrap().success());
        }
        scene.until_drained().await;
        for (processor, mut child) in std::mem::take(&mut self.processors) {
            // One that has ended before its time cannot be signalled.
            let _ = signal(&child, Signal::TERM);
            let status = tokio::time::timeout(PATIENCE, child.wait()).await;
            let status = status.unwrap_or_else(|_| panic!("{} does not stop", processor.name));
            assert!(status.unwrap().success(), "{}", self.log(&processor));
        }
    }

    /// Kills all that live, and enters into the books what they had said.
    pub(crate) async fn kill(mut self, scene: &mut Scene) {
        self.shared.stops.store(true, Ordering::SeqCst);
        for (processor, child) in &mut self.processors {
            scene.ledger.is_killed(&processor.name, now_ms());
            child.kill().await.unwrap();
        }
        for (mut child, run) in self.producers.drain(..) {
            child.kill().await.unwrap();
            enter(scene, run.await.unwrap());
        }
    }
}

fn enter(scene: &mut Scene, accounts: Vec<Account>) {
    for Account { plan, progress } in accounts {
        let number = plan.number;
        scene.ledger.plan(plan);
        if let Some(progress) = progress {
            scene.ledger.progress(number, progress);
        }
    }
}

/// A producer that is given one transaction after the other.
struct Producer {
    stdin: Option<ChildStdin>,
    lines: tokio::io::Lines<BufReader<ChildStdout>>,
    random: fastrand::Rng,
    next: u64,
    accounts: Vec<Account>,
    shared: Arc<Shared>,
}

impl Producer {
    async fn run(mut self) -> Vec<Account> {
        let mut open = 0;
        loop {
            if self.shared.stops.load(Ordering::SeqCst) {
                self.stdin = None;
            }
            while open < AT_ONCE && self.stdin.is_some() {
                self.tell_next().await;
                open += 1;
            }
            let Ok(Some(line)) = self.lines.next_line().await else { return self.accounts };
            let Some((number, progress, _)) = Progress::parse(&line) else { continue };
            let account = self.accounts.iter_mut().find(|account| account.plan.number == number);
            let account = account.unwrap();
            account.progress = Some(progress);
            let to_commit = account.plan.ending == sendmail_tests::plan::Ending::Commit;
            match progress {
                Progress::Committing => continue,
                Progress::Committed => self.shared.committed.fetch_add(1, Ordering::SeqCst),
                _ if to_commit => {
                    // What fails, fails at once: it is not to be tried a thousand times a second.
                    tokio::time::sleep(Duration::from_millis(10)).await;
                    self.shared.refused.fetch_add(1, Ordering::SeqCst)
                }
                _ => 0,
            };
            open -= 1;
        }
    }

    async fn tell_next(&mut self) {
        let plan = Plan::draw(self.next, &mut self.random);
        self.next += PRODUCERS;
        let line = serde_json::to_string(&plan).unwrap() + "\n";
        self.accounts.push(Account { plan, progress: None });
        if let Some(stdin) = &mut self.stdin
            && stdin.write_all(line.as_bytes()).await.is_err()
        {
            // It is dead.
            self.stdin = None;
        }
    }
}
