//! The queue as the traits of `sendmail-core` see it: every call is carried out on a thread that may
//! block, and goes on to its end there even if its future is dropped.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    AdminOutcome, Capabilities, Claim, Claimed, Cursor, Decision, DecisionLog, DecisionStore,
    Discard, Entry, EntryDetail, EntryState, Error, ErrorKind, EventLog, EventPage, Filter, Loaded,
    MailEvent, NewMessage, QueueAdmin, QueueId, QueueStore, ResourceId, Result, Settlement,
    Statistics, Step, SweepReport, TransactionId, Undecided, Unsettled,
};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use crate::journal::log;
use crate::options::MaildirOptions;
use crate::queue::Queue;
use crate::wake::Listener;
use crate::wishes::Wish;

/// A queue in a Maildir.
///
/// Each value that was opened is an owner and a worker of its own, with a lock that lives as long as
/// the value: what it claimed is free when it is dropped, or when its process dies. Cloning shares it.
/// Each clone hears every wake-up for itself: give one to each of those that wait for work.
///
/// It needs a tokio runtime.
#[derive(Debug)]
pub struct MaildirStore {
    queue: Arc<Queue>,
    listener: Listener,
}

impl Clone for MaildirStore {
    fn clone(&self) -> Self {
        Self { queue: self.queue.clone(), listener: Listener::default() }
    }
}

impl MaildirStore {
    /// Opens the queue at `path`, which is made if it is missing.
    ///
    /// # Errors
    ///
    /// The directory cannot be made or used; everybody may write to it; it is on a network file
    /// system or spans two file systems; a newer program has laid it out.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn open(path: impl AsRef<Path>, options: MaildirOptions) -> Result<Self> {
        let path = path.as_ref().to_owned();
        let open = move || Queue::open(&path, options);
        let queue =
            Arc::new(spawn_blocking(open).await.map_err(|e| stopped("open the queue", e))??);
        Ok(Self { queue, listener: Listener::default() })
    }

    /// What an operator should know about where the queue is, in words; most often nothing.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.queue.layout.warnings
    }

    /// Where the queue is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.queue.layout.root.path()
    }

    /// For tests: gives the lock up as the death of the process would, and leaves everything else as
    /// it is. What is called afterwards is what a process does that does not know that it is dead.
    #[doc(hidden)]
    pub fn simulate_death(&self) {
        self.queue.owner.release();
    }

    async fn run<T: Send + 'static>(
        &self,
        operation: &'static str,
        act: impl FnOnce(&Queue) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let queue = self.queue.clone();
        spawn_blocking(move || act(&queue)).await.map_err(|error| stopped(operation, error))?
    }
}

/// The runtime stopped, or the task panicked: a mistake in this crate, told as an error.
fn stopped(operation: &'static str, error: tokio::task::JoinError) -> Error {
    Error::new(ErrorKind::Io, operation, "the task did not come to its end").with_source(error)
}

#[async_trait]
impl QueueStore for MaildirStore {
    fn resource_id(&self) -> &ResourceId {
        &self.queue.layout.resource
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new();
        capabilities.max_message_len = self.queue.options.max_message_len;
        capabilities.lanes = true;
        capabilities
    }

    fn decision_log(&self) -> Option<Arc<dyn DecisionLog>> {
        Some(Arc::new(self.clone()))
    }

    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>> {
        Some(Arc::new(self.clone()))
    }

    async fn write(&self, new: &NewMessage) -> Result<()> {
        let new = new.clone();
        self.run("write the message into the queue", move |queue| queue.write(&new)).await
    }

    async fn stage(&self, ids: &[QueueId]) -> Result<()> {
        let ids = ids.to_vec();
        self.run("stage the message", move |queue| queue.stage(&ids)).await
    }

    async fn publish(&self, ids: &[QueueId]) -> Result<()> {
        let ids = ids.to_vec();
        self.run("publish the message", move |queue| queue.publish(&ids)).await
    }

    async fn discard(&self, ids: &[QueueId], why: Discard) -> Result<Vec<MailEvent>> {
        let ids = ids.to_vec();
        self.run("discard the message", move |queue| queue.discard(&ids, why)).await
    }

    async fn undecided(&self) -> Result<Vec<Undecided>> {
        self.run("list undecided messages", Queue::undecided).await
    }

    async fn known(&self, ids: &[QueueId]) -> Result<Vec<QueueId>> {
        let ids = ids.to_vec();
        self.run("look for published messages", move |queue| queue.known(&ids)).await
    }

    async fn is_frozen(&self) -> Result<bool> {
        self.run("find out whether the queue is frozen", Queue::is_frozen).await
    }

    async fn claim(&self, max: usize) -> Result<Claimed> {
        let claim = move |queue: &Queue| queue.claim(max).map_err(|error| queue.for_good(error));
        self.run("claim messages", claim).await
    }

    async fn load(&self, claim: &Claim) -> Result<Loaded> {
        let claim = copy(claim);
        self.run("load the message", move |queue| queue.load(&claim)).await
    }

    async fn renew(&self, claim: &Claim) -> Result<()> {
        let claim = copy(claim);
        let check = move |queue: &Queue| queue.check_claim(&claim, "renew the claim").map(drop);
        self.run("renew the claim", check).await
    }

    async fn record(&self, claim: &Claim, step: Step) -> Result<()> {
        let claim = copy(claim);
        let record =
            move |queue: &Queue| queue.record(&claim, step).map_err(|error| queue.for_good(error));
        self.run("record a step of the attempt", record).await
    }

