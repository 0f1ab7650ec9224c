//! The attempt journal: append-only, one file at a time for each worker.
//!
//! It bridges the time between a relay's reply and the queue file's next move, and it is the event
//! log that other processes read. Records are in the operating system's hands when `append` returns,
//! so they survive the death of the process; they survive the machine's once `sync` has returned.

pub(crate) mod log;
pub(crate) mod record;
pub(crate) mod segment;

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::PoisonError;

use sendmail_core::{MailEvent, MessageId, QueueId, Recipient, Reply};
use uuid::Uuid;

use self::record::Record;
use self::segment::{Header, START, doubt, frame, seal, set_watermark};
use crate::disk::{Dir, allocate, sync, sync_data, write_at};
use crate::name::OwnerId;
use crate::queue::{gone, is_full};
use crate::sync::{Condvar, Mutex, MutexGuard};

/// How large a segment is made unless one claim needs more. In tests it is small: they make thousands.
pub(crate) const SEGMENT_SIZE: u64 = if cfg!(test) { 256 << 10 } else { 4 << 20 };

/// What an event takes beside its Message-ID and its recipient: reply and detail at their longest.
const EVENT_ROOM: usize = Reply::MAX_TEXT + MailEvent::MAX_DETAIL + 128;

/// How much room the records of one claim may take at most: its steps, an event that it was queued,
/// one that it is held, two about each recipient, and the settlement.
pub(crate) fn room_for(recipients: &[Recipient], message_id: &MessageId) -> u64 {
    let event = EVENT_ROOM + message_id.as_str().len();
    let each = recipients.iter().map(|recipient| 2 * event + 3 * recipient.as_str().len() + 8);
    (256 + 3 * event + each.sum::<usize>()) as u64
}

/// The number by which a segment is known: greater than that of every segment made before.
pub(crate) type Sequence = u64;

/// The journal of one worker.
#[derive(Debug)]
pub(crate) struct Journal {
    worker: OwnerId,
    boot: Uuid,
    state: Mutex<State>,
    synced: Condvar,
}

#[derive(Debug)]
struct State {
    segment: std::sync::Arc<File>,
    size: u64,
    /// Where the next record goes.
    end: u64,
    /// How far the segment is durable.
    durable: u64,
    /// Whether somebody is in a sync right now.
    syncing: bool,
    /// What claims that are not finished may still need.
    reserved: u64,
    /// A sync failed: nothing that was written since can be trusted, and nothing more is written.
    broken: bool,
    /// The steps of claims that are not finished, for the beginning of the next segment.
    open: BTreeMap<QueueId, Vec<Record>>,
}

/// A place in the journal to be synced to: a segment, and an offset in it.
#[derive(Debug, Clone)]
pub(crate) struct Mark {
    segment: std::sync::Arc<File>,
    end: u64,
}

impl Journal {
    /// Begins a journal for `worker`.
    pub(crate) fn begin(dir: &Dir, worker: OwnerId, boot: Uuid) -> io::Result<Self> {
        let (segment, size) =
            new_segment(dir, worker, boot, START + FREE, &[]).map_err(|failed| failed.error)?;
        let state = State {
            segment: std::sync::Arc::new(segment),
            size,
            end: START,
            durable: START,
            syncing: false,
            reserved: 0,
            broken: false,
            open: BTreeMap::new(),
        };
        Ok(Self { worker, boot, state: Mutex::new(state), synced: Condvar::new() })
    }

    /// Makes room for `bytes` more, in a new segment if the present one has not got it.
    ///
    /// The new segment begins with the steps of all claims that are not finished, so that whoever
    /// takes over needs to read only the newest. For the same reason `claims`, the directory from
    /// which finished claims have gone, is synced first: none may come back that only the old segment
    /// knows.
    pub(crate) fn reserve(&self, dir: &Dir, claims: &Dir, bytes: u64) -> io::Result<()> {
        let mut state = self.lock();
        if state.check().is_ok() && !state.has_room(bytes) {
            drop(state);
            state = self.lock_unless_syncing();
        }
        state.check()?;
        // Somebody else may have turned it over meanwhile.
        if state.has_room(bytes) {
            state.reserved += bytes;
            return Ok(());
        }
        let turned = self.turn_over(&mut state, dir, claims, bytes);
        turned.inspect(|()| state.reserved += bytes)
    }

