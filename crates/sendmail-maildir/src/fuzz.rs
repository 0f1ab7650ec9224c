//! What the fuzzers call: everything here that reads bytes from outside. Only built for them.
//!
//! Beside not panicking, each has something to keep: what is written is read back, what was changed is
//! noticed, what is read in pieces is what is read at once.

use std::collections::HashSet;
use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use sendmail_core::{Cursor, EventId, Message, QueueId, Timestamp};
use uuid::Uuid;

use crate::disk::Dir;
use crate::format::Head;
use crate::journal::record::Record;
use crate::journal::segment::{Header, Records, START, frame, seal, set_watermark};
use crate::journal::{log, segment_name};
use crate::name::{Due, MessageName};
use crate::queue::{due_folder, due_minute};
use crate::{foreign, format, manifest};

/// A queue file of our own: what is accepted is written back the same, and one changed byte in it is
/// never accepted again.
pub fn queue_file(bytes: &[u8]) {
    let _ = format::decode_head(bytes);
    let _ = format::decode(bytes.to_vec(), QueueId::from_bytes([0; 16]));
    // The checksum keeps random bytes out; this looks behind it.
    let (head, message) = bytes.split_at(bytes.len() / 2);
    let Ok(message) = Message::from_raw(message, Timestamp::EPOCH, "x") else { return };
    let Ok(head) = format::decode_head(head) else { return };
    let mut content = format::encode_head(&head, &message);
    content.extend_from_slice(message.as_bytes());
    let file = format::decode(content.clone(), head.id).expect("what was written is read");
    assert_eq!(file.head, head);
    assert_eq!(file.message, message);
    let change = bytes.iter().fold(0usize, |sum, byte| sum.wrapping_mul(31) + usize::from(*byte));
    let at = change % content.len();
    content[at] ^= 1 << (change / content.len() % 8);
    assert!(format::decode(content, head.id).is_err(), "a changed byte at {at} was not noticed");
}

/// A whole queue file with this id, as the queue itself would write it; `text` is its message's body.
pub fn valid_file(id: [u8; 16], text: &[u8]) -> Option<Vec<u8>> {
    let raw = [b"Message-ID: <fuzz@example.org>\nDate: d\n\n", text].concat();
    let message = Message::from_raw(&raw, Timestamp::EPOCH, "x").ok()?;
    let envelope = sendmail_core::Envelope::parse("a@b", ["c@d"]).ok()?;
    let (id, resource) = (QueueId::from_bytes(id), "own".parse().ok()?);
    let head = Head { id, resource, queued_at: Timestamp::EPOCH, envelope };
    let mut content = format::encode_head(&head, &message);
    content.extend_from_slice(message.as_bytes());
    Some(content)
}

/// A queue file of another program: it is read the same each time, under every flag that a mail reader
/// gives it, and what is read is fit to be a file of our own.
pub fn foreign_file(bytes: &[u8]) {
    let id = foreign::id(b"name", bytes);
    assert_eq!(id, foreign::id(b"name:2,RS", bytes));
    let Ok((envelope, message)) = foreign::decode(bytes, id, Timestamp::EPOCH) else { return };
    let again = foreign::decode(bytes, id, Timestamp::EPOCH).expect("it was read before");
    assert_eq!(again, (envelope.clone(), message.clone()));
    let resource = "own".parse().expect("it is a resource id");
    let head = Head { id, resource, queued_at: Timestamp::EPOCH, envelope };
    let mut content = format::encode_head(&head, &message);
    content.extend_from_slice(message.as_bytes());
    let file = format::decode(content, id).expect("what was written is read");
    assert_eq!((file.head, file.message), (head, message));
}

/// Names in the queue's directories, manifests and cursors: each has one spelling.
pub fn names(bytes: &[u8]) {
    if let Some(name) = MessageName::decode(bytes) {
        let spelling = name.encode();
        assert_eq!(MessageName::decode(&spelling), Some(name));
        assert!(
            bytes == spelling || bytes.strip_prefix(&*spelling).is_some_and(|it| it[0] == b':')
        );
        assert!(spelling.len() < 220 && !spelling.contains(&b'/'));
        if let Some(due) = name.due {
            let clamped = due.clamped(Timestamp::EPOCH).unwrap_or(due);
            assert!(clamped.clamped(Timestamp::EPOCH).is_none());
        }
    }
    if let Some(minute) = due_minute(bytes) {
        assert_eq!(due_folder(minute).as_bytes(), bytes);
        let due = Due { at: Timestamp::from_millis(minute.saturating_mul(60_000)), delay_ms: 0 };
        assert_eq!(crate::queue::Place::due(due), crate::queue::Place::Due(minute));
    }
    manifest::fuzz(bytes);
    log::fuzz(bytes);
}

