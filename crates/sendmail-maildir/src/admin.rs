//! The operator's side: looking at the queue and moving what no worker has.

use std::io;
use std::ops::ControlFlow;

use sendmail_core::{
    AdminOutcome, Cursor, Entry, EntryDetail, EntryState, Error, ErrorKind, Filter, MailEvent,
    MailEventKind, QueueId, Result, StateCount, Statistics, Timestamp,
};

use crate::disk::{Dir, Kind};
use crate::foreign;
use crate::journal::log;
use crate::name::MessageName;
use crate::queue::{Handle, Place, Queue, gone};
use crate::reading::{Misfit, written_at};
use crate::scan::{due_folders, lanes};
use crate::undecided::read_head;
use crate::wishes::Wish;

/// Shown an entry; says whether to go on.
pub(crate) type Visit<'a> = &'a mut dyn FnMut(Entry) -> ControlFlow<()>;
/// Shown a file of a directory; says whether to go on.
type Each<'a> = &'a mut dyn FnMut(&Dir, &[u8], Kind) -> io::Result<ControlFlow<()>>;

/// A message in a place where an operator may find it.
pub(crate) struct Located<'a> {
    dir: Handle<'a>,
    file: Vec<u8>,
    name: MessageName,
    pub(crate) state: EntryState,
}

