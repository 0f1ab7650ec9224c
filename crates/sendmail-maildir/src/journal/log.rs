//! Reading the journals of all workers as one event log, by cursor.
// Its numbers come from outside.
#![cfg_attr(not(test), deny(clippy::arithmetic_side_effects))]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;

use sendmail_core::{Cursor, Error, ErrorKind, EventPage, MailEvent, Result};

use super::record::Record;
use super::segment::{Header, Records, START};
use super::{Sequence, segment_name, sequences};
use crate::disk::Dir;

/// How far each segment was read: everything up to `floor` is sealed and read to its end; for the
/// segments above it the offset, or `None` for one that is sealed and read to its end.
///
/// Numbers of segments only grow, so nothing ever appears below the floor.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Position {
    floor: Sequence,
    above: BTreeMap<Sequence, Option<u64>>,
}

impl Position {
    /// `j1-FLOOR` and then `-SEQUENCE.OFFSET` or `-SEQUENCE.x` for each segment above it.
    fn encode(&self) -> Cursor {
        let mut text = format!("j1-{}", self.floor);
        for (sequence, offset) in &self.above {
            // Writing to a string does not fail.
            let _ = match offset {
                Some(offset) => write!(text, "-{sequence}.{offset}"),
                None => write!(text, "-{sequence}.x"),
            };
        }
        Cursor::new(text)
    }

    fn decode(cursor: &Cursor) -> Option<Self> {
        let mut parts = cursor.as_str().strip_prefix("j1-")?.split('-');
        let floor = parts.next()?.parse().ok()?;
        let mut above = BTreeMap::new();
        for part in parts {
            let (sequence, offset) = part.split_once('.')?;
            let sequence: Sequence = sequence.parse().ok()?;
            let offset = if offset == "x" { None } else { Some(offset.parse().ok()?) };
            if sequence <= floor || above.insert(sequence, offset).is_some() {
                return None;
            }
        }
        Some(Self { floor, above })
    }

    fn offset(&self, sequence: Sequence) -> Option<u64> {
        match self.above.get(&sequence) {
            Some(offset) => *offset,
            None => (sequence > self.floor).then_some(START),
        }
    }

    /// Raises the floor over the segments at the lower end that are read to their end.
    fn raise(&mut self, existing: &[Sequence]) {
        let start = self.floor;
        let above = existing.iter().filter(|sequence| **sequence > start);
        let read = above.take_while(|sequence| self.above.get(sequence) == Some(&None));
        let floor = read.last().copied().unwrap_or(start);
        self.floor = floor;
        self.above.retain(|sequence, _| *sequence > floor);
    }
}

/// One segment with events that were not read yet.
struct Source {
    sequence: Sequence,
    /// The events, each with the offset behind it, in their order.
    events: std::collections::VecDeque<(MailEvent, u64)>,
    /// Whether there is nothing behind these and never will be.
    last: bool,
    /// Where the segment's readable part ends, if all of it was read.
    end: Option<u64>,
}

/// How many segments with something to tell are merged by time, the earliest first: memory does not
/// grow with the history. More workers than that are told of in turn.
const MOST_MERGED: usize = 16;

