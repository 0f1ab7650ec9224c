//! Claiming messages: a rename into this worker's own directory.
//!
//! A claim is safe to act upon once the rename is durable: were the file to come back to where it was
//! after a crash of the machine, it would be sent again with nobody knowing that it had been sent. So
//! the directories are synced, once for a batch, before the batch is handed out.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use sendmail_core::{
    AmbiguousPolicy, Claim, ClaimToken, Claimed, DeliveryOptions, Envelope, Error, ErrorKind,
    Loaded, MailEvent, MailEventKind, MessageId, QueueId, Recipient, Result, Step, Timestamp,
};

use crate::disk::{Dir, Kind, Name, Stat};
use crate::foreign::{self, ForeignError};
use crate::format::{self, FormatError, Head, QueueFile};
use crate::journal::record::Record;
use crate::journal::room_for;
use crate::name::MessageName;
use crate::queue::{Place, Queue, Worker, lock};
use crate::scan::Found;

/// Messages up to this size are kept in memory between claim and load, in bytes.
const KEEP_LOADED: usize = 64 << 10;
/// How old zope.sendmail's lock must be before it counts as forgotten, in seconds: its own measure.
const ZOPE_LOCK_LIFETIME: i64 = 3 * 60 * 60;

/// A message that this process has claimed.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) token: ClaimToken,
    /// Under which name it is in the worker's directory.
    pub(crate) name: MessageName,
    /// What is kept free for it in the journal.
    pub(crate) room: u64,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) message_id: MessageId,
    pub(crate) options: DeliveryOptions,
    /// The outcome, once it is durable in the journal and could not be carried out yet.
    pub(crate) settled: Option<crate::settle::Settled>,
    loaded: Option<Loaded>,
}

/// What is in a queue file, of whichever program.
pub(crate) struct Content {
    pub(crate) loaded: Loaded,
    /// Whether it is as another program wrote it.
    pub(crate) foreign: bool,
    /// Whether the log is still to tell that it was queued.
    fresh: bool,
}

impl Content {
    fn ours(file: QueueFile, name: MessageName) -> Self {
        let QueueFile { head: Head { envelope, queued_at, .. }, message } = file;
        Self { loaded: Loaded { envelope, message, queued_at }, foreign: false, fresh: !name.told }
    }
}

/// Why a file is not claimed.
pub(crate) enum Misfit {
    /// It is not there any more, or somebody else's.
    Gone,
    /// It stays where it is and is reported.
    Stays(String),
    /// It is one of our messages, or was meant to be one, and can never be sent.
    Damaged(String),
}

impl Queue {
    pub(crate) fn claim(&self, max: usize) -> Result<Claimed> {
        let operation = "claim messages";
        let trouble = |error| Error::io(operation, error);
        // What one dead worker left keeps nobody from what the others have; it was noted.
        let _ = self.take_over_from_the_dead();
        let mut batch = Batch::default();
        let gathered = self.gather(&mut batch, max);
        if batch.held.is_empty() {
            gathered.map_err(trouble)?;
        }
        if let Err(error) = self.confirm(&mut batch) {
            self.give_back(&batch);
            return Err(trouble(error));
        }
        let mut claims = Vec::with_capacity(batch.held.len());
        let mut held_by_id = lock(&self.claims);
        for held in batch.held {
            let (id, attempt) = (held.name.id, held.name.attempts.saturating_add(1));
            claims.push(Claim { id, attempt, token: held.token.clone() });
            held_by_id.insert(id, held);
        }
        Ok(Claimed { claims, events: self.take_events() })
    }

