//! The way of a message into the queue: written, staged, published or discarded.
//!
//! A message's content is made durable when it is staged or published, not when it is written: where it is
//! staged its name is new by then, and one commit of the file system's log serves both. Where it is
//! published without having been staged the content comes first, since what is published is
//! whole.
//!
//! Invariant: a message is in exactly one place, and every step is one rename. A message that is
//! published is in the place that its options ask for, so that whoever finishes the work of somebody
//! else puts it into the same one.

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::io;
use std::rc::Rc;

use sendmail_core::{
    DeliveryOptions, Discard, Error, ErrorKind, MailEvent, MailEventKind, NewMessage, QueueId,
    ResourceId, Result, Timestamp,
};

use crate::content::Content;
use crate::disk::{Dir, sync};
use crate::format::{self, Head};
use crate::manifest::fence_name;
use crate::name::MessageName;
use crate::queue::{Handle, Place, Queue, gone, is_bad, lock, uncertain};
use crate::sync::atomic::Ordering;
use crate::undecided::Found;

/// What this process wrote and did not publish yet.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) resource: ResourceId,
    options: DeliveryOptions,
    staged: bool,
    content: Content,
}

/// How many files are held open for a later sync; beyond that each is synced when it is written.
const MOST_OPEN: usize = 128;

