//! Which messages the queue or its history knows as published.
//!
//! Directories are streamed and the journal is read record by record, its newest segment first, until
//! all that is asked for is found: memory grows with neither, and only a message that is really missing
//! costs a look at everything.

use std::collections::HashSet;
use std::io;
use std::ops::ControlFlow;

use sendmail_core::{EntryState, Error, MailEventKind, QueueId, Result};

use crate::journal::record::Record;
use crate::journal::segment::{Header, Records, START};
use crate::journal::{Sequence, segment_name, sequences};
use crate::name::MessageName;
use crate::queue::Queue;

/// The states of messages that are published and have not left the queue.
const PUBLISHED: [EntryState; 5] = [
    EntryState::Queued,
    EntryState::Claimed,
    EntryState::Deferred,
    EntryState::Held,
    EntryState::Failed,
];

impl Queue {
    pub(crate) fn known(&self, ids: &[QueueId]) -> Result<Vec<QueueId>> {
        let mut missing: HashSet<QueueId> = ids.iter().copied().collect();
        self.strike_known(&mut missing)
            .map_err(|error| Error::io("look for published messages", error))?;
        Ok(ids.iter().filter(|id| !missing.contains(id)).copied().collect())
    }

    /// Leaves in `missing` what is not known.
    fn strike_known(&self, missing: &mut HashSet<QueueId>) -> io::Result<()> {
        // Where most are, without listing anything.
        for id in missing.clone() {
            if self.layout.new.exists(&MessageName::new(id).encode())? {
                missing.remove(&id);
            }
        }
        self.strike_present(missing)?;
        self.strike_recorded(missing)?;
        // What moved while it was looked for, from a place not yet seen to one that was.
        self.strike_present(missing)
    }

    fn strike_present(&self, missing: &mut HashSet<QueueId>) -> io::Result<()> {
        for state in PUBLISHED {
            if missing.is_empty() {
                return Ok(());
            }
            let _whole = self.for_each_file(state, &mut |_, file, _| {
                if let Some(name) = MessageName::decode(file) {
                    missing.remove(&name.id);
                }
                Ok(if missing.is_empty() {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                })
            })?;
        }
        Ok(())
    }

    fn strike_recorded(&self, missing: &mut HashSet<QueueId>) -> io::Result<()> {
        if missing.is_empty() {
            return Ok(());
        }
        for sequence in sequences(&self.layout.journal)?.into_iter().rev() {
            self.strike_recorded_in(sequence, missing)?;
            if missing.is_empty() {
                break;
            }
        }
        Ok(())
    }

    fn strike_recorded_in(
        &self,
        sequence: Sequence,
        missing: &mut HashSet<QueueId>,
    ) -> io::Result<()> {
        let file = match self.layout.journal.open_file(&segment_name(sequence), false) {
            Ok(file) => file,
            // Older than history, and removed since it was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        let Some(header) = Header::read(&file)? else { return Ok(()) };
        // No further than what is durable: the answer must hold after a crash as well.
        let mut records = Records::new(&file, START, Some(header.watermark))?;
        while let Some((record, _)) = records.next_record()? {
            if let Some(id) = tells_of(&record) {
                missing.remove(&id);
                if missing.is_empty() {
                    break;
                }
            }
        }
        Ok(())
    }
}

/// The message that is published, according to a record.
fn tells_of(record: &Record) -> Option<QueueId> {
    match record {
        Record::Claimed(id)
        | Record::Begun(id)
        | Record::HandedOver(id)
        | Record::Settled(id, _)
        | Record::Released(id)
        | Record::Finished(id) => Some(*id),
        Record::Event(event) if event.kind == MailEventKind::Discarded => None,
        Record::Event(event) => event.queue_id,
    }
}
