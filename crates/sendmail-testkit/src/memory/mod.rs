//! The strict in-memory queue: every contract of a store, kept to the letter, and every misuse told.

mod admin;
mod claims;
mod decision;
mod log;
mod state;
mod store;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sendmail_core::{Clock, Error, ErrorKind, Message, QueueId, ResourceId, Result, Timestamp};
use tokio::sync::watch;

use state::State;

/// A queue in memory, for tests: a [`QueueStore`], [`QueueAdmin`], [`EventLog`], [`DecisionStore`] and
/// [`DecisionLog`] that is stricter than stores for production.
///
/// * Claims come in random order. The seed is printed when the store is made;
///   `SENDMAIL_TESTKIT_SEED` sets it.
/// * What no caller may do is an error of kind [`ErrorKind::InvalidState`]: to publish an id that was
///   never written, to settle for other recipients than were loaded, to record the handover before
///   the beginning, to say `Accepted` where no handover was recorded.
/// * Tokens are checked by every use of a claim.
///
/// One queue is shared by several *processes*: [`process`](Self::process) begins another,
/// [`kill`](Self::kill) ends one without any order, and so does dropping its last clone. Clones are
/// the same process, and each of them hears every wake-up for itself.
///
/// [`QueueStore`]: sendmail_core::QueueStore
/// [`QueueAdmin`]: sendmail_core::QueueAdmin
/// [`EventLog`]: sendmail_core::EventLog
/// [`DecisionStore`]: sendmail_core::DecisionStore
/// [`DecisionLog`]: sendmail_core::DecisionLog
pub struct MemoryStore {
    process: Arc<Process>,
    /// The last change of the queue that this clone has heard of.
    heard: AtomicU64,
}

impl Clone for MemoryStore {
    fn clone(&self) -> Self {
        Self { process: Arc::clone(&self.process), heard: AtomicU64::new(0) }
    }
}

/// A call that can be told to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Operation {
    /// `QueueStore::write`.
    Write,
    /// `QueueStore::stage`.
    Stage,
    /// `QueueStore::publish`.
    Publish,
    /// `QueueStore::claim`.
    Claim,
    /// `QueueStore::load`.
    Load,
    /// `QueueStore::record` of the beginning.
    Begin,
    /// `QueueStore::record` of the handover.
    Handover,
    /// `QueueStore::settle`.
    Settle,
    /// `QueueStore::sweep`.
    Sweep,
    /// `DecisionLog::propose`.
    Propose,
    /// `DecisionLog::decide`.
    Decide,
}

/// One process that has the queue open.
struct Process {
    shared: Arc<Shared>,
    number: u64,
}

/// What all processes share.
struct Shared {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
    resource: ResourceId,
    lease: Option<Duration>,
    max_message_len: usize,
    seed: u64,
    /// Counts the changes that may have brought work.
    changes: watch::Sender<u64>,
}

impl MemoryStore {
    /// An empty queue with its first process. Claims last as long as their worker.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self::build(clock, None, Message::MAX_LEN, seed())
    }

    /// An empty queue whose claims last for `lease` unless they are renewed, whoever lives.
    #[must_use]
    pub fn leased(clock: Arc<dyn Clock>, lease: Duration) -> Self {
        Self::build(clock, Some(lease), Message::MAX_LEN, seed())
    }

    /// An empty queue that takes no message of more than `bytes`.
    #[must_use]
    pub fn limited(clock: Arc<dyn Clock>, bytes: usize) -> Self {
        Self::build(clock, None, bytes, seed())
    }

    #[expect(clippy::print_stderr, reason = "a failing test shows it, a passing one does not")]
    fn build(
        clock: Arc<dyn Clock>,
        lease: Option<Duration>,
        max_message_len: usize,
        seed: u64,
    ) -> Self {
        eprintln!("MemoryStore: seed {seed} (SENDMAIL_TESTKIT_SEED={seed} repeats its order)");
        // A constant that is a valid name.
        let resource: ResourceId = "memory".parse().expect("a valid resource id");
        let shared = Shared {
            state: Mutex::new(State::new(resource.clone(), lease, seed)),
            clock,
            resource,
            lease,
            max_message_len,
            seed,
            changes: watch::Sender::new(1),
        };
        Self::begin(Arc::new(shared))
    }

    fn begin(shared: Arc<Shared>) -> Self {
        let number = shared.lock().begin_process();
        Self { process: Arc::new(Process { shared, number }), heard: AtomicU64::new(0) }
    }

    /// The same queue, opened by another process.
    #[must_use]
    pub fn process(&self) -> Self {
        Self::begin(Arc::clone(&self.process.shared))
    }

    /// Ends this process without any order: what it had claimed is free, and every later call of it
    /// is an error.
    pub fn kill(&self) {
        self.process.end();
    }

    /// Damages the stored bytes of a published message; whether there is one.
    pub fn corrupt(&self, id: QueueId) -> bool {
        let mut state = self.lock();
        state.items.get_mut(&id).map(|item| item.damaged = true).is_some()
    }

    /// Lets a published message look as if a newer version had written it; whether there is one.
    pub fn make_unsupported(&self, id: QueueId) -> bool {
        let mut state = self.lock();
        state.items.contains_key(&id) && state.unsupported.insert(id)
    }

    /// Says that there is no room for further messages, or that there is again.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Lets the next call of `operation`, by any process, fail with an error of `kind` and do
    /// nothing. Several take their turns in the order in which they were set.
    pub fn fail_next(&self, operation: Operation, kind: ErrorKind) {
        self.lock().faults.push_back((operation, kind));
    }

    /// Forgets the oldest events but `keep`.
    pub fn expire_history(&self, keep: usize) {
        let mut state = self.lock();
        while state.log.len() > keep {
            state.log.pop_front();
            state.log_start += 1;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.process.shared.lock()
    }

    /// The state, for a process that lives.
    fn live(&self, operation: &'static str) -> Result<MutexGuard<'_, State>> {
        let state = self.lock();
        if state.alive.contains(&self.process.number) {
            Ok(state)
        } else {
            Err(misuse(operation, "this process was killed"))
        }
    }

    fn now(&self) -> Timestamp {
        self.process.shared.clock.now()
    }

    fn heard(&self, change: u64) {
        self.heard.fetch_max(change, Ordering::Relaxed);
    }

    /// Wakes whoever waits for work, in every process.
    fn wake(&self) {
        self.process.shared.changes.send_modify(|count| *count += 1);
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore")
            .field("process", &self.process.number)
            .field("seed", &self.process.shared.seed)
            .finish_non_exhaustive()
    }
}

impl Operation {
    fn verb(self) -> &'static str {
        match self {
            Self::Write => "write the message",
            Self::Stage => "stage messages",
            Self::Publish => "publish messages",
            Self::Claim => "claim messages",
            Self::Load => "load the message",
            Self::Begin | Self::Handover => "record the step",
            Self::Settle => "settle the claim",
            Self::Sweep => "sweep the queue",
            Self::Propose => "propose the decision",
            Self::Decide => "decide the transaction",
        }
    }
}

impl Process {
    fn end(&self) {
        self.shared.lock().alive.remove(&self.number);
        self.shared.changes.send_modify(|count| *count += 1);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    /// No code panics while it holds this lock, except a test's own allocator; then the state is what
    /// it was.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn seed() -> u64 {
    let wanted = std::env::var("SENDMAIL_TESTKIT_SEED").ok().and_then(|text| text.parse().ok());
    wanted.unwrap_or_else(|| fastrand::u64(..1_000_000))
}

/// The caller did what no caller may do.
fn misuse(operation: &'static str, message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidState, operation, message)
}
