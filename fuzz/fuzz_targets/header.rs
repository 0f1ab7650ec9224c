//! Whom a message names in its header, for `send -t`: no panic, and nobody that an envelope would not
//! judge by itself.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sendmail_core::Envelope;

#[path = "../../crates/sendmail-cli/src"]
mod program {
    pub(crate) mod header;
}

fuzz_target!(|raw: &[u8]| {
    let recipients = program::header::recipients(raw);
    assert_eq!(recipients, program::header::recipients(raw));
    if let Ok(envelope) = Envelope::parse("a@b", &recipients) {
        assert!(envelope.recipients().iter().all(|it| !it.as_str().chars().any(char::is_control)));
    }
});
