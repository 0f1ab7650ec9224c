//! [`MemoryStore`] as an [`EventLog`].

use async_trait::async_trait;
use sendmail_core::{Cursor, Error, ErrorKind, EventLog, EventPage, Result};

use super::MemoryStore;

#[async_trait]
impl EventLog for MemoryStore {
    async fn read(&self, after: Option<Cursor>, limit: usize) -> Result<EventPage> {
        let operation = "read the event log";
        let state = self.live(operation)?;
        let end = state.log_start + state.log.len() as u64;
        let start = match &after {
            None => state.log_start,
            Some(cursor) => match self.position(cursor) {
                Some(position) if position <= end => position,
                _ => {
                    let text = "the cursor is of another log";
                    return Err(
                        Error::new(ErrorKind::InvalidInput, operation, text).with("cursor", cursor)
                    );
                }
            },
        };
        if start < state.log_start {
            let text = "what follows the cursor is no longer kept; go on from the oldest";
            return Err(Error::new(ErrorKind::CursorExpired, operation, text)
                .with("oldest", self.cursor(state.log_start)));
        }
        let events = (start..end)
            .zip(state.log.range(to_index(start - state.log_start)..))
            .take(limit)
            .map(|(number, event)| (self.cursor(number + 1), event.clone()))
            .collect();
        Ok(EventPage { events })
    }
}

impl MemoryStore {
    /// The cursor that stands before event `number`; it names the log by its seed.
    fn cursor(&self, number: u64) -> Cursor {
        Cursor::new(format!("memory-{}-{number}", self.process.shared.seed))
    }

    fn position(&self, cursor: &Cursor) -> Option<u64> {
        let prefix = format!("memory-{}-", self.process.shared.seed);
        cursor.as_str().strip_prefix(&prefix)?.parse().ok()
    }
}

/// The log is in memory, so that its length fits.
fn to_index(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
