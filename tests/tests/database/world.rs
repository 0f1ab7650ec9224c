//! The whole way of a mail as a service has it: a database, a queue in a Maildir, recovery and a processor
//! that delivers into a list.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::{
    EntryState, EventSink, Filter, MailEvent, MailEventKind, QueueAdmin, QueueId, QueueStore,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_processor::QueueProcessor;
use sendmail_sqlx::{AttachExt, SqlDecisionStore, SqlDelivery, SqlxConnection};
use sendmail_testkit::TestMailer;
use sendmail_tests::orders::{customer, mail};
use sendmail_txn::{Action, Finding, Recovery, RecoveryReport};
use sqlx::Pool;
use sqlx::pool::PoolOptions;
use tempfile::TempDir;

pub(crate) use crate::whole::Whole;

/// A service, its database and its queue.
pub(crate) struct World<DB: Whole> {
    /// With everything of it on this host; removed when this is dropped.
    _folder: TempDir,
    pub(crate) url: String,
    pub(crate) pool: Pool<DB>,
    pub(crate) queue: PathBuf,
    pub(crate) mailer: TestMailer,
    pub(crate) events: Arc<Events>,
}

impl<DB: Whole> World<DB> {
    /// Nothing where `test` is skipped; the database has its name, which must be no other's.
    pub(crate) async fn open(test: &str) -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let url = DB::create(test, test, folder.path())?;
        Some(Self::at(url, folder).await)
    }

    /// In an empty database that is there already.
    pub(crate) async fn at(url: String, folder: TempDir) -> Self {
        let world = Self::cloned(url, folder).await;
        sendmail_sqlx::migrate(&world.pool).await.unwrap();
        world.run(DB::TABLE).await;
        world
    }

    /// In a database that has everything.
    pub(crate) async fn cloned(url: String, folder: TempDir) -> Self {
        let pool = connect::<DB>(&url).await;
        let (queue, mailer) = (folder.path().join("queue"), TestMailer::new());
        Self { _folder: folder, url, pool, queue, mailer, events: Arc::default() }
    }

    /// Another host, with a queue of its own and the same database.
    pub(crate) async fn beside(&self) -> Self {
        Self::cloned(self.url.clone(), tempfile::tempdir().unwrap()).await
    }

    /// A process of the service, which dies when it is dropped.
    pub(crate) async fn process(&self) -> Process<DB> {
        let store = self.store().await;
        let clock = Arc::new(SystemClock);
        let delivery =
            SqlDelivery::connect(Arc::new(store.clone()), clock, &self.pool).await.unwrap();
        Process { store, delivery, pool: self.pool.clone() }
    }

    /// The queue as another process has it.
    pub(crate) async fn store(&self) -> MaildirStore {
        MaildirStore::open(&self.queue, MaildirOptions::default()).await.unwrap()
    }

    pub(crate) async fn decisions(&self, store: &MaildirStore) -> SqlDecisionStore<DB> {
        let queue = store_id(store);
        SqlDecisionStore::connect(self.pool.clone(), Arc::new(SystemClock), queue).await.unwrap()
    }

    /// A recovery that asks about everything, however young, and waits for nobody.
    pub(crate) async fn recovery(&self) -> Recovery {
        let store = self.store().await;
        let decisions = self.decisions(&store).await.lock_wait(Duration::ZERO);
        self.recovery_of(store).with_decision_store(Arc::new(decisions)).unwrap()
    }

    /// The same, and it knows no database.
    pub(crate) fn recovery_of(&self, store: MaildirStore) -> Recovery {
        Recovery::new(Arc::new(store), Arc::new(SystemClock))
            .with_sink(self.events.clone())
            .with_fence_after(Duration::ZERO)
            .with_fence_timeout(Duration::ZERO)
    }

    /// Recovers once, in a process of its own.
    pub(crate) async fn recover(&self) -> RecoveryReport {
        self.recovery().await.run().await.unwrap()
    }

    /// Recovers until nothing is in doubt, and delivers. A server may need a moment to find out that a
    /// client is gone.
    pub(crate) async fn settle(&self) {
        let recovery = self.recovery().await;
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let report = recovery.run().await.unwrap();
            if self.undecided().await.is_empty() {
                break;
            }
            assert!(Instant::now() < deadline, "still in doubt: {report:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        self.deliver().await;
    }

    /// Delivers what is published, in a process of its own.
    pub(crate) async fn deliver(&self) {
        let store = Arc::new(self.store().await);
        let mailer = Arc::new(self.mailer.clone());
        let builder = QueueProcessor::builder(store, mailer, Arc::new(SystemClock));
        builder.build().unwrap().run_once().await.unwrap();
    }

    /// How many copies of the mails of orders 1 to `last` arrived.
    pub(crate) fn copies(&self, last: u32) -> Vec<usize> {
        (1..=last).map(|number| self.mailer.copies_to(&customer(number))).collect()
    }

    /// Which of orders 1 to `last` are in the database.
    pub(crate) async fn orders(&self, last: u32) -> Vec<usize> {
        let mut orders = Vec::new();
        for number in 1..=last {
            let sql = format!("SELECT COUNT(*) FROM orders WHERE number = {number}");
            orders.push(usize::try_from(self.count(&sql).await).unwrap());
        }
        orders
    }

    pub(crate) async fn undecided(&self) -> Vec<QueueId> {
        let undecided = self.store().await.undecided().await.unwrap();
        let mut ids: Vec<QueueId> = undecided.into_iter().map(|message| message.id).collect();
        ids.sort();
        ids
    }

    /// The messages that were thrown away as rolled back.
    pub(crate) async fn discarded(&self) -> Vec<QueueId> {
        let mut found = Vec::new();
        let mut filter = Filter::default();
        filter.states = vec![EntryState::Discarded];
        let mut visit = |entry: sendmail_core::Entry| {
            found.push(entry.id);
            ControlFlow::Continue(())
        };
        self.store().await.list(&filter, &mut visit).await.unwrap();
        found
    }

    pub(crate) async fn markers(&self) -> i64 {
        self.count("SELECT COUNT(*) FROM sendmail_marker WHERE kind = 1").await
    }

    pub(crate) async fn count(&self, sql: &str) -> i64 {
        DB::count(&self.pool, sql).await.unwrap()
    }

    pub(crate) async fn run(&self, sql: &str) {
        let mut connection = self.pool.acquire().await.unwrap();
        DB::execute(&mut connection, sql).await.unwrap();
    }

    /// Nothing where `test` is skipped, because there is no program to make backups with.
    pub(crate) fn can_back_up(test: &str) -> Option<()> {
        DB::BACKUP
            .map_or(Some(()), |program| sendmail_tests::programs::needs(test, program).map(drop))
    }

    pub(crate) async fn back_up(&self) -> Vec<u8> {
        DB::dump(&self.url)
    }

    /// Restores the database, as people do it: nobody is connected meanwhile.
    pub(crate) async fn restore(&mut self, backup: &[u8]) {
        self.pool.close().await;
        DB::load(&self.url, backup);
        self.pool = connect::<DB>(&self.url).await;
    }
}