    /// Goes on in a new segment with room for `bytes` more.
    ///
    /// Invariant: from the moment at which the new segment can be seen it is the newest, and the only
    /// one that is read of this worker. So it is whole before it gets its name, and if anything fails
    /// afterwards nothing more is written at all.
    fn turn_over(&self, state: &mut State, dir: &Dir, claims: &Dir, bytes: u64) -> io::Result<()> {
        claims.sync().inspect_err(|_| state.broken = true)?;
        let mut carried = Vec::new();
        state.open.values().flatten().for_each(|record| frame(record, &mut carried));
        let end = START + carried.len() as u64;
        let need = end + state.reserved + bytes + FREE;
        let (segment, size) = new_segment(dir, self.worker, self.boot, need, &carried).map_err(
            |NotBegun { error, visible }| {
                state.broken |= visible;
                error
            },
        )?;
        // The old segment is sealed only now: a crash in between leaves two that say the same.
        seal_or_doubt(state).inspect_err(|_| state.broken = true)?;
        set_watermark(&segment, end).inspect_err(|_| state.broken = true)?;
        state.segment = std::sync::Arc::new(segment);
        (state.size, state.end, state.durable) = (size, end, end);
        Ok(())
    }

    /// Writes nothing more: something that the records rely on could not be made durable.
    pub(crate) fn break_off(&self) {
        self.lock().broken = true;
    }

    /// Whether nothing more is written, because a sync failed.
    pub(crate) fn is_broken(&self) -> bool {
        self.lock().broken
    }

    /// Gives back what a claim had kept free, when it is finished.
    pub(crate) fn unreserve(&self, bytes: u64) {
        let mut state = self.lock();
        state.reserved = state.reserved.saturating_sub(bytes);
    }

    /// Appends records. They survive this process, and after `sync` of the mark the machine too.
    pub(crate) fn append(&self, records: &[Record]) -> io::Result<Mark> {
        let mut bytes = Vec::with_capacity(records.len() * 96);
        records.iter().for_each(|record| frame(record, &mut bytes));
        let mut state = self.lock();
        state.check()?;
        if state.end + bytes.len() as u64 > state.size {
            return Err(io::Error::new(
                io::ErrorKind::StorageFull,
                "the journal's segment is full",
            ));
        }
        write_at(&state.segment, &bytes, state.end)?;
        state.end += bytes.len() as u64;
        records.iter().for_each(|record| state.note(record));
        Ok(Mark { segment: state.segment.clone(), end: state.end })
    }

    /// Returns when everything up to `mark` is durable. One sync serves all who wait.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn sync(&self, mark: &Mark) -> io::Result<()> {
        let mut state = self.lock();
        loop {
            // A segment is left only after it was synced to its end.
            if !std::sync::Arc::ptr_eq(&state.segment, &mark.segment) || state.durable >= mark.end {
                return Ok(());
            }
            state.check()?;
            if !state.syncing {
                break;
            }
            state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.syncing = true;
        let (segment, end) = (state.segment.clone(), state.end);
        drop(state);
        let result = sync_data(&segment);
        if result.is_ok() {
            // If it fails readers lag behind until the next one; the records are durable.
            let _ = set_watermark(&segment, end);
        } else {
            doubt(&segment);
        }
        let mut state = self.lock();
        state.syncing = false;
        match &result {
            Ok(()) => state.durable = state.durable.max(end),
            Err(_) => state.broken = true,
        }
        drop(state);
        self.synced.notify_all();
        result
    }

    /// Seals the segment at an orderly end.
    pub(crate) fn close(&self) {
        let mut state = self.lock_unless_syncing();
        if !state.broken {
            // Whoever takes over seals what this could not.
            let _ = seal_or_doubt(&state);
            state.broken = true;
        }
    }

    /// As `close` would be if it waited for nobody: what the schedule explorer has to find.
    #[cfg(shuttle)]
    pub(crate) fn seal_in_a_hurry(&self) {
        let mut state = self.lock();
        assert!(seal(&state.segment, state.end).is_ok());
        state.broken = true;
    }

