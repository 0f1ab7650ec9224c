//! Addresses, Message-IDs, ids and replies: whatever is accepted stays on its line and is read back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sendmail_core::{
    Envelope, EventId, MessageId, QueueId, Recipient, Reply, ResourceId, ReversePath, Tenant,
    TransactionId,
};

fuzz_target!(|text: &str| {
    if let Ok(recipient) = text.parse::<Recipient>() {
        assert!(!recipient.as_str().chars().any(char::is_control));
        assert_eq!(recipient.as_str().parse(), Ok(recipient.clone()));
        assert_eq!(format!("<{recipient}>").parse(), Ok(recipient.clone()));
        assert_eq!(
            format!("{}@{}", recipient.local_part(), recipient.domain()),
            recipient.as_str()
        );
        assert!(recipient.local_part().len() <= 64 && recipient.domain().len() <= 255);
        assert!(
            !recipient.as_str().starts_with('<') && !recipient.domain().contains(['<', '>', ' '])
        );
    }
    if let Ok(path) = text.parse::<ReversePath>() {
        assert_eq!(path.as_str().parse(), Ok(path.clone()));
        assert_eq!(path.is_null(), text.parse::<Recipient>().is_err());
    }
    if let Ok(id) = text.parse::<MessageId>() {
        assert!(!id.as_str().chars().any(char::is_control));
        assert_eq!(id.as_str(), text);
    }
    if let Ok(reply) = text.parse::<Reply>() {
        let again: Reply = reply.to_string().parse().expect("a reply is read back");
        assert_eq!(again, reply);
    }
    let local = Reply::local(451, "4.3.0", text);
    assert!(local.text().len() <= Reply::MAX_TEXT);
    assert!(local.text().bytes().all(|byte| matches!(byte, b' '..=b'~')));
    assert_eq!(local.to_string().parse(), Ok(local));
    spelled_once(text.parse::<QueueId>(), text);
    spelled_once(text.parse::<TransactionId>(), text);
    spelled_once(text.parse::<EventId>(), text);
    spelled_once(text.parse::<ResourceId>(), text);
    spelled_once(text.parse::<Tenant>(), text);
    let lines: Vec<&str> = text.split('\n').collect();
    if let Ok(envelope) = Envelope::parse(lines[0], &lines[1..]) {
        assert!((1..lines.len()).contains(&envelope.recipients().len()));
    }
});

/// What stands in file names and keys has one spelling, and none that leads out of a directory.
fn spelled_once<T: ToString, E>(parsed: Result<T, E>, text: &str) {
    if let Ok(id) = parsed {
        assert_eq!(id.to_string(), text);
        assert!(!text.is_empty() && !text.chars().any(|c| c.is_control() || c == ' '));
    }
}
