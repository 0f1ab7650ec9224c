//! What happens to some messages: small histories, lived as callers live them.
//!
//! A process goes on after an error as its callers do: it repeats what may be repeated and takes errors
//! at their word. What it was told, and what the relay got, goes into the books, and into the recording
//! if there is one.

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{
    AmbiguousPolicy, Attempted, DeliveryOptions, Discard, Envelope, Error, ErrorKind, Message,
    NewMessage, Outcome, Priority, QueueId, Recipient, RecipientResult, Release, Reply, Settlement,
    Step, Timestamp, TransactionId, Unsettled, Verdict,
};
use sendmail_testkit::ManualClock;
use uuid::Uuid;

use super::ledger::{Ledger, Note, Told, event};
use super::probe;
use crate::options::MaildirOptions;
use crate::queue::Queue;

/// How often a caller repeats what failed.
const TRIES: u32 = 4;

/// How long a deferred recipient waits.
pub(crate) const LATER: Duration = Duration::from_secs(60);

/// A process that has the queue open, and dies when this is dropped: nothing is put in order.
pub(crate) struct Process(Queue);

impl Deref for Process {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.0
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.0.owner.release();
    }
}

/// A queue's life as seen from outside.
pub(crate) struct Life {
    pub(crate) path: PathBuf,
    pub(crate) clock: ManualClock,
    pub(crate) ledger: Ledger,
    /// Under which boot of the machine it is.
    pub(crate) boot: Uuid,
    /// Whether the log is kept whole, however late it is.
    pub(crate) keeps_history: bool,
    minted: u8,
}

impl Life {
    pub(crate) fn new(path: &Path) -> Self {
        Self::resume(path, Ledger::default(), ManualClock::default(), Uuid::from_bytes([1; 16]))
    }

    /// Goes on where another life ended.
    pub(crate) fn resume(path: &Path, ledger: Ledger, clock: ManualClock, boot: Uuid) -> Self {
        Self { path: path.to_owned(), clock, ledger, boot, keeps_history: false, minted: 0 }
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.ledger.note(&note);
        probe::with_recorder(|recorder| recorder.note(note));
    }

    /// A process that opens the queue.
    pub(crate) fn open(&self) -> Result<Process, Error> {
        let mut options = MaildirOptions::default().with_clock(Arc::new(self.clock.clone()));
        if self.keeps_history {
            options.history = Duration::MAX;
        }
        let mut queue = Queue::open(&self.path, options)?;
        queue.boot = self.boot;
        Ok(Process(queue))
    }

    /// The same, tried again after an error as whoever starts it would.
    pub(crate) fn start(&self) -> Process {
        for _ in 0..TRIES {
            if let Ok(process) = self.open() {
                return process;
            }
        }
        self.open().unwrap()
    }

    /// A process is killed. What it had, others may take.
    pub(crate) fn kill(&mut self, process: Process) {
        drop(process);
        self.note(Note::Death);
    }

    /// A message of a transaction that `resource` decides, the queue itself if that is nothing.
    pub(crate) fn message(
        &mut self,
        queue: &Queue,
        to: &[&str],
        options: DeliveryOptions,
        resource: Option<&str>,
    ) -> NewMessage {
        self.minted += 1;
        let id = QueueId::from_bytes([self.minted; 16]);
        self.note(Note::New {
            id,
            group: self.minted,
            to: to.iter().map(|name| (*name).to_owned()).collect(),
            decided_outside: resource.is_some(),
            gives_up: options.ambiguous == AmbiguousPolicy::Drop,
        });
        NewMessage {
            id,
            envelope: Envelope::parse("from@x", to).unwrap().with_options(options),
            message: content(id),
            resource: match resource {
                Some(name) => name.parse().unwrap(),
                None => queue.layout.resource.clone(),
            },
        }
    }

    fn told(&mut self, ids: &[QueueId], told: Told) {
        self.note(Note::Told(ids.to_vec(), told));
    }

    /// A transaction with one message: publishing it decides.
    pub(crate) fn send(&mut self, queue: &Queue, to: &[&str]) -> QueueId {
        self.send_with(queue, to, DeliveryOptions::default())
    }

