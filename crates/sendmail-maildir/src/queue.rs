//! The state that one process keeps about a queue, and what all its parts use.

use std::collections::{HashMap, HashSet};
use std::io;
use std::ops::Deref;
use std::path::Path;
use std::sync::{Arc, PoisonError};

use sendmail_core::{
    DeliveryOptions, Error, ErrorKind, MailEvent, Priority, QueueId, ResourceId, Result, Timestamp,
    TransactionId,
};
use uuid::Uuid;

use crate::content::Open;
use crate::disk::{Dir, allocate};
use crate::held::Held;
use crate::journal::Journal;
use crate::journal::record::Record;
use crate::layout::Layout;
use crate::manifest::Proposal;
use crate::name::{Due, MessageName, OwnerId};
use crate::options::MaildirOptions;
use crate::owner::{self, Owner};
use crate::pending::Written;
use crate::scan::Scan;
use crate::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use crate::sync::{Mutex, MutexGuard};
use crate::takeover::Conclusion;
use crate::wake::Wake;

/// A queue as one process has it open.
#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) layout: Layout,
    pub(crate) options: MaildirOptions,
    pub(crate) owner: Owner,
    pub(crate) boot: Uuid,
    pub(crate) wake: Wake,
    /// What this process wrote and did not publish yet.
    pub(crate) written: Mutex<HashMap<QueueId, Written>>,
    /// The files among them that are held open for a later sync.
    pub(crate) open: Open,
    /// Who decides about what other processes have only written, as far as it was read.
    pub(crate) resources: Mutex<HashMap<QueueId, ResourceId>>,
    /// What this process published and could not sync.
    pub(crate) doubtful: Mutex<HashSet<QueueId>>,
    /// What this process proposed to decide, and what it decided and was not told to forget.
    pub(crate) proposals: Mutex<HashMap<TransactionId, Proposal>>,
    /// Held while this process claims: what is renamed and not yet among `claims` looks like a stray.
    pub(crate) claiming: Mutex<()>,
    /// What this process has claimed.
    pub(crate) claims: Mutex<HashMap<QueueId, Held>>,
    /// What was concluded of dead workers' files, told, and could not be carried out yet.
    pub(crate) concluded: Mutex<HashMap<(OwnerId, Vec<u8>), Conclusion>>,
    pub(crate) scan: Mutex<Scan>,
    worker: Mutex<Option<Arc<Worker>>>,
    notes: Mutex<Notes>,
    /// Whether there are files in the worker's directory that no claim stands for.
    pub(crate) has_strays: AtomicBool,
    /// How many messages were last counted, and were published since; `u64::MAX`: not counted yet.
    pub(crate) length: AtomicU64,
}

/// The side of a process that claims messages: its directory and its journal. Made when it is first
/// needed, so that producers leave neither.
#[derive(Debug)]
pub(crate) struct Worker {
    pub(crate) dir: Dir,
    pub(crate) journal: Journal,
}

/// What was found on the way and is told at the next opportunity.
#[derive(Debug, Default)]
struct Notes {
    /// What was reported, so that it is reported once.
    reported: HashSet<String>,
    set_aside: Vec<String>,
    events: Vec<MailEvent>,
    /// Files that this process leaves alone: of a format that it does not know.
    left_alone: HashSet<Vec<u8>>,
}

/// The most notes that are kept, so that a directory full of rubbish does not fill the memory.
const MAX_NOTES: usize = 10_000;

/// Given up when even the processor's reserve of space is gone.
const RESERVE_FILE: &[u8] = b".reserve";
const RESERVE_LENGTH: u64 = 1 << 20;

/// A directory that is either held open for good or opened for this use.
pub(crate) enum Handle<'a> {
    Lent(&'a Dir),
    Own(Dir),
}

impl Deref for Handle<'_> {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        match self {
            Self::Lent(dir) => dir,
            Self::Own(dir) => dir,
        }
    }
}

/// Where a committed message waits.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Place {
    /// Due, in the ordinary lane.
    New,
    /// Due, in a lane of its own.
    Lane(String),
    /// Due in this minute.
    Due(i64),
    /// Held.
    Held,
}