    async fn settle(
        &self,
        claim: Claim,
        settlement: Settlement,
    ) -> std::result::Result<Vec<MailEvent>, Unsettled> {
        let (queue, kept) = (self.queue.clone(), copy(&claim));
        let settle = move || {
            queue.settle(claim, &settlement).map_err(|Unsettled { claim, error }| Unsettled {
                error: queue.for_good(error),
                claim,
            })
        };
        match spawn_blocking(settle).await {
            Ok(result) => result,
            Err(error) => {
                Err(Unsettled { claim: kept, error: stopped("settle the message", error) })
            }
        }
    }

    async fn announce(&self, event: &MailEvent) -> Result<()> {
        let event = event.clone();
        let operation = "write the event";
        let log = move |queue: &Queue| {
            queue.log(std::slice::from_ref(&event)).map_err(|error| Error::io(operation, error))
        };
        self.run(operation, log).await
    }

    async fn wait_for_work(&self, timeout: Duration) {
        tokio::select! {
            () = self.queue.wake.wait(&self.listener, &self.queue.layout) => {}
            () = self.queue.options.clock.sleep(timeout) => {}
        }
    }

    async fn sweep(&self) -> Result<SweepReport> {
        self.run("sweep the queue", Queue::sweep).await
    }
}

#[async_trait]
impl DecisionStore for MaildirStore {
    fn resource_id(&self) -> &ResourceId {
        &self.queue.layout.resource
    }

    async fn visible(&self, ids: &[QueueId]) -> Result<Vec<QueueId>> {
        let ids = ids.to_vec();
        self.run("read the decisions", move |queue| queue.visible(&ids)).await
    }

    /// Never waits: whether the owner lives is known at once.
    async fn fence(&self, id: QueueId, _timeout: Duration) -> Result<Decision> {
        self.run("fence the message", move |queue| queue.fence(id)).await
    }

    async fn forget(&self, ids: &[QueueId]) -> Result<()> {
        let ids = ids.to_vec();
        self.run("forget the decisions", move |queue| queue.forget(&ids)).await
    }

    /// None: the queue's own sweep finds out what may be forgotten.
    async fn remembered(&self, _age: Duration, _limit: usize) -> Result<Vec<QueueId>> {
        Ok(Vec::new())
    }

    /// Nothing: the queue's own sweep does it.
    async fn sweep(&self) -> Result<usize> {
        Ok(0)
    }
}

#[async_trait]
impl DecisionLog for MaildirStore {
    async fn propose(&self, transaction: TransactionId, ids: &[QueueId]) -> Result<()> {
        let ids = ids.to_vec();
        self.run("propose the transaction", move |queue| queue.propose(transaction, &ids)).await
    }

    async fn decide(&self, transaction: TransactionId) -> Result<()> {
        self.run("decide the transaction", move |queue| queue.decide(transaction)).await
    }

    async fn retract(&self, transaction: TransactionId) -> Result<()> {
        self.run("retract the transaction", move |queue| queue.retract(transaction)).await
    }
}

#[async_trait]
impl EventLog for MaildirStore {
    async fn read(&self, after: Option<Cursor>, limit: usize) -> Result<EventPage> {
        let read = move |queue: &Queue| log::read(&queue.layout.journal, after.as_ref(), limit);
        self.run("read events", read).await
    }
}

/// How many entries may be read ahead of whoever looks at them.
const READ_AHEAD: usize = 64;

#[async_trait]
impl QueueAdmin for MaildirStore {
    async fn list(
        &self,
        filter: &Filter,
        visit: &mut (dyn FnMut(Entry) -> ControlFlow<()> + Send),
    ) -> Result<()> {
        let (sender, mut receiver) = mpsc::channel(READ_AHEAD);
        let (queue, filter) = (self.queue.clone(), filter.clone());
        let reader = spawn_blocking(move || {
            queue.list(&filter, &mut |entry| match sender.blocking_send(entry) {
                Ok(()) => ControlFlow::Continue(()),
                // Nobody looks any more.
                Err(_) => ControlFlow::Break(()),
            })
        });
        while let Some(entry) = receiver.recv().await {
            if visit(entry).is_break() {
                break;
            }
        }
        drop(receiver);
        reader.await.map_err(|error| stopped("list the queue", error))?
    }

    async fn show(&self, id: QueueId) -> Result<EntryDetail> {
        self.run("show the message", move |queue| queue.show(id)).await
    }

    async fn hold(&self, id: QueueId) -> Result<AdminOutcome> {
        let from = [EntryState::Queued, EntryState::Deferred];
        self.run("hold the message", move |queue| queue.act(id, Wish::Hold, &from)).await
    }

    async fn release(&self, id: QueueId) -> Result<AdminOutcome> {
        let from = [EntryState::Held];
        self.run("release the message", move |queue| queue.act(id, Wish::Retry, &from)).await
    }

    async fn retry_now(&self, id: QueueId) -> Result<AdminOutcome> {
        let from = [EntryState::Deferred, EntryState::Failed];
        self.run("make the message due", move |queue| queue.act(id, Wish::Retry, &from)).await
    }

    async fn remove(&self, id: QueueId) -> Result<AdminOutcome> {
        let from = [EntryState::Queued, EntryState::Deferred, EntryState::Held, EntryState::Failed];
        self.run("remove the message", move |queue| queue.act(id, Wish::Remove, &from)).await
    }

    async fn put_back(&self, id: QueueId) -> Result<AdminOutcome> {
        self.run("put the message back", move |queue| queue.put_back(id)).await
    }

    async fn set_frozen(&self, frozen: bool) -> Result<bool> {
        self.run("freeze the queue", move |queue| queue.set_frozen(frozen)).await
    }

    async fn statistics(&self) -> Result<Statistics> {
        self.run("count the queue", Queue::statistics).await
    }
}

/// A second name for the same claim, for use within one call.
fn copy(claim: &Claim) -> Claim {
    Claim { id: claim.id, attempt: claim.attempt, token: claim.token.clone() }
}
