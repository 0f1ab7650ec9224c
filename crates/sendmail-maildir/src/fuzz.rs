//! What the fuzzers call: everything here that reads bytes from outside. Only built for them.

use std::fs::File;
use std::io::Write as _;

use sendmail_core::{QueueId, Timestamp};

use crate::journal::segment::{Header, Records, START};
use crate::name::MessageName;
use crate::{foreign, format, journal, manifest};

/// A queue file of our own: no panic, and what is accepted is written back the same.
pub fn queue_file(bytes: &[u8]) {
    let _ = format::decode_head(bytes);
    let _ = format::decode(bytes.to_vec(), QueueId::from_bytes([0; 16]));
    // The checksum keeps random bytes out; this looks behind it.
    let (head, message) = bytes.split_at(bytes.len() / 2);
    let Ok(message) = sendmail_core::Message::from_raw(message, Timestamp::EPOCH, "x") else {
        return;
    };
    let Ok(head) = format::decode_head(head) else { return };
    let mut content = format::encode_head(&head, &message);
    content.extend_from_slice(message.as_bytes());
    let file = format::decode(content, head.id).expect("what was written is read");
    assert_eq!(file.head, head);
    assert_eq!(file.message, message);
}

/// A queue file of another program.
pub fn foreign_file(bytes: &[u8]) {
    let _ = foreign::decode(bytes, foreign::id(b"name", bytes), Timestamp::EPOCH);
}

/// Names in the queue's directories, manifests and cursors.
pub fn names(bytes: &[u8]) {
    if let Some(name) = MessageName::decode(bytes) {
        let again = MessageName::decode(&name.encode());
        assert_eq!(again, Some(name));
    }
    manifest::fuzz(bytes);
    journal::log::fuzz(bytes);
}

/// A journal segment.
pub fn journal(bytes: &[u8]) {
    let Ok(mut file) = memory_file() else { return };
    if file.write_all(bytes).is_err() {
        return;
    }
    let _ = Header::read(&file);
    let Ok(mut records) = Records::new(&file, START, None) else { return };
    while let Ok(Some(_)) = records.next_record() {}
}

fn memory_file() -> std::io::Result<File> {
    Ok(File::from(rustix::fs::memfd_create("fuzz", rustix::fs::MemfdFlags::CLOEXEC)?))
}
