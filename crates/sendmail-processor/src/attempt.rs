//! One claimed message: loaded, sent, settled, told.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use sendmail_core::{
    Attempted, Claim, Error, ErrorKind, Handover, Loaded, MailEvent, Outcome, QueueId, Recipient,
    Release, Result, Settlement, Step, Unsettled,
};
use tracing::{debug, warn};

use crate::RunSummary;
use crate::caught::{caught, caught_now};
use crate::context::{Context, luck};
use crate::plan::{self, Ending, Facts, Handed, Sent, Sign};

/// A claimed message, with the events that came along and are to be told before its own.
#[derive(Debug)]
pub(crate) struct Job {
    pub(crate) claim: Claim,
    pub(crate) events: Vec<MailEvent>,
}

/// What became of a job.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) id: QueueId,
    pub(crate) summary: RunSummary,
    /// The store could not be worked with, and why.
    pub(crate) store_trouble: Option<String>,
    /// The store can record nothing more in this process, and why.
    pub(crate) stopped: Option<Error>,
}

/// Works on one message until its claim is settled.
pub(crate) async fn work(context: &Context, job: Job) -> Finished {
    context.tell(&job.events).await;
    let mut finished = Finished::new(job.claim.id);
    let epoch = context.relay().epoch();
    match prepare(context, &job.claim).await {
        Ok(Prepared::Send(loaded)) => {
            attempt(context, job.claim, &loaded, epoch, &mut finished).await;
        }
        Ok(Prepared::Unsendable(loaded, outcomes)) => {
            conclude(context, job.claim, &loaded, outcomes, false, &mut finished).await;
        }
        Err(error) => stop_short(context, job.claim, error, &mut finished).await,
    }
    finished
}

/// Gives a message back without an attempt.
pub(crate) async fn give_back(context: &Context, job: Job, why: &str) -> Finished {
    context.tell(&job.events).await;
    let mut finished = Finished::new(job.claim.id);
    finished.summary.leave(why);
    finished.stopped =
        settle(context, job.claim, Settlement::Release(Release::NotAttempted)).await.err();
    finished
}

enum Prepared {
    /// It can be sent, and that this begins is recorded.
    Send(Loaded),
    /// It cannot be sent, whatever the network says.
    Unsendable(Loaded, Vec<(Recipient, Outcome)>),
}

async fn prepare(context: &Context, claim: &Claim) -> Result<Prepared> {
    if context.store.capabilities().lease.is_some() {
        context.store.renew(claim).await?;
    }
    let loaded = context.store.load(claim).await?;
    // A check that panics says nothing; the attempt will show.
    if let Ok(Err(error)) = caught_now(|| context.mailer.check(&loaded.envelope)) {
        let outcomes = plan::unsendable(&loaded.envelope, &error);
        return Ok(Prepared::Unsendable(loaded, outcomes));
    }
    context.store.record(claim, Step::Begin).await?;
    Ok(Prepared::Send(loaded))
}

/// Ends a claim whose message could not be loaded, or whose attempt could not be begun.
async fn stop_short(context: &Context, claim: Claim, error: Error, finished: &mut Finished) {
    match error.kind() {
        ErrorKind::LeaseLost => debug!(id = %claim.id, "the claim was lost"),
        // The store has set it aside or put it back, and tells of it.
        ErrorKind::Damaged | ErrorKind::Unsupported => {
            warn!(id = %claim.id, %error, "the message cannot be read");
            finished.summary.unreadable += 1;
        }
        _ => {
            finished.store_trouble = Some(error.to_string());
            finished.summary.leave(&error.to_string());
            let settled = settle(context, claim, Settlement::Release(Release::NotAttempted)).await;
            finished.stopped = is_final(&error).then_some(error).or(settled.err());
        }
    }
}

async fn attempt(
    context: &Context,
    claim: Claim,
    loaded: &Loaded,
    epoch: u64,
    finished: &mut Finished,
) {
    let recorder = Recorder { context, claim: &claim, handed: Mutex::new(Handed::No) };
    let Some(sent) = send(context, loaded, &recorder).await else { return };
    let handed = recorder.handed();
    let (ending, sign) = plan::ending(&loaded.envelope, sent, handed);
    let suspect = sign != Sign::None && context.notice(epoch, &sign);
    match ending {
        Ending::Attempted(outcomes) => {
            conclude(context, claim, loaded, outcomes, suspect, finished).await;
        }
        Ending::Forget => debug!(id = %claim.id, "the claim was lost"),
        Ending::RelayTrouble(why) => {
            finished.summary.leave(&why);
            finished.stopped =
                settle(context, claim, Settlement::Release(Release::NotAttempted)).await.err();
        }
        Ending::StoreTrouble(why) => {
            finished.summary.leave(&why);
            finished.store_trouble = Some(why);
            finished.stopped =
                settle(context, claim, Settlement::Release(Release::NotAttempted)).await.err();
        }
    }
}

/// Lets the mailer send, and keeps the lease meanwhile. Nothing comes back if the claim was lost.
async fn send(context: &Context, loaded: &Loaded, recorder: &Recorder<'_>) -> Option<Sent> {
    let sending = caught(context.mailer.send(&loaded.envelope, &loaded.message, recorder));
    tokio::select! {
        sent = sending => Some(match sent {
            Ok(result) => Sent::Returned(result),
            Err(_) => {
                warn!(id = %recorder.claim.id, "the mailer panicked");
                Sent::Panicked
            }
        }),
        () = keep_lease(context, recorder.claim) => {
            debug!(id = %recorder.claim.id, "the claim was lost while the message was sent");
            None
        }
    }
}