pub(crate) async fn connect<DB: Whole>(url: &str) -> Pool<DB> {
    PoolOptions::new().max_connections(10).connect(url).await.unwrap()
}

pub(crate) fn store_id(store: &MaildirStore) -> sendmail_core::ResourceId {
    QueueStore::resource_id(store).clone()
}

/// A process of the service.
pub(crate) struct Process<DB: Whole> {
    pub(crate) store: MaildirStore,
    delivery: SqlDelivery,
    pool: Pool<DB>,
}

impl<DB: Whole> Process<DB>
where
    DB::Connection: SqlxConnection,
{
    /// An order and its mail in a transaction that is open.
    pub(crate) async fn order(&self, number: u32) -> sqlx::Transaction<'static, DB> {
        let mut tx = self.pool.begin_with(DB::BEGIN).await.unwrap();
        DB::execute(&mut tx, &DB::order(number)).await.unwrap();
        self.attach(&mut tx, number).await.unwrap();
        tx
    }

    pub(crate) async fn commit(&self, number: u32) {
        self.order(number).await.commit().await.unwrap();
    }

    pub(crate) async fn roll_back(&self, number: u32) {
        self.order(number).await.rollback().await.unwrap();
    }

    pub(crate) async fn attach(
        &self,
        connection: &mut DB::Connection,
        number: u32,
    ) -> sendmail_core::Result<()> {
        let (envelope, message) = mail(number).unwrap();
        self.delivery.attach(connection, envelope, message).await.map(drop)
    }
}

/// Hears what is discarded.
#[derive(Default)]
pub(crate) struct Events(Mutex<BTreeMap<QueueId, usize>>);

impl Events {
    /// How often each message was said to be discarded.
    pub(crate) fn discarded(&self) -> BTreeMap<QueueId, usize> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl EventSink for Events {
    async fn emit(&self, event: &MailEvent) {
        if event.kind == MailEventKind::Discarded {
            *self.0.lock().unwrap().entry(event.queue_id.unwrap()).or_default() += 1;
        }
    }
}

/// What was found and done, in one word each, in the order of the ids.
pub(crate) fn told(report: &RecoveryReport) -> Vec<(&'static str, &'static str)> {
    report.messages.iter().map(|message| (found(&message.finding), done(&message.action))).collect()
}

pub(crate) fn found(finding: &Finding) -> &'static str {
    match finding {
        Finding::Committed => "committed",
        Finding::Aborted => "aborted",
        Finding::Unfinished => "unfinished",
        Finding::InProgress => "in progress",
        Finding::UnknownResource => "unknown resource",
        Finding::NoAnswer(_) => "no answer",
        Finding::Frozen => "frozen",
        Finding::Missing => "missing",
        Finding::NotUndecided => "not undecided",
        _ => "another finding",
    }
}

pub(crate) fn done(action: &Action) -> &'static str {
    match action {
        Action::Published => "published",
        Action::Discarded => "discarded",
        Action::Kept => "kept",
        Action::Nothing => "nothing",
        Action::Failed(_) => "failed",
        _ => "another action",
    }
}

/// A test for each database, from one that is generic over it.
macro_rules! on_each_database {
    ($($test:ident => $postgres:ident, $mariadb:ident, $sqlite:ident;)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $postgres() {
            $test::<sqlx::Postgres>(stringify!($postgres)).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $mariadb() {
            $test::<sqlx::MySql>(stringify!($mariadb)).await;
        }

        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $sqlite() {
            $test::<sqlx::Sqlite>(stringify!($sqlite)).await;
        }
    )*};
}
pub(crate) use on_each_database;
