//! The mail data manager: how queued mail takes part in a two-phase commit.

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{
    DataManager, DecisionLog, DecisionStore, Discard, Envelope, Error, ErrorKind, Message,
    NewMessage, Order, PrepareContext, QueueId, QueueStore, Result, SavepointMark, TransactionId,
    Vote,
};

use crate::outbox::{Outbox, Outgoing};

/// Puts the messages of one transaction into one queue if the transaction commits.
///
/// There is one for each queue in a transaction, which [`QueuedDelivery`](crate::QueuedDelivery) joins
/// and finds again. Messages stay in memory until it is prepared.
pub struct MailDataManager {
    name: String,
    store: Arc<dyn QueueStore>,
    outbox: Outbox,
    /// What `write` was called for: what an abort has to discard.
    written: Vec<QueueId>,
    proposal: Option<Proposal>,
    role: Role,
}

/// A decision that was laid before the store's decision log.
struct Proposal {
    log: Arc<dyn DecisionLog>,
    transaction: TransactionId,
}

/// What its commit means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It has not been prepared.
    None,
    /// Somebody else decides: it publishes what is decided already.
    Follows,
    /// It has the transaction's only message: to publish it is to decide.
    DecidesByPublishing,
    /// It decides by the proposal, and then publishes.
    DecidesByProposal,
    /// It has decided by the proposal.
    HasDecided,
}

impl MailDataManager {
    /// A data manager for `store`, without messages.
    #[must_use]
    pub fn new(store: Arc<dyn QueueStore>) -> Self {
        Self {
            name: Self::name_for(store.as_ref()),
            store,
            outbox: Outbox::default(),
            written: Vec::new(),
            proposal: None,
            role: Role::None,
        }
    }

    /// Takes a message over. Nothing is written before the transaction is prepared.
    pub fn hand_over(&mut self, id: QueueId, envelope: Envelope, message: Message) {
        self.outbox.push(Outgoing { id, envelope, message });
    }

    /// The name under which the data manager for `store` joins.
    pub(crate) fn name_for(store: &dyn QueueStore) -> String {
        format!("mail queue {}", store.resource_id())
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Whether it is for this very store, and not for another of the same name.
    pub(crate) fn is_for(&self, store: &Arc<dyn QueueStore>) -> bool {
        std::ptr::addr_eq(Arc::as_ptr(&self.store), Arc::as_ptr(store))
    }

    async fn write_all(&mut self, context: &PrepareContext) -> Result<()> {
        let resource = context.resource().unwrap_or_else(|| self.store.resource_id()).clone();
        for item in self.outbox.items() {
            // Noted first: a write that fails or is dropped may have left something.
            self.written.push(item.id);
            let new = NewMessage {
                id: item.id,
                envelope: item.envelope.clone(),
                message: item.message.clone(),
                resource: resource.clone(),
            };
            self.store.write(&new).await?;
        }
        Ok(())
    }

    async fn stage_and_mark(&self, context: &mut PrepareContext) -> Result<()> {
        let ids = self.outbox.ids();
        if !ids.is_empty() {
            self.store.stage(&ids).await?;
        }
        for id in ids {
            context.mark(id);
        }
        Ok(())
    }

    async fn propose(&mut self, log: Arc<dyn DecisionLog>, context: &PrepareContext) -> Result<()> {
        let transaction = context.transaction();
        // Noted first, as above.
        self.proposal = Some(Proposal { log: log.clone(), transaction });
        log.propose(transaction, context.marks()).await
    }

    /// The store's decision log, which must exist for what this transaction asks of it.
    fn decision_log(&self) -> Result<Arc<dyn DecisionLog>> {
        self.store.decision_log().ok_or_else(|| {
            let message = "this queue has no decision log, so that it takes one message in a \
                           transaction; send the others in transactions of their own, join a \
                           database that decides, or use another queue";
            Error::new(ErrorKind::Unsupported, "prepare the mail", message)
                .with("queue", self.store.resource_id())
        })
    }

    async fn decide(&mut self) -> Result<()> {
        let Some(proposal) = &self.proposal else {
            return Err(not_prepared());
        };
        let decided = proposal.log.decide(proposal.transaction).await;
        decided.map_err(|error| match error.kind() {
            ErrorKind::Aborted | ErrorKind::Uncertain => error,
            // The contract has only these two. In doubt, nothing may be undone.
            _ => Error::new(ErrorKind::Uncertain, "decide the transaction", error.to_string())
                .with_source(error),
        })?;
        self.role = Role::HasDecided;
        Ok(())
    }

    /// Publishes what is decided: a failure is left to recovery.
    async fn publish_decided(&self) -> Result<()> {
        let ids = self.outbox.ids();
        if ids.is_empty() {
            return Ok(());
        }
        self.store.publish(&ids).await.map_err(|error| {
            let message = format!("committed; recovery publishes the mail: {error}");
            Error::new(ErrorKind::CommittedFinishPending, "publish the mail", message)
                .with_source(error)
        })
    }
}

#[async_trait]
impl DataManager for MailDataManager {
    fn name(&self) -> &str {
        &self.name
    }

    fn order(&self) -> Order {
        Order::Normal
    }

    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>> {
        self.store.decision_store()
    }

    fn needs_decision(&self) -> bool {
        true
    }

    async fn savepoint(&mut self) -> Result<SavepointMark> {
        Ok(self.outbox.savepoint())
    }

    async fn rollback_to(&mut self, mark: SavepointMark) -> Result<()> {
        self.outbox.rollback_to(mark)
    }

    async fn prepare(&mut self, context: &mut PrepareContext) -> Result<Vote> {
        let ours = self.store.resource_id();
        let we_decide = context.resource().is_none_or(|resource| resource == ours);
        let count = self.outbox.items().len();
        // Who decides is prepared last, so that what others marked is all there.
        if count == 0 && (!we_decide || context.marks().is_empty()) {
            return Ok(Vote::ReadOnly);
        }
        if we_decide && count == 1 && context.marks().is_empty() {
            self.write_all(context).await?;
            self.role = Role::DecidesByPublishing;
            return Ok(Vote::Yes);
        }
        // Asked first: what cannot be decided needs not be written.
        let log = if we_decide { Some(self.decision_log()?) } else { None };
        self.write_all(context).await?;
        self.stage_and_mark(context).await?;
        if let Some(log) = log {
            self.propose(log, context).await?;
            self.role = Role::DecidesByProposal;
        } else {
            self.role = Role::Follows;
        }
        Ok(Vote::Yes)
    }

    async fn commit(&mut self) -> Result<()> {
        match self.role {
            Role::None => return Err(not_prepared()),
            Role::DecidesByPublishing => return self.store.publish(&self.outbox.ids()).await,
            Role::DecidesByProposal => self.decide().await?,
            Role::Follows | Role::HasDecided => {}
        }
        self.publish_decided().await
    }

    async fn abort(&mut self) {
        if self.role == Role::HasDecided {
            return;
        }
        // Messages first, proposal last: without its proposal a message would look abandoned.
        if !self.written.is_empty()
            && self.store.discard(&self.written, Discard::Aborted).await.is_err()
        {
            return;
        }
        if let Some(proposal) = &self.proposal
            && proposal.log.retract(proposal.transaction).await.is_err()
        {
            return;
        }
        self.written.clear();
        self.proposal = None;
        self.role = Role::None;
        self.outbox.take();
    }
}

fn not_prepared() -> Error {
    let message = "it was not prepared; prepare every data manager before any commits";
    Error::new(ErrorKind::InvalidState, "commit the mail", message)
}
