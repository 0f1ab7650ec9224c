//! The content of a message that this process wrote: it is synced once, by whoever needs it durable.

use std::fs::File;
use std::io;
use std::sync::Arc;

use crate::disk;
use crate::queue::lock;
use crate::sync::Mutex;

/// What is known of a file's content.
#[derive(Debug)]
enum State {
    /// Held open: so nobody else's sync takes an error away, and the kernel keeps what it knows of the
    /// file until this one has asked.
    Unsynced {
        file: File,
        _counted: Open,
    },
    Durable,
    /// Its sync failed. A second one may say that all is well when it is not.
    Lost,
}

/// The content of one message.
#[derive(Debug, Clone)]
pub(crate) struct Content(Arc<Mutex<State>>);

/// Counts the files that are held open.
#[derive(Debug, Clone, Default)]
pub(crate) struct Open(Arc<()>);

impl Open {
    pub(crate) fn count(&self) -> usize {
        Arc::strong_count(&self.0) - 1
    }
}

impl Content {
    /// Content that was written and not synced.
    pub(crate) fn unsynced(file: File, open: &Open) -> Self {
        Self(Arc::new(Mutex::new(State::Unsynced { file, _counted: open.clone() })))
    }

    /// Whether its sync has failed.
    pub(crate) fn is_lost(&self) -> bool {
        matches!(*lock(&self.0), State::Lost)
    }

    /// Returns when it is durable. Once that has failed it fails for good.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn sync(&self) -> io::Result<()> {
        let mut state = lock(&self.0);
        match &*state {
            State::Durable => Ok(()),
            State::Lost => {
                Err(io::Error::other("it could not be synced before; hand it over anew"))
            }
            State::Unsynced { file, .. } => {
                let result = disk::sync(file);
                *state = if result.is_ok() { State::Durable } else { State::Lost };
                result
            }
        }
    }
}
