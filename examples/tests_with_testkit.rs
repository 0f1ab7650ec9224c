//! How an application tests its mail: with the strict queue in memory, a mailer that delivers into a list,
//! and a clock that stands still until the test moves it. No network, no disk, no waiting.
//!
//! In your project the functions below are tests. Here they are called one after the other, so that the
//! example can be run: `cargo run -p sendmail-examples --example tests_with_testkit`

#![expect(clippy::print_stdout, reason = "an example tells what it does")]

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{Clock, Envelope, MailDelivery, Message, QueueStore};
use sendmail_processor::QueueProcessor;
use sendmail_testkit::{Answer, ManualClock, MemoryStore, TestMailer};
use sendmail_txn::{QueuedDelivery, TransactionManager};

type Checked = Result<(), Box<dyn Error>>;

/// What is tested: a piece of an application. It knows the traits, and not what is behind them.
struct Shop {
    manager: TransactionManager,
    delivery: Arc<dyn MailDelivery>,
    clock: Arc<dyn Clock>,
}

impl Shop {
    async fn order(&self, customer: &str, card_is_good: bool) -> Result<bool, Box<dyn Error>> {
        let text = format!("From: shop@example.org\nTo: {customer}\nSubject: Order\n\nThanks.\n");
        let message = Message::from_raw(text.as_bytes(), self.clock.now(), "example.org")?;
        let envelope = Envelope::parse("shop@example.org", [customer])?;
        let mut transaction = self.manager.begin();
        self.delivery.send(&mut transaction, envelope, message).await?;
        if !card_is_good {
            self.manager.abort(transaction).await;
            return Ok(false);
        }
        let pending = self.manager.commit(transaction).await.into_result()?;
        Ok(pending.is_empty())
    }
}

/// What every test starts from.
struct Bench {
    shop: Shop,
    clock: ManualClock,
    mailer: TestMailer,
    processor: QueueProcessor,
}

fn bench() -> Result<Bench, Box<dyn Error>> {
    let clock = ManualClock::default();
    let shared: Arc<dyn Clock> = Arc::new(clock.clone());
    let store: Arc<dyn QueueStore> = Arc::new(MemoryStore::new(shared.clone()));
    let mailer = TestMailer::new();
    let manager = TransactionManager::new(shared.clone());
    let delivery = Arc::new(QueuedDelivery::new(store.clone(), shared.clone()));
    let processor =
        QueueProcessor::builder(store, Arc::new(mailer.clone()), shared.clone()).build()?;
    Ok(Bench { shop: Shop { manager, delivery, clock: shared }, clock, mailer, processor })
}

async fn a_customer_hears_of_an_order() -> Checked {
    let bench = bench()?;
    assert!(bench.shop.order("alice@example.net", true).await?);
    assert_eq!(bench.mailer.attempts(), 0, "the request itself talks to no relay");

    bench.processor.run_once().await?;
    let delivered = bench.mailer.deliveries();
    assert_eq!(delivered.len(), 1);
    assert_eq!(delivered[0].recipients[0].as_str(), "alice@example.net");
    let text = String::from_utf8_lossy(delivered[0].message.as_bytes());
    assert!(text.contains("Subject: Order\r\n"));
    Ok(())
}

async fn a_declined_card_writes_to_nobody() -> Checked {
    let bench = bench()?;
    assert!(!bench.shop.order("bob@example.net", false).await?);
    bench.processor.run_once().await?;
    assert!(bench.mailer.deliveries().is_empty());
    Ok(())
}

async fn a_busy_mailbox_is_tried_again_later() -> Checked {
    let bench = bench()?;
    bench.mailer.next(Answer::Reply(450, "4.2.1 mailbox busy"));
    assert!(bench.shop.order("carol@example.net", true).await?);

    let summary = bench.processor.run_once().await?;
    assert_eq!((summary.delivered, summary.deferred), (0, 1));
    bench.clock.advance(Duration::from_secs(3600));
    let summary = bench.processor.run_once().await?;
    assert_eq!((summary.delivered, summary.deferred), (1, 0));
    assert_eq!(bench.mailer.copies_to("carol@example.net"), 1);
    Ok(())
}

async fn an_outage_costs_nothing() -> Checked {
    let bench = bench()?;
    bench.mailer.next(Answer::RelayDown);
    assert!(bench.shop.order("dave@example.net", true).await?);

    let summary = bench.processor.run_once().await?;
    assert!(!summary.is_complete());
    println!("  {summary}");
    bench.processor.run_once().await?;
    assert_eq!(bench.mailer.copies_to("dave@example.net"), 1);
    Ok(())
}

#[tokio::main]
pub(crate) async fn main() -> Checked {
    println!("a_customer_hears_of_an_order");
    a_customer_hears_of_an_order().await?;
    println!("a_declined_card_writes_to_nobody");
    a_declined_card_writes_to_nobody().await?;
    println!("a_busy_mailbox_is_tried_again_later");
    a_busy_mailbox_is_tried_again_later().await?;
    println!("an_outage_costs_nothing");
    an_outage_costs_nothing().await?;
    println!("all passed");
    Ok(())
}