impl Queue {
    pub(crate) fn write(&self, new: &NewMessage) -> Result<()> {
        let operation = "write the message into the queue";
        let length = new.message.as_bytes().len();
        let limit = self.options.max_message_len;
        if length > limit {
            let message =
                format!("the message has {length} bytes, this queue takes at most {limit}");
            return Err(Error::new(ErrorKind::InvalidInput, operation, message));
        }
        self.check_room(length as u64)?;
        let head = Head {
            id: new.id,
            resource: new.resource.clone(),
            queued_at: self.now(),
            envelope: new.envelope.clone(),
        };
        if self.is_written(new)? {
            return Ok(());
        }
        let name = MessageName::new(new.id).owned(self.owner.id).encode();
        let parts: [&[u8]; 2] = [&format::encode_head(&head, &new.message), new.message.as_bytes()];
        let write = || self.layout.tmp.write_new(&name, &parts);
        let mut result = write();
        if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            // The first half of a call that was repeated: nobody has seen it yet.
            result = self.layout.tmp.unlink(&name).and_then(|()| write());
        }
        let file = result.map_err(|error| Error::io(operation, error).with("queue id", new.id))?;
        let content = Content::unsynced(file, &self.open);
        let (resource, options) = (new.resource.clone(), new.envelope.options().clone());
        lock(&self.written).insert(new.id, Written { resource, options, staged: false, content });
        if self.open.count() > MOST_OPEN {
            return self.sync_content(&self.layout.tmp, new.id);
        }
        Ok(())
    }

    /// Makes the content of a message that this process wrote durable. If that fails the file is given up
    /// and removed.
    fn sync_content(&self, dir: &Dir, id: QueueId) -> Result<()> {
        let content = lock(&self.written).get(&id).map(|written| written.content.clone());
        let Some(content) = content else { return Ok(()) };
        content.sync().map_err(|error| {
            // The error is what counts; a left-over is found by the next sweep. That it is lost is
            // remembered until it is discarded.
            let _ = dir.unlink(&MessageName::new(id).owned(self.owner.id).encode());
            Error::io("sync the message", error).with("queue id", id)
        })
    }

    /// Whether this process wrote the message before; an error if it wrote another one under this id.
    fn is_written(&self, new: &NewMessage) -> Result<bool> {
        let operation = "write the message into the queue";
        let Some(written) = lock(&self.written).get(&new.id).cloned() else { return Ok(false) };
        if written.content.is_lost() {
            let message =
                "it could not be made durable before; hand it over anew, under another queue id";
            return Err(Error::new(ErrorKind::Io, operation, message).with("queue id", new.id));
        }
        let name = MessageName::new(new.id).owned(self.owner.id).encode();
        let read = || match written.staged {
            false => self.layout.tmp.read(&name, u64::MAX),
            true => self.layout.staged.make_dir(written.resource.as_str())?.read(&name, u64::MAX),
        };
        let content =
            read().map_err(|error| Error::io(operation, error).with("queue id", new.id))?;
        let same = format::decode(content, new.id).is_ok_and(|file| {
            file.head.envelope == new.envelope
                && file.head.resource == new.resource
                && file.message == new.message
        });
        if same {
            return Ok(true);
        }
        let message =
            "another message was written under this queue id; mint one for each hand-over";
        Err(Error::new(ErrorKind::InvalidInput, operation, message).with("queue id", new.id))
    }

    /// Leaves the processor its reserve, and keeps to the limit of messages.
    fn check_room(&self, length: u64) -> Result<()> {
        let operation = "write the message into the queue";
        if !self.has_room(length).map_err(|error| Error::io(operation, error))? {
            let message =
                "the disk is nearly full, and what is left is for delivering; free some space";
            return Err(Error::new(ErrorKind::Full, operation, message));
        }
        let Some(most) = self.options.max_messages else { return Ok(()) };
        if self.length.load(Ordering::Relaxed) == u64::MAX {
            let counted = self.count_messages().map_err(|error| Error::io(operation, error))?;
            self.length.store(counted, Ordering::Relaxed);
        }
        if self.length.load(Ordering::Relaxed) < most {
            return Ok(());
        }
        // It may have been drained since it was counted.
        let counted = self.count_messages().map_err(|error| Error::io(operation, error))?;
        self.length.store(counted, Ordering::Relaxed);
        if counted < most {
            return Ok(());
        }
        let message = format!("queue full: {counted} messages wait, and at most {most} may");
        Err(Error::new(ErrorKind::Full, operation, message))
    }

    pub(crate) fn stage(&self, ids: &[QueueId]) -> Result<()> {
        let operation = "stage the message";
        let mut dirs: HashMap<ResourceId, Dir> = HashMap::new();
        for id in ids {
            let Some(written) = lock(&self.written).get(id).cloned() else {
                return Err(Error::new(
                    ErrorKind::NotFound,
                    operation,
                    "this process has not written it, or it is published already",
                )
                .with("queue id", id));
            };
            let trouble = |error| Error::io(operation, error).with("queue id", id);
            let dir = match dirs.entry(written.resource) {
                Entry::Occupied(entry) => entry.into_mut(),
                Entry::Vacant(entry) => {
                    let dir = self.layout.staged.make_dir(entry.key().as_str()).map_err(trouble)?;
                    entry.insert(dir)
                }
            };
            if written.staged {
                continue;
            }
            let name = MessageName::new(*id).owned(self.owner.id).encode();
            self.layout.tmp.rename(&name, dir, &name).map_err(trouble)?;
            if let Some(written) = lock(&self.written).get_mut(id) {
                written.staged = true;
            }
        }
        // All names first: the file system's log then has them with the first content that is synced.
        for id in ids {
            let resource = lock(&self.written).get(id).map(|written| written.resource.clone());
            if let Some(dir) = resource.and_then(|resource| dirs.get(&resource)) {
                self.sync_content(dir, *id)?;
            }
        }
        dirs.values().try_for_each(|dir| dir.sync()).map_err(|error| Error::io(operation, error))
    }

    pub(crate) fn publish(&self, ids: &[QueueId]) -> Result<()> {
        let operation = "publish the message";
        if ids.iter().any(|id| lock(&self.doubtful).contains(id)) {
            let before = io::Error::other("it failed before");
            return Err(uncertain(operation, before));
        }
        let result = self.publish_once(ids);
        if result.as_ref().is_err_and(|error| error.kind() == ErrorKind::Uncertain) {
            // A second sync may say that all is well when it is not. So this stays in doubt for as long
            // as this process lives.
            lock(&self.doubtful).extend(ids);
        }
        result
    }

    fn publish_once(&self, ids: &[QueueId]) -> Result<()> {
        let operation = "publish the message";
        let now = self.now();
        let mut unknown = Vec::new();
        let mut touched = Touched::default();
        // Before any of them can be claimed. What is staged is durable.
        ids.iter().try_for_each(|id| self.sync_content(&self.layout.tmp, *id))?;
        for id in ids {
            let Some(written) = lock(&self.written).get(id).cloned() else {
                unknown.push(*id);
                continue;
            };
            let trouble = |error| Error::io(operation, error).with("queue id", id);
            let name = MessageName::new(*id).owned(self.owner.id);
            let from = match written.staged {
                false => Rc::new(Handle::Lent(&self.layout.tmp)),
                true => {
                    let staged = || self.layout.staged.make_dir(written.resource.as_str());
                    touched.find_staged(&written.resource, staged).map_err(trouble)?
                }
            };
            let moved = self.publish_file(&from, name, &written.options, now);
            // To publish what is not staged is to decide it, and a rename that a bad disk has failed may be
            // found done.
            let moved = moved.map_err(|error| match !written.staged && is_bad(&error) {
                true => uncertain(operation, error).with("queue id", id),
                false => trouble(error),
            })?;
            match moved {
                Some(target) => touched.add(Rc::new(target)),
                // Somebody else published it, and may not have synced it yet.
                None => unknown.push(*id),
            }
        }
        if !unknown.is_empty() {
            self.publish_of_others(&unknown, now, &mut touched)?;
        }
        touched.sync().map_err(|error| uncertain(operation, error))?;
        let mut written = lock(&self.written);
        ids.iter().for_each(|id| drop(written.remove(id)));
        drop(written);
        self.count(ids.len() as u64);
        self.wake.signal();
        Ok(())
    }

    fn publish_file(
        &self,
        from: &Dir,
        name: MessageName,
        options: &DeliveryOptions,
        now: Timestamp,
    ) -> io::Result<Option<Handle<'_>>> {
        let (place, published) = Place::first(options, name, now);
        let moved = self.move_to(from, &name.encode(), &place, &published.encode())?;
        Ok(moved.map(|(target, _)| target))
    }

    /// Publishes what other processes wrote and staged, or finds that it is published already.
    ///
    /// With a database this is how all mail is published, so it looks first where that is: among what is
    /// staged. Each directory is synced once for all.
    fn publish_of_others<'a>(
        &'a self,
        ids: &[QueueId],
        now: Timestamp,
        touched: &mut Touched<'a>,
    ) -> Result<()> {
        let operation = "publish the message";
        let trouble = |error| Error::io(operation, error);
        let mut missing: HashSet<QueueId> = ids.iter().copied().collect();
        let found = self.find_staged(&missing).map_err(trouble)?;
        let mut unreadable = self.publish_found(found, now, &mut missing, touched)?;
        if !missing.is_empty() {
            let found = self.find(&missing).map_err(trouble)?;
            unreadable = unreadable.or(self.publish_found(found, now, &mut missing, touched)?);
        }
        if let Some(id) = self.any_discarded(&missing).map_err(trouble)? {
            let message = "it was given up as rolled back, and that is final";
            return Err(Error::new(ErrorKind::Aborted, operation, message).with("queue id", id));
        }
        self.sync_published(&missing, touched).map_err(|error| uncertain(operation, error))?;
        // What is published already need not be durable then: it is asked for again.
        unreadable.map_or(Ok(()), Err)
    }

    /// Publishes files, and strikes those from `missing` that need no further look. Returns what is wrong
    /// with one that cannot be read.
    fn publish_found<'a>(
        &'a self,
        all: Vec<Found<'a>>,
        now: Timestamp,
        missing: &mut HashSet<QueueId>,
        touched: &mut Touched<'a>,
    ) -> Result<Option<Error>> {
        let operation = "publish the message";
        let mut unreadable = None;
        for found in all {
            let id = found.name.id;
            let trouble = |error| Error::io(operation, error).with("queue id", id);
            if self.is_old_name(&found).map_err(trouble)? {
                // It is published already, and may not be synced yet.
                touched.add(found.dir);
                continue;
            }
            let Some(head) = found.head else {
                if found.dir.exists(&found.name.encode()).unwrap_or(true) {
                    // The others are not kept back by it.
                    let message = "its file cannot be read; it stays where it is";
                    let error = Error::new(ErrorKind::Damaged, operation, message);
                    let place = found.dir.path().display();
                    unreadable = Some(error.with("queue id", id).with("directory", place));
                    missing.remove(&id);
                }
                continue;
            };
            let fenced = || self.own_staged()?.exists(&fence_name(id));
            if head.resource == self.layout.resource && fenced().map_err(trouble)? {
                let message = "it was given up as rolled back, and that is final";
                return Err(Error::new(ErrorKind::Aborted, operation, message).with("queue id", id));
            }
            if !found.staged {
                // Whoever wrote it may have died before its sync.
                let file = found.dir.open_file(&found.name.encode(), false).map_err(trouble)?;
                // This process does not try that sync again.
                sync(&file).map_err(|error| {
                    lock(&self.doubtful).insert(id);
                    trouble(error)
                })?;
            }
            let options = head.envelope.options();
            let moved = self.publish_file(&found.dir, found.name, options, now).map_err(trouble)?;
            // Otherwise somebody else was faster, and may not have synced it yet.
            if let Some(target) = moved {
                missing.remove(&id);
                // In this order: a disk that keeps both names of a rename whose new one alone is synced
                // does not keep them then.
                touched.add(found.dir);
                touched.add(Rc::new(target));
            }
        }
        Ok(unreadable)
    }

    /// Makes what somebody else has published durable: whoever it was may have died before the sync.
    fn sync_published<'a>(
        &'a self,
        missing: &HashSet<QueueId>,
        touched: &mut Touched<'a>,
    ) -> io::Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        let waits = |id: &QueueId| self.layout.new.exists(&MessageName::new(*id).encode());
        for id in missing {
            if !waits(id)? {
                // It has gone on to a place that is not known.
                return self.layout.root.sync_all();
            }
        }
        touched.add(Rc::new(Handle::Lent(&self.layout.new)));
        for dir in self.staged_dirs()? {
            touched.add(Rc::new(Handle::Own(dir)));
        }
        Ok(())
    }

    /// One of these that was discarded as rolled back, if there is one.
    fn any_discarded(&self, ids: &HashSet<QueueId>) -> io::Result<Option<QueueId>> {
        if ids.is_empty() {
            return Ok(None);
        }
        for name in self.layout.discarded.names()? {
            let found = MessageName::decode(&name?.bytes).filter(|name| ids.contains(&name.id));
            if let Some(name) = found {
                return Ok(Some(name.id));
            }
        }
        Ok(None)
    }

    pub(crate) fn discard(&self, ids: &[QueueId], why: Discard) -> Result<Vec<MailEvent>> {
        let operation = "discard the message";
        let wanted: HashSet<QueueId> = ids.iter().copied().collect();
        let mut touched = Touched::default();
        let mut events = Vec::new();
        let decided = self.visible(ids)?;
        if let Some(id) = decided.first() {
            let message = "its transaction is committed; publish it";
            let error = Error::new(ErrorKind::InvalidState, operation, message);
            return Err(error.with("queue id", id));
        }
        for found in self.find(&wanted).map_err(|error| Error::io(operation, error))? {
            let (id, name) = (found.name.id, found.name.encode());
            let trouble = |error| Error::io(operation, error).with("queue id", id);
            if self.is_old_name(&found).map_err(trouble)? {
                touched.add(found.dir);
                continue;
            }
            // What was prepared is worth keeping. What is staged was; a power cut before that was answered
            // may have torn it.
            let keep = why == Discard::Fenced && (found.staged || found.head.is_some());
            let done = if keep {
                gone(found.dir.rename(&name, &self.layout.discarded, &name))
            } else {
                gone(found.dir.unlink(&name))
            };
            if done.map_err(trouble)? {
                continue;
            }
            if keep {
                let message_id = self.message_id_of_discarded(&name, id);
                let event = MailEvent::new(MailEventKind::Discarded, self.now());
                events.push(event.about(id, message_id.as_ref()).with_detail(
                    "its transaction was rolled back; the message is kept for some days",
                ));
                touched.add(Rc::new(Handle::Lent(&self.layout.discarded)));
            }
            touched.add(found.dir);
        }
        touched.sync().map_err(|error| Error::io(operation, error))?;
        self.log(&events).map_err(|error| Error::io(operation, error))?;
        let mut written = lock(&self.written);
        ids.iter().for_each(|id| drop(written.remove(id)));
        Ok(events)
    }

    fn message_id_of_discarded(
        &self,
        name: &[u8],
        id: QueueId,
    ) -> Option<sendmail_core::MessageId> {
        let content = self.layout.discarded.read(name, u64::MAX).ok()?;
        format::decode(content, id).ok().map(|file| file.message.message_id().clone())
    }
}

/// The directories that an operation changed: each is kept once, to be synced once.
#[derive(Default)]
struct Touched<'a> {
    dirs: Vec<Rc<Handle<'a>>>,
    staged: HashMap<ResourceId, Rc<Handle<'a>>>,
}

impl<'a> Touched<'a> {
    fn add(&mut self, dir: Rc<Handle<'a>>) {
        if !self.dirs.iter().any(|other| other.path() == dir.path()) {
            self.dirs.push(dir);
        }
    }

    /// The directory of staged messages for `resource`, opened when it is first asked for.
    fn find_staged(
        &mut self,
        resource: &ResourceId,
        open: impl FnOnce() -> io::Result<Dir>,
    ) -> io::Result<Rc<Handle<'a>>> {
        if let Some(dir) = self.staged.get(resource) {
            return Ok(dir.clone());
        }
        let dir = Rc::new(Handle::Own(open()?));
        self.staged.insert(resource.clone(), dir.clone());
        self.add(dir.clone());
        Ok(dir)
    }

    #[cfg_attr(test, track_caller)]
    fn sync(&self) -> io::Result<()> {
        for dir in &self.dirs {
            dir.sync()?;
        }
        Ok(())
    }
}
