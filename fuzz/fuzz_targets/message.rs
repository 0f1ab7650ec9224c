//! The message normaliser: what comes out is in wire form, and comes out of itself unchanged.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sendmail_core::{Message, Timestamp};

fuzz_target!(|raw: &[u8]| {
    let _ = Message::from_wire(raw.to_vec(), 0);
    let Ok(message) = Message::from_raw(raw, Timestamp::EPOCH, "example.org") else { return };
    let wire = message.as_bytes();
    assert!(wire.ends_with(b"\r\n") && !wire.contains(&0));
    for (at, byte) in wire.iter().enumerate() {
        match byte {
            b'\r' => assert_eq!(wire.get(at + 1), Some(&b'\n')),
            b'\n' => assert_eq!(wire[at - 1], b'\r'),
            _ => {}
        }
    }
    let again = Message::from_raw(wire, Timestamp::EPOCH, "example.org").expect("it was accepted");
    assert_eq!(again.as_bytes(), wire);
});
