//! Where messages wait.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::{
    DecisionLog, DecisionStore, Envelope, Error, MailEvent, Message, Outcome, QueueId, Recipient,
    ResourceId, Result, Timestamp,
};

/// A message on its way into the queue.
#[derive(Debug, Clone)]
pub struct NewMessage {
    /// Its key, minted by this hand-over.
    pub id: QueueId,
    /// Who it goes to.
    pub envelope: Envelope,
    /// What is sent.
    pub message: Message,
    /// Who decides the transaction that it belongs to: the store itself or another resource.
    pub resource: ResourceId,
}

/// Why an undecided message is thrown away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Discard {
    /// The transaction that wrote it aborts; nothing needs to be kept.
    Aborted,
    /// Recovery fenced it off as rolled back; it is kept for some days against a wrong restore.
    Fenced,
}

/// A message that is written or staged and waits for a decision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Undecided {
    /// Which message.
    pub id: QueueId,
    /// Who decides.
    pub resource: ResourceId,
    /// Whether it was staged, not only written.
    pub staged: bool,
    /// Since when it has been there.
    pub since: Timestamp,
    /// Whether the process that wrote it lives. Tells when to ask, never the answer.
    pub owner_alive: bool,
}

/// The proof that a claim is still the claimer's: a fencing token.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClaimToken(pub String);

/// A message that is ours to send until it is settled.
///
/// It is moved into [`QueueStore::settle`], and its token is checked there as well. A claim that is
/// dropped stays claimed until its worker ends.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a claim that is not settled stays claimed until its worker ends"]
pub struct Claim {
    /// Which message.
    pub id: QueueId,
    /// The number of the attempt for which it was claimed, counted from 1.
    pub attempt: u32,
    /// Checked by every use of the claim.
    pub token: ClaimToken,
}

/// What [`QueueStore::claim`] brings.
#[derive(Debug, Default)]
pub struct Claimed {
    /// The messages, at most as many as were asked for.
    pub claims: Vec<Claim>,
    /// What was found, and made durable, on the way: messages queued since, damaged entries,
    /// possible duplicates of workers that died, messages held because they killed too many.
    pub events: Vec<MailEvent>,
}

/// What [`QueueStore::load`] brings.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The recipients that are still to be served, and how.
    pub envelope: Envelope,
    /// What is sent.
    pub message: Message,
    /// When the message was handed over: what its lifetime is counted from.
    pub queued_at: Timestamp,
}

/// What is recorded about an attempt while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The attempt begins. Needs not survive the machine.
    Begin,
    /// The message is about to be handed over: from here on it may have been sent. Survives the death
    /// of the process when it returns; survives the machine's only for messages whose policy for an
    /// ambiguous end is not to send again, and where the store says so.
    Handover,
}

/// What is to happen to a recipient after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Served: never tried again.
    Done,
    /// Tried again after the delay.
    Retry,
    /// Kept until somebody decides.
    Hold,
    /// Given up, and kept with the failed mail.
    Fail,
    /// Given up because its time ran out, and kept with the failed mail.
    Expire,
}

/// One recipient's part of a settlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecipientResult {
    /// Who.
    pub recipient: Recipient,
    /// What became of it in this attempt.
    pub outcome: Outcome,
    /// What is to happen to it now.
    pub verdict: Verdict,
}

/// The end of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempted {
    /// One result for each recipient that was loaded, in that order.
    pub results: Vec<RecipientResult>,
    /// How long to wait before recipients with [`Verdict::Retry`] are tried again.
    pub retry_after: Duration,
}

/// Why a claim is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Release {
    /// Nobody was attempted: the relay was the trouble, or the processor stops.
    NotAttempted,
}

/// What a claim is moved into.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Settlement {
    /// There was an attempt, and this came of it.
    Attempted(Attempted),
    /// Back into the queue, due at once. Costs no attempt.
    Release(Release),
}

/// A settlement that could not be made durable, with the claim it was for.
#[derive(Debug)]
pub struct Unsettled {
    /// The claim, for another try. After
    /// [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost) it is worth nothing.
    pub claim: Claim,
    /// Why.
    pub error: Error,
}

