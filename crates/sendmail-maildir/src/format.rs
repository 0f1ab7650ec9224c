//! The content of a queue file: envelope lines, a checksum over everything, then the message.
//!
//! ```text
//! X-Envelope-From: <a@b>
//! X-Envelope-To: <c@d>            one line for each recipient still to be served
//! X-Queue-Version: 1
//! X-Queue-Id: …                   the same as in the file's name
//! X-Queue-Resource: …             who decides its transaction
//! X-Queue-Time: …                 when it was handed over, in milliseconds since 1970
//! X-Queue-Not-Before: …           these five only where they are set
//! X-Queue-Expires: …
//! X-Queue-Ambiguous: hold
//! X-Queue-Priority: high
//! X-Queue-Tenant: …
//! X-Queue-Length: …               of the message, in bytes
//! X-Queue-Checksum: sha256=…      over all lines above and over the message
//! Subject: …                      the message as it goes on the wire
//! ```
//!
//! The lines look like header fields, so that every mail reader opens the file. They end in CRLF.

use std::fmt::Write as _;

use sendmail_core::{
    AmbiguousPolicy, DeliveryOptions, Envelope, Message, Priority, QueueId, ResourceId, Timestamp,
};
use sha2::{Digest as _, Sha256};

/// The version that is written, and the newest that is understood.
const VERSION: u32 = 1;

/// The longest envelope part: ten thousand recipients of the greatest length.
pub(crate) const MAX_HEAD: usize = 4 << 20;

/// A queue file taken apart.
#[derive(Debug, Clone)]
pub(crate) struct QueueFile {
    pub(crate) head: Head,
    pub(crate) message: Message,
}

/// What stands before the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) id: QueueId,
    pub(crate) resource: ResourceId,
    pub(crate) queued_at: Timestamp,
    pub(crate) envelope: Envelope,
}

/// Why bytes are not a queue file that may be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FormatError {
    #[error("the file is empty")]
    Empty,
    #[error("the file has no envelope")]
    NoEnvelope,
    #[error("format version {0} is newer than this program, which knows up to {VERSION}")]
    NewerVersion(u32),
    #[error("the line {0:?} is not understood")]
    Line(String),
    #[error("the line {0} is missing")]
    Missing(&'static str),
    #[error("the message has {found} bytes and should have {wanted}")]
    Length { found: usize, wanted: usize },
    #[error("the checksum does not match")]
    Checksum,
    #[error("the file says it is {found}, its name says {wanted}")]
    Id { found: QueueId, wanted: QueueId },
    #[error("the message is not in wire form: {0}")]
    Message(String),
}

/// The bytes that stand before `message`.
pub(crate) fn encode_head(head: &Head, message: &Message) -> Vec<u8> {
    let mut text = String::with_capacity(512);
    let mut line = |key: &str, value: &dyn std::fmt::Display| {
        // Writing to a string does not fail.
        let _ = write!(text, "{key}: {value}\r\n");
    };
    line("X-Envelope-From", &format_args!("<{}>", head.envelope.reverse_path()));
    for recipient in head.envelope.recipients() {
        line("X-Envelope-To", &format_args!("<{recipient}>"));
    }
    line("X-Queue-Version", &VERSION);
    line("X-Queue-Id", &head.id);
    line("X-Queue-Resource", &head.resource);
    line("X-Queue-Time", &head.queued_at.as_millis());
    let options = head.envelope.options();
    if let Some(time) = options.not_before {
        line("X-Queue-Not-Before", &time.as_millis());
    }
    if let Some(time) = options.expires {
        line("X-Queue-Expires", &time.as_millis());
    }
    if options.ambiguous != AmbiguousPolicy::default() {
        line("X-Queue-Ambiguous", &options.ambiguous.as_str());
    }
    if options.priority != Priority::default() {
        line("X-Queue-Priority", &options.priority.as_str());
    }
    if let Some(tenant) = &options.tenant {
        line("X-Queue-Tenant", tenant);
    }
    line("X-Queue-Length", &message.as_bytes().len());
    let sum = checksum(text.as_bytes(), message.as_bytes());
    let _ = write!(text, "X-Queue-Checksum: sha256={sum}\r\n");
    text.into_bytes()
}

