//! A database and a queue in one transaction of a transaction manager: the database decides.

use std::sync::Arc;

use sendmail_clock::SystemClock;
use sendmail_core::{
    Claimed, Envelope, MailDelivery, Message, QueueStore, ResourceId, Result, Transaction,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::{MailTransaction, SqlDataManager, SqlDecisionStore};
use sendmail_txn::{CommitOutcome, QueuedDelivery, TransactionManager};
use sqlx::Pool;

use crate::fence::pool_of;
use crate::rows::{Rows, mail_to, sqlite};

#[tokio::test]
async fn postgres_under_a_transaction_manager() {
    let test = "postgres_under_a_transaction_manager";
    let Some(pool) = pool_of::<sqlx::Postgres>(test, None, 4).await else { return };
    rows_and_mail_go_together(pool).await;
}

#[tokio::test]
async fn mariadb_under_a_transaction_manager() {
    let test = "mariadb_under_a_transaction_manager";
    let Some(pool) = pool_of::<sqlx::MySql>(test, None, 4).await else { return };
    rows_and_mail_go_together(pool).await;
}

#[tokio::test]
async fn sqlite_under_a_transaction_manager() {
    let folder = tempfile::tempdir().unwrap();
    rows_and_mail_go_together(sqlite(folder.path()).await).await;
}

/// A service with a database and a queue.
struct Service<DB: Rows> {
    pool: Pool<DB>,
    queue: Arc<MaildirStore>,
    decisions: SqlDecisionStore<DB>,
    manager: TransactionManager,
    delivery: QueuedDelivery,
}

impl<DB: Rows> Service<DB> {
    /// A transaction with a row and a mail of this name.
    async fn sell(&self, name: &str) -> Transaction {
        let mut database =
            SqlDataManager::new(MailTransaction::begin(&self.pool, &self.decisions).await.unwrap());
        DB::insert(database.connection().unwrap(), name).await.unwrap();
        let mut transaction = self.manager.begin();
        transaction.join(Box::new(database)).unwrap();
        self.send(&mut transaction, mail_to(name)).await.unwrap();
        transaction
    }

    async fn send(
        &self,
        transaction: &mut Transaction,
        (envelope, message): (Envelope, Message),
    ) -> Result<()> {
        self.delivery.send(transaction, envelope, message).await.map(drop)
    }

    async fn rows(&self) -> Vec<String> {
        DB::all(&self.pool).await.unwrap()
    }

    /// To whom mail is ready to be sent; it is taken.
    async fn mails(&self) -> Vec<String> {
        let Claimed { claims, .. } = self.queue.claim(100).await.unwrap();
        let mut to = Vec::new();
        for claim in claims {
            let loaded = self.queue.load(&claim).await.unwrap();
            to.extend(loaded.envelope.recipients().iter().map(ToString::to_string));
        }
        to.sort();
        to
    }
}

async fn rows_and_mail_go_together<DB: Rows>(pool: Pool<DB>) {
    DB::make_table(&pool).await.unwrap();
    let folder = tempfile::tempdir().unwrap();
    let queue = MaildirStore::open(folder.path().join("queue"), MaildirOptions::default()).await;
    let queue = Arc::new(queue.unwrap());
    let clock = Arc::new(SystemClock);
    let name: ResourceId = QueueStore::resource_id(&*queue).clone();
    let service = Service {
        decisions: SqlDecisionStore::connect(pool.clone(), clock.clone(), name).await.unwrap(),
        manager: TransactionManager::new(clock.clone()),
        delivery: QueuedDelivery::new(queue.clone(), clock),
        pool,
        queue,
    };

    let transaction = service.sell("alice").await;
    let outcome = service.manager.commit(transaction).await;
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
    assert_eq!(service.rows().await, ["alice"]);
    assert_eq!(service.mails().await, ["alice@example.net"]);

    let transaction = service.sell("bob").await;
    service.manager.abort(transaction).await;
    let mut transaction = service.sell("carol").await;
    service.manager.doom(&mut transaction);
    let outcome = service.manager.commit(transaction).await;
    assert!(matches!(outcome, CommitOutcome::Aborted(_)), "{outcome:?}");
    drop(service.sell("dave").await);
    assert_eq!(service.rows().await, ["alice"]);
    assert_eq!(service.mails().await, [""; 0]);
    assert_eq!(service.queue.undecided().await.unwrap(), []);

    // What comes after a savepoint goes with it, in both.
    let mut transaction = service.sell("erin").await;
    let savepoint = service.manager.savepoint(&mut transaction).await.unwrap();
    service.send(&mut transaction, mail_to("frank")).await.unwrap();
    let database = transaction.joined::<SqlDataManager<DB>>("sqlx").unwrap();
    DB::insert(database.connection().unwrap(), "frank").await.unwrap();
    service.manager.rollback_to(&mut transaction, &savepoint).await.unwrap();
    let outcome = service.manager.commit(transaction).await;
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
    assert_eq!(service.rows().await, ["alice", "erin"]);
    assert_eq!(service.mails().await, ["erin@example.net"]);
}