/// What [`QueueStore::sweep`] did.
#[derive(Debug, Default)]
pub struct SweepReport {
    /// What was found, and made durable, on the way.
    pub events: Vec<MailEvent>,
    /// Decided messages whose publishing had been left undone.
    pub published: usize,
    /// Left-overs and expired records that were removed.
    pub removed: usize,
    /// What was found that cannot be a message, or not yet: what and why, in words, with its place.
    /// Each is reported once by each process.
    pub set_aside: Vec<String>,
}

/// What a store can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The largest message it takes, in bytes.
    pub max_message_len: usize,
    /// How long a claim lasts unless it is renewed; nothing where it lasts as long as its worker.
    pub lease: Option<Duration>,
    /// Whether it serves priorities and tenants in turn.
    pub lanes: bool,
}

impl Capabilities {
    /// Takes messages of every size, claims that last as long as their worker, no lanes.
    #[must_use]
    pub const fn new() -> Self {
        Self { max_message_len: Message::MAX_LEN, lease: None, lanes: false }
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::new()
    }
}

/// A queue of messages: written in two steps and published when their transaction is decided, claimed
/// by workers, and settled.
///
/// Everything is idempotent by queue id: an operation that is repeated, because its first answer was
/// lost, does no harm. What a method has done is durable when it returns, unless it says otherwise.
///
/// The future of each method may be dropped at any await, and the store stays usable. Except for
/// [`claim`](Self::claim) and [`settle`](Self::settle), which say what is left then, what a method had
/// to do is either done or not, and repeating it is safe.
#[async_trait]
pub trait QueueStore: Send + Sync {
    /// The name under which this store decides transactions of its own: the `resource` of messages
    /// in transactions that nothing else decides.
    fn resource_id(&self) -> &ResourceId;

    /// What this store can do.
    fn capabilities(&self) -> Capabilities;

    /// This store as one who decides transactions, if it can.
    fn decision_log(&self) -> Option<Arc<dyn DecisionLog>>;

    /// This store as one who can be asked what it decided, if it can.
    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>>;