    pub(crate) fn send_with(
        &mut self,
        queue: &Queue,
        to: &[&str],
        options: DeliveryOptions,
    ) -> QueueId {
        let new = self.message(queue, to, options, None);
        let ids = [new.id];
        if queue.write(&new).is_err() {
            self.abort(queue, &ids, None);
            return new.id;
        }
        match queue.publish(&ids) {
            Ok(()) => self.told(&ids, Told::Committed),
            Err(error) if error.kind() == ErrorKind::Uncertain => {
                for _ in 0..2 {
                    let again = queue.publish(&ids).unwrap_err();
                    assert_eq!(again.kind(), ErrorKind::Uncertain, "a failed sync is forgotten");
                }
            }
            Err(_) => self.abort(queue, &ids, None),
        }
        new.id
    }

    /// A transaction with several messages.
    pub(crate) fn send_all(&mut self, queue: &Queue, to: &[&[&str]], commits: bool) {
        let options = DeliveryOptions::default();
        let news: Vec<NewMessage> =
            to.iter().map(|to| self.message(queue, to, options.clone(), None)).collect();
        let ids: Vec<QueueId> = news.iter().map(|new| new.id).collect();
        self.note(Note::Group(ids.clone()));
        let transaction = TransactionId::from_bytes([self.minted; 16]);
        let prepared = news.iter().try_for_each(|new| queue.write(new));
        let prepared = prepared.and_then(|()| queue.stage(&ids));
        if prepared.and_then(|()| queue.propose(transaction, &ids)).is_err() || !commits {
            return self.abort(queue, &ids, Some(transaction));
        }
        match queue.decide(transaction) {
            Ok(()) => self.told(&ids, Told::Committed),
            Err(error) if error.kind() == ErrorKind::Uncertain => {
                let again = queue.decide(transaction).unwrap_err();
                assert_eq!(again.kind(), ErrorKind::Uncertain, "a failed sync is forgotten");
                return;
            }
            Err(_) => return self.abort(queue, &ids, Some(transaction)),
        }
        if queue.publish(&ids).is_ok() {
            let _ = queue.forget(&ids);
        }
    }

    fn abort(&mut self, queue: &Queue, ids: &[QueueId], transaction: Option<TransactionId>) {
        self.told(ids, Told::RolledBack);
        if queue.discard(ids, Discard::Aborted).is_ok()
            && let Some(transaction) = transaction
        {
            let _ = queue.retract(transaction);
        }
    }

    /// A transaction of a database with a message, up to the database's answer. Returns whether it was
    /// prepared.
    pub(crate) fn send_with_database(&mut self, queue: &Queue, to: &[&str], commits: bool) -> bool {
        let new = self.message(queue, to, DeliveryOptions::default(), Some("database"));
        let ids = [new.id];
        if queue.write(&new).and_then(|()| queue.stage(&ids)).is_err() {
            self.abort(queue, &ids, None);
            return false;
        }
        if commits {
            self.note(Note::Database(ids.to_vec()));
        }
        true
    }

    /// Recovery as any process does it: what the database decided is published or discarded.
    pub(crate) fn recover(&mut self, queue: &Queue) -> Result<(), Error> {
        for entry in queue.undecided()? {
            if entry.resource == queue.layout.resource {
                continue;
            }
            let committed = |ledger: &Ledger| {
                ledger.accounts.get(&entry.id).is_some_and(|account| account.database)
            };
            if committed(&self.ledger) {
                queue.publish(&[entry.id])?;
            } else {
                let events = queue.discard(&[entry.id], Discard::Fenced)?;
                self.note(Note::Events(events.iter().map(event).collect()));
            }
        }
        Ok(())
    }

    pub(crate) fn sweep(&mut self, queue: &Queue) -> Result<(), Error> {
        let report = queue.sweep()?;
        self.note(Note::Events(report.events.iter().map(event).collect()));
        Ok(())
    }

    /// Claims what is due and delivers it, as a processor does. Returns how many were claimed.
    pub(crate) fn work(&mut self, queue: &Queue) -> Result<usize, Error> {
        let claimed = queue.claim(8)?;
        self.note(Note::Events(claimed.events.iter().map(event).collect()));
        let count = claimed.claims.len();
        for claim in claimed.claims {
            let settlement = match queue.load(&claim) {
                Err(error) if error.kind() == ErrorKind::LeaseLost => continue,
                Err(_) => Settlement::Release(Release::NotAttempted),
                Ok(loaded) => {
                    self.compare(claim.id, &loaded.message);
                    let begun = queue.record(&claim, Step::Begin);
                    if begun.and_then(|()| queue.record(&claim, Step::Handover)).is_err() {
                        Settlement::Release(Release::NotAttempted)
                    } else {
                        self.attempt(claim.id, claim.attempt, loaded.envelope.recipients())
                    }
                }
            };
            self.settle(queue, claim, &settlement);
        }
        Ok(count)
    }

