//! The life of some messages, with every single file operation failing once.
//!
//! The same small history is run again and again; in the N-th run the N-th operation fails, for every
//! N. The process goes on as callers do: it repeats what may be repeated and takes errors at their
//! word. In the end it dies, another takes over, and the books are checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{
    AdminOutcome, Attempted, Discard, Envelope, ErrorKind, MailEvent, MailEventKind, Message,
    NewMessage, Outcome, QueueId, RecipientResult, Release, Reply, Settlement, Step, Timestamp,
    TransactionId, Unsettled, Verdict,
};
use sendmail_testkit::ManualClock;

use crate::disk::{Op, faults};
use crate::journal::log;
use crate::options::MaildirOptions;
use crate::queue::Queue;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// How often a caller repeats what failed.
const TRIES: u32 = 4;

/// What the caller was told about a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Committed,
    RolledBack,
    Uncertain,
}

/// One message's account.
#[derive(Debug)]
struct Account {
    told: Told,
    transaction: u8,
    copies: BTreeMap<String, u32>,
    failed: BTreeMap<String, bool>,
}

struct Life<'a> {
    path: &'a Path,
    clock: ManualClock,
    accounts: BTreeMap<QueueId, Account>,
    minted: u8,
}

impl Life<'_> {
    fn open(&self) -> Queue {
        let options = MaildirOptions::default().with_clock(Arc::new(self.clock.clone()));
        Queue::open(self.path, options).unwrap()
    }

    fn message(&mut self, queue: &Queue, to: &[&str]) -> NewMessage {
        self.minted += 1;
        let id = QueueId::from_bytes([self.minted; 16]);
        let raw = format!("Message-ID: <{}@test>\nDate: d\n\nbody\n", self.minted);
        let account = Account {
            told: Told::Uncertain,
            transaction: self.minted,
            copies: to.iter().map(|name| ((*name).to_owned(), 0)).collect(),
            failed: BTreeMap::new(),
        };
        self.accounts.insert(id, account);
        NewMessage {
            id,
            envelope: Envelope::parse("from@x", to).unwrap(),
            message: Message::from_raw(raw.as_bytes(), Timestamp::EPOCH, "test").unwrap(),
            resource: queue.layout.resource.clone(),
        }
    }

    fn told(&mut self, ids: &[QueueId], told: Told) {
        for id in ids {
            let account = self.accounts.get_mut(id).unwrap();
            account.told = told;
            account.transaction = *ids[0].as_bytes().first().unwrap();
        }
    }

    /// A transaction with one message: publishing it decides.
    fn send(&mut self, queue: &Queue, to: &[&str]) {
        let new = self.message(queue, to);
        let ids = [new.id];
        if queue.write(&new).is_err() {
            return self.abort(queue, &ids, None);
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
    }

    /// A transaction with several messages.
    fn send_all(&mut self, queue: &Queue, to: &[&[&str]]) {
        let news: Vec<NewMessage> = to.iter().map(|to| self.message(queue, to)).collect();
        let ids: Vec<QueueId> = news.iter().map(|new| new.id).collect();
        let transaction = TransactionId::from_bytes([self.minted; 16]);
        self.told(&ids, Told::Uncertain);
        let prepared = news.iter().try_for_each(|new| queue.write(new));
        let prepared = prepared.and_then(|()| queue.stage(&ids));
        if prepared.and_then(|()| queue.propose(transaction, &ids)).is_err() {
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

    /// Claims what is due and delivers it, as a processor does. Returns how many were claimed.
    fn work(&mut self, queue: &Queue) -> usize {
        let Ok(claimed) = queue.claim(8) else { return 1 };
        let count = claimed.claims.len();
        for claim in claimed.claims {
            let settlement = match queue.load(&claim) {
                Err(error) if error.kind() == ErrorKind::LeaseLost => continue,
                Err(_) => Settlement::Release(Release::NotAttempted),
                Ok(loaded) => {
                    let begun = queue.record(&claim, Step::Begin);
                    if begun.and_then(|()| queue.record(&claim, Step::Handover)).is_err() {
                        Settlement::Release(Release::NotAttempted)
                    } else {
                        self.attempt(claim.id, claim.attempt, loaded.envelope.recipients())
                    }
                }
            };
            let mut next = claim;
            for _ in 0..TRIES {
                match queue.settle(next, &settlement) {
                    Ok(_) => break,
                    Err(Unsettled { claim, error }) => {
                        assert_ne!(error.kind(), ErrorKind::LeaseLost, "its own claim: {error}");
                        next = claim;
                    }
                }
            }
        }
        count
    }

    /// What the relay makes of a message: `later` is deferred once, and `never` refused.
    fn attempt(
        &mut self,
        id: QueueId,
        attempt: u32,
        to: &[sendmail_core::Recipient],
    ) -> Settlement {
        let account = self.accounts.get_mut(&id).unwrap();
        let mut results = Vec::new();
        for recipient in to {
            let name = recipient.as_str().to_owned();
            let (outcome, verdict) = match name.as_str() {
                "never@x" => {
                    account.failed.insert(name, true);
                    (Outcome::Refused(Reply::new(550, "no")), Verdict::Fail)
                }
                "later@x" if attempt == 1 => {
                    (Outcome::Deferred(Reply::new(450, "later")), Verdict::Retry)
                }
                _ => {
                    *account.copies.entry(name).or_default() += 1;
                    (Outcome::Accepted(Reply::new(250, "ok")), Verdict::Done)
                }
            };
            results.push(RecipientResult { recipient: recipient.clone(), outcome, verdict });
        }
        Settlement::Attempted(Attempted { results, retry_after: Duration::from_secs(60) })
    }

    fn events(&self, queue: &Queue) -> Vec<MailEvent> {
        let page = log::read(&queue.layout.journal, None, 1000).unwrap();
        page.events.into_iter().map(|(_, event)| event).collect()
    }

    /// Whether everything that was committed has been delivered or given up.
    fn is_done(&self) -> bool {
        self.accounts.values().filter(|account| account.told == Told::Committed).all(|account| {
            account
                .copies
                .iter()
                .all(|(name, copies)| *copies > 0 || account.failed.contains_key(name))
        })
    }

    fn check(&self, queue: &Queue) {
        let mut announced: BTreeMap<(QueueId, String), u32> = BTreeMap::new();
        for event in self.events(queue) {
            if event.kind == MailEventKind::PossibleDuplicate {
                let name = event.recipient.unwrap().to_string();
                *announced.entry((event.queue_id.unwrap(), name)).or_default() += 1;
            }
        }
        for (id, account) in &self.accounts {
            let sent = account.copies.values().any(|copies| *copies > 0);
            assert!(account.told != Told::RolledBack || !sent, "{id} was rolled back, and sent");
            for (name, copies) in &account.copies {
                let told = announced.get(&(*id, name.clone())).copied().unwrap_or(0);
                assert!(*copies <= 1 + told, "{copies} copies of {id} to {name}, {told} announced");
                // One process died, and perhaps one outcome could not be recorded.
                assert!(told <= 1, "{told} announcements of {id} to {name}");
            }
        }
        assert!(self.is_done(), "lost: {:?}", self.accounts);
        for one in self.accounts.values() {
            let sent = |account: &Account| {
                account.copies.values().any(|copies| *copies > 0) || !account.failed.is_empty()
            };
            let all = self.accounts.values().filter(|other| other.transaction == one.transaction);
            assert!(all.map(sent).all(|other| other == sent(one)), "half a transaction");
        }
    }
}

/// Memory, where there is some: what is tested is what is made of errors, and syncs take their time.
fn place() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}

/// Runs the history with the operation after `count` others failing. Returns false if there was none.
fn live(count: u32, error: i32) -> bool {
    let directory = tempfile::tempdir_in(place()).unwrap();
    let clock = ManualClock::default();
    let mut life =
        Life { path: directory.path(), clock: clock.clone(), accounts: BTreeMap::new(), minted: 0 };
    let queue = life.open();
    faults::fail_after(count, error);
    life.send(&queue, &["a@x", "later@x", "never@x"]);
    life.send_all(&queue, &[&["a@x"], &["never@x"]]);
    life.work(&queue);
    clock.advance(Duration::from_secs(61));
    life.send(&queue, &["a@x"]);
    for _ in 0..3 {
        life.work(&queue);
        let _ = queue.sweep();
    }
    let failed = faults::stop();
    // What is only in trouble once is delivered without anybody's help. After a failed sync the
    // processor stops instead, until somebody restarts it.
    for _ in 0..3 {
        clock.advance(Duration::from_secs(61));
        let _ = queue.sweep();
        life.work(&queue);
    }
    assert!(
        failed == Some(Op::Sync) || life.is_done(),
        "wedged by {failed:?}: {:?}",
        life.accounts
    );
    queue.owner.release();
    let other = life.open();
    for _ in 0..3 {
        clock.advance(Duration::from_secs(61));
        other.sweep().unwrap();
        other.sweep().unwrap();
        while life.work(&other) > 0 {}
    }
    life.check(&other);
    assert!(other.undecided().unwrap().is_empty(), "something is left undecided");
    failed.is_some()
}

fn live_all(error: i32) {
    let mut failures = Vec::new();
    for count in 0.. {
        let run = std::panic::catch_unwind(|| live(count, error));
        let failed = faults::stop();
        match run {
            Ok(true) => {}
            Ok(false) => break,
            Err(why) => {
                let why = why.downcast_ref::<String>().cloned();
                failures
                    .push(format!("operation {count} ({failed:?}): {}", why.unwrap_or_default()));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn any_operation_may_find_no_space() {
    live_all(ENOSPC);
}

#[test]
fn any_operation_may_fail_for_good() {
    live_all(EIO);
}

#[test]
fn a_message_is_put_back_once_whatever_fails() {
    for count in 0.. {
        let directory = tempfile::tempdir_in(place()).unwrap();
        let clock = ManualClock::default();
        let accounts = BTreeMap::new();
        let mut life = Life { path: directory.path(), clock, accounts, minted: 0 };
        let queue = life.open();
        let new =
            NewMessage { resource: "database".parse().unwrap(), ..life.message(&queue, &["a@x"]) };
        let ids = [new.id];
        queue.write(&new).unwrap();
        queue.stage(&ids).unwrap();
        queue.discard(&ids, Discard::Fenced).unwrap();
        faults::fail_after(count, EIO);
        let first = queue.put_back(new.id);
        let failed = faults::stop();
        let other = life.open();
        // It is in the queue or it can still be put there.
        let again = other.put_back(new.id).unwrap();
        assert!(first.is_err() || again == AdminOutcome::Unchanged, "operation {count}");
        queue.owner.release();
        let claimed: Vec<QueueId> =
            other.claim(8).unwrap().claims.iter().map(|claim| claim.id).collect();
        assert_eq!(claimed, ids, "operation {count}, {failed:?}");
        if failed.is_none() {
            break;
        }
    }
}

#[test]
fn a_queue_that_is_said_to_be_frozen_is_frozen_whatever_fails() {
    for error in [ENOSPC, EIO] {
        for count in 0.. {
            let directory = tempfile::tempdir_in(place()).unwrap();
            let open = || Queue::open(directory.path(), MaildirOptions::default()).unwrap();
            let queue = open();
            faults::fail_after(count, error);
            let frozen = queue.set_frozen(true);
            let failed = faults::stop();
            assert!(frozen.is_err() || open().is_frozen().unwrap(), "operation {count}");
            queue.set_frozen(true).unwrap();
            assert!(open().is_frozen().unwrap() && open().claim(1).unwrap().claims.is_empty());
            faults::fail_after(count, error);
            let thawed = queue.set_frozen(false);
            faults::stop();
            assert!(thawed.is_err() || !open().is_frozen().unwrap(), "operation {count}");
            if failed.is_none() {
                break;
            }
        }
    }
}

/// Who cannot find out whether the queue is frozen neither claims nor decides.
#[test]
fn a_queue_of_which_nobody_knows_is_taken_for_frozen() {
    let directory = tempfile::tempdir_in(place()).unwrap();
    let queue = Queue::open(directory.path(), MaildirOptions::default()).unwrap();
    faults::fail_after(0, EIO);
    assert!(queue.is_frozen().is_err());
    faults::fail_after(0, EIO);
    assert!(queue.claim(1).is_err());
    assert_eq!(faults::stop(), Some(Op::Look));
}