/// Reads a queue file and proves it whole; `id` is what its name says.
pub(crate) fn decode(content: Vec<u8>, id: QueueId) -> Result<QueueFile, FormatError> {
    let (lines, start) = split_head(&content)?;
    let mut fields = Fields::default();
    for line in &lines {
        fields.read(line)?;
    }
    let head = fields.head()?;
    let found = content.len() - start;
    let wanted = fields.length.ok_or(FormatError::Missing("X-Queue-Length"))?;
    if found != wanted {
        return Err(FormatError::Length { found, wanted });
    }
    let covered: usize = lines.iter().take(lines.len() - 1).map(|line| line.len() + 2).sum();
    let sum = content.get(..covered).zip(content.get(start..)).map(|(it, rest)| checksum(it, rest));
    if sum.is_none() || fields.checksum != sum {
        return Err(FormatError::Checksum);
    }
    if head.id != id {
        return Err(FormatError::Id { found: head.id, wanted: id });
    }
    let message = Message::from_wire(content, start)
        .map_err(|error| FormatError::Message(error.to_string()))?;
    Ok(QueueFile { head, message })
}

/// Reads a queue file that may as well be one of another program.
pub(crate) fn decode_any(content: &[u8], id: QueueId) -> Result<QueueFile, FormatError> {
    // Most are not, and need no copy to be told.
    split_head(content)?;
    decode(content.to_vec(), id)
}

/// Reads only what stands before the message, from the beginning of a file. Proves nothing.
pub(crate) fn decode_head(beginning: &[u8]) -> Result<Head, FormatError> {
    let (lines, _) = split_head(beginning)?;
    let mut fields = Fields::default();
    for line in &lines {
        fields.read(line)?;
    }
    fields.head()
}

/// The envelope lines, checksum line included, and where the message starts.
fn split_head(content: &[u8]) -> Result<(Vec<&str>, usize), FormatError> {
    if content.is_empty() {
        return Err(FormatError::Empty);
    }
    if !content.starts_with(b"X-Envelope-From: ") {
        return Err(FormatError::NoEnvelope);
    }
    let mut lines = Vec::new();
    let mut start = 0;
    let mut version_checked = false;
    while start < MAX_HEAD {
        let rest = content.get(start..).unwrap_or_default();
        let end = rest.windows(2).take(MAX_LINE).position(|two| two == b"\r\n");
        let Some(text) = end.and_then(|end| rest.get(..end)) else { break };
        let line = std::str::from_utf8(text)
            .map_err(|_| FormatError::Line(String::from_utf8_lossy(text).into_owned()))?;
        lines.push(line);
        start += text.len() + 2;
        if let Some(version) = line.strip_prefix("X-Queue-Version: ") {
            match version.parse() {
                Ok(version) if version > VERSION => return Err(FormatError::NewerVersion(version)),
                Ok(_) => version_checked = true,
                Err(_) => return Err(FormatError::Line(line.to_owned())),
            }
        }
        if line.starts_with("X-Queue-Checksum: ") {
            return if version_checked {
                Ok((lines, start))
            } else {
                Err(FormatError::Missing("X-Queue-Version"))
            };
        }
    }
    Err(FormatError::Missing("X-Queue-Checksum"))
}

/// The longest line of the envelope part.
const MAX_LINE: usize = 1000;

/// The fields as they are read, one line after the other.
#[derive(Default)]
struct Fields {
    reverse_path: Option<String>,
    recipients: Vec<String>,
    id: Option<QueueId>,
    resource: Option<ResourceId>,
    queued_at: Option<Timestamp>,
    options: DeliveryOptions,
    length: Option<usize>,
    checksum: Option<String>,
}