    /// Waits for whoever is in a sync: it says afterwards how far the segment is durable, which must
    /// not be less than what was said when the segment was sealed.
    fn lock_unless_syncing(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        while state.syncing {
            state = self.synced.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // The state is consistent at every point at which a panic could leave it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is always kept free for events that belong to no claim.
const FREE: u64 = 64 << 10;

impl State {
    /// Whether there is room for `bytes` more beside what is reserved.
    fn has_room(&self, bytes: u64) -> bool {
        self.end + self.reserved + bytes + FREE <= self.size
    }

    fn check(&self) -> io::Result<()> {
        if self.broken {
            return Err(io::Error::other(
                "the journal could not be synced before; restart the processor when the disk is well",
            ));
        }
        Ok(())
    }

    fn note(&mut self, record: &Record) {
        match record {
            Record::Claimed(id) => drop(self.open.insert(*id, vec![record.clone()])),
            Record::Begun(id) | Record::HandedOver(id) | Record::Settled(id, _) => {
                self.open.entry(*id).or_default().push(record.clone());
            }
            Record::Released(id) | Record::Finished(id) => drop(self.open.remove(id)),
            Record::Event(_) => {}
        }
    }
}

/// Makes the present segment durable and seals it; if that fails, nobody is to try it again.
fn seal_or_doubt(state: &State) -> io::Result<()> {
    let sealed = sync_data(&state.segment).and_then(|()| seal(&state.segment, state.end));
    sealed.inspect_err(|_| doubt(&state.segment))
}

/// A segment could not be begun.
struct NotBegun {
    error: io::Error,
    /// Whether it can be seen nevertheless: its name could not be made durable.
    visible: bool,
}

/// Makes a segment with these records under the next free number: of the usual size, or, on a disk
/// that has not got that much, of the size that is needed.
fn new_segment(
    dir: &Dir,
    worker: OwnerId,
    boot: Uuid,
    need: u64,
    records: &[u8],
) -> Result<(File, u64), NotBegun> {
    let temporary = format!(".new-{worker}").into_bytes();
    let make = |size| write_segment(dir, &temporary, worker, boot, size, records);
    let made = match make(need.max(SEGMENT_SIZE)) {
        Err(error) if is_full(&error) && need < SEGMENT_SIZE => make(need).map(|file| (file, need)),
        other => other.map(|file| (file, need.max(SEGMENT_SIZE))),
    };
    let named = made.and_then(|made| give_number(dir, &temporary).map(|()| made));
    let made = named.map_err(|error| {
        let _ = dir.unlink(&temporary);
        NotBegun { error, visible: false }
    })?;
    dir.sync().map_err(|error| NotBegun { error, visible: true })?;
    Ok(made)
}

/// Writes a whole segment, durable but for its name.
fn write_segment(
    dir: &Dir,
    name: &[u8],
    worker: OwnerId,
    boot: Uuid,
    size: u64,
    records: &[u8],
) -> io::Result<File> {
    gone(dir.unlink(name))?;
    let file = dir.create(name)?;
    allocate(&file, size)?;
    Header::write(worker, boot, &file)?;
    write_at(&file, records, START)?;
    sync(&file)?;
    Ok(file)
}

fn give_number(dir: &Dir, temporary: &[u8]) -> io::Result<()> {
    let mut sequence = sequences(dir)?.last().map_or(1, |last| last + 1);
    loop {
        match dir.rename_new(temporary, dir, &segment_name(sequence)) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => sequence += 1,
            other => return other,
        }
    }
}

pub(crate) fn segment_name(sequence: Sequence) -> Vec<u8> {
    format!("{sequence:012}").into_bytes()
}

/// The numbers of all segments, ascending.
pub(crate) fn sequences(dir: &Dir) -> io::Result<Vec<Sequence>> {
    let mut found = Vec::new();
    for name in dir.names()? {
        let bytes = name?.bytes;
        let number = std::str::from_utf8(&bytes).ok().and_then(|text| text.parse().ok());
        // There is always one below, where a cursor may stand, and one above, for the next segment.
        let number = number.filter(|number| (1..Sequence::MAX).contains(number));
        if let Some(number) = number.filter(|number| segment_name(*number) == bytes) {
            found.push(number);
        }
    }
    found.sort_unstable();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::faults;
    use crate::journal::segment::Records;

    fn id(n: u8) -> QueueId {
        QueueId::from_bytes([n; 16])
    }

    fn records(dir: &Dir, sequence: Sequence) -> (Header, Vec<Record>) {
        let file = dir.open_file(&segment_name(sequence), false).unwrap();
        let mut all = Records::new(&file, START, None).unwrap();
        let list = std::iter::from_fn(|| all.next_record().unwrap().map(|(record, _)| record));
        (Header::read(&file).unwrap().unwrap(), list.collect())
    }

    #[test]
    fn a_new_segment_carries_the_claims_that_are_not_finished() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let journal = Journal::begin(&dir, Uuid::from_bytes([1; 16]), Uuid::nil()).unwrap();
        journal.append(&[Record::Claimed(id(1)), Record::Claimed(id(2))]).unwrap();
        journal.append(&[Record::HandedOver(id(1)), Record::Finished(id(2))]).unwrap();
        journal.reserve(&dir, &dir, SEGMENT_SIZE).unwrap();
        let (old, _) = records(&dir, 1);
        assert!(old.sealed);
        let (new, carried) = records(&dir, 2);
        assert_eq!(carried, [Record::Claimed(id(1)), Record::HandedOver(id(1))]);
        assert!(!new.sealed && new.watermark > START);
    }

    /// Whoever takes over reads the newest segment alone.
    #[test]
    fn whatever_fails_in_turning_over_the_newest_segment_knows_all() {
        for count in 0.. {
            let temp = tempfile::tempdir().unwrap();
            let dir = Dir::open(temp.path()).unwrap();
            let journal = Journal::begin(&dir, Uuid::from_bytes([1; 16]), Uuid::nil()).unwrap();
            journal.append(&[Record::Claimed(id(1)), Record::Begun(id(1))]).unwrap();
            faults::fail_after(count, 5);
            let turned = journal.reserve(&dir, &dir, SEGMENT_SIZE);
            let failed = faults::stop();
            let mut wanted = vec![Record::Claimed(id(1)), Record::Begun(id(1))];
            if journal.append(&[Record::HandedOver(id(1))]).is_ok() {
                wanted.push(Record::HandedOver(id(1)));
            }
            let newest = sequences(&dir).unwrap().pop().unwrap();
            assert_eq!(records(&dir, newest).1, wanted, "operation {count}, {failed:?}");
            if failed.is_none() {
                assert!(turned.is_ok() && newest == 2);
                break;
            }
        }
    }

    /// Whoever made them: they are none of ours.
    #[test]
    fn files_with_the_outermost_numbers_are_no_segments() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        for number in [0, Sequence::MAX] {
            dir.create(&segment_name(number)).unwrap();
        }
        Journal::begin(&dir, Uuid::from_bytes([1; 16]), Uuid::nil()).unwrap();
        assert_eq!(sequences(&dir).unwrap(), [1]);
        assert!(log::read(&dir, None, 9).unwrap().events.is_empty());
    }