impl Queue {
    pub(crate) fn list(&self, filter: &Filter, visit: Visit<'_>) -> Result<()> {
        let wanted = |state: &EntryState| match filter.states.as_slice() {
            [] => *state != EntryState::Discarded,
            states => states.contains(state),
        };
        for state in EntryState::ALL.into_iter().filter(wanted) {
            let mut each = |dir: &Dir, file: &[u8], kind: Kind| -> io::Result<ControlFlow<()>> {
                match self.entry(dir, file, kind, state) {
                    Some(entry) if filter.matches(&entry) => Ok(visit(entry)),
                    _ => Ok(ControlFlow::Continue(())),
                }
            };
            let flow = self.for_each_file(state, &mut each);
            if flow.map_err(|error| Error::io("list the queue", error))?.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Calls `each` for every name in the directories of a state.
    pub(crate) fn for_each_file(
        &self,
        state: EntryState,
        each: Each<'_>,
    ) -> io::Result<ControlFlow<()>> {
        for dir in self.directories(state)? {
            for name in dir.names()? {
                let name = name?;
                if name.bytes.starts_with(b".") {
                    continue;
                }
                if each(&dir, &name.bytes, name.kind)?.is_break() {
                    return Ok(ControlFlow::Break(()));
                }
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The directories in which messages of a state are.
    pub(crate) fn directories(&self, state: EntryState) -> io::Result<Vec<Handle<'_>>> {
        let layout = &self.layout;
        let below = |parent: &Dir, names: Vec<String>| -> io::Result<Vec<Handle<'_>>> {
            let mut dirs = Vec::new();
            for name in names {
                dirs.extend(parent.open_dir(&name)?.map(Handle::Own));
            }
            Ok(dirs)
        };
        let children = |parent: &Dir| -> io::Result<Vec<String>> {
            let mut names = Vec::new();
            for name in parent.names()? {
                let name = name?;
                if matches!(name.kind, Kind::Directory | Kind::Unknown) {
                    names.extend(String::from_utf8(name.bytes));
                }
            }
            Ok(names)
        };
        let mut dirs = match state {
            EntryState::Queued => vec![Handle::Lent(&layout.new), Handle::Lent(&layout.cur)],
            EntryState::Held => vec![Handle::Lent(&layout.held)],
            EntryState::Failed => {
                vec![Handle::Lent(&layout.failed_new), Handle::Lent(&layout.failed_cur)]
            }
            EntryState::Discarded => vec![Handle::Lent(&layout.discarded)],
            EntryState::Staged | EntryState::Claimed | EntryState::Deferred => Vec::new(),
        };
        dirs.extend(match state {
            EntryState::Queued => below(&layout.lanes, lanes(layout)?)?,
            EntryState::Deferred => below(&layout.deferred, due_folders(layout)?)?,
            EntryState::Staged => below(&layout.staged, children(&layout.staged)?)?,
            EntryState::Claimed => below(&layout.claimed, children(&layout.claimed)?)?,
            EntryState::Held | EntryState::Failed | EntryState::Discarded => Vec::new(),
        });
        Ok(dirs)
    }

    /// An entry as it is listed; nothing for what is no message.
    fn entry(&self, dir: &Dir, file: &[u8], kind: Kind, state: EntryState) -> Option<Entry> {
        if !matches!(kind, Kind::File | Kind::Unknown) {
            self.set_aside(dir, file, "it is not a regular file");
            return None;
        }
        let name = match MessageName::decode(file) {
            Some(name) => name,
            None if state == EntryState::Queued => {
                let content = match dir.read(file, self.options.max_message_len as u64) {
                    Ok(content) => content,
                    Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
                    Err(error) => {
                        self.set_aside(dir, file, &error.to_string());
                        return None;
                    }
                };
                MessageName { foreign: true, ..MessageName::new(foreign::id(file, &content)) }
            }
            None => return None,
        };
        let mut entry = Entry::new(name.id, state);
        entry.attempts = name.attempts;
        entry.next_attempt = match state {
            EntryState::Deferred => name.due.map(|due| due.at),
            EntryState::Queued => Some(name.due.map_or(Timestamp::EPOCH, |due| due.at)),
            _ => None,
        };
        entry.size = dir.stat(file).ok().and_then(|stat| u64::try_from(stat.st_size).ok())?;
        if matches!(state, EntryState::Staged | EntryState::Discarded) {
            entry.resource = read_head(dir, file).map(|head| head.resource);
        }
        match self.read_message(dir, file, name) {
            Ok(content) => {
                let loaded = content.loaded;
                entry.message_id = Some(loaded.message.message_id().clone());
                entry.reverse_path = loaded.envelope.reverse_path().clone();
                entry.recipients = loaded.envelope.recipients().to_vec();
                entry.queued_at = loaded.queued_at;
                entry.size = loaded.message.as_bytes().len() as u64;
            }
            Err(misfit) => {
                let why = match misfit {
                    Misfit::Gone => return None,
                    Misfit::Stays(why) | Misfit::Unreadable(why) | Misfit::Damaged(why) => why,
                    Misfit::Trouble(error) => error.to_string(),
                };
                // What is damaged in the failed mail was reported when it was put there.
                if state != EntryState::Failed {
                    self.set_aside(dir, file, &why);
                }
                // A foreign name without an envelope is no message at all.
                MessageName::decode(file)?;
                entry.queued_at = written_at(dir, file);
            }
        }
        if entry.next_attempt == Some(Timestamp::EPOCH) {
            entry.next_attempt = Some(entry.queued_at);
        }
        Some(entry)
    }

    /// Where a message of the queue is. Looks first where most are, then through all names.
    ///
    /// One that moves from where is still to be looked to where was looked already is missed. So what is
    /// not found is looked for once more: to be missed again it would have to move again just so.
    pub(crate) fn locate(&self, id: QueueId) -> io::Result<Option<Located<'_>>> {
        match self.locate_once(id)? {
            None => self.locate_once(id),
            found => Ok(found),
        }
    }

    fn locate_once(&self, id: QueueId) -> io::Result<Option<Located<'_>>> {
        let likely = MessageName::new(id);
        let file = likely.encode();
        if self.layout.new.exists(&file)? {
            let dir = Handle::Lent(&self.layout.new);
            return Ok(Some(Located { dir, file, name: likely, state: EntryState::Queued }));
        }
        for state in EntryState::ALL.into_iter().filter(|state| *state != EntryState::Discarded) {
            for dir in self.directories(state)? {
                for name in dir.names()? {
                    let file = name?.bytes;
                    let decoded = MessageName::decode(&file).or_else(|| {
                        let content = (state == EntryState::Queued && !file.starts_with(b"."))
                            .then(|| {
                            dir.read(&file, self.options.max_message_len as u64).ok()
                        })??;
                        Some(MessageName::new(foreign::id(&file, &content)))
                    });
                    if let Some(name) = decoded.filter(|name| name.id == id) {
                        return Ok(Some(Located { dir, file, name, state }));
                    }
                }
            }
        }
        Ok(None)
    }

    /// Where a message that was thrown away as rolled back is kept.
    fn locate_discarded(&self, id: QueueId) -> io::Result<Option<Located<'_>>> {
        for name in self.layout.discarded.names()? {
            let file = name?.bytes;
            if let Some(name) = MessageName::decode(&file).filter(|name| name.id == id) {
                let dir = Handle::Lent(&self.layout.discarded);
                return Ok(Some(Located { dir, file, name, state: EntryState::Discarded }));
            }
        }
        Ok(None)
    }

