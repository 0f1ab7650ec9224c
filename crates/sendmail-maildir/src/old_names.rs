//! Old names of files that have gone on, which a crash may leave.
//!
//! A rename that was synced in its target alone may show both names after a crash (btrfs, when it replays
//! its log). Where both directories are synced the one that is left comes first, so that there never are
//! two. A message on its way to a decision pays for one sync only, so here an old name is found by the
//! count of names that the file has, and removed before it can do harm.
//!
//! Only another name within the queue counts: a backup may be made of links.

use std::io;

use sendmail_core::{EntryState, QueueId};

use crate::disk::{Dir, Stat, is_name_of};
use crate::name::MessageName;
use crate::queue::{Queue, gone};
use crate::undecided::Found;

impl Queue {
    /// Whether an undecided file has gone on under another name, and this is the old one: it is removed
    /// then, and its directory is for the caller to sync. Otherwise it has no older name when this
    /// returns.
    pub(crate) fn is_old_name(&self, found: &Found<'_>) -> io::Result<bool> {
        let name = found.name.encode();
        let Some(stat) = stat_of_several(&found.dir, &name)? else { return Ok(false) };
        if found.staged {
            if is_name_of(&self.layout.tmp, &name, &stat)? {
                self.remove_durably(&self.layout.tmp, &name)?;
            }
        } else {
            for dir in self.staged_dirs()? {
                if is_name_of(&dir, &name, &stat)? {
                    return gone(found.dir.unlink(&name)).map(|_| true);
                }
            }
        }
        let Some(stat) = stat_of_several(&found.dir, &name)? else { return Ok(false) };
        // Twice: one that moves while it is looked for may be missed.
        let id = found.name.id;
        if self.is_further_on(id, &stat)? || self.is_further_on(id, &stat)? {
            return gone(found.dir.unlink(&name)).map(|_| true);
        }
        Ok(false)
    }

    /// Removes the names that a published file has left on its way, durably: once it is sent and gone,
    /// nothing would tell that they are old.
    pub(crate) fn forget_old_names(&self, dir: &Dir, file: &[u8], id: QueueId) -> io::Result<()> {
        let Some(stat) = stat_of_several(dir, file)? else { return Ok(()) };
        self.forget_in(&self.layout.tmp, id, &stat)?;
        self.staged_dirs()?.iter().try_for_each(|dir| self.forget_in(dir, id, &stat))
    }

    /// Removes the names that a claimed file had before it was claimed, durably. A name that it has since
    /// then counts another attempt, or is the one that it gets once more.
    pub(crate) fn forget_names_before_claim(
        &self,
        dir: &Dir,
        file: &[u8],
        claimed: MessageName,
    ) -> io::Result<()> {
        let Some(stat) = stat_of_several(dir, file)? else { return Ok(()) };
        self.forget_old_names(dir, file, claimed.id)?;
        let count = |name: MessageName| (name.id, name.attempts, name.kills);
        let is_older = |name: &[u8]| match MessageName::decode(name) {
            Some(name) => count(name) == count(claimed),
            None => claimed.foreign,
        };
        for state in [EntryState::Queued, EntryState::Deferred] {
            for dir in self.directories(state)? {
                if let Some(name) = find_name(&dir, is_older, &stat)? {
                    self.remove_durably(&dir, &name)?;
                }
            }
        }
        Ok(())
    }

    /// Whether a file that waits was claimed already, by one who died since: what is to become of it is
    /// for the takeover to say.
    pub(crate) fn is_claimed_too(&self, dir: &Dir, file: &[u8], id: QueueId) -> io::Result<bool> {
        let Some(stat) = stat_of_several(dir, file)? else { return Ok(false) };
        for dir in self.directories(EntryState::Claimed)? {
            if name_in(&dir, id, &stat)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn forget_in(&self, dir: &Dir, id: QueueId, stat: &Stat) -> io::Result<()> {
        match name_in(dir, id, stat)? {
            Some(name) => self.remove_durably(dir, &name),
            None => Ok(()),
        }
    }

    fn remove_durably(&self, dir: &Dir, name: &[u8]) -> io::Result<()> {
        gone(dir.unlink(name))?;
        dir.sync()
    }

    /// Whether the file has a name where messages are whose fate was decided.
    fn is_further_on(&self, id: QueueId, stat: &Stat) -> io::Result<bool> {
        for state in EntryState::ALL.into_iter().filter(|state| *state != EntryState::Staged) {
            for dir in self.directories(state)? {
                if name_in(&dir, id, stat)?.is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }
}

/// What the file is, if it is there and has more than one name.
fn stat_of_several(dir: &Dir, name: &[u8]) -> io::Result<Option<Stat>> {
    match dir.stat(name) {
        Ok(stat) => Ok((stat.st_nlink > 1).then_some(stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The name in `dir` by which the message leads to that file.
fn name_in(dir: &Dir, id: QueueId, stat: &Stat) -> io::Result<Option<Vec<u8>>> {
    let is_its = |name: &[u8]| MessageName::decode(name).is_some_and(|decoded| decoded.id == id);
    find_name(dir, is_its, stat)
}

/// The name in `dir` that is of that kind and leads to that file.
fn find_name(
    dir: &Dir,
    is_wanted: impl Fn(&[u8]) -> bool,
    stat: &Stat,
) -> io::Result<Option<Vec<u8>>> {
    for name in dir.names()? {
        let name = name?.bytes;
        if is_wanted(&name) && is_name_of(dir, &name, stat)? {
            return Ok(Some(name));
        }
    }
    Ok(None)
}