impl Fields {
    fn read(&mut self, line: &str) -> Result<(), FormatError> {
        let (key, value) =
            line.split_once(": ").ok_or_else(|| FormatError::Line(line.to_owned()))?;
        let known = match key {
            "X-Envelope-From" => set(&mut self.reverse_path, Some(value.to_owned())),
            "X-Envelope-To" => {
                self.recipients.push(value.to_owned());
                true
            }
            "X-Queue-Version" => true,
            "X-Queue-Id" => set(&mut self.id, value.parse().ok()),
            "X-Queue-Resource" => set(&mut self.resource, value.parse().ok()),
            "X-Queue-Time" => set(&mut self.queued_at, time(value)),
            "X-Queue-Not-Before" => set(&mut self.options.not_before, time(value)),
            "X-Queue-Expires" => set(&mut self.options.expires, time(value)),
            "X-Queue-Ambiguous" => {
                AmbiguousPolicy::from_word(value).map(|it| self.options.ambiguous = it).is_some()
            }
            "X-Queue-Priority" => {
                Priority::from_word(value).map(|it| self.options.priority = it).is_some()
            }
            "X-Queue-Tenant" => set(&mut self.options.tenant, value.parse().ok()),
            "X-Queue-Length" => set(&mut self.length, value.parse().ok()),
            "X-Queue-Checksum" => {
                set(&mut self.checksum, value.strip_prefix("sha256=").map(str::to_owned))
            }
            _ => false,
        };
        if known { Ok(()) } else { Err(FormatError::Line(line.to_owned())) }
    }

    fn head(&self) -> Result<Head, FormatError> {
        let reverse_path =
            self.reverse_path.as_ref().ok_or(FormatError::Missing("X-Envelope-From"))?;
        let envelope = Envelope::parse(reverse_path, &self.recipients)
            .map_err(|error| FormatError::Line(error.to_string()))?;
        Ok(Head {
            id: self.id.ok_or(FormatError::Missing("X-Queue-Id"))?,
            resource: self.resource.clone().ok_or(FormatError::Missing("X-Queue-Resource"))?,
            queued_at: self.queued_at.ok_or(FormatError::Missing("X-Queue-Time"))?,
            envelope: envelope.with_options(self.options.clone()),
        })
    }
}

/// Fills an empty slot; false if the value is no value, or the slot was filled before.
fn set<T>(slot: &mut Option<T>, value: Option<T>) -> bool {
    let fresh = slot.is_none() && value.is_some();
    *slot = value;
    fresh
}

fn time(value: &str) -> Option<Timestamp> {
    value.parse().ok().map(Timestamp::from_millis)
}