impl Place {
    /// The lane for messages with these options.
    pub(crate) fn lane(options: &DeliveryOptions) -> Self {
        match (options.priority, &options.tenant) {
            (Priority::Normal, None) => Self::New,
            (priority, None) => Self::Lane(priority.as_str().to_owned()),
            (priority, Some(tenant)) => {
                let hash = crc32fast::hash(tenant.as_str().as_bytes()) % 64;
                Self::Lane(format!("{}-{hash:02}", priority.as_str()))
            }
        }
    }

    /// Where a new message goes, and under which name.
    pub(crate) fn first(
        options: &DeliveryOptions,
        name: MessageName,
        now: Timestamp,
    ) -> (Self, MessageName) {
        match options.not_before.filter(|time| *time > now) {
            None => (Self::lane(options), name.published()),
            Some(at) => {
                let delay = at.saturating_since(now).as_millis();
                let due = Due { at, delay_ms: u64::try_from(delay).unwrap_or(u64::MAX) };
                (Self::due(due), name.due(due))
            }
        }
    }

    /// The folder of messages that are due then.
    pub(crate) fn due(due: Due) -> Self {
        Self::Due(due.at.as_secs().div_euclid(60))
    }
}

/// The name of a due folder. Times before 1970 and beyond the year 9999 share the outermost ones.
pub(crate) fn due_folder(minute: i64) -> String {
    format!("{:010}", minute.clamp(0, 9_999_999_999))
}

/// The minute of a due folder's name.
pub(crate) fn due_minute(name: &[u8]) -> Option<i64> {
    let minute = std::str::from_utf8(name).ok()?.parse().ok()?;
    (due_folder(minute).as_bytes() == name).then_some(minute)
}

impl Queue {
    /// Opens the queue at `path`, which is made if it is missing.
    pub(crate) fn open(path: &Path, options: MaildirOptions) -> Result<Self> {
        let id = Uuid::from_bytes(*QueueId::mint(options.clock.now()).as_bytes());
        let layout = Layout::open(path, id)?;
        let owner = Owner::begin(&layout.owners, id)
            .map_err(|error| Error::io("open the queue", error).with("path", path.display()))?;
        Ok(Self {
            boot: owner::boot_id(&layout.root),
            layout,
            options,
            owner,
            wake: Wake::default(),
            written: Mutex::default(),
            open: Open::default(),
            resources: Mutex::default(),
            doubtful: Mutex::default(),
            proposals: Mutex::default(),
            claiming: Mutex::default(),
            claims: Mutex::default(),
            concluded: Mutex::default(),
            scan: Mutex::default(),
            worker: Mutex::default(),
            notes: Mutex::default(),
            has_strays: AtomicBool::default(),
            length: AtomicU64::new(u64::MAX),
        })
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.options.clock.now()
    }

    /// This process as a worker.
    pub(crate) fn worker(&self) -> io::Result<Arc<Worker>> {
        let mut slot = lock(&self.worker);
        if let Some(worker) = slot.as_ref() {
            return Ok(worker.clone());
        }
        let begin = || -> io::Result<Worker> {
            Ok(Worker {
                dir: self.layout.claimed.make_dir(&owner::name(self.owner.id))?,
                journal: Journal::begin(&self.layout.journal, self.owner.id, self.boot)?,
            })
        };
        let worker = Arc::new(self.with_reserve(begin)?);
        *slot = Some(worker.clone());
        Ok(worker)
    }

    /// This process as a worker, if it ever was one.
    pub(crate) fn worker_if_any(&self) -> Option<Arc<Worker>> {
        lock(&self.worker).clone()
    }

    /// The same error; one that no repetition helps, if this worker's journal is given up.
    pub(crate) fn for_good(&self, error: Error) -> Error {
        match self.worker_if_any() {
            Some(worker) if worker.journal.is_broken() => error.permanent(),
            _ => error,
        }
    }

    /// Does what the processor must be able to do on a full disk: if there is no room, the reserve is
    /// given up and it is tried once more.
    pub(crate) fn with_reserve<T>(&self, act: impl Fn() -> io::Result<T>) -> io::Result<T> {
        match act() {
            Err(error) if is_full(&error) && self.layout.root.unlink(RESERVE_FILE).is_ok() => act(),
            other => other,
        }
    }

