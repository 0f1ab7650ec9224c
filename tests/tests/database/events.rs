//! Handlers of events that are killed at random points: what they wrote shows each event exactly once.
//!
//! Three processes consume by one name. Again and again the one that works is killed, at a random moment,
//! and started anew; meanwhile messages are settled, so that there are always more events.
//! `SENDMAIL_TEST_SEED` repeats the choices of an earlier run.

#![expect(clippy::print_stdout, reason = "a failure is repeated by the seed that is printed")]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use sendmail_core::{
    Attempted, EventLog as _, Outcome, QueueStore as _, Recipient, RecipientResult, Reply,
    Settlement, Verdict,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_tests::fill::fill;
use sendmail_tests::servers::{MariaDb, Postgres};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::mpsc::{self, UnboundedSender};

const KILLS: u32 = 200;
const CONSUMERS: usize = 3;
/// How many events are begun, at most, between two kills.
const MOST: u32 = 12;
/// How long, at most, it then has, in microseconds: an event takes less.
const GRACE: u64 = 3000;
/// If none begins an event for so long, something is wrong.
const SILENCE: Duration = Duration::from_secs(60);
/// How many messages are settled when events run short; each has two events.
const BATCH: usize = 100;

// Proves: D-effects
#[tokio::test]
async fn on_postgres_a_killed_handler_has_each_effect_once() {
    let test = "on_postgres_a_killed_handler_has_each_effect_once";
    let Some(server) = Postgres::shared(test) else { return };
    check(&server.create_database("killed_handler").unwrap()).await;
}

// Proves: D-effects
#[tokio::test]
async fn on_mariadb_a_killed_handler_has_each_effect_once() {
    let test = "on_mariadb_a_killed_handler_has_each_effect_once";
    let Some(server) = MariaDb::shared(test) else { return };
    check(&server.create_database("killed_handler").unwrap()).await;
}

// Proves: D-effects
#[tokio::test]
async fn on_sqlite_a_killed_handler_has_each_effect_once() {
    let folder = tempfile::tempdir().unwrap();
    check(&format!("sqlite://{}", folder.path().join("db").display())).await;
}

