//! From the commit to the relay without waiting for a clock: the processor looks at the queue once an hour, and
//! at the database once an hour, and the mail leaves all the same.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::QueueStore;
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_processor::{ProcessorConfig, QueueProcessor, Recovered};
use sendmail_sqlx::{AttachExt, SqlDecisionStore, SqlDelivery};
use sendmail_testkit::TestMailer;
use sendmail_txn::Recovery;
use sqlx::Pool;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::fence::pool_of;
use crate::rows::{Rows, mail_to, sqlite};

/// Ends a test that hangs; nothing is measured by it.
const WATCHDOG: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);

#[tokio::test]
async fn a_commit_on_postgres_wakes_the_processor() {
    let test = "a_commit_on_postgres_wakes_the_processor";
    let Some(pool) = pool_of::<sqlx::Postgres>(test, None, 8).await else { return };
    timeout(WATCHDOG, mail_leaves_without_a_poll(pool)).await.unwrap();
}

#[tokio::test]
async fn a_commit_on_mariadb_wakes_the_processor() {
    let test = "a_commit_on_mariadb_wakes_the_processor";
    let Some(pool) = pool_of::<sqlx::MySql>(test, None, 8).await else { return };
    timeout(WATCHDOG, mail_leaves_without_a_poll(pool)).await.unwrap();
}

#[tokio::test]
async fn a_commit_on_sqlite_wakes_the_processor() {
    let folder = tempfile::tempdir().unwrap();
    let pool = sqlite(folder.path()).await;
    timeout(WATCHDOG, mail_leaves_without_a_poll(pool)).await.unwrap();
}

/// A recovery that counts its runs.
struct Counted {
    recovery: Recovery,
    runs: watch::Sender<usize>,
}

#[async_trait]
impl sendmail_processor::Recovery for Counted {
    fn name(&self) -> &str {
        "recover transactions"
    }

    async fn recover(&self) -> sendmail_core::Result<Recovered> {
        let report = self.recovery.run().await;
        self.runs.send_modify(|runs| *runs += 1);
        Ok(Recovered::default().again_after(report?.again))
    }
}

async fn mail_leaves_without_a_poll<DB: Rows>(pool: Pool<DB>) {
    DB::make_table(&pool).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let open = || MaildirStore::open(folder.path().join("queue"), MaildirOptions::default());
    let clock = Arc::new(SystemClock);

    let queue = Arc::new(open().await.unwrap());
    let name = QueueStore::resource_id(&*queue).clone();
    let decisions = SqlDecisionStore::connect(pool.clone(), clock.clone(), name).await.unwrap();
    let recovery = Recovery::new(queue.clone(), clock.clone());
    let recovery = recovery.with_decision_store(Arc::new(decisions)).unwrap();
    let runs = watch::Sender::new(0);
    let mut ran = runs.subscribe();
    let mailer = TestMailer::new();
    let mut config = ProcessorConfig::default();
    config.poll_interval = HOUR;
    config.recovery_interval = HOUR;
    config.sweep_interval = HOUR;
    let processor = QueueProcessor::builder(queue, Arc::new(mailer.clone()), clock.clone())
        .config(config)
        .recovery(Arc::new(Counted { recovery, runs }))
        .build()
        .unwrap()
        .spawn();
    // What was there when it began does not count.
    ran.wait_for(|runs| *runs > 0).await.unwrap();

    // The application: another instance of the queue, which tells nobody.
    let application = Arc::new(open().await.unwrap());
    let delivery = SqlDelivery::connect(application, clock, &pool).await.unwrap();
    for (number, commits) in [true, false, true, true].into_iter().enumerate() {
        let name = format!("r{number}");
        let (envelope, message) = mail_to(&name);
        let before = mailer.deliveries().len();
        let mut tx = pool.begin().await.unwrap();
        DB::insert(&mut tx, &name).await.unwrap();
        let seen = *ran.borrow_and_update();
        delivery.attach(&mut *tx, envelope, message).await.unwrap();
        // It was woken, and looks at a transaction that is not finished.
        ran.wait_for(|runs| *runs > seen).await.unwrap();
        if commits {
            tx.commit().await.unwrap();
            mailer.wait_for(before + 1).await;
        } else {
            tx.rollback().await.unwrap();
        }
    }
    processor.stop();
    processor.join().await.unwrap();
    let to = mailer.deliveries().into_iter().flat_map(|delivery| delivery.recipients);
    let to: Vec<String> = to.map(|recipient| recipient.to_string()).collect();
    assert_eq!(to, ["r0@example.net", "r2@example.net", "r3@example.net"]);
    assert_eq!(DB::all(&pool).await.unwrap(), ["r0", "r2", "r3"]);
}