    /// Renames up to `max` messages that are due into the worker's directory. After an error the batch
    /// holds what was renamed before.
    fn gather(&self, batch: &mut Batch, max: usize) -> io::Result<()> {
        self.gather_strays(batch, max)?;
        let mut scan = lock(&self.scan);
        let mut fresh_pass = !scan.is_running();
        if fresh_pass {
            scan.begin(&self.layout, self.now())?;
        }
        while batch.held.len() < max {
            let Some((dir, name, found)) = scan.next(&self.layout)? else {
                if fresh_pass || !batch.held.is_empty() {
                    break;
                }
                // What the old pass had passed already may be what is due now.
                scan.begin(&self.layout, self.now())?;
                fresh_pass = true;
                continue;
            };
            match self.claim_file(&dir, &name, found, batch) {
                Ok(Some((held, content))) => batch.add(Some(dir), held, content),
                Ok(None) | Err(Misfit::Gone) => {}
                Err(Misfit::Stays(why)) => self.set_aside(&dir, &name.bytes, &why),
                Err(Misfit::Damaged(why)) => {
                    if let Err(error) = self.put_with_failed(&dir, &name.bytes, &why) {
                        self.set_aside(&dir, &name.bytes, &format!("{why}; and {error}"));
                    }
                }
            }
        }
        Ok(())
    }

    /// Takes up what an earlier claim has renamed, and could neither hand out nor put back.
    fn gather_strays(&self, batch: &mut Batch, max: usize) -> io::Result<()> {
        if !self.has_strays.swap(false, Ordering::Relaxed) {
            return Ok(());
        }
        let mut look = || -> io::Result<()> {
            let worker = self.worker()?;
            for file in worker.dir.names()? {
                let file = file?.bytes;
                let Some(name) = MessageName::decode(&file) else { continue };
                if self.is_taken(name.id, batch) {
                    continue;
                }
                if batch.held.len() >= max {
                    self.has_strays.store(true, Ordering::Relaxed);
                    break;
                }
                match self.read_message(&worker.dir, &file, name) {
                    Ok(content) => batch.add(None, self.hold(name, &content), content),
                    Err(Misfit::Gone) => {}
                    Err(Misfit::Stays(why)) => self.set_aside(&worker.dir, &file, &why),
                    Err(Misfit::Damaged(why)) => self.put_with_failed(&worker.dir, &file, &why)?,
                }
            }
            Ok(())
        };
        look().inspect_err(|_| self.has_strays.store(true, Ordering::Relaxed))
    }

    /// Whether this process has claimed a message of that id. Two files of one id are never claimed at
    /// the same time: the journal knows them by their id.
    fn is_taken(&self, id: QueueId, batch: &Batch) -> bool {
        batch.ids.contains(&id) || lock(&self.claims).contains_key(&id)
    }

    /// Makes a batch of claims durable, and the events about them.
    fn confirm(&self, batch: &mut Batch) -> io::Result<()> {
        if batch.held.is_empty() {
            return Ok(());
        }
        let worker = self.worker()?;
        let room: u64 = batch.held.iter().map(|held| held.room).sum();
        self.reserve(&worker, room)?;
        batch.reserved = room;
        let synced = batch.from.iter().try_for_each(|dir| dir.sync());
        // A second sync may say that all is well when it is not: nothing is claimed after a failed one.
        synced.and_then(|()| worker.dir.sync()).inspect_err(|_| worker.journal.break_off())?;
        let mut records = Vec::with_capacity(batch.held.len() * 2);
        let mut events = Vec::new();
        for (held, queued) in batch.held.iter().zip(&mut batch.queued) {
            // In this order: whoever finds the claim recorded knows that the event is.
            if let Some(event) = queued.take() {
                records.push(Record::Event(Box::new(event.clone())));
                events.push(event);
            }
            records.push(Record::Claimed(held.name.id));
        }
        let mark = worker.journal.append(&records)?;
        worker.journal.sync(&mark)?;
        self.keep_events(events);
        Ok(())
    }

    /// Puts a batch back that could not be made durable.
    fn give_back(&self, batch: &Batch) {
        let Some(worker) = self.worker_if_any() else { return };
        worker.journal.unreserve(batch.reserved);
        for held in &batch.held {
            let name = held.name.encode();
            if self.move_to(&worker.dir, &name, &Place::lane(&held.options), &name).is_err() {
                self.has_strays.store(true, Ordering::Relaxed);
            }
        }
    }

