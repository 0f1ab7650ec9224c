//! What a transaction has been handed and has not sent: the part that queued and direct mail share.

use sendmail_core::{Envelope, Error, ErrorKind, Message, QueueId, Result, SavepointMark};

/// One message that was handed over.
pub(crate) struct Outgoing {
    pub(crate) id: QueueId,
    pub(crate) envelope: Envelope,
    pub(crate) message: Message,
}

/// Messages in the order of their hand-over, with savepoints.
#[derive(Default)]
pub(crate) struct Outbox {
    items: Vec<Outgoing>,
    /// Invariant: marks rise, and so do lengths, none of which is over `items.len()`.
    savepoints: Vec<(SavepointMark, usize)>,
    next_mark: u64,
}

impl Outbox {
    pub(crate) fn push(&mut self, item: Outgoing) {
        self.items.push(item);
    }

    pub(crate) fn items(&self) -> &[Outgoing] {
        &self.items
    }

    pub(crate) fn ids(&self) -> Vec<QueueId> {
        self.items.iter().map(|item| item.id).collect()
    }

    pub(crate) fn recipients(&self) -> usize {
        self.items.iter().map(|item| item.envelope.recipients().len()).sum()
    }

    /// Takes everything out.
    pub(crate) fn take(&mut self) -> Vec<Outgoing> {
        self.savepoints.clear();
        std::mem::take(&mut self.items)
    }

    pub(crate) fn savepoint(&mut self) -> SavepointMark {
        let mark = SavepointMark(self.next_mark);
        self.next_mark += 1;
        self.savepoints.push((mark, self.items.len()));
        mark
    }

    pub(crate) fn rollback_to(&mut self, mark: SavepointMark) -> Result<()> {
        let mut savepoints = self.savepoints.iter().enumerate();
        let found = savepoints.find(|(_, (other, _))| *other == mark);
        let Some((position, &(_, length))) = found else {
            let message = "there is no such savepoint, or it is void";
            return Err(Error::new(ErrorKind::InvalidState, "roll back to the savepoint", message));
        };
        self.items.truncate(length);
        self.savepoints.truncate(position + 1);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use sendmail_core::Timestamp;

    fn outgoing() -> Outgoing {
        let id = QueueId::mint(Timestamp::EPOCH);
        let message = Message::from_raw(b"\n", Timestamp::EPOCH, "example.org").unwrap();
        Outgoing { id, envelope: Envelope::parse("a@b", ["c@d"]).unwrap(), message }
    }

    #[test]
    fn it_counts_every_recipient_and_is_empty_once_all_was_taken_out() {
        let mut outbox = Outbox::default();
        assert_eq!(outbox.recipients(), 0);
        let (one, mut three) = (outgoing(), outgoing());
        three.envelope = Envelope::parse("a@b", ["c@d", "e@d", "f@d"]).unwrap();
        let ids = [one.id, three.id];
        outbox.push(one);
        let mark = outbox.savepoint();
        outbox.push(three);
        assert_eq!((outbox.recipients(), outbox.ids()), (4, ids.to_vec()));
        outbox.take();
        assert_eq!((outbox.recipients(), outbox.items().len()), (0, 0));
        assert!(outbox.rollback_to(mark).is_err(), "its savepoints went with it");
    }

    #[test]
    fn a_rollback_voids_later_marks_and_no_others() {
        let mut outbox = Outbox::default();
        outbox.push(outgoing());
        let first = outbox.savepoint();
        outbox.push(outgoing());
        let second = outbox.savepoint();
        outbox.rollback_to(first).unwrap();
        assert_eq!(outbox.items().len(), 1);
        assert_eq!(outbox.rollback_to(second).unwrap_err().kind(), ErrorKind::InvalidState);
        outbox.push(outgoing());
        outbox.rollback_to(first).unwrap();
        assert_eq!(outbox.items().len(), 1);
    }
}
