//! A Message-ID is data: the same message in two envelopes, or sent again by a transaction that is run
//! again, is another mail. The layers are put together here as an application does it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use sendmail_clock::SystemClock;
use sendmail_core::{Clock, Envelope, Error, ErrorKind, MailDelivery as _, Message, QueueStore};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_processor::{QueueProcessor, RunSummary};
use sendmail_smtp::{SmtpConfig, SmtpMailer};
use sendmail_testkit::smtp::{Script, ScriptedServer};
use sendmail_txn::{LentTransaction, QueuedDelivery, TransactionManager};

use crate::support::mail;

/// An application with its queue, and a relay.
struct Shop {
    _directory: tempfile::TempDir,
    store: Arc<dyn QueueStore>,
    manager: TransactionManager,
    delivery: QueuedDelivery,
    server: ScriptedServer,
}

impl Shop {
    async fn open() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let queue = directory.path().join("queue");
        let store = MaildirStore::open(queue, MaildirOptions::default()).await.unwrap();
        let store: Arc<dyn QueueStore> = Arc::new(store);
        Self {
            _directory: directory,
            manager: TransactionManager::new(clock()),
            delivery: QueuedDelivery::new(store.clone(), clock()),
            store,
            server: ScriptedServer::start(Script::new()).await.unwrap(),
        }
    }

    async fn deliver(&self) -> RunSummary {
        let config = SmtpConfig::from_url(&self.server.url()).unwrap();
        let mailer = Arc::new(SmtpMailer::new(config).unwrap());
        let processor = QueueProcessor::builder(self.store.clone(), mailer, clock()).build();
        processor.unwrap().run_once().await.unwrap()
    }

    /// To whom the messages went, in order; all are the same message.
    fn arrived(&self, message: &Message) -> Vec<String> {
        let received = self.server.messages();
        assert!(received.iter().all(|received| received.bytes == message.as_bytes()));
        let mut all: Vec<String> = received.iter().map(|each| each.recipients.join(",")).collect();
        all.sort_unstable();
        all
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(SystemClock)
}

fn message() -> Message {
    let raw = format!("Message-ID: <same@example.org>\n{}", mail("the same"));
    Message::from_raw(raw.as_bytes(), SystemClock.now(), "example.org").unwrap()
}

fn envelope(to: &[&str]) -> Envelope {
    Envelope::parse("from@example.org", to).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_message_in_two_envelopes_is_two_mails() {
    let shop = Shop::open().await;
    let mut transaction = shop.manager.begin();
    for to in [["a@example.net"], ["b@example.net"], ["b@example.net"]] {
        let sent = shop.delivery.send(&mut transaction, envelope(&to), message()).await.unwrap();
        assert_eq!(sent.as_str(), "<same@example.org>");
    }
    shop.manager.commit(transaction).await.into_result().unwrap();
    assert_eq!(shop.deliver().await.delivered, 3);
    assert_eq!(shop.arrived(&message()), ["a@example.net", "b@example.net", "b@example.net"]);
    assert_eq!(shop.deliver().await.messages, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_run_again_sends_its_message_once() {
    let shop = Shop::open().await;
    let (envelope, message) = (envelope(&["a@example.net"]), message());
    let mut first = shop.manager.begin();
    shop.delivery.send(&mut first, envelope.clone(), message.clone()).await.unwrap();
    shop.manager.abort(first).await;
    assert_eq!(shop.deliver().await.messages, 0, "rolled back");

    let runs = AtomicU32::new(0);
    let work = async |mut transaction: LentTransaction| {
        shop.delivery.send(&mut transaction, envelope.clone(), message.clone()).await?;
        match runs.fetch_add(1, Ordering::SeqCst) {
            0 | 1 => {
                Err(Error::new(ErrorKind::Busy, "change the stock", "try the transaction again"))
            }
            _ => Ok(()),
        }
    };
    shop.manager.run(5, work).await.unwrap();
    assert_eq!(runs.into_inner(), 3);
    assert_eq!(shop.deliver().await.delivered, 1);
    assert_eq!(shop.arrived(&message), ["a@example.net"]);

    // The same message in another transaction: another mail.
    let mut other = shop.manager.begin();
    shop.delivery.send(&mut other, envelope, message.clone()).await.unwrap();
    shop.manager.commit(other).await.into_result().unwrap();
    assert_eq!(shop.deliver().await.delivered, 1);
    assert_eq!(shop.arrived(&message), ["a@example.net", "a@example.net"]);
}
