//! A message in the form in which it goes on the wire, and how it gets there from what it was given.

use std::fmt;
use std::sync::Arc;

use crate::clock::Civil;
use crate::{MessageId, MessageIdError, Timestamp};

/// The longest line of a message in bytes, without its CRLF (RFC 5321 section 4.5.3.1.6).
pub const MAX_LINE: usize = 998;

/// Bytes do not make a message. Lines are counted from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MessageError {
    /// There is nothing at all.
    #[error("the message is empty")]
    Empty,
    /// It is larger than any queue takes.
    #[error("the message has {length} bytes, at most {} are allowed", Message::MAX_LEN)]
    TooLarge {
        /// How large it is, in bytes.
        length: usize,
    },
    /// A line is longer than SMTP allows.
    #[error(
        "line {line} has {length} bytes, at most {MAX_LINE} are allowed; encode the body as quoted-printable or base64"
    )]
    LongLine {
        /// Which line.
        line: usize,
        /// How long it is, in bytes, without its end.
        length: usize,
    },
    /// A NUL byte, which no mail may contain (RFC 5322 section 3.5).
    #[error("line {line} has a NUL byte; encode the body as base64")]
    Nul {
        /// Which line.
        line: usize,
    },
    /// A header line with bytes that are neither ASCII nor UTF-8 (RFC 6532).
    #[error("line {line} of the header is neither ASCII nor UTF-8; encode it as RFC 2047 says")]
    HeaderEncoding {
        /// Which line.
        line: usize,
    },
    /// A line of bytes that were said to be in wire form does not end in CRLF.
    #[error("line {line} does not end in CRLF")]
    LineEnd {
        /// Which line.
        line: usize,
    },
    /// There is a Message-ID, and it is malformed.
    #[error("malformed Message-ID: {0}")]
    MessageId(#[from] MessageIdError),
    /// Bytes that were said to be in wire form have no Message-ID.
    #[error("the message has no Message-ID")]
    NoMessageId,
}

/// A message as it goes on the wire before dot-stuffing.
///
/// Every line ends in CRLF and has at most [`MAX_LINE`] bytes, there is no other CR or LF and no NUL,
/// and the header has a Message-ID. Cloning is cheap.
#[derive(Clone)]
pub struct Message {
    buffer: Arc<Vec<u8>>,
    start: usize,
    message_id: MessageId,
    has_8bit_body: bool,
    has_8bit_header: bool,
}

impl Message {
    /// The largest message in bytes.
    pub const MAX_LEN: usize = 256 << 20;

    /// Takes a message as an application hands it over, and fixes its bytes.
    ///
    /// Line ends of every kind become CRLF, a final one is added if it is missing; `Bcc:` and
    /// `Resent-Bcc:` are removed; a missing Date is added, and a missing Message-ID is minted under
    /// `domain`, each once, at the end of the header. Where the header is not ended by an empty line
    /// but by a line that is no header field, that line starts the body. Nothing else is changed.
    ///
    /// # Errors
    ///
    /// The first thing that keeps the bytes from being a message, with its line.
    pub fn from_raw(raw: &[u8], now: Timestamp, domain: &str) -> Result<Self, MessageError> {
        Self::from_raw_or(raw, now, || MessageId::mint(now, domain))
    }

    /// As [`Message::from_raw`]; the caller says which Message-ID a message gets that has none.
    ///
    /// # Errors
    ///
    /// As [`Message::from_raw`].
    pub fn from_raw_or(
        raw: &[u8],
        date: Timestamp,
        missing_id: impl FnOnce() -> MessageId,
    ) -> Result<Self, MessageError> {
        if raw.is_empty() {
            return Err(MessageError::Empty);
        }
        let bytes = normalise(raw, date, missing_id)?;
        Self::from_wire(bytes, 0)
    }