fn checksum(head: &[u8], message: &[u8]) -> String {
    let digest = Sha256::new().chain_update(head).chain_update(message).finalize();
    digest.iter().fold(String::with_capacity(64), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sample(options: DeliveryOptions) -> (Head, Message, Vec<u8>) {
        let raw = b"Message-ID: <m@x>\nDate: d\nSubject: s\n\n.\nX-Envelope-To: <evil@x>\nbody\n";
        let message = Message::from_raw(raw, Timestamp::EPOCH, "x").unwrap();
        let envelope = Envelope::parse("a@b", ["c@d", "j\u{f6}rg@m\u{fc}nchen.example"]).unwrap();
        let head = Head {
            id: QueueId::from_bytes([3; 16]),
            resource: "own".parse().unwrap(),
            queued_at: Timestamp::from_millis(12345),
            envelope: envelope.with_options(options),
        };
        let mut content = encode_head(&head, &message);
        content.extend_from_slice(message.as_bytes());
        (head, message, content)
    }

    fn all_options() -> DeliveryOptions {
        let mut options = DeliveryOptions::default();
        options.not_before = Some(Timestamp::from_millis(5));
        options.expires = Some(Timestamp::from_millis(-6));
        options.ambiguous = AmbiguousPolicy::Drop;
        options.priority = Priority::High;
        options.tenant = Some("acme".parse().unwrap());
        options
    }

    #[test]
    fn a_file_is_read_back_as_it_was_written() {
        for options in [DeliveryOptions::default(), all_options()] {
            let (head, message, content) = sample(options);
            let file = decode(content.clone(), head.id).unwrap();
            assert_eq!(file.head, head);
            assert_eq!(file.message.as_bytes(), message.as_bytes());
            assert_eq!(decode_head(&content).unwrap(), head);
        }
    }

    // Proves: B-unknown-format
    #[test]
    fn an_unknown_version_is_told_from_damage() {
        let (head, _, content) = sample(DeliveryOptions::default());
        let text = String::from_utf8(content).unwrap();
        let newer = text.replace("X-Queue-Version: 1", "X-Queue-Version: 2\r\nX-Queue-New: thing");
        assert_eq!(decode(newer.into_bytes(), head.id).unwrap_err(), FormatError::NewerVersion(2));
    }

    /// Whoever can write to the queue can compute a checksum too: what it covers must be right by itself.
    // Proves: A-envelope
    #[test]
    fn an_envelope_that_was_forged_with_its_checksum_is_refused() {
        let (head, message, _) = sample(DeliveryOptions::default());
        let forge = |from: &str, to: &[&str], more: &str| {
            let to: String = to.iter().map(|to| format!("X-Envelope-To: {to}\r\n")).collect();
            let text = format!(
                "X-Envelope-From: {from}\r\n{to}X-Queue-Version: 1\r\nX-Queue-Id: {}\r\n\
                 X-Queue-Resource: own\r\nX-Queue-Time: 1\r\n{more}X-Queue-Length: {}\r\n",
                head.id,
                message.as_bytes().len()
            );
            let sum = checksum(text.as_bytes(), message.as_bytes());
            let mut content = format!("{text}X-Queue-Checksum: sha256={sum}\r\n").into_bytes();
            content.extend_from_slice(message.as_bytes());
            decode(content, head.id)
        };
        forge("<a@b>", &["<c@d>"], "").expect("the forger knows the format");
        for to in [
            "<c@d>\nRCPT TO:<evil@x>",
            "<c@d\nRCPT TO:<evil@x>>",
            "<c@d\rRCPT TO:<evil@x>>",
            "<c@d\r\nRCPT TO:<evil@x>>",
            "<c@d>\r\n X-Envelope-To: <evil@x>",
            "<c@d\0>",
            "<c@d>, <evil@x>",
            "<c@d,evil@x>",
            "<c@d evil@x>",
            "<\"c\r\n\"@d>",
            "<c@d> SIZE=1",
            "<c@d",
            "<>",
            "",
            "c",
        ] {
            assert!(forge("<a@b>", &[to], "").is_err(), "to {to:?}");
            if !matches!(to, "<>" | "") {
                assert!(forge(to, &["<c@d>"], "").is_err(), "from {to:?}");
            }
        }
        assert!(forge("<a@b>", &[], "").is_err(), "nobody");
        for more in [
            "X-Queue-Tenant: a\nb\r\n",
            "X-Queue-Time: 2\r\n",
            "X-Envelope-From: <x@y>\r\n",
            "X-Queue-Unknown: 1\r\n",
            "\r\n",
            "X-Queue-Id: ../../x\r\n",
        ] {
            assert!(forge("<a@b>", &["<c@d>"], more).is_err(), "{more:?}");
        }
        let mut long = vec!["<c@d>".to_owned()];
        long.extend((0..=sendmail_core::MAX_RECIPIENTS).map(|number| format!("<{number}@d>")));
        let long: Vec<&str> = long.iter().map(String::as_str).collect();
        assert!(forge("<a@b>", &long, "").is_err(), "a recipient bomb");
    }

    // Proves: B-damaged, I6
    #[test]
    fn another_files_content_is_refused() {
        let (_, _, content) = sample(DeliveryOptions::default());
        let other = QueueId::from_bytes([4; 16]);
        assert!(matches!(decode(content, other), Err(FormatError::Id { .. })));
    }

    // Proves: B-damaged, I6
    #[test]
    fn every_truncation_is_noticed() {
        let (head, _, content) = sample(all_options());
        for length in 0..content.len() {
            assert!(decode(content[..length].to_vec(), head.id).is_err(), "{length} bytes");
        }
        let mut longer = content;
        longer.extend_from_slice(b"x\r\n");
        assert!(decode(longer, head.id).is_err());
    }

    proptest! {
        // Proves: B-damaged, I6
        #[test]
        fn every_changed_byte_is_noticed(position in 0usize..600, change in 1u8..) {
            let (head, _, mut content) = sample(all_options());
            let position = position % content.len();
            content[position] ^= change;
            prop_assert!(decode(content, head.id).is_err());
        }

        #[test]
        fn reading_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300), with_start: bool) {
            let mut content = if with_start { b"X-Envelope-From: <a@b>\r\n".to_vec() } else { vec![] };
            content.extend(bytes);
            let _ = decode_head(&content);
            let _ = decode(content, QueueId::from_bytes([0; 16]));
        }
    }
}