    /// Makes the reserve if it is missing and there is room again.
    pub(crate) fn make_reserve(&self) -> io::Result<()> {
        let root = &self.layout.root;
        if root.exists(RESERVE_FILE)? || !self.has_room(RESERVE_LENGTH)? {
            return Ok(());
        }
        let file = match root.create(RESERVE_FILE) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(()),
            other => other?,
        };
        allocate(&file, RESERVE_LENGTH).inspect_err(|_| {
            // Half a reserve is none.
            let _ = root.unlink(RESERVE_FILE);
        })
    }

    /// Whether `length` more bytes leave the processor what is reserved for it.
    pub(crate) fn has_room(&self, length: u64) -> io::Result<bool> {
        let (space, inodes) = self.layout.root.room()?;
        Ok(space >= self.options.reserved_space.saturating_add(length)
            && inodes.is_none_or(|inodes| inodes > self.options.reserved_inodes))
    }

    /// The directory of a place, made if it is missing.
    pub(crate) fn open_place(&self, place: &Place) -> io::Result<Handle<'_>> {
        Ok(match place {
            Place::New => Handle::Lent(&self.layout.new),
            Place::Held => Handle::Lent(&self.layout.held),
            Place::Lane(lane) => Handle::Own(self.layout.lanes.make_dir(lane)?),
            Place::Due(minute) => Handle::Own(self.layout.deferred.make_dir(&due_folder(*minute))?),
        })
    }

    /// Renames `from` in `dir` to `to` in `place`, and returns where it went, by which name; nothing if
    /// it was not there any more. The directories are not synced.
    pub(crate) fn move_to(
        &self,
        dir: &Dir,
        from: &[u8],
        place: &Place,
        to: &[u8],
    ) -> io::Result<Option<(Handle<'_>, Vec<u8>)>> {
        // A due folder may be removed, as empty, between being opened and being used.
        for _ in 0..16 {
            let target = self.open_place(place)?;
            match move_beside(dir, from, &target, to) {
                Ok(name) => return Ok(Some((target, name))),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    if !dir.exists(from)? {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other("the folder of due messages is removed again and again"))
    }

    /// Notes something that cannot be a message, or not yet: what and why, with its place.
    pub(crate) fn set_aside(&self, dir: &Dir, name: &[u8], why: &str) {
        let mut notes = lock(&self.notes);
        let text = note(dir, name, why);
        if notes.reported.len() < MAX_NOTES && notes.reported.insert(text.clone()) {
            notes.set_aside.push(text);
        }
    }

    /// Whether it was noted before, or there are too many notes.
    pub(crate) fn is_told(&self, dir: &Dir, name: &[u8], why: &str) -> bool {
        let notes = lock(&self.notes);
        notes.reported.len() >= MAX_NOTES || notes.reported.contains(&note(dir, name, why))
    }

    /// Leaves a file alone from now on.
    pub(crate) fn leave_alone(&self, name: &[u8]) {
        let mut notes = lock(&self.notes);
        if notes.left_alone.len() < MAX_NOTES {
            notes.left_alone.insert(name.to_owned());
        }
    }

    pub(crate) fn is_left_alone(&self, name: &[u8]) -> bool {
        lock(&self.notes).left_alone.contains(name)
    }

    /// What was set aside since this was last asked.
    pub(crate) fn take_set_aside(&self) -> Vec<String> {
        std::mem::take(&mut lock(&self.notes).set_aside)
    }

    /// Keeps events, which are durable, for the next `claim` or `sweep` to bring.
    pub(crate) fn keep_events(&self, events: Vec<MailEvent>) {
        lock(&self.notes).events.extend(events);
    }

    pub(crate) fn take_events(&self) -> Vec<MailEvent> {
        std::mem::take(&mut lock(&self.notes).events)
    }

    /// Makes room in the worker's journal.
    pub(crate) fn reserve(&self, worker: &Worker, room: u64) -> io::Result<()> {
        self.with_reserve(|| worker.journal.reserve(&self.layout.journal, &worker.dir, room))
    }

    /// Writes events into the journal, durable on return.
    pub(crate) fn log(&self, events: &[MailEvent]) -> io::Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let worker = self.worker()?;
        let records: Vec<Record> =
            events.iter().map(|event| Record::Event(Box::new(event.clone()))).collect();
        let room: u64 = 2048 * records.len() as u64;
        self.reserve(&worker, room)?;
        let mark = worker.journal.append(&records);
        worker.journal.unreserve(room);
        worker.journal.sync(&mark?)
    }

    /// Ends in good order as far as that is possible: the journal is sealed, and what others need not
    /// look at is removed.
    pub(crate) fn close(&self) {
        if !self.owner.is_held() {
            return;
        }
        if let Some(worker) = lock(&self.worker).take() {
            worker.journal.close();
        }
        // It stays if something is in it, and its files' fate is then for others to find out.
        let empty = self.layout.claimed.remove_dir(&owner::name(self.owner.id));
        let unfinished = !lock(&self.written).is_empty() || !lock(&self.proposals).is_empty();
        let left = empty.is_err_and(|error| error.kind() != io::ErrorKind::NotFound);
        if !unfinished && !left {
            let _ = self.layout.owners.unlink(owner::name(self.owner.id).as_bytes());
        }
        self.owner.release();
    }

    /// Counts a published message.
    pub(crate) fn count(&self, more: u64) {
        // The count is only kept where a limit asks for it.
        if self.length.load(Ordering::Relaxed) != u64::MAX {
            self.length.fetch_add(more, Ordering::Relaxed);
        }
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        self.close();
    }
}