    /// Works until nothing is due, or `rounds` times.
    pub(crate) fn drain(&mut self, queue: &Queue, rounds: u32) -> Result<(), Error> {
        for _ in 0..rounds {
            if self.work(queue)? == 0 {
                break;
            }
        }
        Ok(())
    }

    fn settle(&mut self, queue: &Queue, claim: sendmail_core::Claim, settlement: &Settlement) {
        let id = claim.id;
        let mut next = claim;
        for _ in 0..TRIES {
            match queue.settle(next, settlement) {
                Ok(events) => {
                    self.note(Note::Events(events.iter().map(event).collect()));
                    if let Settlement::Attempted(attempted) = settlement {
                        let done = attempted.results.iter().filter(|result| {
                            !matches!(result.verdict, Verdict::Retry | Verdict::Hold)
                        });
                        let done = done.map(|result| result.recipient.to_string()).collect();
                        self.note(Note::Closed(id, done));
                    }
                    break;
                }
                Err(Unsettled { claim, error }) => {
                    assert_ne!(error.kind(), ErrorKind::LeaseLost, "its own claim: {error}");
                    next = claim;
                }
            }
        }
    }

    /// What is sent is what was handed over, byte for byte.
    fn compare(&mut self, id: QueueId, message: &Message) {
        if self.ledger.accounts.contains_key(&id) && message.as_bytes() != content(id).as_bytes() {
            self.ledger.wrong.push(format!("{id} is sent with other bytes"));
        }
    }

    /// What the relay makes of a message: `later` is deferred once, `hold` held once, and `never` refused.
    fn attempt(&mut self, id: QueueId, attempt: u32, to: &[Recipient]) -> Settlement {
        let mut results = Vec::new();
        for recipient in to {
            let name = recipient.to_string();
            let (outcome, verdict) = match name.as_str() {
                "never@x" => {
                    self.note(Note::Refused(id, name));
                    (Outcome::Refused(Reply::new(550, "no")), Verdict::Fail)
                }
                "later@x" if attempt == 1 => {
                    (Outcome::Deferred(Reply::new(450, "later")), Verdict::Retry)
                }
                "hold@x" if attempt == 1 => {
                    (Outcome::Deferred(Reply::new(450, "hold")), Verdict::Hold)
                }
                _ => {
                    self.note(Note::Copy(id, name));
                    (Outcome::Accepted(Reply::new(250, "ok")), Verdict::Done)
                }
            };
            results.push(RecipientResult { recipient: recipient.clone(), outcome, verdict });
        }
        Settlement::Attempted(Attempted { results, retry_after: LATER })
    }
}

/// What is sent under an id.
fn content(id: QueueId) -> Message {
    let raw = format!("Message-ID: <{id}@test>\nDate: d\n\nthe body of {id}\n");
    Message::from_raw(raw.as_bytes(), Timestamp::EPOCH, "test").unwrap()
}

/// A history with its name.
pub(crate) struct Script {
    pub(crate) name: &'static str,
    /// Whether it begins with a queue that is not there yet.
    pub(crate) from_nothing: bool,
    run: fn(&mut Life, Process),
}

impl Script {
    /// Lives it, in the queue that `life` is about.
    pub(crate) fn run(&self, life: &mut Life, first: Process) {
        (self.run)(life, first);
    }
}

const fn script(name: &'static str, run: fn(&mut Life, Process)) -> Script {
    Script { name, from_nothing: false, run }
}

/// All histories.
pub(crate) const SCRIPTS: [Script; 13] = [
    Script { name: "open", from_nothing: true, run: open },
    script("one message", one),
    script("several messages", several),
    script("rolled back", rolled_back),
    script("database", database),
    script("outcomes", outcomes),
    script("lanes and later", lanes_and_later),
    script("policies", policies),
    script("takeover", takeover),
    script("new segment", new_segment),
    script("operator", operator),
    script("freeze", freeze),
    script("long after", long_after),
];

