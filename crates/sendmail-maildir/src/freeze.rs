//! The frozen queue: a file says that nobody claims or decides until an operator thaws it.
//!
//! It has no content, so that a full disk does not keep anybody from making it, and its name is in the
//! queue's root, so that it goes along with a copy of the queue. A directory of that name is a mail
//! reader's folder and means nothing.

use std::io;

use rustix::fs::FileType;
use sendmail_core::{Error, Result};

use crate::queue::{Queue, gone};

/// There while the queue is frozen.
const FROZEN: &[u8] = b".frozen";

impl Queue {
    pub(crate) fn is_frozen(&self) -> Result<bool> {
        self.has_frozen().map_err(|error| Error::io("find out whether the queue is frozen", error))
    }

    pub(crate) fn has_frozen(&self) -> io::Result<bool> {
        match self.layout.root.stat(FROZEN) {
            Ok(stat) => Ok(FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn set_frozen(&self, frozen: bool) -> Result<bool> {
        let set = || if frozen { self.freeze() } else { self.thaw() };
        let operation = if frozen { "freeze the queue" } else { "thaw the queue" };
        set().map_err(|error| Error::io(operation, error))
    }

    fn freeze(&self) -> io::Result<bool> {
        let root = &self.layout.root;
        let made = self.with_reserve(|| match root.create(FROZEN) {
            // There is nothing in it to be synced; its name is, below.
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error),
        })?;
        if !made && !self.has_frozen()? {
            return Err(io::Error::other("`.frozen` is no file; rename what has taken its name"));
        }
        // Also where somebody else has made it, who may not have synced it yet.
        root.sync()?;
        Ok(made)
    }

    fn thaw(&self) -> io::Result<bool> {
        let root = &self.layout.root;
        let thawed = self.has_frozen()? && !gone(root.unlink(FROZEN))?;
        root.sync()?;
        self.wake.signal();
        Ok(thawed)
    }
}
