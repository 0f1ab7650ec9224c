//! Addresses, Message-IDs and replies: whatever is accepted stays on its line and is read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sendmail_core::{MessageId, Recipient, Reply, ReversePath};

fuzz_target!(|text: &str| {
    if let Ok(recipient) = text.parse::<Recipient>() {
        assert!(!recipient.as_str().contains(['\r', '\n', '\0']));
        assert_eq!(recipient.as_str().parse(), Ok(recipient.clone()));
        assert_eq!(format!("{}@{}", recipient.local_part(), recipient.domain()), recipient.as_str());
    }
    let _ = text.parse::<ReversePath>();
    if let Ok(id) = text.parse::<MessageId>() {
        assert!(!id.as_str().chars().any(char::is_control));
    }
    if let Ok(reply) = text.parse::<Reply>() {
        let again: Reply = reply.to_string().parse().expect("a reply is read back");
        assert_eq!(again.to_string(), reply.to_string());
    }
});