/// A journal segment as it may lie on the disk, and records behind a checksum that is right.
pub fn journal(bytes: &[u8]) {
    if let Some(record) = Record::decode(bytes) {
        let mut again = Vec::new();
        record.encode(&mut again);
        assert_eq!(Record::decode(&again).as_ref(), Some(&record));
        let Ok(mut file) = memory_file() else { return };
        let mut content = vec![0; usize::try_from(START).expect("it is small")];
        frame(&record, &mut content);
        if file.write_all(&content).is_err() {
            return;
        }
        let mut records = Records::new(&file, START, None).expect("a file in memory is read");
        let read = records.next_record().expect("a file in memory is read");
        assert_eq!(read, Some((record, content.len() as u64)));
    }
    let Ok(mut file) = memory_file() else { return };
    if file.write_all(bytes).is_err() {
        return;
    }
    let _ = Header::read(&file);
    let Ok(mut records) = Records::new(&file, START, None) else { return };
    let mut before = 0;
    while let Ok(Some((_, behind))) = records.next_record() {
        assert!(behind > before && behind <= bytes.len() as u64);
        before = behind;
    }
}

/// The event log: a cursor, then segments, between lines of `%%`. A segment that begins with `!` is
/// whole, and holds a record for each of its lines; others are the bytes of a file.
///
/// Read event by event, by the cursor of the last, it says the same as read at once, and no event twice.
pub fn event_log(directory: &Path, bytes: &[u8]) {
    let dir = Dir::open(directory).expect("the directory is there");
    let mut parts = split(bytes, b"\n%%\n").into_iter();
    let cursor = parts.next().filter(|text| !text.is_empty());
    let cursor = cursor.map(|text| Cursor::new(String::from_utf8_lossy(text)));
    let (mut sequences, mut seen) = (Vec::new(), HashSet::new());
    for (sequence, part) in (1..).zip(parts.take(20)) {
        sequences.push(segment_name(sequence));
        write_segment(&dir, sequence, part, &mut seen).expect("a segment is written");
    }
    let outcome = std::panic::catch_unwind(|| read_log(&dir, cursor.as_ref()));
    for name in sequences {
        dir.unlink(&name).expect("a segment is removed");
    }
    outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

fn read_log(dir: &Dir, cursor: Option<&Cursor>) {
    let Ok(all) = log::read(dir, cursor, 500) else { return };
    let mut one_by_one = Vec::new();
    let mut cursor = cursor.cloned();
    while one_by_one.len() < 500 {
        let page = log::read(dir, cursor.as_ref(), 1).expect("a cursor of ours is good");
        let Some((next, event)) = page.events.into_iter().next() else { break };
        cursor = Some(next);
        one_by_one.push(event);
    }
    let at_once: Vec<_> = all.events.into_iter().map(|(_, event)| event).collect();
    assert_eq!(one_by_one, at_once);
}

fn write_segment(
    dir: &Dir,
    sequence: u64,
    part: &[u8],
    seen: &mut HashSet<EventId>,
) -> std::io::Result<()> {
    let mut file = dir.create(&segment_name(sequence))?;
    let Some(lines) = part.strip_prefix(b"!") else { return file.write_all(part) };
    Header::write(Uuid::nil(), Uuid::nil(), &file)?;
    let mut content = Vec::new();
    for line in split(lines, b"\n") {
        // Ids of events are minted, and none is written twice.
        match Record::decode(line) {
            Some(Record::Event(event)) if !seen.insert(event.id) => {}
            Some(record) => frame(&record, &mut content),
            None => {
                content.extend_from_slice(&u32::try_from(line.len()).unwrap_or(0).to_le_bytes());
                content.extend_from_slice(&crc32fast::hash(line).to_le_bytes());
                content.extend_from_slice(line);
            }
        }
    }
    crate::disk::write_at(&file, &content, START)?;
    let end = START + content.len() as u64;
    if lines.len() % 2 == 0 { seal(&file, end) } else { set_watermark(&file, end) }
}

fn split<'a>(bytes: &'a [u8], separator: &[u8]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    let mut rest = bytes;
    while let Some(at) = rest.windows(separator.len()).position(|window| window == separator) {
        parts.push(&rest[..at]);
        rest = &rest[at + separator.len()..];
    }
    parts.push(rest);
    parts
}

fn memory_file() -> std::io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC)?))
}
