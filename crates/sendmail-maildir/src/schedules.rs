//! Scenes for the schedule explorer, which runs each under many schedules. Only built for it.
//!
//! Operations on the disk are done for real, each at a point of its own in the schedule. A scene with
//! its `mistake` has to fail under some schedule: that shows that such a mistake would be found.
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a scene fails by panicking")]

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use sendmail_core::{
    AdminOutcome, Attempted, Claim, EntryState, Envelope, Message, NewMessage, Outcome, QueueId,
    Recipient, RecipientResult, Release, Reply, Settlement, Timestamp, Verdict,
};
use shuttle::sync::atomic::Ordering;
use shuttle::thread;
use tempfile::TempDir;
use uuid::Uuid;

use crate::disk::Dir;
use crate::journal::Journal;
use crate::journal::record::Record;
use crate::journal::segment::{Header, Records, START};
use crate::journal::{segment_name, sequences};
use crate::name::{Due, MessageName};
use crate::options::MaildirOptions;
use crate::queue::{Place, Queue};
use crate::wishes::Wish;

static DIRECTORY: OnceLock<PathBuf> = OnceLock::new();

/// Where the scenes keep their files; the first call counts.
pub fn in_directory(directory: PathBuf) {
    DIRECTORY.get_or_init(|| directory);
}

/// Three workers append and sync. Whose sync returned, its record is before the watermark, whichever
/// of them made the sync. The mistake: one does not wait for the sync.
pub fn journal_syncs(mistake: bool) {
    let temp = directory();
    let dir = Dir::open(temp.path()).unwrap();
    let journal = Arc::new(Journal::begin(&dir, Uuid::nil(), Uuid::nil()).unwrap());
    let worker = |n: u8| {
        let (journal, dir) = (journal.clone(), Dir::open(temp.path()).unwrap());
        thread::spawn(move || {
            let mark = journal.append(&[Record::Claimed(id(n)), Record::Begun(id(n))]).unwrap();
            if !(mistake && n == 3) {
                journal.sync(&mark).unwrap();
            }
            let durable = durable_records(&dir, 1);
            assert!(durable.contains(&Record::Begun(id(n))), "worker {n} was told too early");
        })
    };
    (1..=3).map(worker).collect::<Vec<_>>().into_iter().for_each(|it| it.join().unwrap());
}

/// Two workers append and sync while a third makes the journal go on in a new segment, and closes it.
/// What was synced is in what readers see: in a sealed segment, all of it. The mistake: a segment is
/// sealed by hand, without waiting for whoever syncs.
pub fn journal_turns_over(mistake: bool) {
    let temp = directory();
    let dir = Arc::new(Dir::open(temp.path()).unwrap());
    let journal = Arc::new(Journal::begin(&dir, Uuid::nil(), Uuid::nil()).unwrap());
    let worker = |n: u8| {
        let journal = journal.clone();
        thread::spawn(move || {
            let mark = journal.append(&[Record::Claimed(id(n))]).ok()?;
            journal.sync(&mark).ok()?;
            Some(Record::Claimed(id(n)))
        })
    };
    let workers = [worker(1), worker(2)];
    let (other, place) = (journal.clone(), dir.clone());
    let turning = thread::spawn(move || {
        if mistake {
            other.seal_in_a_hurry();
        } else {
            let _ = other.reserve(&place, &place, 5 << 20);
            other.close();
        }
    });
    let synced: Vec<Record> = workers.into_iter().filter_map(|it| it.join().unwrap()).collect();
    turning.join().unwrap();
    let numbers = sequences(&dir).unwrap();
    let seen: Vec<Record> = numbers.iter().flat_map(|n| durable_records(&dir, *n)).collect();
    for record in synced {
        assert!(seen.contains(&record), "{record:?} was synced and is not seen");
    }
    for number in numbers {
        let file = dir.open_file(&segment_name(number), false).unwrap();
        let header = Header::read(&file).unwrap().unwrap();
        let end = file.metadata().unwrap().len();
        assert!(!header.sealed || header.watermark == end, "a sealed segment is not seen whole");
    }
}

/// Two threads of one worker and another worker claim at once; one message lies in the worker's own
/// directory, where a claim that failed has left it. Each message is claimed by one. The mistake: a
/// third thread moves a claimed message back, as if its claim had been given up.
pub fn claims(mistake: bool) {
    let temp = directory();
    let queue = Arc::new(Queue::open(temp.path(), MaildirOptions::default()).unwrap());
    let other = Arc::new(Queue::open(temp.path(), MaildirOptions::default()).unwrap());
    (1..=3).for_each(|n| publish(&queue, n));
    // As a claim that could neither be confirmed nor given back leaves it.
    let worker = queue.worker().unwrap();
    let stray = queue.layout.new.names().unwrap().next().unwrap().unwrap();
    queue.layout.new.rename(&stray.bytes, &worker.dir, &stray.bytes).unwrap();
    queue.has_strays.store(true, Ordering::SeqCst);
    let claim = |queue: &Arc<Queue>| {
        let queue = queue.clone();
        thread::spawn(move || queue.claim(10).unwrap().claims)
    };
    let threads = [claim(&queue), claim(&queue), claim(&other)];
    if mistake {
        for name in worker.dir.names().unwrap().map(Result::unwrap) {
            let _ = worker.dir.rename(&name.bytes, &queue.layout.new, &name.bytes);
        }
    }
    let claimed: Vec<Vec<Claim>> = threads.into_iter().map(|it| it.join().unwrap()).collect();
    let mut ids: Vec<QueueId> = claimed.iter().flatten().map(|claim| claim.id).collect();
    ids.sort_unstable();
    assert!(ids.is_sorted_by(|a, b| a < b), "a message was claimed twice");
    for (claims, queue) in claimed.iter().zip([&queue, &queue, &other]) {
        for claim in claims {
            queue.load(claim).expect("whoever has claimed it has it");
        }
    }
}

