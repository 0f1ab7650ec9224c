//! What an operator wants of a message that a worker has: left in a file, honoured when it is settled.

use std::io;

use sendmail_core::{MailEvent, MailEventKind, QueueId, Timestamp};

use crate::queue::{Queue, gone};

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

    /// Takes the wish about a message, if there is one.
    pub(crate) fn take_wish(&self, id: QueueId) -> io::Result<Option<Wish>> {
        let name = id.to_string().into_bytes();
        let word = match self.layout.wishes.read(&name, 64) {
            Ok(word) => word,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        gone(self.layout.wishes.unlink(&name))?;
        Ok(Wish::ALL.into_iter().find(|wish| wish.word().as_bytes() == word))
    }
}