    /// What is logged about a message, oldest first.
    fn history(&self, id: QueueId) -> Result<Vec<MailEvent>> {
        let mut found = Vec::new();
        let mut cursor: Option<Cursor> = None;
        loop {
            let page = log::read(&self.layout.journal, cursor.as_ref(), 1000)?;
            let Some((last, _)) = page.events.last() else { return Ok(found) };
            cursor = Some(last.clone());
            let about = |event: &MailEvent| event.queue_id == Some(id);
            found.extend(page.events.into_iter().map(|(_, event)| event).filter(about));
        }
    }

    pub(crate) fn show(&self, id: QueueId) -> Result<EntryDetail> {
        let operation = "show the message";
        let trouble = |error| Error::io(operation, error).with("queue id", id);
        let located = match self.locate(id).map_err(trouble)? {
            None => self.locate_discarded(id).map_err(trouble)?,
            some => some,
        };
        let history = self.history(id)?;
        let Some(Located { dir, file, name, state }) = located else {
            if history.is_empty() {
                let message = "neither the queue nor its history knows it";
                return Err(
                    Error::new(ErrorKind::NotFound, operation, message).with("queue id", id)
                );
            }
            return Ok(EntryDetail { entry: None, content: None, history });
        };
        let entry = self.entry(&dir, &file, Kind::File, state);
        let content = self.read_message(&dir, &file, name).ok();
        let content = content.map(|content| content.loaded.message.as_bytes().to_vec());
        Ok(EntryDetail { entry, content, history })
    }

    /// Does what an operator wants of one message.
    pub(crate) fn act(&self, id: QueueId, wish: Wish, from: &[EntryState]) -> Result<AdminOutcome> {
        let operation = match wish {
            Wish::Hold => "hold the message",
            Wish::Retry => "make the message due",
            Wish::Remove => "remove the message",
        };
        let act = || self.act_once(id, wish, from);
        act().map_err(|error| Error::io(operation, error).with("queue id", id))
    }

    fn act_once(&self, id: QueueId, wish: Wish, from: &[EntryState]) -> io::Result<AdminOutcome> {
        // A message that moves while it is looked for is looked for again.
        for _ in 0..8 {
            let Some(Located { dir, file, name, state }) = self.locate(id)? else {
                return Ok(AdminOutcome::NotFound);
            };
            if state == EntryState::Claimed {
                self.leave_wish(id, wish)?;
                // It may have been settled in between; then there is nobody to honour the wish.
                if dir.exists(&file)? {
                    return Ok(AdminOutcome::Claimed);
                }
                // Or the worker saw it in time, and has honoured it.
                if !self.take_wish(id)? {
                    return Ok(AdminOutcome::Claimed);
                }
                continue;
            }
            if !from.contains(&state) {
                return Ok(AdminOutcome::Unchanged);
            }
            let done = match wish {
                Wish::Remove => !gone(dir.unlink(&file))? && dir.sync().map(|()| true)?,
                Wish::Hold => self.file_again(&dir, &file, &Place::Held, name)?,
                Wish::Retry => {
                    let options =
                        read_head(&dir, &file).map(|head| head.envelope.options().clone());
                    let place = options.map_or(Place::New, |options| Place::lane(&options));
                    self.file_again(&dir, &file, &place, name)?
                }
            };
            if done {
                let event = wish.event(self.now(), id);
                self.log(std::slice::from_ref(&event))?;
                self.wake.signal();
                return Ok(AdminOutcome::Done(Box::new(event)));
            }
        }
        Err(io::Error::other("it keeps moving; try again"))
    }

