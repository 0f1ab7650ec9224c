//! What the memory store refuses that stores for production may let pass.

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{
    Attempted, Clock, DecisionLog, DecisionStore, Envelope, Error, ErrorKind, MailEvent,
    MailEventKind, Message, NewMessage, Outcome, QueueAdmin as _, QueueId, QueueStore, Recipient,
    RecipientResult, Release, Reply, Settlement, Step, TransactionId, Verdict,
};
use sendmail_testkit::{ManualClock, MemoryStore, Operation};

struct Queue {
    clock: ManualClock,
    store: MemoryStore,
}

impl Queue {
    fn new() -> Self {
        let clock = ManualClock::default();
        Self { store: MemoryStore::new(Arc::new(clock.clone())), clock }
    }

    async fn write(&self) -> QueueId {
        let now = self.clock.now();
        let new = NewMessage {
            id: QueueId::mint(now),
            envelope: Envelope::parse("a@example.org", ["b@example.net"]).unwrap(),
            message: Message::from_raw(b"Subject: x\r\n\r\nHello.\r\n", now, "example.org")
                .unwrap(),
            resource: QueueStore::resource_id(&self.store).clone(),
        };
        self.store.write(&new).await.unwrap();
        new.id
    }

    fn misused<T: std::fmt::Debug>(result: Result<T, Error>) {
        assert_eq!(result.unwrap_err().kind(), ErrorKind::InvalidState);
    }

    /// Settles the one message that is due, after these steps.
    async fn settle(
        &self,
        steps: &[Step],
        settlement: Settlement,
    ) -> Result<Vec<MailEvent>, Error> {
        let id = self.write().await;
        self.store.publish(&[id]).await.unwrap();
        let claim = self.store.claim(1).await.unwrap().claims.remove(0);
        for step in steps {
            self.store.record(&claim, *step).await.unwrap();
        }
        self.store.settle(claim, settlement).await.map_err(|unsettled| unsettled.error)
    }
}

fn result(recipient: &str, outcome: Outcome, verdict: Verdict) -> Settlement {
    let recipient: Recipient = recipient.parse().unwrap();
    let results = vec![RecipientResult { recipient, outcome, verdict }];
    Settlement::Attempted(Attempted { results, retry_after: Duration::ZERO })
}

#[tokio::test]
async fn nothing_is_done_with_ids_that_were_never_written() {
    let queue = Queue::new();
    let id = QueueId::mint(queue.clock.now());
    Queue::misused(queue.store.stage(&[id]).await);
    Queue::misused(queue.store.publish(&[id]).await);
}

#[tokio::test]
async fn nothing_is_published_before_its_transaction_is_decided() {
    let queue = Queue::new();
    let id = queue.write().await;
    let transaction = TransactionId::mint(queue.clock.now());
    queue.store.propose(transaction, &[id]).await.unwrap();
    Queue::misused(queue.store.publish(&[id]).await);
    queue.store.decide(transaction).await.unwrap();
    Queue::misused(queue.store.forget(&[id]).await);
    queue.store.publish(&[id]).await.unwrap();
    queue.store.forget(&[id]).await.unwrap();
}

#[tokio::test]
async fn steps_come_in_order() {
    let queue = Queue::new();
    let id = queue.write().await;
    queue.store.publish(&[id]).await.unwrap();
    let claim = queue.store.claim(1).await.unwrap().claims.remove(0);
    Queue::misused(queue.store.record(&claim, Step::Handover).await);
    queue.store.record(&claim, Step::Begin).await.unwrap();
    queue.store.record(&claim, Step::Handover).await.unwrap();
    Queue::misused(queue.store.record(&claim, Step::Begin).await);
}

#[tokio::test]
async fn settlements_agree_with_what_was_loaded_and_recorded() {
    let queue = Queue::new();
    let ok = || Outcome::Accepted(Reply::new(250, "ok"));
    let all = [Step::Begin, Step::Handover];
    let other = result("other@example.net", ok(), Verdict::Done);
    Queue::misused(queue.settle(&all, other).await);
    let undone = result("b@example.net", ok(), Verdict::Retry);
    Queue::misused(queue.settle(&all, undone).await);
    let done = result("b@example.net", ok(), Verdict::Done);
    Queue::misused(queue.settle(&all[..1], done.clone()).await);
    Queue::misused(queue.settle(&all, Settlement::Release(Release::NotAttempted)).await);
    assert_eq!(queue.settle(&all, done).await.unwrap()[0].kind, MailEventKind::Sent);
}

#[tokio::test]
async fn only_news_of_a_relay_is_announced() {
    let queue = Queue::new();
    let event = MailEvent::new(MailEventKind::Sent, queue.clock.now());
    Queue::misused(queue.store.announce(&event).await);
}

#[tokio::test]
async fn a_killed_process_does_nothing_more() {
    let queue = Queue::new();
    let id = queue.write().await;
    queue.store.kill();
    Queue::misused(queue.store.publish(&[id]).await);
    Queue::misused(queue.store.claim(1).await);
}

#[tokio::test]
async fn room_and_faults_are_as_the_test_wants_them() {
    let queue = Queue::new();
    let limited = MemoryStore::limited(Arc::new(queue.clock.clone()), 10);
    assert_eq!(limited.capabilities().max_message_len, 10);
    queue.store.fail_next(Operation::Claim, ErrorKind::Io);
    assert_eq!(queue.store.claim(1).await.unwrap_err().kind(), ErrorKind::Io);
    assert!(queue.store.claim(1).await.unwrap().claims.is_empty());
    queue.store.set_full(true);
    let now = queue.clock.now();
    let new = NewMessage {
        id: QueueId::mint(now),
        envelope: Envelope::parse("a@example.org", ["b@example.net"]).unwrap(),
        message: Message::from_raw(b"Subject: x\r\n\r\n", now, "example.org").unwrap(),
        resource: QueueStore::resource_id(&queue.store).clone(),
    };
    assert_eq!(queue.store.write(&new).await.unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(limited.write(&new).await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

/// A processor and a recovery in one process: none takes a wake-up from the other.
#[tokio::test]
async fn each_clone_hears_every_wake_up() {
    let store = MemoryStore::new(Arc::new(ManualClock::default()));
    let others = [store.clone(), store.clone()];
    for _ in 0..3 {
        // It comes before they wait.
        store.set_frozen(false).await.unwrap();
        for other in &others {
            // Time stands still: only the wake-up ends it.
            other.wait_for_work(Duration::from_secs(1)).await;
        }
    }
}
