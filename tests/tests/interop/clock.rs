//! A clock that jumps by decades, either way: mail is sent earlier or a little later, and never lost,
//! sent twice or given up without another attempt.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{Clock, Envelope, MailDelivery as _, Message, QueueStore, Timestamp};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_processor::{QueueProcessor, RunSummary};
use sendmail_smtp::{SmtpConfig, SmtpMailer};
use sendmail_testkit::ManualClock;
use sendmail_testkit::smtp::{At, Do, Gate, Script, ScriptedServer};
use sendmail_txn::{QueuedDelivery, TransactionManager};

use crate::support::{Daemon, Done, Queue, demand, finish, mail, until};

const TODAY: Timestamp = Timestamp::from_millis(1_800_000_000_000);
const DECADE: Duration = Duration::from_secs(10 * 365 * 86_400);

/// A queue whose clock the test sets, and a relay that defers until it is told otherwise.
struct World {
    directory: tempfile::TempDir,
    clock: ManualClock,
    server: ScriptedServer,
}

impl World {
    async fn new() -> Self {
        let clock = ManualClock::default();
        clock.set(TODAY);
        let script = Script::new().on(At::AnyRcpt, Do::reply("450 4.2.0 later"));
        let server = ScriptedServer::start(script).await.unwrap();
        Self { directory: tempfile::tempdir().unwrap(), clock, server }
    }

    /// The queue as a process opens it that has just started.
    async fn open(&self) -> Arc<dyn QueueStore> {
        let options = MaildirOptions::default().with_clock(Arc::new(self.clock.clone()));
        Arc::new(MaildirStore::open(self.directory.path().join("q"), options).await.unwrap())
    }

    async fn send(&self) {
        let clock: Arc<dyn Clock> = Arc::new(self.clock.clone());
        let manager = TransactionManager::new(clock.clone());
        let mut transaction = manager.begin();
        let raw = mail("timeless");
        let message = Message::from_raw(raw.as_bytes(), clock.now(), "example.org").unwrap();
        let envelope = Envelope::parse("from@example.org", ["b@example.net"]).unwrap();
        let delivery = QueuedDelivery::new(self.open().await, clock);
        delivery.send(&mut transaction, envelope, message).await.unwrap();
        manager.commit(transaction).await.into_result().unwrap();
    }

    async fn run_once(&self) -> RunSummary {
        let config = SmtpConfig::from_url(&self.server.url()).unwrap();
        let mailer = Arc::new(SmtpMailer::new(config).unwrap());
        let clock = Arc::new(self.clock.clone());
        let processor = QueueProcessor::builder(self.open().await, mailer, clock).build().unwrap();
        processor.run_once().await.unwrap()
    }

    fn relay_accepts(&self) {
        self.server.set_script(Script::new());
    }
}

// Proves: B-clock, I13
#[tokio::test(flavor = "multi_thread")]
async fn back_in_1970_a_message_waits_no_longer_than_it_had_to() {
    let world = World::new().await;
    world.send().await;
    assert_eq!(world.run_once().await.deferred, 1);
    world.relay_accepts();
    world.clock.set(Timestamp::from_millis(1000));
    // The first look finds a time that is decades away, and files the message under one that is not.
    assert_eq!(world.run_once().await.messages, 0);
    world.clock.advance(Duration::from_secs(40));
    assert_eq!(world.run_once().await.delivered, 1, "its pause was at most 36 seconds");
    assert_eq!(world.server.messages().len(), 1);
}

// Proves: B-clock, I13
#[tokio::test(flavor = "multi_thread")]
async fn ten_years_later_a_message_is_tried_once_more_before_it_is_given_up() {
    for accepts in [true, false] {
        let world = World::new().await;
        world.send().await;
        assert_eq!(world.run_once().await.deferred, 1);
        world.clock.advance(DECADE);
        let attempts = |world: &World| {
            let sessions = world.server.sessions();
            sessions
                .iter()
                .flat_map(|session| session.verbs())
                .filter(|verb| verb == "RCPT")
                .count()
        };
        let before = attempts(&world);
        if accepts {
            world.relay_accepts();
        }
        let summary = world.run_once().await;
        assert_eq!((summary.delivered, summary.expired), (accepts.into(), (!accepts).into()));
        assert_eq!(attempts(&world), before + 1);
        assert_eq!(world.run_once().await.messages, 0);
    }
}

// Proves: B-clock, I13
#[tokio::test(flavor = "multi_thread")]
async fn mail_that_was_queued_in_1970_or_in_ten_years_is_mail() {
    let world = World::new().await;
    world.relay_accepts();
    for now in [Timestamp::from_millis(0), TODAY.saturating_add(DECADE), TODAY] {
        world.clock.set(now);
        world.send().await;
    }
    assert_eq!(world.run_once().await.delivered, 3);
    assert_eq!(world.server.submitted().len(), 3);
}