    /// Writes the message: invisible, not staged.
    ///
    /// # Durability
    ///
    /// It survives the death of this process on return. That it survives the machine's is promised by
    /// `stage` and by `publish`, which may make many durable at once.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Full`](crate::ErrorKind::Full) if there is no room or the queue is full,
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) if the message is larger than the
    /// store takes or another message has this id. Nothing is left that anybody would send.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the message is written or it is not, and is then a left-over that a sweep removes
    /// once its fate is known.
    async fn write(&self, new: &NewMessage) -> Result<()>;

    /// Stages messages that were written: durable, invisible, and findable for recovery whatever
    /// becomes of this process.
    ///
    /// # Errors
    ///
    /// Not all could be staged; the transaction can still abort.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn stage(&self, ids: &[QueueId]) -> Result<()>;

    /// Publishes messages that were written or staged: from here on workers claim them.
    ///
    /// For a message that is only written and whose resource is this store, this is the decision.
    ///
    /// # Durability
    ///
    /// Durable on return, also where somebody else had published the message first.
    ///
    /// # Errors
    ///
    /// Not all were published; repeat it. [`ErrorKind::Uncertain`](crate::ErrorKind::Uncertain): the
    /// messages may be published, and a crash may show either. Whoever published a message
    /// before, in this call's place, is no error.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn publish(&self, ids: &[QueueId]) -> Result<()>;

    /// Throws undecided messages away. Never touches one that is published.
    ///
    /// Returns a discarded-event for each message that was really thrown away by this call, for
    /// [`Discard::Fenced`] only.
    ///
    /// # Errors
    ///
    /// Some may still be there; repeat it.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn discard(&self, ids: &[QueueId], why: Discard) -> Result<Vec<MailEvent>>;

    /// All messages that are written or staged and not published, by whichever process.
    ///
    /// # Errors
    ///
    /// The list could not be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn undecided(&self) -> Result<Vec<Undecided>>;

    /// Which of `ids` the queue or its history knows as published: waiting, with a worker, held, failed,
    /// or gone after an end that the history tells. Neither undecided nor discarded ones.
    ///
    /// # Errors
    ///
    /// Queue or history could not be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only looks.
    async fn known(&self, ids: &[QueueId]) -> Result<Vec<QueueId>>;

    /// Whether an operator has frozen the queue: [`claim`](Self::claim) then brings nothing, `sweep`
    /// decides nothing, and whoever recovers must let undecided messages be. Everything else goes on.
    ///
    /// # Errors
    ///
    /// It could not be found out; treat the queue as frozen.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only looks.
    async fn is_frozen(&self) -> Result<bool>;

    /// Claims at most `max` messages that are due, in no particular order, each for this worker alone
    /// while it lives. Takes over what dead workers left; each recipient that a dead worker may have
    /// served is announced by a possible-duplicate event before it is claimed again.
    ///
    /// Entries that cannot be claimed are passed over, set aside or reported, and never keep others
    /// from being claimed. An empty answer means that nothing is due.
    ///
    /// # Errors
    ///
    /// Nothing was claimed. An [`ErrorKind::Io`](crate::ErrorKind::Io) that is not temporary: this worker
    /// can record nothing more, as after an `fsync` that failed. Its process has to end, and what it has
    /// claimed is then taken over. The same holds for [`record`](Self::record) and
    /// [`settle`](Self::settle).
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: messages that were claimed and not returned stay claimed until the worker
    /// ends.
    async fn claim(&self, max: usize) -> Result<Claimed>;

    /// Reads a claimed message, checked whole.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Damaged`](crate::ErrorKind::Damaged): the entry was set aside, with an event that
    /// the next `claim` or `sweep` brings, and the claim is worth nothing any more.
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported): a newer format; it was put back
    /// untouched and is not claimed again by this process.
    /// [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    async fn load(&self, claim: &Claim) -> Result<Loaded>;

    /// Prolongs a claim; where claims last as long as their worker, only checks it.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost).
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    async fn renew(&self, claim: &Claim) -> Result<()>;

    /// Records a step of the attempt.
    ///
    /// # Errors
    ///
    /// The step must not be taken: [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost), or the
    /// record could not be written.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the step may or may not have been recorded.
    async fn record(&self, claim: &Claim, step: Step) -> Result<()>;

    /// Ends a claim and returns the events that tell what became of it, which are durable.
    ///
    /// Recipients that are done, failed or expired are never tried again; those to be retried or held
    /// stay in the queue alone. What failed or expired is kept.
    ///
    /// # Durability
    ///
    /// The outcome is durable before the entry leaves the claim; that it left may come back after a crash
    /// of the machine, and is then carried out again without anything being sent.
    ///
    /// # Errors
    ///
    /// The claim comes back, for the same settlement again; nothing is sent meanwhile.
    /// [`ErrorKind::LeaseLost`](crate::ErrorKind::LeaseLost): somebody else has the message; nothing
    /// was done.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the claim may be settled, or stay claimed until the worker ends; the outcome
    /// is then perhaps not recorded, and counts as ambiguous.
    async fn settle(
        &self,
        claim: Claim,
        settlement: Settlement,
    ) -> std::result::Result<Vec<MailEvent>, Unsettled>;

    /// Makes an event about a relay durable and readable in the log.
    ///
    /// # Errors
    ///
    /// It could not be written.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn announce(&self, event: &MailEvent) -> Result<()>;

    /// Returns when there may be work, when `timeout` has passed, or earlier for no reason.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: no wake-up is lost.
    async fn wait_for_work(&self, timeout: Duration);

    /// Housekeeping: finishes what was decided and not published, takes over from dead workers,
    /// removes left-overs. Many may do it at once, and be killed half-way.
    ///
    /// # Errors
    ///
    /// Some of it could not be done; repeat it later.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it is done or it is not, and may be repeated.
    async fn sweep(&self) -> Result<SweepReport>;
}
