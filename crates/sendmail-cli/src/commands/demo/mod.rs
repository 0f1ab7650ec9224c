//! `demo`: the whole promise as a small story, on embedded parts.
//!
//! A shop keeps its orders in an SQLite database and attaches mail to its transactions; one commits, one
//! rolls back, and two are cut short by kill -9, just before and just after COMMIT. After each, recovery
//! asks the database, the processor delivers to an SMTP server on loopback, and table and mailbox are
//! shown. At the end they are compared with what should be there, and a mismatch fails.

mod post;
mod shop;
mod victim;

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::QueueStore;
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::SqlDecisionStore;
use sendmail_txn::{Action, Recovery, RecoveryReport};
use serde_json::json;

use crate::args::Until;
use crate::exit::{Code, Failure, OK, Result, SOFTWARE};
use crate::output::Output;
use crate::setup::Setup;
use post::Post;
use shop::{End, Order, Shop};
pub(crate) use victim::victim;

const ORDERS: [Order; 4] = [
    Order { number: 1001, customer: "alice@example.net" },
    Order { number: 1002, customer: "bob@example.net" },
    Order { number: 1003, customer: "carol@example.net" },
    Order { number: 1004, customer: "dave@example.net" },
];

pub(crate) async fn demo(output: Output) -> Result<Code> {
    let temp = tempfile::tempdir().map_err(|error| Failure::system("make a directory", &error))?;
    let (database, queue) = (temp.path().join("shop.db"), temp.path().join("queue"));
    let store = MaildirStore::open(&queue, MaildirOptions::default()).await?;
    let store: Arc<dyn QueueStore> = Arc::new(store);
    let shop = Shop::open(&database, store.clone()).await?;
    let (pool, resource) = (shop.pool().clone(), store.resource_id().clone());
    let decisions = SqlDecisionStore::connect(pool, Setup::clock(), resource).await?;
    // A live process has 30 s for its COMMIT before it is asked about; the story does not wait.
    let recovery = Recovery::new(store.clone(), Setup::clock())
        .with_decision_store(Arc::new(decisions))?
        .with_fence_after(Duration::ZERO);
    let mut story = Story { output, shop, recovery, post: Post::open(store).await?, shown: 0 };

    let [first, second, third, fourth] = ORDERS;
    story.tell(
        "A shop keeps its orders in a table. An order and its two mails are one transaction.",
    )?;
    story.tell(&format!("   database  SQLite, {}", database.display()))?;
    story.tell(&format!("   queue     Maildir, {}", queue.display()))?;
    story.tell(&format!("   mailbox   SMTP, {}", story.post.url()))?;

    story.chapter("1. Order 1001: COMMIT")?;
    story.shop.take(first, End::Commit).await?;
    story.show().await?;

    story.chapter("2. Order 1002: the card is declined, ROLLBACK")?;
    story.shop.take(second, End::Rollback).await?;
    story.show().await?;

    story.chapter("3. Order 1003: the shop is killed (kill -9) just before COMMIT")?;
    victim::run_and_kill(Until::BeforeCommit, third, &queue, &database).await?;
    story.show().await?;

    story.chapter("4. Order 1004: the shop is killed (kill -9) just after COMMIT")?;
    victim::run_and_kill(Until::AfterCommit, fourth, &queue, &database).await?;
    story.show().await?;

    story.compare(&[first, fourth]).await
}

/// The scene, and what is told of it to people; with `--json` there is only the verdict.
struct Story {
    output: Output,
    shop: Shop,
    recovery: Recovery,
    post: Post,
    /// How many of the mails that arrived were shown already.
    shown: usize,
}

impl Story {
    fn tell(&self, line: &str) -> Result<()> {
        if self.output.is_json() { Ok(()) } else { self.output.text(line) }
    }

    fn chapter(&self, title: &str) -> Result<()> {
        self.tell("")?;
        self.tell(title)
    }

    /// What `run` does by itself, and what table and mailbox hold then.
    async fn show(&mut self) -> Result<()> {
        let report = self.recovery.run().await?;
        self.tell(&format!("   recovery  {}", found(&report)))?;
        self.post.deliver().await?;
        let orders = self.shop.orders().await?;
        let orders: Vec<String> = orders.iter().map(|(number, _)| number.to_string()).collect();
        self.tell(&format!("   table     {}", orders.join(", ")))?;
        let arrived = self.post.arrived()?;
        for (to, subject) in arrived.iter().skip(self.shown) {
            self.tell(&format!("   mailbox   + {to:<22} {subject}"))?;
        }
        if arrived.len() == self.shown {
            self.tell("   mailbox   nothing new")?;
        }
        self.shown = arrived.len();
        Ok(())
    }

    /// Compares table and mailbox with the orders that were committed.
    async fn compare(&self, committed: &[Order]) -> Result<Code> {
        let orders = self.shop.orders().await?;
        let mut arrived = self.post.arrived()?;
        let mut wanted: Vec<(String, String)> =
            committed.iter().flat_map(|order| order.mails()).collect();
        arrived.sort_unstable();
        wanted.sort_unstable();
        let committed: Vec<(i64, String)> =
            committed.iter().map(|order| (order.number, order.customer.to_owned())).collect();
        if orders != committed || arrived != wanted {
            let text = format!(
                "the demo failed: the table has {orders:?} and should have {committed:?}; {arrived:?} \
                 arrived, and should have been {wanted:?}"
            );
            return Err(Failure::new(SOFTWARE, text));
        }
        self.tell("")?;
        self.output.line(
            || {
                "As promised: the two orders in the table have their mails, each once; the other two \
                 orders have none, and never will."
                    .to_owned()
            },
            || json!({ "as_promised": true, "orders": orders.len(), "arrived": arrived.len() }),
        )?;
        Ok(OK)
    }
}

/// What recovery did, in a few words.
fn found(report: &RecoveryReport) -> String {
    let count = |wanted: fn(&Action) -> bool| {
        report.messages.iter().filter(|message| wanted(&message.action)).count()
    };
    let published = count(|action| matches!(action, Action::Published));
    let discarded = count(|action| matches!(action, Action::Discarded));
    let parts = [
        (published, "the transaction committed", "published"),
        (discarded, "the transaction did not commit, and now never can", "discarded"),
        (report.messages.len() - published - discarded, "nobody knows yet", "kept"),
    ];
    let told: Vec<String> = parts
        .iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, found, done)| format!("{found}: {count} mails {done}"))
        .collect();
    told.join("; ")
}