    /// Takes bytes that are in wire form already: `buffer` from offset `start` on.
    ///
    /// # Errors
    ///
    /// The first thing in which they are not, with its line.
    pub fn from_wire(buffer: Vec<u8>, start: usize) -> Result<Self, MessageError> {
        let bytes = buffer.get(start..).unwrap_or_default();
        if bytes.is_empty() {
            return Err(MessageError::Empty);
        }
        check_length(bytes.len())?;
        let facts = inspect(bytes)?;
        Ok(Self {
            message_id: facts.message_id.ok_or(MessageError::NoMessageId)?,
            has_8bit_body: facts.has_8bit_body,
            has_8bit_header: facts.has_8bit_header,
            buffer: Arc::new(buffer),
            start,
        })
    }

    /// The bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// The Message-ID in its header.
    #[must_use]
    pub fn message_id(&self) -> &MessageId {
        &self.message_id
    }

    /// Whether the body has bytes over 127, so that the relay must offer 8BITMIME (RFC 6152).
    #[must_use]
    pub fn has_8bit_body(&self) -> bool {
        self.has_8bit_body
    }

    /// Whether the header has bytes over 127, so that the relay must offer SMTPUTF8 (RFC 6531).
    #[must_use]
    pub fn has_8bit_header(&self) -> bool {
        self.has_8bit_header
    }
}

/// By the bytes alone.
impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Message {}

/// Message-ID and length; never the content.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("message_id", &self.message_id)
            .field("length", &self.as_bytes().len())
            .finish_non_exhaustive()
    }
}

fn check_length(length: usize) -> Result<(), MessageError> {
    if length > Message::MAX_LEN { Err(MessageError::TooLarge { length }) } else { Ok(()) }
}

/// What [`inspect`] found in bytes that are in wire form.
struct Facts {
    message_id: Option<MessageId>,
    has_8bit_body: bool,
    has_8bit_header: bool,
}

/// Checks that `bytes` are in wire form.
fn inspect(bytes: &[u8]) -> Result<Facts, MessageError> {
    let mut facts = Facts { message_id: None, has_8bit_body: false, has_8bit_header: false };
    let mut id_field = FieldText::new(b"Message-ID");
    let mut in_header = true;
    for (line, whole) in (1..).zip(bytes.split_inclusive(|b| *b == b'\n')) {
        let text = whole.strip_suffix(b"\r\n").ok_or(MessageError::LineEnd { line })?;
        if text.contains(&b'\r') {
            return Err(MessageError::LineEnd { line });
        }
        if text.len() > MAX_LINE {
            return Err(MessageError::LongLine { line, length: text.len() });
        }
        let ascii = text.is_ascii();
        if text.contains(&0) {
            return Err(MessageError::Nul { line });
        }
        if text.is_empty() {
            in_header = false;
        } else if !in_header {
            facts.has_8bit_body |= !ascii;
        } else {
            if !ascii && std::str::from_utf8(text).is_err() {
                return Err(MessageError::HeaderEncoding { line });
            }
            facts.has_8bit_header |= !ascii;
            id_field.feed(text);
        }
    }
    if let Some(text) = id_field.text {
        facts.message_id = Some(parse_message_id(&text)?);
    }
    Ok(facts)
}

/// Collects the text of the first header field of one name, unfolded (RFC 5322 section 2.2.3).
struct FieldText {
    name: &'static [u8],
    text: Option<Vec<u8>>,
    open: bool,
}

impl FieldText {
    fn new(name: &'static [u8]) -> Self {
        Self { name, text: None, open: false }
    }

    fn feed(&mut self, line: &[u8]) {
        if is_continuation(line) {
            if let Some(text) = self.text.as_mut().filter(|_| self.open) {
                text.extend_from_slice(line);
            }
            return;
        }
        let value = field(line).filter(|(name, _)| name.eq_ignore_ascii_case(self.name));
        self.open = self.text.is_none() && value.is_some();
        if let Some((_, value)) = value.filter(|_| self.open) {
            self.text = Some(value.to_vec());
        }
    }
}

fn parse_message_id(text: &[u8]) -> Result<MessageId, MessageError> {
    Ok(String::from_utf8_lossy(text).trim_matches([' ', '\t']).parse()?)
}