    fn claim_file(
        &self,
        dir: &Arc<Dir>,
        file: &Name,
        found: Found,
        batch: &Batch,
    ) -> std::result::Result<Option<(Held, Content)>, Misfit> {
        if file.bytes.starts_with(b".") {
            return Ok(None);
        }
        check_kind(file.kind)?;
        match MessageName::decode(&file.bytes) {
            Some(name) if found == Found::Deferred => {
                match name.due.and_then(|due| due.clamped(self.now())) {
                    // Its clock has jumped: it is filed again under a time that can be right.
                    Some(due) => {
                        let to = name.due(due).encode();
                        let moved = self.move_to(dir, &file.bytes, &Place::due(due), &to);
                        moved.map_err(|error| stays(&error))?;
                        Ok(None)
                    }
                    None if name.due.is_none_or(|due| due.is_past(self.now())) => {
                        self.claim_ours(dir, &file.bytes, name, batch).map(Some)
                    }
                    None => Ok(None),
                }
            }
            Some(name) => self.claim_ours(dir, &file.bytes, name, batch).map(Some),
            None if found == Found::Deferred => Ok(None),
            None => self.claim_foreign(dir, &file.bytes, batch).map(Some),
        }
    }

    fn claim_ours(
        &self,
        dir: &Dir,
        file: &[u8],
        name: MessageName,
        batch: &Batch,
    ) -> std::result::Result<(Held, Content), Misfit> {
        if self.is_left_alone(file) {
            return Err(Misfit::Gone);
        }
        if self.is_taken(name.id, batch) {
            return Err(Misfit::Stays("another file with the same id is being sent".to_owned()));
        }
        let content = self.read_message(dir, file, name)?;
        let name = name.published();
        let worker = self.worker().map_err(|error| stays(&error))?;
        rename(dir, file, &worker.dir, &name.encode())?;
        Ok((self.hold(name, &content), content))
    }

    /// Claims a file that zope.sendmail or repoze.sendmail wrote, by its own rules: whoever has made
    /// the link `.sending-NAME` may send it.
    fn claim_foreign(
        &self,
        dir: &Dir,
        file: &[u8],
        batch: &Batch,
    ) -> std::result::Result<(Held, Content), Misfit> {
        let stat = dir.stat(file).map_err(|error| gone_or_stays(&error))?;
        let version = version(file, &stat);
        if self.is_left_alone(&version) {
            return Err(Misfit::Gone);
        }
        self.check_owner(dir, file)?;
        let written = modified(&stat);
        let lock_name = [b".sending-", file].concat();
        let touched = self.lock_foreign(dir, file, &lock_name, &stat)?;
        let claim = || {
            let bytes = read_limited(dir, file, self.options.max_message_len)?;
            let name = MessageName { foreign: true, ..MessageName::new(foreign::id(file, &bytes)) };
            if self.is_taken(name.id, batch) {
                return Err(Misfit::Stays(
                    "another file with the same id is being sent".to_owned(),
                ));
            }
            let content = decode_foreign(&bytes, name, written).map_err(|error| match error {
                ForeignError::NoEnvelope => {
                    self.leave_alone(&version);
                    Misfit::Stays(error.to_string())
                }
                other => Misfit::Damaged(other.to_string()),
            })?;
            let worker = self.worker().map_err(|error| stays(&error))?;
            rename(dir, file, &worker.dir, &name.encode())?;
            if touched {
                // When it was written is when it was queued. If this fails its life begins anew.
                let _ = worker.dir.set_modified(&name.encode(), Some(&stat));
            }
            Ok((self.hold(name, &content), content))
        };
        let result = claim();
        if touched && result.is_err() {
            let _ = dir.set_modified(file, Some(&stat));
        }
        // With the file gone the lock locks nothing; with the file left it must not stay.
        let _ = dir.unlink(&lock_name);
        result
    }

