//! The message normaliser: what comes out is in wire form, comes out of itself unchanged, goes to the
//! wire with its dots doubled, and has no Bcc.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sendmail_core::{MAX_LINE, Message, Timestamp};

fuzz_target!(|raw: &[u8]| {
    let _ = Message::from_wire(raw.to_vec(), 0);
    sendmail_smtp::fuzz::stuffing(raw);
    let date = raw.first_chunk().map_or(0, |bytes| i64::from_le_bytes(*bytes));
    let dated = Message::from_raw(raw, Timestamp::from_millis(date), "example.org");
    let Ok(message) = Message::from_raw(raw, Timestamp::EPOCH, "example.org") else {
        assert!(dated.is_err());
        return;
    };
    assert!(dated.is_ok());
    let wire = message.as_bytes();
    assert!(wire.ends_with(b"\r\n") && !wire.contains(&0));
    let mut in_header = true;
    for line in wire.split_inclusive(|byte| *byte == b'\n') {
        let text = line.strip_suffix(b"\r\n").expect("every line ends in CRLF");
        assert!(text.len() <= MAX_LINE && !text.contains(&b'\r'));
        in_header &= !text.is_empty();
        let name = text.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii_end();
        assert!(!(in_header && text.contains(&b':') && name.eq_ignore_ascii_case(b"Bcc")));
    }
    assert!(message.has_8bit_body() || message.has_8bit_header() || wire.is_ascii());
    let again = Message::from_raw(wire, Timestamp::EPOCH, "example.org").expect("it was accepted");
    assert_eq!(again.as_bytes(), wire);
    assert_eq!(again.message_id(), message.message_id());
    let checked = Message::from_wire(wire.to_vec(), 0).expect("it is in wire form");
    assert_eq!(checked.message_id(), message.message_id());
    sendmail_smtp::fuzz::stuffing(wire);
});
