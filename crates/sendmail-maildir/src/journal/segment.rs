//! A segment: a preallocated file to which one worker appends.
//!
//! ```text
//! 0   8  magic
//! 8  16  the worker
//! 24 16  the boot of the machine and the mount under which it was begun
//! 40  8  the watermark: how far the records are known to be durable, as an offset
//! 48  8  the watermark again, every bit inverted
//! 56  8  flags: 1, the segment is sealed, nothing is ever appended; 2, a sync of it failed
//! 64     records: length, CRC-32 of the bytes, bytes; a length of 0 ends them
//! ```
//!
//! The watermark is written after the sync that it tells of, and not synced itself: after a crash of
//! the machine it may lag, never lead. Readers go no further than the watermark; whoever takes over
//! from a dead worker reads to the last record that is whole, syncs, and seals.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use uuid::Uuid;

use super::record::Record;
use crate::disk::{insist, set_length, write_at};
use crate::name::OwnerId;

const MAGIC: &[u8; 8] = b"SMRSJ1\r\n";
const SEALED: u64 = 1;
const DOUBTFUL: u64 = 2;
/// Where records begin.
pub(crate) const START: u64 = 64;
/// Length and checksum before each record.
pub(crate) const FRAME: usize = 8;
/// The longest record: the settlement of an envelope with the most recipients.
const MAX_RECORD: usize = 16 << 20;

/// What stands at the beginning of a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) worker: OwnerId,
    pub(crate) boot: Uuid,
    pub(crate) watermark: u64,
    pub(crate) sealed: bool,
    /// A sync of it failed: another one would prove nothing, and what is missing in it may have happened.
    pub(crate) doubtful: bool,
}

impl Header {
    /// Writes the header of a new segment.
    pub(crate) fn write(worker: OwnerId, boot: Uuid, file: &File) -> io::Result<()> {
        let mut bytes = [0; START as usize];
        bytes[..8].copy_from_slice(MAGIC);
        bytes[8..24].copy_from_slice(worker.as_bytes());
        bytes[24..40].copy_from_slice(boot.as_bytes());
        bytes[40..56].copy_from_slice(&watermark_bytes(START));
        write_at(file, &bytes, 0)
    }

    /// Reads the header; nothing if the file is no segment, or not yet.
    pub(crate) fn read(file: &File) -> io::Result<Option<Self>> {
        let mut bytes = [0; START as usize];
        match file.read_exact_at(&mut bytes, 0) {
            Ok(()) => Ok(Self::decode(&bytes)),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn decode(bytes: &[u8; START as usize]) -> Option<Self> {
        let number = |at: usize| Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?));
        let uuid = |at: usize| Uuid::from_slice(bytes.get(at..at + 16)?).ok();
        if &bytes[..8] != MAGIC {
            return None;
        }
        let (watermark, inverse) = (number(40)?, number(48)?);
        Some(Self {
            worker: uuid(8)?,
            boot: uuid(24)?,
            // A torn watermark proves nothing: the beginning is always durable. It was to be sealed
            // perhaps, and is not then: what is sealed is read to the watermark and never looked at again.
            watermark: if watermark == !inverse { watermark.max(START) } else { START },
            sealed: watermark == !inverse && number(56)? & SEALED != 0,
            doubtful: number(56)? & DOUBTFUL != 0,
        })
    }
}

/// Says that everything before `offset` is durable.
pub(crate) fn set_watermark(file: &File, offset: u64) -> io::Result<()> {
    write_at(file, &watermark_bytes(offset), 40)
}

/// Says that nothing more will be appended; the records must be durable already. What was
/// preallocated and is not used is given back. Not synced: a seal that is lost is set anew by a sweep.
pub(crate) fn seal(file: &File, end: u64) -> io::Result<()> {
    set_length(file, end)?;
    mark_sealed(file, end, SEALED)
}

/// Seals a segment that is not to be synced any more, at its watermark.
pub(crate) fn seal_doubtful(file: &File, watermark: u64) -> io::Result<()> {
    mark_sealed(file, watermark, SEALED | DOUBTFUL)
}

fn mark_sealed(file: &File, end: u64, flags: u64) -> io::Result<()> {
    // In one write: a crash must not leave the seal with a watermark that lags for good.
    let mut bytes = [0; 24];
    bytes[..16].copy_from_slice(&watermark_bytes(end));
    bytes[16..].copy_from_slice(&flags.to_le_bytes());
    write_at(file, &bytes, 40)
}

/// Says that a sync failed, to whoever takes over: a second one may say that all is well when it is not.
pub(crate) fn doubt(file: &File) {
    insist(|| write_at(file, &DOUBTFUL.to_le_bytes(), 56));
}

fn watermark_bytes(offset: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    bytes[8..].copy_from_slice(&(!offset).to_le_bytes());
    bytes
}

/// The bytes of a record with its frame, appended to `out`.
pub(crate) fn frame(record: &Record, out: &mut Vec<u8>) {
    let mut body = Vec::new();
    record.encode(&mut body);
    // Records are bounded by `MAX_RECORD`.
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.append(&mut body);
}

/// The records from an offset on, each with the offset behind it, until the first that is not whole.
pub(crate) struct Records<'a> {
    file: &'a File,
    /// The offset of the next record.
    position: u64,
    end: u64,
    buffer: Vec<u8>,
    buffer_start: u64,
}