async fn check(database: &str) {
    let seed = std::env::var("SENDMAIL_TEST_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("seed {seed} (SENDMAIL_TEST_SEED={seed} repeats the choices)");
    let mut scene = Scene::new(database, seed).await;
    scene.kill_consumers().await;
    let rest = scene.program(&["once", scene.queue.to_str().unwrap()]).await;
    scene.begun += rest.lines().count();

    let events = scene.events().await;
    let (effects, tally) = scene.effects().await;
    println!(
        "{KILLS} kills, {} events, {} of them begun more than once",
        events.len(),
        scene.begun - events.len()
    );
    let wanted: BTreeMap<String, i64> = events.iter().map(|event| (event.clone(), 1)).collect();
    assert_eq!(wanted.len(), events.len(), "the log tells an event twice");
    assert!(effects == wanted, "{}", difference(&wanted, &effects));
    assert_eq!(tally, events.len(), "a handler's second statement went astray");
    assert!(scene.begun > events.len(), "no kill hit a handler at work");
}

struct Scene {
    folder: tempfile::TempDir,
    queue: PathBuf,
    store: MaildirStore,
    database: String,
    random: fastrand::Rng,
    /// How many events were logged, and how many a consumer has begun: again if it was killed.
    logged: usize,
    begun: usize,
}

impl Scene {
    async fn new(database: &str, seed: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let queue = folder.path().join("queue");
        let store = MaildirStore::open(&queue, MaildirOptions::default()).await.unwrap();
        let random = fastrand::Rng::with_seed(seed);
        let database = database.to_owned();
        let mut scene = Self { folder, queue, store, database, random, logged: 0, begun: 0 };
        scene.program(&["prepare"]).await;
        scene.log_more().await;
        scene
    }

    /// Kills whichever consumer works, at a random moment, and starts another in its place.
    async fn kill_consumers(&mut self) {
        let (sender, mut said) = mpsc::unbounded_channel();
        let mut consumers: Vec<Child> =
            (0..CONSUMERS).map(|number| self.start(number, &sender)).collect();
        for _ in 0..KILLS {
            if self.logged < self.begun + BATCH {
                self.log_more().await;
            }
            let mut victim = 0;
            for _ in 0..self.random.u32(1..=MOST) {
                let heard = tokio::time::timeout(SILENCE, said.recv()).await;
                victim = self.begins(heard.expect("no consumer works any more").unwrap());
            }
            tokio::time::sleep(Duration::from_micros(self.random.u64(..GRACE))).await;
            consumers[victim].kill().await.unwrap();
            consumers[victim] = self.start(victim, &sender);
        }
        for mut consumer in consumers {
            consumer.kill().await.unwrap();
        }
        drop(sender);
        while let Some(heard) = said.recv().await {
            self.begins(heard);
        }
    }

    /// Notes that a consumer begins an event, and which it is.
    fn begins(&mut self, (consumer, line): (usize, String)) -> usize {
        assert!(line.starts_with("handling "), "a consumer said: {line}");
        self.begun += 1;
        consumer
    }

    fn start(&self, number: usize, said: &UnboundedSender<(usize, String)>) -> Child {
        let mut command = self.command(&["follow", self.queue.to_str().unwrap()]);
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let said = said.clone();
        tokio::spawn(async move {
            while let Ok(Some(line)) = lines.next_line().await {
                said.send((number, line)).unwrap();
            }
        });
        child
    }

    /// Settles some messages, which logs that each was queued and sent.
    async fn log_more(&mut self) {
        fill(&self.queue, BATCH, 100, BATCH).await.unwrap();
        let mut left = BATCH;
        while left > 0 {
            let claimed = self.store.claim(left).await.unwrap();
            left -= claimed.claims.len();
            for claim in claimed.claims {
                let loaded = self.store.load(&claim).await.unwrap();
                let results = loaded.envelope.recipients().iter().map(sent).collect();
                let attempted = Attempted { results, retry_after: Duration::ZERO };
                self.store.settle(claim, Settlement::Attempted(attempted)).await.unwrap();
            }
        }
        self.logged += 2 * BATCH;
    }

    /// The ids of all events that the log has.
    async fn events(&self) -> Vec<String> {
        let mut events = Vec::new();
        let mut after = None;
        loop {
            let page = self.store.read(after, 1000).await.unwrap();
            let Some((cursor, _)) = page.events.last() else { return events };
            after = Some(cursor.clone());
            events.extend(page.events.iter().map(|(_, event)| event.id.to_string()));
        }
    }

    /// How often each event has had its effect, and how often all together.
    async fn effects(&self) -> (BTreeMap<String, i64>, usize) {
        let text = self.program(&["effects"]).await;
        let mut effects = BTreeMap::new();
        for line in text.lines() {
            let (event, count) = line.split_once(' ').unwrap();
            effects.insert(event.to_owned(), count.parse().unwrap());
        }
        let tally = effects.remove("tally").unwrap();
        (effects, usize::try_from(tally).unwrap())
    }

    async fn program(&self, words: &[&str]) -> String {
        let output = self.command(words).output().await.unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{words:?}: {text}");
        text
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_BIN_EXE_event-consumer")));
        command.args(["--database", &self.database]).args(words).kill_on_drop(true);
        command.current_dir(self.folder.path());
        command
    }
}

fn sent(recipient: &Recipient) -> RecipientResult {
    RecipientResult {
        recipient: recipient.clone(),
        outcome: Outcome::Accepted(Reply::new(250, "2.0.0 taken")),
        verdict: Verdict::Done,
    }
}

fn difference(wanted: &BTreeMap<String, i64>, effects: &BTreeMap<String, i64>) -> String {
    let lost = wanted.keys().filter(|event| !effects.contains_key(*event)).count();
    let twice = effects.values().filter(|count| **count > 1).count();
    let invented = effects.keys().filter(|event| !wanted.contains_key(*event)).count();
    format!("{lost} without their effect, {twice} with more than one, {invented} of no event")
}
