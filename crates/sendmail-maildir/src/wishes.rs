//! What an operator wants of a message that a worker has: left in a file, honoured when it is settled.

use std::io;

use sendmail_core::{MailEvent, MailEventKind, QueueId, Timestamp};

use crate::disk::Dir;
use crate::queue::{Place, Queue, gone};
use crate::settle::Moved;

/// What is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wish {
    Hold,
    Retry,
    Remove,
}

impl Wish {
    const ALL: [Self; 3] = [Self::Hold, Self::Retry, Self::Remove];

    fn word(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Retry => "retry",
            Self::Remove => "remove",
        }
    }

    /// The event that says that it was done.
    pub(crate) fn event(self, now: Timestamp, id: QueueId) -> MailEvent {
        let kind = match self {
            Self::Hold => MailEventKind::Held,
            Self::Retry => MailEventKind::Released,
            Self::Remove => MailEventKind::Removed,
        };
        MailEvent::new(kind, now).about(id, None).with_detail("by an operator")
    }
}

impl Queue {
    /// Leaves a wish; a later one about the same message takes the place of an earlier one.
    pub(crate) fn leave_wish(&self, id: QueueId, wish: Wish) -> io::Result<()> {
        let name = format!("{id}");
        let temporary = format!(".new-{}-{id}", self.owner.id).into_bytes();
        let wishes = &self.layout.wishes;
        gone(wishes.unlink(&temporary))?;
        wishes.write_synced(&temporary, &[wish.word().as_bytes()])?;
        wishes.rename(&temporary, wishes, name.as_bytes())?;
        wishes.sync()
    }

    /// The wish about a message, if there is one.
    pub(crate) fn wish(&self, id: QueueId) -> io::Result<Option<Wish>> {
        match self.layout.wishes.read(&file(id), 64) {
            Ok(word) => Ok(Wish::ALL.into_iter().find(|wish| wish.word().as_bytes() == word)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes back a wish that nobody has honoured; false if somebody has.
    pub(crate) fn take_wish(&self, id: QueueId) -> io::Result<bool> {
        gone(self.layout.wishes.unlink(&file(id))).map(|gone| !gone)
    }

    /// Removes a wish that was honoured. If that fails it is honoured again, or goes with time.
    pub(crate) fn clear_wish(&self, id: QueueId, left: &Dir, honoured: bool) {
        // What honours it must be durable first: that it has left, and then where it is.
        let keep = || -> io::Result<()> {
            left.sync()?;
            self.layout.held.sync()
        };
        if honoured && keep().is_ok() {
            let _ = self.take_wish(id);
        }
    }

    /// Honours a wish that was left after it was looked for and before the file went where it is now:
    /// whoever left it saw the message claimed, and counts on the worker. What cannot be done is left
    /// to the next who settles the message.
    pub(crate) fn honour_late_wish(&self, id: QueueId, moved: &Moved<'_>) -> Vec<MailEvent> {
        let Ok(Some(wish)) = self.wish(id) else { return Vec::new() };
        let (dir, file) = (&moved.dir, moved.name.encode());
        let place = match wish {
            Wish::Remove => None,
            // As if the wish had come later still: what is held already stays as it is.
            Wish::Hold | Wish::Retry if moved.held => {
                self.clear_wish(id, dir, true);
                return Vec::new();
            }
            Wish::Hold => Some(Place::Held),
            Wish::Retry => Some(Place::lane(&moved.options)),
        };
        let done = match place {
            None => gone(dir.unlink(&file)).map(|gone| !gone),
            Some(place) => self
                .move_to(dir, &file, &place, &moved.name.published().encode())
                .map(|moved| moved.is_some()),
        };
        if !done.unwrap_or(false) {
            return Vec::new();
        }
        self.clear_wish(id, dir, true);
        let events = match wish {
            Wish::Retry => Vec::new(),
            Wish::Hold | Wish::Remove => vec![wish.event(self.now(), id)],
        };
        // It is done; only the history lacks it if this fails.
        let _ = self.log(&events);
        events
    }
}

fn file(id: QueueId) -> Vec<u8> {
    id.to_string().into_bytes()
}
