//! Direct delivery (zope's `IDirectMailDelivery`).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use sendmail_core::{
    Clock, DataManager, DecisionStore, DeliveryReport, Envelope, EventSink, Handover, MailDelivery,
    MailEvent, MailEventKind, Mailer, Message, MessageId, Order, Outcome, PrepareContext, QueueId,
    Recipient, Result, SavepointMark, Transaction, Vote,
};

use crate::outbox::{Outbox, Outgoing};
use crate::panics::caught_as_error;
use crate::queued::require_active;
use crate::sinks::Sinks;

/// Hands messages to a mailer as part of the commit, after the decision.
///
/// There is no queue: each message is tried once. What a crash interrupts is lost, and nobody
/// remembers it. Trouble with delivery never fails the commit, which is decided by then; it becomes
/// an event for each recipient:
///
/// * accepted: [`Sent`](MailEventKind::Sent);
/// * refused: [`Failed`](MailEventKind::Failed) with the reply;
/// * deferred, or the relay cannot be used: `Failed`, since there is nobody to try again;
/// * the connection was lost after the final dot: `Failed`, with a detail that says that the recipient
///   may have it. It is no possible duplicate, since it is not sent again.
///
/// The commit returns when all messages were tried.
pub struct DirectDelivery {
    shared: Arc<Shared>,
    probes: bool,
}

/// What a delivery and its data managers have in common.
struct Shared {
    name: String,
    mailer: Arc<dyn Mailer>,
    clock: Arc<dyn Clock>,
    sinks: Sinks,
}

impl DirectDelivery {
    /// A delivery through `mailer`, which tells `sinks` what became of each message.
    #[must_use]
    pub fn new(
        mailer: Arc<dyn Mailer>,
        clock: Arc<dyn Clock>,
        sinks: impl IntoIterator<Item = Arc<dyn EventSink>>,
    ) -> Self {
        // Two deliveries through one relay are two data managers, so a name needs more than the relay.
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("direct delivery {number} to {}", mailer.relay());
        let sinks = sinks.into_iter().collect();
        Self { shared: Arc::new(Shared { name, mailer, clock, sinks }), probes: false }
    }

    /// Asks the mailer at prepare whether the relay can be used (zope's `vote`), and votes against the
    /// commit if it cannot.
    #[must_use]
    pub fn with_probe(mut self) -> Self {
        self.probes = true;
        self
    }
}

#[async_trait]
impl MailDelivery for DirectDelivery {
    async fn send(
        &self,
        transaction: &mut Transaction,
        envelope: Envelope,
        message: Message,
    ) -> Result<MessageId> {
        require_active(transaction)?;
        self.shared.mailer.check(&envelope)?;
        let message_id = message.message_id().clone();
        let item = Outgoing { id: QueueId::mint(self.shared.clock.now()), envelope, message };
        match transaction.joined::<DirectDataManager>(&self.shared.name) {
            Some(manager) => manager.outbox.push(item),
            None => {
                let mut outbox = Outbox::default();
                outbox.push(item);
                let shared = self.shared.clone();
                let manager = DirectDataManager { shared, outbox, probes: self.probes };
                transaction.join(Box::new(manager))?;
            }
        }
        Ok(message_id)
    }
}

/// Sends after the decision.
struct DirectDataManager {
    shared: Arc<Shared>,
    outbox: Outbox,
    probes: bool,
}

#[async_trait]
impl DataManager for DirectDataManager {
    fn name(&self) -> &str {
        &self.shared.name
    }

    fn order(&self) -> Order {
        Order::Normal
    }

    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>> {
        None
    }

    fn needs_decision(&self) -> bool {
        false
    }

    async fn savepoint(&mut self) -> Result<SavepointMark> {
        Ok(self.outbox.savepoint())
    }

    async fn rollback_to(&mut self, mark: SavepointMark) -> Result<()> {
        self.outbox.rollback_to(mark)
    }

    async fn prepare(&mut self, _: &mut PrepareContext) -> Result<Vote> {
        if self.outbox.items().is_empty() {
            return Ok(Vote::ReadOnly);
        }
        if self.probes {
            self.shared.mailer.probe().await?;
        }
        Ok(Vote::Yes)
    }

    async fn commit(&mut self) -> Result<()> {
        // Taken first: a commit that is repeated sends nothing twice.
        for item in self.outbox.take() {
            self.shared.send(&item).await;
        }
        Ok(())
    }

    async fn abort(&mut self) {
        self.outbox.take();
    }
}

impl Shared {
    async fn send(&self, item: &Outgoing) {
        let call = async { self.mailer.send(&item.envelope, &item.message, &Agreed).await };
        let report = caught_as_error("send the message", call).await;
        for (index, recipient) in item.envelope.recipients().iter().enumerate() {
            let event = self.event(item, recipient, verdict(&report, index, recipient));
            self.sinks.emit(&event).await;
        }
    }

    fn event(&self, item: &Outgoing, recipient: &Recipient, verdict: Verdict<'_>) -> MailEvent {
        let message_id = item.message.message_id();
        let mut event =
            MailEvent::new(verdict.kind, self.clock.now()).about(item.id, Some(message_id));
        event.attempt = 1;
        event.recipient = Some(recipient.clone());
        event.reply = verdict.outcome.map(|outcome| outcome.reply().clone());
        match verdict.detail {
            Some(detail) => event.with_detail(&detail),
            None => event,
        }
    }
}

/// What an event is to say of one recipient.
struct Verdict<'a> {
    kind: MailEventKind,
    outcome: Option<&'a Outcome>,
    detail: Option<String>,
}

fn verdict<'a>(
    report: &'a Result<DeliveryReport>,
    index: usize,
    recipient: &Recipient,
) -> Verdict<'a> {
    let failed = |outcome, detail: &str| Verdict {
        kind: MailEventKind::Failed,
        outcome,
        detail: Some(detail.to_owned()),
    };
    let report = match report {
        Ok(report) => report,
        Err(error) => return failed(None, &error.to_string()),
    };
    let Some((_, outcome)) = report.outcomes().get(index).filter(|(who, _)| who == recipient)
    else {
        return failed(None, "the mailer did not say what became of this recipient");
    };
    match outcome {
        Outcome::Accepted(_) => {
            Verdict { kind: MailEventKind::Sent, outcome: Some(outcome), detail: None }
        }
        Outcome::Refused(_) => {
            Verdict { kind: MailEventKind::Failed, outcome: Some(outcome), detail: None }
        }
        Outcome::Deferred(_) => {
            failed(Some(outcome), "deferred by the relay; direct delivery does not try again")
        }
        Outcome::Unknown(_) => failed(
            Some(outcome),
            "no answer came after the message was handed over: the recipient may have it; direct \
             delivery does not send it again",
        ),
    }
}

/// Direct delivery keeps no record, so that nothing can keep a message from being handed over.
struct Agreed;

#[async_trait]
impl Handover for Agreed {
    async fn before_handover(&self) -> Result<()> {
        Ok(())
    }
}