/// A queue is made, and used at once.
fn open(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x"]);
}

/// Enqueued, claimed, delivered; and the next one.
fn one(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x"]);
    let _ = life.work(&queue);
    life.send(&queue, &["a@x", "b@x"]);
    let _ = life.work(&queue);
    let _ = life.work(&queue);
}

/// One transaction, several messages, no database.
fn several(life: &mut Life, queue: Process) {
    life.send_all(&queue, &[&["a@x"], &["never@x"]], true);
    let _ = life.work(&queue);
}

/// Transactions that abort, before and after they are prepared.
fn rolled_back(life: &mut Life, queue: Process) {
    life.send_all(&queue, &[&["a@x"], &["b@x"]], false);
    life.send_with_database(&queue, &["a@x"], false);
    let other = life.start();
    let _ = life.recover(&other);
    let _ = life.sweep(&other);
}

/// A database decides, and another process publishes.
fn database(life: &mut Life, queue: Process) {
    life.send_with_database(&queue, &["a@x"], true);
    life.send_with_database(&queue, &["a@x"], true);
    let other = life.start();
    let _ = life.recover(&other);
    let _ = life.recover(&queue);
    let _ = life.work(&other);
}

/// Accepted, deferred, refused, held: each recipient by itself.
fn outcomes(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x", "later@x", "never@x"]);
    life.send(&queue, &["a@x", "hold@x"]);
    let _ = life.work(&queue);
    life.clock.advance(LATER + Duration::from_secs(1));
    let _ = life.work(&queue);
    let _ = life.sweep(&queue);
    let _ = life.work(&queue);
}

/// Messages with a priority, a tenant, and a time before which they are not sent.
fn lanes_and_later(life: &mut Life, queue: Process) {
    let mut options = DeliveryOptions::default();
    options.priority = Priority::High;
    life.send_with(&queue, &["a@x"], options.clone());
    options.not_before = Some(sendmail_core::Clock::now(&life.clock).saturating_add(LATER));
    life.send_with(&queue, &["a@x"], options);
    let _ = life.work(&queue);
    life.clock.advance(LATER + Duration::from_secs(1));
    let _ = life.work(&queue);
    let _ = life.work(&queue);
}

/// Messages that are not to be sent twice.
fn policies(life: &mut Life, queue: Process) {
    for policy in [AmbiguousPolicy::Hold, AmbiguousPolicy::Drop] {
        let mut options = DeliveryOptions::default();
        options.ambiguous = policy;
        life.send_with(&queue, &["a@x"], options);
    }
    let _ = life.work(&queue);
}

/// A worker is killed with a claim in its hands, and another takes over.
fn takeover(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x"]);
    life.send(&queue, &["later@x", "b@x"]);
    if let Ok(claimed) = queue.claim(8)
        && let Some(claim) = claimed.claims.first()
    {
        life.note(Note::Events(claimed.events.iter().map(event).collect()));
        if let Ok(loaded) = queue.load(claim)
            && queue.record(claim, Step::Begin).is_ok()
            && queue.record(claim, Step::Handover).is_ok()
        {
            // It dies before it can tell what became of it.
            life.attempt(claim.id, claim.attempt, loaded.envelope.recipients());
        }
    }
    life.kill(queue);
    let other = life.start();
    let _ = life.sweep(&other);
    let _ = life.work(&other);
    let _ = life.work(&other);
}

/// The journal goes on in a new segment, with a claim that is not finished and some that are.
fn new_segment(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x"]);
    let _ = life.work(&queue);
    life.send(&queue, &["b@x"]);
    if let Ok(claimed) = queue.claim(8) {
        life.note(Note::Events(claimed.events.iter().map(event).collect()));
        for claim in claimed.claims {
            let Ok(loaded) = queue.load(&claim) else { continue };
            let begun = queue.record(&claim, Step::Begin).is_ok();
            if let Ok(worker) = queue.worker() {
                let room = crate::journal::SEGMENT_SIZE;
                if queue.reserve(&worker, room).is_ok() {
                    worker.journal.unreserve(room);
                }
            }
            let settlement = match begun && queue.record(&claim, Step::Handover).is_ok() {
                true => life.attempt(claim.id, claim.attempt, loaded.envelope.recipients()),
                false => Settlement::Release(Release::NotAttempted),
            };
            life.settle(&queue, claim, &settlement);
        }
    }
    life.send(&queue, &["c@x"]);
    let _ = life.work(&queue);
    queue.close();
}