/// The library that shows a process another time. Nothing means that the test has skipped itself.
fn other_time() -> Option<PathBuf> {
    demand::program("faketime")?;
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten();
    let debian = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let found = debian.chain([PathBuf::from("/usr/lib/faketime/libfaketimeMT.so.1")]);
    let found = found.filter(|file| file.is_file()).last();
    if found.is_none() {
        demand::skip("faketime has no library that we know of");
    }
    found
}

/// The real program, whose clock is set by a file.
struct Shifted {
    queue: Queue,
    library: PathBuf,
}

impl Shifted {
    fn set(&self, time: &str) {
        // Renamed over the old one: it is never seen half written.
        let (new, file) = (self.file().with_extension("new"), self.file());
        std::fs::write(&new, format!("{time}\n")).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    fn file(&self) -> PathBuf {
        self.queue.beside().join("time")
    }

    fn command(&self, words: &[&str]) -> tokio::process::Command {
        let mut command = self.queue.command(words);
        command.env("LD_PRELOAD", &self.library);
        command.env("FAKETIME_TIMESTAMP_FILE", self.file()).env("FAKETIME_NO_CACHE", "1");
        // Only what tells the time of day is wrong; how long something takes is not.
        command.env("FAKETIME_DONT_FAKE_MONOTONIC", "1").env("DONT_FAKE_MONOTONIC", "1");
        command
    }

    async fn run(&self, words: &[&str]) -> Done {
        finish(self.command(words), mail("shifted").as_bytes()).await
    }
}

/// Producer and processor in times of their own, decades apart, either way.
// Proves: B-clock, I13
#[tokio::test(flavor = "multi_thread")]
async fn real_processes_whose_clocks_are_decades_apart_lose_nothing() {
    let Some(library) = other_time() else { return };
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let url = server.url();
    let mut expected = 0;
    for (sends, runs) in [
        ("@1970-01-02 00:00:00", "@2026-01-01 00:00:00"),
        ("@2026-01-01 00:00:00", "@1970-01-02 00:00:00"),
        ("@2036-01-01 00:00:00", "@2026-01-01 00:00:00"),
        ("@2026-01-01 00:00:00", "@2036-01-01 00:00:00"),
    ] {
        let world = Shifted { queue: Queue::new(), library: library.clone() };
        world.set(sends);
        world.run(&["send", "-f", "a@example.org", "b@example.net"]).await.exits(0);
        let listed = world.run(&["--json", "list"]).await.exits(0).json();
        assert_eq!(listed[0]["queued"].as_str().unwrap()[..4], sends[1..5], "the clock is set");
        world.set(runs);
        world.run(&["--relay", &url, "run", "--once"]).await.exits(0);
        expected += 1;
        assert_eq!(server.submitted().len(), expected, "{sends}, {runs}");
        world.run(&["--relay", &url, "run", "--once"]).await.exits(0);
        assert_eq!(server.submitted().len(), expected, "and not again: {sends}, {runs}");
        assert!(world.queue.list().await.is_empty());
    }
}

/// The clock of a running processor jumps while the relay thinks about the final dot, and while a message
/// waits for its next attempt.
// Proves: B-clock, I13
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_jumps_while_a_message_is_on_the_wire_sends_it_once() {
    let Some(library) = other_time() else { return };
    for jump in ["@1970-01-02 00:00:00", "@2036-01-01 00:00:00"] {
        let quick = Queue::new().configured("[delivery]\nfirst_retry = \"200ms\"\n");
        let world = Shifted { queue: quick, library: library.clone() };
        let gate = Gate::new();
        let waits = Do::Wait(gate.clone(), Box::new(Do::reply("250 2.0.0 ok")));
        let script = Script::new()
            .on_transaction(1, At::AnyRcpt, Do::reply("450 4.2.0 later"))
            .on_transaction(2, At::Dot, waits);
        let server = ScriptedServer::start(script).await.unwrap();
        world.set("@2026-01-01 00:00:00");
        world.run(&["send", "-f", "a@example.org", "b@example.net"]).await.exits(0);
        let daemon = Daemon::start(world.command(&["--relay", &server.url(), "run"]));
        // Both attempts say DATA, in one piece with their RCPT; the second is let in.
        until("the second attempt", || async {
            let sessions = server.sessions();
            let verbs = sessions.iter().flat_map(|session| session.verbs());
            (verbs.filter(|verb| verb == "DATA").count() == 2).then_some(())
        })
        .await;
        world.set(jump);
        gate.open();
        until("the delivery", || async { (!server.submitted().is_empty()).then_some(()) }).await;
        until("the queue to be empty", || async {
            world.queue.list().await.is_empty().then_some(())
        })
        .await;
        // One more, in the other time.
        world.run(&["send", "-f", "a@example.org", "b@example.net"]).await.exits(0);
        until("the next", || async { (server.submitted().len() > 1).then_some(()) }).await;
        daemon.signal(rustix::process::Signal::TERM);
        daemon.end().await;
        assert_eq!(server.submitted().len(), 2, "each once, {jump}");
        for kind in ["expired", "failed", "possible-duplicate"] {
            assert!(world.queue.events_of(kind).await.is_empty(), "{kind}, {jump}");
        }
    }
}
