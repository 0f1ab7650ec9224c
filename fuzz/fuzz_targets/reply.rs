//! The reader of a relay's replies, and of what it offers.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let _ = sendmail_smtp::read_reply(bytes);
    sendmail_smtp::fuzz::replies(bytes);
});