/// Brings `raw` into wire form: one pass over its lines, one over its header.
fn normalise(
    raw: &[u8],
    date: Timestamp,
    missing_id: impl FnOnce() -> MessageId,
) -> Result<Vec<u8>, MessageError> {
    check_length(raw.len())?;
    let mut out = Vec::with_capacity(raw.len() + raw.len() / 32 + 256);
    let mut lines = Lines { rest: raw };
    let mut has_date = false;
    let mut has_id = false;
    let mut dropping = false;
    let mut first_of_body = None;
    let mut ended = false;
    let mut fields = 0;
    for line in lines.by_ref() {
        if line.is_empty() {
            ended = true;
            break;
        }
        if is_continuation(line) && fields > 0 {
            if !dropping {
                push_line(&mut out, line);
            }
            continue;
        }
        if !is_any_field(line) {
            first_of_body = Some(line);
            break;
        }
        fields += 1;
        dropping = is_field(line, b"Bcc") || is_field(line, b"Resent-Bcc");
        if !dropping {
            has_date |= is_field(line, b"Date");
            has_id |= is_field(line, b"Message-ID");
            push_line(&mut out, line);
        }
    }
    if !has_date {
        push_line(&mut out, format!("Date: {}", rfc5322_date(date)).as_bytes());
    }
    if !has_id {
        push_line(&mut out, format!("Message-ID: {}", missing_id()).as_bytes());
    }
    if ended || first_of_body.is_some() {
        push_line(&mut out, b"");
    }
    if let Some(line) = first_of_body {
        push_line(&mut out, line);
    }
    for line in lines {
        push_line(&mut out, line);
    }
    Ok(out)
}

fn push_line(out: &mut Vec<u8>, line: &[u8]) {
    out.extend_from_slice(line);
    out.extend_from_slice(b"\r\n");
}

/// Lines that end in CRLF, LF or CR; what follows the last end is a line if it is not empty.
struct Lines<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        if self.rest.is_empty() {
            return None;
        }
        let end = self.rest.iter().position(|b| matches!(b, b'\r' | b'\n'));
        let end = end.unwrap_or(self.rest.len());
        let (line, rest) = self.rest.split_at(end);
        self.rest = rest.strip_prefix(b"\r\n").or_else(|| rest.get(1..)).unwrap_or_default();
        Some(line)
    }
}