/// Reads at most `limit` events behind `after`, oldest first as far as the workers' clocks agree.
pub(crate) fn read(dir: &Dir, after: Option<&Cursor>, limit: usize) -> Result<EventPage> {
    let operation = "read events";
    let existing = sequences(dir).map_err(|error| Error::io(operation, error))?;
    let mut position = match after {
        None => Position {
            floor: existing.first().map_or(0, |first| first.saturating_sub(1)),
            ..Position::default()
        },
        Some(cursor) => Position::decode(cursor).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, operation, "this is no cursor of this log")
        })?,
    };
    check_kept(&position, &existing)?;
    let mut sources: Vec<Source> = Vec::new();
    for sequence in &existing {
        if sources.iter().filter(|source| !source.events.is_empty()).count() >= MOST_MERGED {
            break;
        }
        if let Some(offset) = position.offset(*sequence) {
            let source = open(dir, *sequence, offset, limit);
            sources.extend(source.map_err(|error| Error::io(operation, error))?);
        }
    }
    let mut page = EventPage::default();
    for source in &sources {
        finish(source, &mut position);
    }
    while page.events.len() < limit {
        // The oldest of the next ones; a segment's own order is kept whatever its clock did.
        let next = sources
            .iter_mut()
            .filter(|source| !source.events.is_empty())
            .min_by_key(|source| source.events.front().map(|(event, _)| (event.time, event.id)));
        let Some(source) = next else { break };
        let Some((event, offset)) = source.events.pop_front() else { break };
        position.above.insert(source.sequence, Some(offset));
        finish(source, &mut position);
        position.raise(&existing);
        page.events.push((position.encode(), event));
    }
    Ok(page)
}

/// Notes that a segment is read to its end, if it is.
fn finish(source: &Source, position: &mut Position) {
    if source.events.is_empty() && source.last {
        position.above.insert(source.sequence, None);
    } else if let Some(end) = source.end.filter(|_| source.events.is_empty()) {
        position.above.insert(source.sequence, Some(end));
    }
}

/// Whether everything behind `position` is still there.
fn check_kept(position: &Position, existing: &[Sequence]) -> Result<()> {
    let Some(oldest) = existing.first() else { return Ok(()) };
    let missing = (position.floor.saturating_add(1)..*oldest)
        .any(|gone| position.above.get(&gone) != Some(&None));
    if missing {
        let start = Position { floor: oldest.saturating_sub(1), ..Position::default() };
        return Err(Error::new(
            ErrorKind::CursorExpired,
            "read events",
            "events behind this cursor are no longer kept; read from the oldest cursor, or without one",
        )
        .with("oldest", start.encode()));
    }
    Ok(())
}