    /// Takes zope.sendmail's lock on a file. Returns whether the file's time had to be changed for it.
    fn lock_foreign(
        &self,
        dir: &Dir,
        file: &[u8],
        lock_name: &[u8],
        stat: &Stat,
    ) -> std::result::Result<bool, Misfit> {
        match dir.stat(lock_name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // No program can make the lock, so none has it.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => return Ok(false),
            Err(error) => return Err(stays(&error)),
            Ok(locked) if self.now().as_secs() - locked.st_mtime < ZOPE_LOCK_LIFETIME => {
                // Another program is sending it.
                return Err(Misfit::Gone);
            }
            // Forgotten by a process that died. Removing it loses nothing: it is a second name.
            Ok(_) => dir.unlink(lock_name).map_err(|error| stays(&error))?,
        }
        // The lock is as old as the file that it is a name of, and one that is old counts as forgotten.
        let touch = self.now().as_secs() - stat.st_mtime > ZOPE_LOCK_LIFETIME / 3
            && dir.set_modified(file, None).is_ok();
        match dir.link(file, lock_name) {
            Ok(()) => Ok(touch),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists => Misfit::Gone,
                // A file system without links.
                _ => stays(&error),
            }),
        }
    }

    fn check_owner(&self, dir: &Dir, file: &[u8]) -> std::result::Result<(), Misfit> {
        let stat = dir.stat(file).map_err(|error| gone_or_stays(&error))?;
        if self.layout.trusts(stat.st_uid) {
            Ok(())
        } else {
            let why = format!("it belongs to user {}, who is not the queue's owner", stat.st_uid);
            Err(Misfit::Stays(why))
        }
    }

    /// Reads a message of ours, in whichever format its name says, and proves it whole.
    pub(crate) fn read_message(
        &self,
        dir: &Dir,
        file: &[u8],
        name: MessageName,
    ) -> std::result::Result<Content, Misfit> {
        self.check_owner(dir, file)?;
        let limit = self.options.max_message_len + format::MAX_HEAD;
        let bytes = read_limited(dir, file, limit)?;
        if name.foreign {
            // The rest of a foreign message is written in our format, and proves itself.
            if let Ok(file) = format::decode_any(&bytes, name.id) {
                return Ok(Content::ours(file, name));
            }
            let written = written_at(dir, file);
            return decode_foreign(&bytes, name, written)
                .map_err(|error| Misfit::Damaged(error.to_string()));
        }
        match format::decode(bytes, name.id) {
            Ok(file) => Ok(Content::ours(file, name)),
            Err(error @ FormatError::NewerVersion(_)) => {
                self.leave_alone(file);
                Err(Misfit::Stays(error.to_string()))
            }
            Err(error) => Err(Misfit::Damaged(error.to_string())),
        }
    }

    fn hold(&self, name: MessageName, content: &Content) -> Held {
        let Loaded { envelope, message, .. } = &content.loaded;
        let keep = message.as_bytes().len() <= KEEP_LOADED;
        Held {
            token: ClaimToken(format!("{}/{}", self.owner.id, next_claim())),
            name,
            room: room_for(envelope.recipients(), message.message_id()),
            recipients: envelope.recipients().to_vec(),
            message_id: message.message_id().clone(),
            options: envelope.options().clone(),
            settled: None,
            loaded: keep.then(|| content.loaded.clone()),
        }
    }

    /// Puts a damaged entry with the failed mail, and says so.
    pub(crate) fn put_with_failed(&self, dir: &Dir, file: &[u8], why: &str) -> io::Result<()> {
        let bytes = dir.read(file, format::MAX_HEAD as u64).unwrap_or_default();
        let name = MessageName::decode(file).map_or_else(
            || MessageName { foreign: true, ..MessageName::new(foreign::id(file, &bytes)) },
            MessageName::published,
        );
        // What is kept there is never replaced: two damaged files may have one name.
        let mut kept = name;
        loop {
            match dir.rename_new(file, &self.layout.failed_new, &kept.encode()) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => kept.kills += 1,
                other => break other?,
            }
        }
        self.layout.failed_new.sync()?;
        let text = format!("{} is damaged: {why}", file.escape_ascii());
        let event = MailEvent::new(MailEventKind::Damaged, self.now());
        let event = event.about(name.id, None).with_detail(&text);
        self.log(std::slice::from_ref(&event))?;
        self.keep_events(vec![event]);
        Ok(())
    }

    pub(crate) fn load(&self, claim: &Claim) -> Result<Loaded> {
        let operation = "load the message";
        let worker = self.check_claim(claim, operation)?;
        let name = {
            let mut claims = lock(&self.claims);
            let held = claims.get_mut(&claim.id).ok_or_else(|| lost(operation, claim))?;
            if let Some(loaded) = held.loaded.take() {
                return Ok(loaded);
            }
            held.name
        };
        match self.read_message(&worker.dir, &name.encode(), name) {
            Ok(content) => Ok(content.loaded),
            Err(Misfit::Gone) => Err(lost(operation, claim)),
            Err(Misfit::Stays(why)) => {
                Err(Error::new(ErrorKind::Io, operation, why).with("queue id", claim.id))
            }
            Err(Misfit::Damaged(why)) => {
                let moved = self.put_with_failed(&worker.dir, &name.encode(), &why);
                moved.map_err(|error| Error::io(operation, error).with("queue id", claim.id))?;
                self.drop_claim(&worker, claim.id, Record::Finished(claim.id));
                Err(Error::new(ErrorKind::Damaged, operation, why).with("queue id", claim.id))
            }
        }
    }

    pub(crate) fn record(&self, claim: &Claim, step: Step) -> Result<()> {
        let operation = "record a step of the attempt";
        let worker = self.check_claim(claim, operation)?;
        let policy = lock(&self.claims).get(&claim.id).map(|held| held.options.ambiguous);
        let record = match step {
            Step::Begin => Record::Begun(claim.id),
            Step::Handover => Record::HandedOver(claim.id),
        };
        let durable = step == Step::Handover && policy != Some(AmbiguousPolicy::Retry);
        let write = || {
            let mark = worker.journal.append(std::slice::from_ref(&record))?;
            if durable { worker.journal.sync(&mark) } else { Ok(()) }
        };
        write().map_err(|error| Error::io(operation, error).with("queue id", claim.id))
    }

    /// Whether the claim is still this process's: its token, and the file in its place.
    pub(crate) fn check_claim(
        &self,
        claim: &Claim,
        operation: &'static str,
    ) -> Result<Arc<Worker>> {
        let (name, is_settled) = {
            let claims = lock(&self.claims);
            let held = claims.get(&claim.id).filter(|held| held.token == claim.token);
            let held = held.ok_or_else(|| lost(operation, claim))?;
            (held.name.encode(), held.settled.is_some())
        };
        let worker = self.worker_if_any().ok_or_else(|| lost(operation, claim))?;
        match worker.dir.exists(&name) {
            Ok(true) => Ok(worker),
            // The outcome is known, and was carried out in part by an earlier call.
            Ok(false) if is_settled && self.owner.is_held() => Ok(worker),
            Ok(false) => {
                self.drop_claim(&worker, claim.id, Record::Released(claim.id));
                Err(lost(operation, claim))
            }
            Err(error) => Err(Error::io(operation, error).with("queue id", claim.id)),
        }
    }

    /// Ends a claim whose file is where it belongs. The record only spares whoever takes over a look.
    pub(crate) fn drop_claim(&self, worker: &Worker, id: QueueId, record: Record) {
        let _ = worker.journal.append(&[record]);
        if let Some(held) = lock(&self.claims).remove(&id) {
            worker.journal.unreserve(held.room);
        }
    }
}