impl<'a> Records<'a> {
    /// The records between `from` and `end`, or the end of the file.
    pub(crate) fn new(file: &'a File, from: u64, end: Option<u64>) -> io::Result<Self> {
        let length = file.metadata()?.len();
        let end = end.unwrap_or(length).min(length);
        Ok(Self { file, position: from.max(START), end, buffer: Vec::new(), buffer_start: 0 })
    }

    /// Where the records end, once there are no more.
    pub(crate) fn position(&self) -> u64 {
        self.position
    }

    /// `length` bytes at the position plus `skip`; nothing if they are not all before the end.
    fn bytes(&mut self, skip: u64, length: usize) -> io::Result<Option<&[u8]>> {
        let from = self.position + skip;
        let Some(until) = from.checked_add(length as u64).filter(|until| *until <= self.end) else {
            return Ok(None);
        };
        let buffered = self.buffer_start + self.buffer.len() as u64;
        if from < self.buffer_start || until > buffered {
            let want = length.max(64 << 10).min(usize::try_from(self.end - from).unwrap_or(length));
            self.buffer.resize(want, 0);
            self.file.read_exact_at(&mut self.buffer, from)?;
            self.buffer_start = from;
        }
        let start = usize::try_from(from - self.buffer_start).unwrap_or(0);
        Ok(self.buffer.get(start..start + length))
    }

    /// The next record and the offset behind it.
    pub(crate) fn next_record(&mut self) -> io::Result<Option<(Record, u64)>> {
        loop {
            let Some(frame) = self.bytes(0, FRAME)? else { return Ok(None) };
            let (length, rest) = frame.split_first_chunk().unwrap_or((&[0; 4], &[]));
            let length = u32::from_le_bytes(*length) as usize;
            let sum = rest.first_chunk().map(|sum| u32::from_le_bytes(*sum));
            if length == 0 || length > MAX_RECORD {
                return Ok(None);
            }
            let Some(body) = self.bytes(FRAME as u64, length)? else { return Ok(None) };
            if Some(crc32fast::hash(body)) != sum {
                return Ok(None);
            }
            let record = Record::decode(body);
            self.position = self.position.saturating_add(FRAME as u64 + length as u64);
            // Whole, but of a kind that only a newer program knows: not ours to judge.
            let Some(record) = record else { continue };
            return Ok(Some((record, self.position)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::record::tests::any_record;
    use proptest::prelude::*;

    fn segment(records: &[Record]) -> File {
        let file = tempfile::tempfile().unwrap();
        Header::write(Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]), &file).unwrap();
        let mut bytes = Vec::new();
        records.iter().for_each(|record| frame(record, &mut bytes));
        bytes.extend_from_slice(&[0; 100]);
        file.write_all_at(&bytes, START).unwrap();
        file
    }

    fn read_all(file: &File) -> Vec<Record> {
        let mut records = Records::new(file, START, None).unwrap();
        std::iter::from_fn(|| records.next_record().unwrap().map(|(record, _)| record)).collect()
    }

    proptest! {
        #[test]
        fn records_are_read_back_until_the_first_that_is_torn(
            records in prop::collection::vec(any_record(), 1..8), torn in 0usize..8, change in 1u8..
        ) {
            let file = segment(&records);
            prop_assert_eq!(&read_all(&file), &records);
            let torn = torn % records.len();
            let mut offset = Vec::new();
            records[..torn].iter().for_each(|record| frame(record, &mut offset));
            let position = START + (offset.len() + FRAME) as u64;
            let mut byte = [0];
            file.read_exact_at(&mut byte, position).unwrap();
            file.write_all_at(&[byte[0] ^ change], position).unwrap();
            prop_assert_eq!(read_all(&file), records[..torn].to_vec());
        }

        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&bytes, 0).unwrap();
            let _ = Header::read(&file).unwrap();
            read_all(&file);
        }
    }

    /// A newer program may have written a segment full of them, each as short as can be.
    #[test]
    fn records_of_unknown_kinds_are_passed_over_however_many() {
        let unknown = [0xee];
        let mut bytes = Vec::new();
        for _ in 0..400_000 {
            bytes.extend_from_slice(&1u32.to_le_bytes());
            bytes.extend_from_slice(&crc32fast::hash(&unknown).to_le_bytes());
            bytes.extend_from_slice(&unknown);
        }
        let last = Record::Claimed(sendmail_core::QueueId::from_bytes([1; 16]));
        frame(&last, &mut bytes);
        let file = segment(&[]);
        file.write_all_at(&bytes, START).unwrap();
        assert_eq!(read_all(&file), [last]);
    }

    #[test]
    fn a_torn_watermark_proves_nothing() {
        let file = segment(&[]);
        set_watermark(&file, 500).unwrap();
        assert_eq!(Header::read(&file).unwrap().unwrap().watermark, 500);
        file.write_all_at(&[9], 40).unwrap();
        assert_eq!(Header::read(&file).unwrap().unwrap().watermark, START);
        seal(&file, 700).unwrap();
        let header = Header::read(&file).unwrap().unwrap();
        assert!(header.sealed && header.watermark == 700);
        // Otherwise nobody would ever read what is behind the watermark, nor seal it anew.
        file.write_all_at(&[9], 48).unwrap();
        let header = Header::read(&file).unwrap().unwrap();
        assert!(!header.sealed && header.watermark == START);
    }
}
