//! What is written or staged and waits for a decision: listing it, and finding some of it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::rc::Rc;

use sendmail_core::{Error, QueueId, ResourceId, Result, Undecided};

use crate::disk::{Dir, Kind};
use crate::format::{self, Head, MAX_HEAD};
use crate::name::{MessageName, OwnerId};
use crate::owner;
use crate::queue::{Handle, Queue, lock};
use crate::reading::written_at;

/// An undecided file: where it is, and what is known of it.
pub(crate) struct Found<'a> {
    pub(crate) dir: Rc<Handle<'a>>,
    pub(crate) name: MessageName,
    /// What its head says; nothing if that cannot be read.
    pub(crate) head: Option<Head>,
    pub(crate) staged: bool,
}

impl Queue {
    /// All that is written or staged. Called often: what the directory and the name tell is not read from
    /// the file.
    pub(crate) fn undecided(&self) -> Result<Vec<Undecided>> {
        let operation = "list undecided messages";
        let trouble = |error| Error::io(operation, error);
        let mut alive = HashMap::from([(self.owner.id, self.owner.is_held())]);
        let mut list = Vec::new();
        let mut add =
            |dir: &Dir, name: MessageName, owner: OwnerId, staged_for: Option<&ResourceId>| {
                let resource = match staged_for {
                    Some(resource) => resource.clone(),
                    None => match self.resource_of_written(dir, name) {
                        Some(resource) => resource,
                        // It is still being written, or was never whole.
                        None => return Ok(()),
                    },
                };
                let owner_alive = match alive.get(&owner) {
                    Some(alive) => *alive,
                    None => {
                        let answer = owner::is_alive(&self.layout.owners, owner)?;
                        alive.insert(owner, answer);
                        answer
                    }
                };
                let (id, staged) = (name.id, staged_for.is_some());
                let since = id.minted_at().unwrap_or_else(|| written_at(dir, &name.encode()));
                list.push(Undecided { id, resource, staged, since, owner_alive });
                Ok(())
            };
        // In this order: what is staged meanwhile is seen in one of the two.
        for_each_owned(&self.layout.tmp, &mut |name, owner| {
            add(&self.layout.tmp, name, owner, None)
        })
        .map_err(trouble)?;
        for dir in self.staged_dirs().map_err(trouble)? {
            let name = dir.path().file_name().and_then(|name| name.to_str());
            // What else has come there is nobody's to decide.
            let Some(resource) = name.and_then(|name| name.parse::<ResourceId>().ok()) else {
                continue;
            };
            for_each_owned(&dir, &mut |name, owner| add(&dir, name, owner, Some(&resource)))
                .map_err(trouble)?;
        }
        let written: HashSet<QueueId> =
            list.iter().filter(|entry| !entry.staged).map(|entry| entry.id).collect();
        lock(&self.resources).retain(|id, _| written.contains(id));
        // Listed in both places because it was staged in between.
        let staged: HashSet<QueueId> =
            list.iter().filter(|entry| entry.staged).map(|entry| entry.id).collect();
        list.retain(|entry| entry.staged || !staged.contains(&entry.id));
        Ok(list)
    }

    /// Who decides about a message that is only written: its head tells, which is read once.
    fn resource_of_written(&self, dir: &Dir, name: MessageName) -> Option<ResourceId> {
        if let Some(written) = lock(&self.written).get(&name.id) {
            return Some(written.resource.clone());
        }
        if let Some(resource) = lock(&self.resources).get(&name.id) {
            return Some(resource.clone());
        }
        let resource = read_head(dir, &name.encode())?.resource;
        lock(&self.resources).insert(name.id, resource.clone());
        Some(resource)
    }

    /// The directories of staged messages.
    pub(crate) fn staged_dirs(&self) -> io::Result<Vec<Dir>> {
        let mut dirs = Vec::new();
        for resource in self.layout.staged.names()? {
            let resource = resource?;
            let Ok(name) = String::from_utf8(resource.bytes) else { continue };
            if matches!(resource.kind, Kind::Directory | Kind::Unknown) {
                dirs.extend(self.layout.staged.open_dir(&name)?);
            }
        }
        Ok(dirs)
    }

    /// The undecided files of the messages that are wanted, staged or only written.
    pub(crate) fn find<'a>(&'a self, wanted: &HashSet<QueueId>) -> io::Result<Vec<Found<'a>>> {
        let mut found = Vec::new();
        // In this order: what is staged meanwhile is seen in one of the two.
        find_in(Handle::Lent(&self.layout.tmp), false, wanted, &mut found)?;
        found.extend(self.find_staged(wanted)?);
        Ok(found)
    }

    /// Those of them that are staged.
    pub(crate) fn find_staged<'a>(
        &'a self,
        wanted: &HashSet<QueueId>,
    ) -> io::Result<Vec<Found<'a>>> {
        let mut found = Vec::new();
        for dir in self.staged_dirs()? {
            find_in(Handle::Own(dir), true, wanted, &mut found)?;
        }
        Ok(found)
    }
}

/// Calls `each` for the files in `dir` that somebody has written and that are not published.
fn for_each_owned(
    dir: &Dir,
    each: &mut dyn FnMut(MessageName, OwnerId) -> io::Result<()>,
) -> io::Result<()> {
    for name in dir.names()? {
        let name = MessageName::decode(&name?.bytes);
        if let Some((name, owner)) = name.and_then(|name| Some((name, name.owner?))) {
            each(name, owner)?;
        }
    }
    Ok(())
}

fn find_in<'a>(
    dir: Handle<'a>,
    staged: bool,
    wanted: &HashSet<QueueId>,
    found: &mut Vec<Found<'a>>,
) -> io::Result<()> {
    let dir = Rc::new(dir);
    for_each_owned(&dir, &mut |name, _| {
        if wanted.contains(&name.id) {
            let head = read_head(&dir, &name.encode());
            found.push(Found { dir: dir.clone(), name, head, staged });
        }
        Ok(())
    })
}

/// What a queue file's head says; nothing if it cannot be read.
pub(crate) fn read_head(dir: &Dir, name: &[u8]) -> Option<Head> {
    let start = dir.read(name, 16 << 10).ok()?;
    format::decode_head(&start).ok().or_else(|| {
        let longer = dir.read(name, MAX_HEAD as u64).ok()?;
        format::decode_head(&longer).ok()
    })
}