/// The claims of one call.
#[derive(Debug, Default)]
struct Batch {
    held: Vec<Held>,
    ids: HashSet<QueueId>,
    /// For each of them the event that says it was queued, if nobody has said so yet.
    queued: Vec<Option<MailEvent>>,
    /// Where they came from, none twice.
    from: Vec<Arc<Dir>>,
    seen: Vec<PathBuf>,
    reserved: u64,
}

impl Batch {
    fn add(&mut self, dir: Option<Arc<Dir>>, held: Held, content: Content) {
        if let Some(dir) = dir
            && !self.seen.iter().any(|path| path == dir.path())
        {
            self.seen.push(dir.path().to_owned());
            self.from.push(dir);
        }
        let event = content.fresh.then(|| {
            let event = MailEvent::new(MailEventKind::Queued, content.loaded.queued_at);
            event.about(held.name.id, Some(&held.message_id))
        });
        self.queued.push(event);
        self.ids.insert(held.name.id);
        self.held.push(held);
    }
}

fn next_claim() -> u64 {
    static COUNT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    COUNT.fetch_add(1, Ordering::Relaxed)
}

fn check_kind(kind: Kind) -> std::result::Result<(), Misfit> {
    match kind {
        Kind::File | Kind::Unknown => Ok(()),
        Kind::Directory => Err(Misfit::Stays("it is a directory".to_owned())),
        Kind::Symlink => {
            Err(Misfit::Stays("it is a symbolic link, which is not followed".to_owned()))
        }
        Kind::Special => Err(Misfit::Stays("it is a FIFO, a socket or a device".to_owned())),
    }
}

