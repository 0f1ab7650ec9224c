//! Claiming messages: a rename into this worker's own directory.
//!
//! A claim is safe to act upon once the rename is durable: were the file to come back to where it was
//! after a crash of the machine, it would be sent again with nobody knowing that it had been sent. So
//! the directories are synced, once for a batch, before the batch is handed out.

use std::collections::HashSet;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use sendmail_core::{
    Claim, ClaimToken, Claimed, Error, Loaded, MailEvent, MailEventKind, QueueId, Result,
};

use crate::disk::{Dir, Kind, Name};
use crate::held::Held;
use crate::journal::record::Record;
use crate::journal::room_for;
use crate::name::MessageName;
use crate::queue::{Place, Queue, is_bad, lock};
use crate::reading::{Content, Misfit, misfit};
use crate::scan::Found;
use crate::sync::atomic::Ordering;

/// Messages up to this size are kept in memory between claim and load, in bytes.
const KEEP_LOADED: usize = 64 << 10;

impl Queue {
    pub(crate) fn claim(&self, max: usize) -> Result<Claimed> {
        let operation = "claim messages";
        let trouble = |error| Error::io(operation, error);
        if self.has_frozen().map_err(trouble)? {
            return Ok(Claimed::default());
        }
        // What one dead worker left keeps nobody from what the others have; it was noted.
        let _ = self.take_over_from_the_dead();
        let _turn = lock(&self.claiming);
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
                Err(Misfit::Trouble(error)) => return Err(error),
                Err(Misfit::Unreadable(why)) => self.tell_unreadable(&dir, &name.bytes, &why),
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
                    Err(Misfit::Trouble(error)) => return Err(error),
                    Err(Misfit::Unreadable(why)) => {
                        self.tell_unreadable(&worker.dir, &file, &why);
                        self.has_strays.store(true, Ordering::Relaxed);
                    }
                    Err(Misfit::Stays(why)) => {
                        self.set_aside(&worker.dir, &file, &why);
                        self.has_strays.store(true, Ordering::Relaxed);
                    }
                    Err(Misfit::Damaged(why)) => self.put_with_failed(&worker.dir, &file, &why)?,
                }
            }
            Ok(())
        };
        look().inspect_err(|_| self.has_strays.store(true, Ordering::Relaxed))
    }

    /// Whether this process has claimed a message of that id. Two files of one id are never claimed at
    /// the same time: the journal knows them by their id.
    pub(crate) fn is_taken(&self, id: QueueId, batch: &Batch) -> bool {
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
                        let put = || self.move_to(dir, &file.bytes, &Place::due(due), &to);
                        let moved = self.with_reserve(put);
                        moved.map_err(misfit)?;
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
        self.forget_old_names(dir, file, name.id).map_err(misfit)?;
        if self.is_claimed_too(dir, file, name.id).map_err(misfit)? {
            return Err(Misfit::Gone);
        }
        let name = name.published();
        let worker = self.worker().map_err(Misfit::Trouble)?;
        self.take(dir, file, &worker.dir, &name.encode())?;
        Ok((self.hold(name, &content), content))
    }

    /// Renames a file into the worker's directory.
    pub(crate) fn take(
        &self,
        dir: &Dir,
        from: &[u8],
        to: &Dir,
        name: &[u8],
    ) -> std::result::Result<(), Misfit> {
        self.with_reserve(|| dir.rename_new(from, to, name)).map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => {
                Misfit::Stays("another file with the same id is being sent".to_owned())
            }
            _ => {
                // The disk that failed may have done it.
                if is_bad(&error) {
                    self.has_strays.store(true, Ordering::Relaxed);
                }
                misfit(error)
            }
        })
    }

    pub(crate) fn hold(&self, name: MessageName, content: &Content) -> Held {
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
}

/// The claims of one call.
#[derive(Debug, Default)]
pub(crate) struct Batch {
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