    /// Queues a discarded message, due at once.
    pub(crate) fn put_back(&self, id: QueueId) -> Result<AdminOutcome> {
        let operation = "put the message back";
        let trouble = |error| Error::io(operation, error).with("queue id", id);
        let Some(Located { dir, file, name, .. }) = self.locate_discarded(id).map_err(trouble)?
        else {
            let found = self.locate(id).map_err(trouble)?;
            return Ok(found.map_or(AdminOutcome::NotFound, |_| AdminOutcome::Unchanged));
        };
        // A copy that a restored backup brought along: what was published is not sent once more.
        if !self.known(&[id])?.is_empty() {
            return Ok(AdminOutcome::Unchanged);
        }
        let put_back = || -> io::Result<Option<MailEvent>> {
            let options = read_head(&dir, &file).map(|head| head.envelope.options().clone());
            let place = options.map_or(Place::New, |options| Place::lane(&options));
            if !self.file_again(&dir, &file, &place, name)? {
                return Ok(None);
            }
            let event = MailEvent::new(MailEventKind::Released, self.now()).about(id, None);
            let event = event.with_detail("put back by an operator after it had been discarded");
            self.log(std::slice::from_ref(&event))?;
            self.wake.signal();
            Ok(Some(event))
        };
        let event = put_back().map_err(trouble)?;
        Ok(event.map_or(AdminOutcome::Unchanged, |event| AdminOutcome::Done(Box::new(event))))
    }

    /// Moves a message to another place, durably; false if it was gone.
    fn file_again(
        &self,
        dir: &Dir,
        file: &[u8],
        place: &Place,
        name: MessageName,
    ) -> io::Result<bool> {
        // Another program's file keeps its own name: its id is made from it.
        let mut to = match MessageName::decode(file) {
            Some(_) => name.published(),
            None => MessageName { foreign: true, ..name },
        };
        if *place != Place::Held {
            // Whoever lets it go again has looked into why its workers died.
            to.kills = 0;
        }
        let to = to.encode();
        let Some((target, _)) = self.move_to(dir, file, place, &to)? else { return Ok(false) };
        // In this order: what has two names after a crash may be sent twice.
        dir.sync()?;
        target.sync()?;
        Ok(true)
    }

    pub(crate) fn statistics(&self) -> Result<Statistics> {
        let now = self.now();
        let mut statistics = Statistics::default();
        for state in EntryState::ALL {
            let mut count = 0;
            let mut oldest: Option<Timestamp> = None;
            let mut each = |dir: &Dir, file: &[u8], kind: Kind| {
                if !matches!(kind, Kind::File | Kind::Unknown) {
                    self.set_aside(dir, file, "it is not a regular file");
                    return Ok(ControlFlow::Continue(()));
                }
                let at = match MessageName::decode(file) {
                    Some(name) if !name.foreign => {
                        name.id.minted_at().unwrap_or_else(|| written_at(dir, file))
                    }
                    // Claimed once, so it was a message.
                    Some(_) => written_at(dir, file),
                    // Only its content tells whether another program's file is one.
                    None if state == EntryState::Queued => match self.entry(dir, file, kind, state)
                    {
                        Some(entry) => entry.queued_at,
                        None => return Ok(ControlFlow::Continue(())),
                    },
                    None => return Ok(ControlFlow::Continue(())),
                };
                count += 1;
                oldest = Some(oldest.map_or(at, |oldest| oldest.min(at)));
                Ok(ControlFlow::Continue(()))
            };
            let _all = self
                .for_each_file(state, &mut each)
                .map_err(|error| Error::io("count the queue", error))?;
            let oldest = oldest.map(|at| now.saturating_since(at));
            statistics.states.push(StateCount { state, count, oldest });
        }
        statistics.frozen = self.is_frozen()?;
        statistics.set_aside = self.take_set_aside();
        Ok(statistics)
    }
}