/// An operator holds, releases, removes, and leaves wishes about claimed messages.
fn operator(life: &mut Life, queue: Process) {
    use crate::wishes::Wish;
    use sendmail_core::AdminOutcome::Done;
    use sendmail_core::EntryState::{Deferred, Failed, Held, Queued};
    let other = life.start();
    let id = life.send(&queue, &["a@x"]);
    life.note(Note::Held(id, None));
    if let Ok(Done(told)) = other.act(id, Wish::Hold, &[Queued, Deferred]) {
        life.note(Note::Events(vec![event(&told)]));
        life.note(Note::Held(id, Some(true)));
    }
    let _ = life.work(&queue);
    life.note(Note::Held(id, None));
    if let Ok(Done(told)) = other.act(id, Wish::Retry, &[Held]) {
        life.note(Note::Events(vec![event(&told)]));
        life.note(Note::Held(id, Some(false)));
    }
    let _ = life.work(&queue);
    let gone = life.send(&queue, &["never@x"]);
    let _ = life.work(&queue);
    life.note(Note::Removed(gone));
    if let Ok(Done(told)) = other.act(gone, Wish::Remove, &[Queued, Deferred, Held, Failed]) {
        life.note(Note::Events(vec![event(&told)]));
    }
    // Claimed by one, wanted on hold by the other.
    let id = life.send(&queue, &["later@x"]);
    life.note(Note::Held(id, None));
    if let Ok(claimed) = queue.claim(1) {
        life.note(Note::Events(claimed.events.iter().map(event).collect()));
        let _ = other.act(id, Wish::Hold, &[Queued, Deferred]);
        for claim in claimed.claims {
            life.settle(&queue, claim, &Settlement::Release(Release::NotAttempted));
        }
    }
    // Thrown away as rolled back by mistake, and put back.
    life.send_with_database(&queue, &["a@x"], false);
    let _ = life.recover(&other);
    let id = QueueId::from_bytes([life.minted; 16]);
    life.note(Note::PuttingBack(id));
    if let Ok(Done(told)) = other.put_back(id) {
        life.note(Note::Events(vec![event(&told)]));
        life.note(Note::Told(vec![id], Told::Committed));
    }
    let _ = life.work(&queue);
}

/// An operator freezes the queue and thaws it.
fn freeze(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x"]);
    let other = life.start();
    for frozen in [true, false, true] {
        life.note(Note::Frozen(None));
        if other.set_frozen(frozen).is_ok() {
            life.note(Note::Frozen(Some(frozen)));
        }
        let _ = life.work(&queue);
        let _ = life.sweep(&queue);
    }
}

/// Everything that is removed for its age: manifests, journals, what the dead have left.
fn long_after(life: &mut Life, queue: Process) {
    let ids = {
        let options = DeliveryOptions::default();
        let news = [
            life.message(&queue, &["a@x"], options.clone(), None),
            life.message(&queue, &["b@x"], options, None),
        ];
        let ids: Vec<QueueId> = news.iter().map(|new| new.id).collect();
        life.note(Note::Group(ids.clone()));
        let transaction = TransactionId::from_bytes([9; 16]);
        let prepared = news.iter().try_for_each(|new| queue.write(new));
        let prepared = prepared
            .and_then(|()| queue.stage(&ids))
            .and_then(|()| queue.propose(transaction, &ids));
        match prepared.and_then(|()| queue.decide(transaction)) {
            Ok(()) => life.told(&ids, Told::Committed),
            Err(error) if error.kind() == ErrorKind::Uncertain => {}
            Err(_) => life.abort(&queue, &ids, Some(transaction)),
        }
        ids
    };
    life.kill(queue);
    // Published by one that dies before it has synced that.
    let other = life.start();
    let _ = life.sweep(&other);
    let _ = life.work(&other);
    other.close();
    drop(other);
    let last = life.start();
    life.send(&last, &["c@x"]);
    let _ = life.work(&last);
    life.note(Note::HistoryEnds);
    life.clock.advance(Duration::from_secs(100 * 365 * 24 * 60 * 60));
    let _ = life.sweep(&last);
    let _ = last.known(&ids);
    let _ = life.work(&last);
    let _ = life.sweep(&last);
}