fn rename(dir: &Dir, from: &[u8], to: &Dir, name: &[u8]) -> std::result::Result<(), Misfit> {
    dir.rename_new(from, to, name).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Misfit::Gone,
        io::ErrorKind::AlreadyExists => {
            Misfit::Stays("another file with the same id is being sent".to_owned())
        }
        _ => stays(&error),
    })
}

fn read_limited(dir: &Dir, file: &[u8], limit: usize) -> std::result::Result<Vec<u8>, Misfit> {
    let bytes = dir.read(file, limit as u64 + 1).map_err(|error| gone_or_stays(&error))?;
    if bytes.len() > limit {
        return Err(Misfit::Stays(format!(
            "it is larger than {limit} bytes, the most this queue takes"
        )));
    }
    Ok(bytes)
}

/// Only a file that is known to be gone counts as gone.
fn gone_or_stays(error: &io::Error) -> Misfit {
    match error.kind() {
        io::ErrorKind::NotFound => Misfit::Gone,
        _ => stays(error),
    }
}

fn stays(error: &io::Error) -> Misfit {
    Misfit::Stays(error.to_string())
}

/// A name for a file as it is now: once it is written to, it has another one.
fn version(file: &[u8], stat: &Stat) -> Vec<u8> {
    let (inode, size) = (stat.st_ino, stat.st_size);
    let written = format!("/{inode}/{size}/{}/{}", stat.st_mtime, stat.st_mtime_nsec);
    [file, written.as_bytes()].concat()
}

/// When a file was last written, which does not change by being renamed or read.
pub(crate) fn written_at(dir: &Dir, file: &[u8]) -> Timestamp {
    dir.stat(file).map_or(Timestamp::EPOCH, |stat| modified(&stat))
}

fn modified(stat: &Stat) -> Timestamp {
    Timestamp::from_millis(stat.st_mtime.saturating_mul(1000))
}

fn decode_foreign(
    bytes: &[u8],
    name: MessageName,
    written: Timestamp,
) -> std::result::Result<Content, ForeignError> {
    let (envelope, message): (Envelope, _) = foreign::decode(bytes, name.id, written)?;
    let loaded = Loaded { envelope, message, queued_at: written };
    Ok(Content { loaded, foreign: true, fresh: !name.told })
}

pub(crate) fn lost(operation: &'static str, claim: &Claim) -> Error {
    Error::new(ErrorKind::LeaseLost, operation, "somebody else has the message, or it is settled")
        .with("queue id", claim.id)
}