    #[test]
    fn the_watermark_follows_the_sync() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let journal = Journal::begin(&dir, Uuid::from_bytes([1; 16]), Uuid::nil()).unwrap();
        let mark = journal.append(&[Record::Claimed(id(1))]).unwrap();
        assert_eq!(records(&dir, 1).0.watermark, START);
        journal.sync(&mark).unwrap();
        assert_eq!(records(&dir, 1).0.watermark, mark.end);
    }

    #[test]
    fn many_who_wait_are_served_and_numbers_are_unique() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let dir = &dir;
                scope.spawn(move || {
                    let journal = Journal::begin(dir, Uuid::from_bytes([worker; 16]), Uuid::nil());
                    let journal = journal.unwrap();
                    std::thread::scope(|scope| {
                        for n in 0..8 {
                            let journal = &journal;
                            scope.spawn(move || {
                                let mark = journal.append(&[Record::Claimed(id(n))]).unwrap();
                                journal.sync(&mark).unwrap();
                            });
                        }
                    });
                    journal.close();
                });
            }
        });
        assert_eq!(sequences(&dir).unwrap(), [1, 2, 3, 4]);
        for sequence in 1..=4 {
            let (header, all) = records(&dir, sequence);
            assert!(header.sealed && all.len() == 8);
        }
    }
}