fn is_continuation(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

/// Whether `line` starts a header field: a name of printable characters, then a colon; white space
/// before the colon is obsolete but exists (RFC 5322 section 4.5).
fn is_any_field(line: &[u8]) -> bool {
    field(line).is_some_and(|(name, _)| !name.is_empty() && name.iter().all(u8::is_ascii_graphic))
}

fn is_field(line: &[u8], name: &[u8]) -> bool {
    field(line).is_some_and(|(found, _)| found.eq_ignore_ascii_case(name))
}

/// What stands before the first colon, without white space behind it, and what stands after.
fn field(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut parts = line.splitn(2, |b| *b == b':');
    Some((parts.next()?.trim_ascii_end(), parts.next()?))
}

/// `Tue, 24 Nov 2026 07:08:55 +0000` (RFC 5322 section 3.3).
#[expect(clippy::indexing_slicing, reason = "the remainders are less than the tables are long")]
fn rfc5322_date(timestamp: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let civil = Civil::from(timestamp);
    format!(
        "{}, {:02} {} {:04} {:02}:{:02}:{:02} +0000",
        DAYS[usize::from(civil.weekday) % 7],
        civil.day,
        MONTHS[usize::from(civil.month.max(1) - 1) % 12],
        civil.year,
        civil.hour,
        civil.minute,
        civil.second
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Timestamp = Timestamp::from_millis(1_795_504_135_000);

    fn accept(raw: &str) -> Result<Message, MessageError> {
        Message::from_raw(raw.as_bytes(), NOW, "example.org")
    }

    fn check(raw: &str, wire: &str) {
        let message = accept(raw).unwrap_or_else(|e| panic!("{raw:?}: {e}"));
        assert_eq!(String::from_utf8_lossy(message.as_bytes()), wire, "{raw:?}");
    }

    #[test]
    fn a_complete_message_keeps_its_bytes() {
        let wire = "Message-ID: <a@b>\r\nDate: x\r\nSubject: s\r\n\r\n.\r\n..\r\nbody\r\n";
        check(wire, wire);
    }

    // Proves: B-line-ends, A-injection, I14
    #[test]
    fn line_ends_of_every_kind_become_crlf() {
        check(
            "Message-ID: <a@b>\nDate: x\r\n\none\rtwo\r\r\nthree\n\r\n.\nend",
            "Message-ID: <a@b>\r\nDate: x\r\n\r\none\r\ntwo\r\n\r\nthree\r\n\r\n.\r\nend\r\n",
        );
    }

    // Proves: B-missing
    #[test]
    fn date_and_message_id_are_added_at_the_end_of_the_header() {
        let message = accept("Subject: s\n\nbody\n").unwrap();
        let text = String::from_utf8_lossy(message.as_bytes()).into_owned();
        let id = message.message_id();
        assert!(id.as_str().ends_with("@example.org>"));
        assert_eq!(
            text,
            format!(
                "Subject: s\r\nDate: Tue, 24 Nov 2026 07:08:55 +0000\r\nMessage-ID: {id}\r\n\r\nbody\r\n"
            )
        );
    }

    // Proves: B-bcc, I16
    #[test]
    fn bcc_never_leaves_the_host() {
        check(
            "Message-ID: <a@b>\nBCC : x@y,\n z@y\nDate: d\nResent-Bcc: q@y\nTo: t@y\n\nBcc: body\n",
            "Message-ID: <a@b>\r\nDate: d\r\nTo: t@y\r\n\r\nBcc: body\r\n",
        );
    }

    #[test]
    fn a_line_that_is_no_field_starts_the_body() {
        check(
            "Message-ID: <a@b>\nDate: d\nhello\n",
            "Message-ID: <a@b>\r\nDate: d\r\n\r\nhello\r\n",
        );
        assert!(accept("just text").unwrap().as_bytes().ends_with(b"\r\n\r\njust text\r\n"));
        assert!(accept("\nbody").unwrap().as_bytes().ends_with(b"\r\n\r\nbody\r\n"));
    }

    // Proves: B-controls, B-missing
    #[test]
    fn a_folded_message_id_is_unfolded_and_a_malformed_one_refused() {
        let message = accept("message-id:\r\n <a@b>\r\n\r\nx\r\n").unwrap();
        assert_eq!(message.message_id().as_str(), "<a@b>");
        for bad in ["Message-ID: a@b\n\n", "Message-ID: <a>\n\n", "Message-ID:\n\n"] {
            assert!(matches!(accept(bad), Err(MessageError::MessageId(_))), "{bad:?}");
        }
    }

    // Proves: B-missing
    #[test]
    fn a_header_is_what_reads_as_one() {
        // Folding needs something to fold, and a name has no white space within.
        let added = "Date: Tue, 24 Nov 2026 07:08:55 +0000\r\nMessage-ID: ";
        for raw in [" A: folds nothing\n", "two words: x\n", ": x\n"] {
            let message = accept(raw).unwrap();
            let text = String::from_utf8_lossy(message.as_bytes()).into_owned();
            assert!(text.starts_with(added), "{raw:?}: {text}");
            assert!(text.ends_with(&format!("\r\n\r\n{}\r\n", raw.trim_end())), "{raw:?}: {text}");
        }
        check(
            "A: b\n c\nMessage-ID: <a@b>\nDate: d\n",
            "A: b\r\n c\r\nMessage-ID: <a@b>\r\nDate: d\r\n",
        );
    }

    #[test]
    fn the_first_message_id_counts_and_only_its_own_folds() {
        let raw = "A: b\n c\nMessage-ID: <a@b>\nB: c\n d\nMessage-ID: <second@b>\n e\n\n";
        assert_eq!(accept(raw).unwrap().message_id().as_str(), "<a@b>");
        let split = "Message-ID:\n \t<a@b>\n\t\nDate: d\n\n";
        assert_eq!(accept(split).unwrap().message_id().as_str(), "<a@b>");
    }

    #[test]
    fn the_largest_message_is_taken_and_a_byte_more_is_not() {
        assert_eq!(check_length(256 << 20), Ok(()));
        // Memory that nobody touches costs nothing.
        let length = Message::MAX_LEN + 1;
        let (raw, wire) = (vec![0; length], vec![0; length]);
        let large = Err(MessageError::TooLarge { length });
        assert_eq!(Message::from_raw(&raw, NOW, "b"), large);
        assert_eq!(Message::from_wire(wire, 0), large);
    }

    // Proves: B-long-lines
    #[test]
    fn the_longest_line_is_taken() {
        let longest = "x".repeat(MAX_LINE);
        assert!(accept(&format!("A: b\n\n{longest}\n")).is_ok());
    }

    // Proves: B-long-lines, B-controls
    #[test]
    fn what_smtp_cannot_carry_is_named_by_its_line() {
        assert_eq!(accept(""), Err(MessageError::Empty));
        assert_eq!(accept("A: b\n\nx\0y\n"), Err(MessageError::Nul { line: 5 }));
        let long = format!("A: b\n\n{}\n", "x".repeat(999));
        assert_eq!(accept(&long), Err(MessageError::LongLine { line: 5, length: 999 }));
        let latin = Message::from_raw(b"Subject: \xfc\n\nx\n", NOW, "b");
        assert_eq!(latin, Err(MessageError::HeaderEncoding { line: 1 }));
        let bare = Message::from_wire(b"Message-ID: <a@b>\n".to_vec(), 0);
        assert_eq!(bare, Err(MessageError::LineEnd { line: 1 }));
    }

    // Proves: B-8bit
    #[test]
    fn eight_bits_are_noticed_where_they_stand() {
        let body = Message::from_raw(b"A: b\n\n\xfc\n", NOW, "b").unwrap();
        assert!(body.has_8bit_body() && !body.has_8bit_header());
        let header = accept("Subject: ü\n\nx\n").unwrap();
        assert!(!header.has_8bit_body() && header.has_8bit_header());
    }

    #[test]
    fn where_it_starts_in_its_buffer_makes_no_difference() {
        let wire = b"Message-ID: <a@b>\r\n\r\n".to_vec();
        let longer = [b"head\r\n".as_slice(), &wire].concat();
        assert_eq!(Message::from_wire(wire.clone(), 0), Message::from_wire(longer, 6));
        let other = Message::from_wire(b"Message-ID: <a@b>\r\n\r\nx\r\n".to_vec(), 0);
        assert_ne!(Message::from_wire(wire, 0), other);
    }

    // Proves: I16
    #[test]
    fn debug_does_not_show_the_content() {
        let message = accept("Message-ID: <a@b>\nDate: d\nSubject: secret\n\nsecret\n").unwrap();
        let expected = "Message { message_id: MessageId(\"<a@b>\"), length: 55, .. }";
        assert_eq!(format!("{message:?}"), expected);
    }

    proptest! {
        #[test]
        fn what_is_accepted_is_in_wire_form_and_stays_as_it_is(
            raw in prop::collection::vec(
                prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'.'), Just(b':'), Just(b' '), any::<u8>()],
                0..400,
            )
        ) {
            if let Ok(message) = Message::from_raw(&raw, NOW, "example.org") {
                let wire = message.as_bytes();
                prop_assert!(wire.ends_with(b"\r\n"));
                for (i, byte) in wire.iter().enumerate() {
                    match byte {
                        b'\r' => prop_assert_eq!(wire.get(i + 1), Some(&b'\n')),
                        b'\n' => prop_assert_eq!(wire[i - 1], b'\r'),
                        _ => prop_assert_ne!(*byte, 0),
                    }
                }
                let again = Message::from_raw(wire, NOW, "example.org").unwrap();
                prop_assert_eq!(again.as_bytes(), wire);
            }
        }
    }
}