/// Renames a message, and never replaces another one that has its name: of two files with one id each is
/// somebody's mail, and the later counts an attempt more.
/// Returns the name that it has got.
pub(crate) fn move_beside(dir: &Dir, from: &[u8], target: &Dir, to: &[u8]) -> io::Result<Vec<u8>> {
    let mut name = MessageName::decode(to);
    let mut to = to.to_vec();
    loop {
        match dir.rename_new(from, target, &to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let Some(name) = name.as_mut().filter(|name| name.attempts < u32::MAX) else {
                    return Err(error);
                };
                name.attempts += 1;
                to = name.encode();
            }
            other => return other.map(|()| to),
        }
    }
}

/// Locks a mutex whose state is consistent at every point at which a panic could leave it.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn note(dir: &Dir, name: &[u8], why: &str) -> String {
    format!("{}/{}: {why}", dir.path().display(), name.escape_ascii())
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Whether the disk or what is written on it is at fault, so that what was asked of it may be half done.
pub(crate) fn is_bad(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(Errno::from_io_error(error), Some(Errno::IO | Errno::UCLEAN))
}

/// Whether there was no such file; other errors are errors.
pub(crate) fn gone(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
        Err(error) => Err(error),
    }
}

pub(crate) fn uncertain(operation: &'static str, error: io::Error) -> Error {
    Error::new(
        ErrorKind::Uncertain,
        operation,
        format!("{error}; a crash may show either outcome, and nothing is sent before it is known"),
    )
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_and_due_folders_have_one_name_each() {
        let mut options = DeliveryOptions::default();
        assert_eq!(Place::lane(&options), Place::New);
        options.priority = Priority::High;
        assert_eq!(Place::lane(&options), Place::Lane("high".into()));
        options.tenant = Some("acme".parse().unwrap());
        let Place::Lane(lane) = Place::lane(&options) else { panic!("no lane") };
        assert!(lane.starts_with("high-") && lane.len() == 7);
        assert_eq!(due_minute(due_folder(29_925_068).as_bytes()), Some(29_925_068));
        assert_eq!(due_minute(b"29925068"), None);
        assert_eq!(due_folder(-5), due_folder(0));
    }

    #[test]
    fn a_message_for_later_waits_in_its_minute() {
        let mut options = DeliveryOptions::default();
        options.not_before = Some(Timestamp::from_millis(120_500));
        let name = MessageName::new(QueueId::from_bytes([1; 16]));
        let (place, name) = Place::first(&options, name, Timestamp::from_millis(500));
        assert_eq!(place, Place::Due(2));
        assert_eq!(name.due.unwrap().delay_ms, 120_000);
        assert_eq!(Place::first(&options, name, Timestamp::from_millis(120_500)).0, Place::New);
    }
}
