//! What the fuzzers call beside the public API. Only built for them.

use crate::capabilities::Capabilities;
use crate::guard::shown_to_lettre;
use crate::reply::{MAX_LINES, ReplyReader, WireReply};
use crate::stuffing::{check_wire_form, stuffed_pieces};

/// Replies, and what EHLO offers: however the network cuts the bytes, the same is read; all of it is
/// printable and bounded; and lettre's parser takes whatever it is shown.
pub fn replies(bytes: &[u8]) {
    let at_once = read([bytes]);
    let byte_by_byte = read(bytes.chunks(1));
    assert_eq!(at_once, byte_by_byte);
    assert_eq!(at_once, read(bytes.chunks(7)));
    for reply in at_once.into_iter().flatten() {
        assert!((200..600).contains(&reply.code()) && reply.lines().len() <= MAX_LINES);
        let printable = |line: &String| line.bytes().all(|byte| matches!(byte, b' '..=b'~'));
        assert!(reply.lines().iter().all(printable));
        let told = reply.to_reply();
        assert_eq!(told.code(), reply.code());
        assert_eq!(told.to_string().parse(), Ok(told.clone()));
        let shown = String::from_utf8(shown_to_lettre(&reply)).expect("it is ASCII");
        let parsed = shown.parse::<lettre::transport::smtp::response::Response>();
        assert!(parsed.is_ok(), "{shown:?}");
        let offered = Capabilities::from_ehlo(&reply);
        assert!(offered.max_size.is_none() || offered.size);
    }
}

fn read<'a>(
    pieces: impl IntoIterator<Item = &'a [u8]>,
) -> Vec<Result<WireReply, crate::ReplyError>> {
    let mut reader = ReplyReader::default();
    let mut replies = Vec::new();
    for piece in pieces {
        reader.feed(piece);
        while let Some(reply) = reader.next() {
            let failed = reply.is_err();
            replies.push(reply);
            if failed {
                return replies;
            }
        }
    }
    replies
}

/// Dot-stuffing: what is in wire form comes back, ends in no other place than its end, and what is not
/// in wire form is refused.
pub fn stuffing(body: &[u8]) {
    let lines: Vec<&[u8]> = body.split_inclusive(|byte| *byte == b'\n').collect();
    let ends = |line: &&[u8]| line.strip_suffix(b"\r\n").is_some_and(|text| !text.contains(&b'\r'));
    assert_eq!(check_wire_form(body).is_ok(), !body.is_empty() && lines.iter().all(ends));
    if check_wire_form(body).is_err() {
        return;
    }
    for size in [1, 100, 64 << 10] {
        let stuffed: Vec<u8> = stuffed_pieces(body, size).flatten().collect();
        assert!(!stuffed.starts_with(b".\r\n"));
        assert!(!stuffed.windows(5).any(|five| five == b"\r\n.\r\n"));
        let unstuffed: Vec<u8> = stuffed
            .split_inclusive(|byte| *byte == b'\n')
            .flat_map(|line| line.strip_prefix(b".").unwrap_or(line))
            .copied()
            .collect();
        assert_eq!(unstuffed, body);
    }
}