/// An operator holds a message while its worker gives it back. It ends held, and the operator is never
/// told that it is not there. The mistake: a worker that does not look for the wish, and is not told of it.
pub fn wish_meets_release(mistake: bool) {
    let temp = directory();
    let queue = Queue::open(temp.path(), MaildirOptions::default()).unwrap();
    let operator = Queue::open(temp.path(), MaildirOptions::default()).unwrap();
    publish(&queue, 1);
    let claim = queue.claim(1).unwrap().claims.pop().unwrap();
    let releasing = thread::spawn(move || {
        if mistake {
            let held = &queue.worker().unwrap().dir;
            let name = held.names().unwrap().next().unwrap().unwrap().bytes;
            held.rename(&name, &queue.layout.new, &name).unwrap();
        } else {
            queue.settle(claim, &Settlement::Release(Release::NotAttempted)).unwrap();
        }
    });
    let hold =
        operator.act(id(1), Wish::Hold, &[EntryState::Queued, EntryState::Deferred]).unwrap();
    releasing.join().unwrap();
    let found = operator.locate(id(1)).unwrap().expect("it is somewhere").state;
    assert_ne!(hold, AdminOutcome::NotFound, "it was there all the time");
    // Done, wished for in time, or done by the worker before the operator got to it.
    assert_eq!(found, EntryState::Held, "the operator was told {hold:?}");
}

/// An operator wants a message tried at once while its worker defers it for an hour. It ends due. The
/// mistake: a worker that does not look for the wish, and is not told of it.
pub fn retry_meets_settlement(mistake: bool) {
    let found = retry_meets(Verdict::Retry, mistake);
    assert_eq!(found, EntryState::Queued, "the operator's retry is forgotten");
}

/// The same, while its worker puts it with the held, which only a release may free.
pub fn retry_meets_hold() {
    assert_eq!(retry_meets(Verdict::Hold, false), EntryState::Held, "a retry is no release");
}

/// Where a message is after a retry that met a settlement; a `careless` worker only moves its file.
fn retry_meets(verdict: Verdict, careless: bool) -> EntryState {
    let temp = directory();
    let queue = Queue::open(temp.path(), MaildirOptions::default()).unwrap();
    let operator = Queue::open(temp.path(), MaildirOptions::default()).unwrap();
    publish(&queue, 1);
    let claim = queue.claim(1).unwrap().claims.pop().unwrap();
    let loaded = queue.load(&claim).unwrap();
    let hour = Duration::from_secs(3600);
    let due = Due { at: queue.now().saturating_add(hour), delay_ms: 3_600_000 };
    let result = |recipient: &Recipient| RecipientResult {
        recipient: recipient.clone(),
        outcome: Outcome::Unknown(Reply::new(451, "cut")),
        verdict,
    };
    let results = loaded.envelope.recipients().iter().map(result).collect();
    let settling = thread::spawn(move || {
        if careless {
            let held = &queue.worker().unwrap().dir;
            let file = held.names().unwrap().next().unwrap().unwrap().bytes;
            let target = MessageName::decode(&file).unwrap().due(due).encode();
            queue.move_to(held, &file, &Place::due(due), &target).unwrap();
        } else {
            let attempted = Attempted { results, retry_after: hour };
            queue.settle(claim, &Settlement::Attempted(attempted)).unwrap();
        }
    });
    let told = operator.act(id(1), Wish::Retry, &[EntryState::Deferred, EntryState::Failed]);
    settling.join().unwrap();
    assert_ne!(told.unwrap(), AdminOutcome::NotFound, "it was there all the time");
    operator.locate(id(1)).unwrap().expect("it is somewhere").state
}

fn publish(queue: &Queue, n: u8) {
    let raw = format!("Message-ID: <{n}@x>\nDate: d\n\nbody\n");
    let message = Message::from_raw(raw.as_bytes(), Timestamp::EPOCH, "x").unwrap();
    let envelope = Envelope::parse("a@b", ["c@d"]).unwrap();
    let resource = queue.layout.resource.clone();
    queue.write(&NewMessage { id: id(n), resource, envelope, message }).unwrap();
    queue.stage(&[id(n)]).unwrap();
    queue.publish(&[id(n)]).unwrap();
}

fn id(n: u8) -> QueueId {
    QueueId::from_bytes([n; 16])
}

/// The records that readers of the segment see.
fn durable_records(dir: &Dir, number: u64) -> Vec<Record> {
    let file = dir.open_file(&segment_name(number), false).unwrap();
    let header = Header::read(&file).unwrap().unwrap();
    let mut records = Records::new(&file, START, Some(header.watermark)).unwrap();
    std::iter::from_fn(|| records.next_record().unwrap().map(|(record, _)| record)).collect()
}

fn directory() -> TempDir {
    let directory = DIRECTORY.get().cloned().unwrap_or_else(std::env::temp_dir);
    tempfile::tempdir_in(directory).unwrap()
}
