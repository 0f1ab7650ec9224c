//! A database and a queue for one test, and what recovery makes of them.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use sendmail_clock::SystemClock;
use sendmail_core::{Filter, QueueAdmin as _, QueueStore as _};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::SqlDecisionStore;
use sendmail_tests::servers::Postgres;
use sendmail_txn::{Recovery, RecoveryReport};
use sqlx::PgPool;
use tempfile::TempDir;
use tokio::process::Command;

/// A database of its own on the shared server, and a queue.
pub(crate) struct Scene {
    server: &'static Postgres,
    pub(crate) database: &'static str,
    pub(crate) url: String,
    directory: TempDir,
}

/// What is left when nothing is in doubt any more.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Left {
    /// Orders in the table.
    pub(crate) orders: usize,
    /// Message-IDs in the queue, as often as they are there.
    pub(crate) mails: Vec<String>,
}

impl Scene {
    /// For `test`, which gives its name to the database; nothing if there is no server: then the test has
    /// said that it is skipped, and returns.
    pub(crate) fn new(test: &'static str) -> Option<Self> {
        let server = Postgres::shared(test)?;
        let url = server.create_database(test).unwrap();
        Some(Self { server, database: test, url, directory: tempfile::tempdir().unwrap() })
    }

    /// A program of this package, which dies with the test.
    pub(crate) fn program(&self, path: &str, argument: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(path);
        command.arg(self.directory.path().join("queue")).arg(argument);
        command.env("DATABASE_URL", &self.url).kill_on_drop(true);
        command
    }

    pub(crate) async fn store(&self) -> MaildirStore {
        let queue = self.directory.path().join("queue");
        MaildirStore::open(queue, MaildirOptions::default()).await.unwrap()
    }

    pub(crate) async fn pool(&self) -> PgPool {
        PgPool::connect(&self.url).await.unwrap()
    }

    /// How many rows `table` has that are committed.
    pub(crate) fn rows(&self, table: &str) -> usize {
        let count = format!("SELECT count(*) FROM {table}");
        self.server.query(self.database, &count).unwrap().trim().parse().unwrap()
    }

    /// Asks the database what became of every transaction, also those of processes that live.
    pub(crate) async fn recover(&self) -> RecoveryReport {
        let store = Arc::new(self.store().await);
        let queue = store.resource_id().clone();
        let clock = Arc::new(SystemClock);
        let database = SqlDecisionStore::connect(self.pool().await, clock.clone(), queue);
        let recovery = Recovery::new(store, clock)
            .with_decision_store(Arc::new(database.await.unwrap()))
            .unwrap()
            .with_fence_after(Duration::ZERO);
        recovery.run().await.unwrap()
    }

    /// Recovers until nothing is in doubt, and once more, which must change nothing.
    pub(crate) async fn left(&self) -> Left {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            // It waits by itself for a server that has not noticed yet that its client is dead.
            let report = self.recover().await;
            if report.kept() == 0 {
                break;
            }
            assert!(Instant::now() < deadline, "still in doubt: {report:?}");
        }
        let left = self.look().await;
        assert!(self.recover().await.messages.is_empty());
        assert_eq!(self.look().await, left);
        left
    }

    async fn look(&self) -> Left {
        let mut mails = Vec::new();
        let mut visit = |entry: sendmail_core::Entry| {
            mails.push(entry.message_id.unwrap().to_string());
            ControlFlow::Continue(())
        };
        self.store().await.list(&Filter::default(), &mut visit).await.unwrap();
        Left { orders: self.rows("orders"), mails }
    }
}