fn open(dir: &Dir, sequence: Sequence, from: u64, limit: usize) -> io::Result<Option<Source>> {
    let file = match dir.open_file(&segment_name(sequence), false) {
        Ok(file) => file,
        // Removed since it was listed: the next read says that it is missing.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let Some(header) = Header::read(&file)? else { return Ok(None) };
    let mut records = Records::new(&file, from, Some(header.watermark))?;
    let mut events = std::collections::VecDeque::new();
    // One more than is wanted, to know whether the last of them is the segment's last.
    while events.len() <= limit {
        match records.next_record()? {
            Some((Record::Event(event), offset)) => events.push_back((*event, offset)),
            Some(_) => {}
            None => {
                let end = Some(records.position());
                return Ok(Some(Source { sequence, events, last: header.sealed, end }));
            }
        }
    }
    Ok(Some(Source { sequence, events, last: false, end: None }))
}

/// Reads bytes as a cursor, for the fuzzers.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let cursor = Cursor::new(String::from_utf8_lossy(bytes));
    if let Some(position) = Position::decode(&cursor) {
        assert_eq!(Position::decode(&position.encode()), Some(position));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Journal;
    use proptest::prelude::*;
    use sendmail_core::{MailEventKind, Timestamp};
    use uuid::Uuid;

    fn event(millis: i64) -> Record {
        Record::Event(Box::new(MailEvent::new(MailEventKind::Sent, Timestamp::from_millis(millis))))
    }

    fn times(page: &EventPage) -> Vec<i64> {
        page.events.iter().map(|(_, event)| event.time.as_millis()).collect()
    }

    #[test]
    fn workers_are_merged_and_every_cursor_goes_on_exactly() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let begin = |n| Journal::begin(&dir, Uuid::from_bytes([n; 16]), Uuid::nil()).unwrap();
        let (one, two) = (begin(1), begin(2));
        for (journal, list) in [(&one, [1, 4, 6]), (&two, [2, 3, 9])] {
            let mark = journal.append(&list.map(event)).unwrap();
            journal.sync(&mark).unwrap();
        }
        one.close();
        one.append(&[event(7)]).unwrap_err();
        two.append(&[event(10)]).unwrap();
        let all = read(&dir, None, 100).unwrap();
        assert_eq!(times(&all), [1, 2, 3, 4, 6, 9], "what was not synced is not shown");
        for (index, (cursor, _)) in all.events.iter().enumerate() {
            let rest = read(&dir, Some(cursor), 2).unwrap();
            let wanted: Vec<_> = times(&all).into_iter().skip(index + 1).take(2).collect();
            assert_eq!(times(&rest), wanted, "behind {cursor}");
        }
        two.close();
        assert_eq!(times(&read(&dir, Some(&all.events[5].0), 9).unwrap()), [10]);
    }

    #[test]
    fn a_long_history_is_read_to_its_end_and_each_event_once() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        for n in 0..40 {
            let journal = Journal::begin(&dir, Uuid::from_bytes([n; 16]), Uuid::nil()).unwrap();
            let events = [event(i64::from(n)), event(i64::from(n) + 100)];
            let mark = journal.append(&events[..usize::from(n % 3)]).unwrap();
            journal.sync(&mark).unwrap();
            if n % 5 != 0 {
                journal.close();
            }
        }
        let (mut seen, mut cursor) = (Vec::new(), None);
        loop {
            let page = read(&dir, cursor.as_ref(), 3).unwrap();
            let Some((last, _)) = page.events.last() else { break };
            cursor = Some(last.clone());
            seen.extend(times(&page));
        }
        assert_eq!(seen.len(), (0..40).map(|n| n % 3).sum::<usize>());
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), (0..40).map(|n| n % 3).sum::<usize>(), "none twice");
    }

    #[test]
    fn an_old_cursor_is_told_where_history_begins() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        for n in 1..=3 {
            let journal = Journal::begin(&dir, Uuid::from_bytes([n; 16]), Uuid::nil()).unwrap();
            let mark = journal.append(&[event(i64::from(n))]).unwrap();
            journal.sync(&mark).unwrap();
            journal.close();
        }
        let first = read(&dir, None, 1).unwrap().events[0].0.clone();
        dir.unlink(&segment_name(1)).unwrap();
        assert_eq!(times(&read(&dir, Some(&first), 9).unwrap()), [2, 3]);
        dir.unlink(&segment_name(2)).unwrap();
        let error = read(&dir, Some(&first), 9).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CursorExpired);
        let oldest = Cursor::new(error.context()[0].1.clone());
        assert_eq!(times(&read(&dir, Some(&oldest), 9).unwrap()), [3]);
        let foreign = read(&dir, Some(&Cursor::new("42")), 9).unwrap_err();
        assert_eq!(foreign.kind(), ErrorKind::InvalidInput);
    }

    /// People type them, and databases keep them.
    #[test]
    fn a_cursor_of_the_largest_numbers_is_only_one_with_nothing_behind_it() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let journal = Journal::begin(&dir, Uuid::from_bytes([1; 16]), Uuid::nil()).unwrap();
        let mark = journal.append(&[event(1)]).unwrap();
        journal.sync(&mark).unwrap();
        for cursor in ["j1-18446744073709551615", "j1-0-1.18446744073709551615"] {
            assert_eq!(times(&read(&dir, Some(&Cursor::new(cursor)), 9).unwrap()), [0i64; 0]);
        }
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_back(floor in 0u64..50, above in prop::collection::btree_map(51u64..99, proptest::option::of(64u64..999), 0..6)) {
            let position = Position { floor, above };
            prop_assert_eq!(Position::decode(&position.encode()), Some(position));
        }

        #[test]
        fn reading_a_cursor_never_panics(text in "(j1-)?[0-9x.-]{0,30}") {
            let _ = Position::decode(&Cursor::new(text));
        }
    }
}
