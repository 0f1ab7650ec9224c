//! A clock that jumps by decades, either way: mail is sent earlier or a little later, and never lost,
//! sent twice or given up without another attempt.

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{Clock, Envelope, MailDelivery as _, Message, QueueStore, Timestamp};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_processor::{QueueProcessor, RunSummary};
use sendmail_smtp::{SmtpConfig, SmtpMailer};
use sendmail_testkit::ManualClock;
use sendmail_testkit::smtp::{At, Do, Script, ScriptedServer};
use sendmail_txn::{QueuedDelivery, TransactionManager};

use crate::support::mail;

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
