//! A queue's life as its callers live it, of which the histories ([`scripts`](super::scripts)) are made.
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
    NewMessage, Outcome, QueueId, Recipient, RecipientResult, Release, Reply, Settlement, Step,
    Timestamp, TransactionId, Unsettled, Verdict,
};
use sendmail_testkit::ManualClock;
use uuid::Uuid;

use super::ledger::{Ledger, Note, Told, event};
use super::{order, probe};
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

    pub(super) fn told(&mut self, ids: &[QueueId], told: Told) {
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
        let (transaction, ids) = self.propose(queue, to);
        if !commits {
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

    /// Everything of such a transaction before the decision. If it fails it is aborted, and deciding
    /// fails as well.
    pub(super) fn propose(
        &mut self,
        queue: &Queue,
        to: &[&[&str]],
    ) -> (TransactionId, Vec<QueueId>) {
        let options = DeliveryOptions::default();
        let news: Vec<NewMessage> =
            to.iter().map(|to| self.message(queue, to, options.clone(), None)).collect();
        let ids: Vec<QueueId> = news.iter().map(|new| new.id).collect();
        self.note(Note::Group(ids.clone()));
        let transaction = TransactionId::from_bytes([self.minted; 16]);
        let prepared = news.iter().try_for_each(|new| queue.write(new));
        let prepared = prepared.and_then(|()| queue.stage(&ids));
        if prepared.and_then(|()| queue.propose(transaction, &ids)).is_err() {
            self.abort(queue, &ids, Some(transaction));
        }
        (transaction, ids)
    }

    pub(super) fn abort(
        &mut self,
        queue: &Queue,
        ids: &[QueueId],
        transaction: Option<TransactionId>,
    ) {
        self.told(ids, Told::RolledBack);
        if queue.discard(ids, Discard::Aborted).is_ok()
            && let Some(transaction) = transaction
        {
            let _ = queue.retract(transaction);
        }
    }

    /// A transaction of a database with a message, up to the database's answer.
    pub(crate) fn send_with_database(
        &mut self,
        queue: &Queue,
        to: &[&str],
        commits: bool,
    ) -> QueueId {
        self.send_later_with_database(queue, to, commits, None)
    }

    pub(super) fn send_later_with_database(
        &mut self,
        queue: &Queue,
        to: &[&str],
        commits: bool,
        not_before: Option<Timestamp>,
    ) -> QueueId {
        let mut options = DeliveryOptions::default();
        options.not_before = not_before;
        let new = self.message(queue, to, options, Some("database"));
        let ids = [new.id];
        if queue.write(&new).and_then(|()| queue.stage(&ids)).is_err() {
            self.abort(queue, &ids, None);
        } else if commits {
            self.note(Note::Database(ids.to_vec()));
        }
        new.id
    }

    /// Whether the database shows that it has committed the message: nobody publishes it otherwise.
    pub(super) fn is_visible(&self, id: QueueId) -> bool {
        self.ledger.accounts.get(&id).is_some_and(|account| account.marker)
    }

    /// Publishes what the database has committed, and lets the database forget it.
    pub(crate) fn finish(&mut self, queue: &Queue, id: QueueId) -> Result<(), Error> {
        if !self.is_visible(id) {
            return Ok(());
        }
        queue.publish(&[id])?;
        self.note(Note::Forgotten(vec![id]));
        Ok(())
    }

    /// Recovery as any process does it: what the database decided is published or discarded.
    pub(crate) fn recover(&mut self, queue: &Queue) -> Result<(), Error> {
        for entry in queue.undecided()? {
            if entry.resource == queue.layout.resource {
                continue;
            }
            if self.is_visible(entry.id) {
                self.finish(queue, entry.id)?;
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

    pub(super) fn settle(
        &mut self,
        queue: &Queue,
        claim: sendmail_core::Claim,
        settlement: &Settlement,
    ) {
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
    pub(super) fn attempt(&mut self, id: QueueId, attempt: u32, to: &[Recipient]) -> Settlement {
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
                    let late = order::check(&self.path, &self.ledger);
                    self.ledger.wrong.extend(late);
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