/// Renews the claim again and again; returns when it is lost. Without leases it never returns.
async fn keep_lease(context: &Context, claim: &Claim) {
    let Some(lease) = context.store.capabilities().lease else {
        return std::future::pending().await;
    };
    loop {
        context.clock.sleep(lease / 3).await;
        match context.store.renew(claim).await {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::LeaseLost => return,
            Err(error) => warn!(id = %claim.id, %error, "the claim could not be renewed"),
        }
    }
}

/// Settles an attempt by what the plan makes of its outcomes.
async fn conclude(
    context: &Context,
    claim: Claim,
    loaded: &Loaded,
    outcomes: Vec<(Recipient, Outcome)>,
    suspect: bool,
    finished: &mut Finished,
) {
    let facts = Facts {
        options: loaded.envelope.options(),
        queued_at: loaded.queued_at,
        attempt: claim.attempt,
        now: context.clock.now(),
        suspect,
        luck: luck(),
    };
    let attempted: Attempted = plan::settlement(outcomes, facts, &context.config);
    finished.summary.count(&attempted);
    finished.stopped = settle(context, claim, Settlement::Attempted(attempted)).await.err();
}

/// Settles, and repeats it until it is durable: the outcome is kept in memory, and the claim with it.
/// Then tells the sinks.
///
/// Invariant: nothing is begun and nothing handed over while an outcome waits to be recorded
/// (`Context::unsettled`), so that no more outcomes can be lost than dots were on the wire.
///
/// # Errors
///
/// The store can record nothing more in this process: the claim stays until the process ends.
async fn settle(context: &Context, claim: Claim, settlement: Settlement) -> Result<()> {
    let mut waiting = Waiting { context, counted: false };
    let mut next = claim;
    let mut failures = 0;
    let events = loop {
        match context.store.settle(next, settlement.clone()).await {
            Ok(events) => break events,
            Err(Unsettled { claim, error }) => {
                if is_hopeless(error.kind()) || is_final(&error) {
                    warn!(id = %claim.id, %error, "the outcome is not recorded");
                    return if is_final(&error) { Err(error) } else { Ok(()) };
                }
                warn!(id = %claim.id, %error, "the outcome cannot be recorded yet");
                waiting.count(&error);
                failures += 1;
                next = claim;
            }
        }
        wait_to_settle(context, &next, failures).await;
    };
    drop(waiting);
    context.tell(&events).await;
    Ok(())
}

/// Whether the store can record nothing more in this process, as after an fsync that failed.
pub(crate) fn is_final(error: &Error) -> bool {
    error.kind() == ErrorKind::Io && !error.is_temporary()
}

/// Whether repeating a settlement cannot help: the claim is somebody else's, or the store says that we
/// are wrong.
fn is_hopeless(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::LeaseLost
            | ErrorKind::NotFound
            | ErrorKind::InvalidInput
            | ErrorKind::InvalidState
            | ErrorKind::Damaged
            | ErrorKind::Unsupported
    )
}

async fn wait_to_settle(context: &Context, claim: &Claim, failures: u32) {
    tokio::select! {
        () = context.clock.sleep(context.store_pause(failures)) => {}
        // Lost: the next try tells.
        () = keep_lease(context, claim) => {}
    }
}

/// Counts an outcome that waits to be recorded.
struct Waiting<'a> {
    context: &'a Context,
    counted: bool,
}

impl Waiting<'_> {
    fn count(&mut self, error: &Error) {
        if !std::mem::replace(&mut self.counted, true) {
            self.context.unsettled.fetch_add(1, Ordering::SeqCst);
        }
        self.context.set_store_trouble(Some(error.to_string()));
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.counted {
            if self.context.unsettled.fetch_sub(1, Ordering::SeqCst) == 1 {
                self.context.set_store_trouble(None);
            }
            self.context.news.notify_one();
        }
    }
}

/// Records the handover when the mailer announces it.
struct Recorder<'a> {
    context: &'a Context,
    claim: &'a Claim,
    /// Locked for moments, never across an await.
    handed: Mutex<Handed>,
}

impl Recorder<'_> {
    fn handed(&self) -> Handed {
        *self.handed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A second call that fails takes nothing back from the first.
    fn refuse(&self, kind: ErrorKind) {
        if self.handed() != Handed::Yes {
            self.set(Handed::Refused(kind));
        }
    }

    fn set(&self, handed: Handed) {
        *self.handed.lock().unwrap_or_else(PoisonError::into_inner) = handed;
    }
}

#[async_trait]
impl Handover for Recorder<'_> {
    async fn before_handover(&self) -> Result<()> {
        let operation = "hand the message over";
        if self.context.unsettled.load(Ordering::SeqCst) > 0 {
            self.refuse(ErrorKind::Cancelled);
            let message = "the outcome of another message cannot be recorded yet";
            return Err(Error::new(ErrorKind::Cancelled, operation, message));
        }
        match self.context.store.record(self.claim, Step::Handover).await {
            Ok(()) => {
                self.set(Handed::Yes);
                Ok(())
            }
            Err(error) => {
                self.refuse(error.kind());
                Err(Error::new(ErrorKind::Cancelled, operation, error.to_string())
                    .with_source(error))
            }
        }
    }
}

impl Finished {
    pub(crate) fn new(id: QueueId) -> Self {
        Self { id, summary: RunSummary::default(), store_trouble: None, stopped: None }
    }

    /// After a panic of the store: the claim stays until the worker ends.
    pub(crate) fn broken(id: QueueId) -> Self {
        let mut finished = Self::new(id);
        finished.summary.leave("the store panicked");
        finished
    }
}
