//! Reading replies: bytes in, complete replies out, whatever the relay sends.
//!
//! The reader is pure and incremental. It accepts what RFC 5321 section 4.2 asks of a client and what
//! is seen in the wild (no text, text in Latin-1, any second and third digit, bare LF), and stops with
//! an error at everything else, before it has kept more than a few KiB.

use std::collections::VecDeque;

use sendmail_core::Reply;

/// The longest line that is read, in bytes; RFC 5321 section 4.5.3.1.5 allows 512.
pub(crate) const MAX_LINE: usize = 4096;
/// The most lines of one reply.
pub(crate) const MAX_LINES: usize = 128;
/// What is kept of the text of one line, in bytes.
const MAX_KEPT: usize = 512;

/// Bytes from a relay are not a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplyError {
    /// A line has more bytes than are read.
    #[error("a line of the reply is longer than {MAX_LINE} bytes")]
    LongLine,
    /// A reply has more lines than are read.
    #[error("the reply has more than {MAX_LINES} lines")]
    TooManyLines,
    /// A line does not start with a code from 200 to 599, followed by a space, a hyphen or nothing.
    #[error("the reply does not start with a reply code")]
    NoCode,
    /// The lines of one reply have different codes.
    #[error("the lines of the reply have different codes")]
    MixedCodes,
}

/// A reply as it was read: its code as sent, and its lines in printable ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireReply {
    code: u16,
    lines: Vec<String>,
}

impl WireReply {
    /// The three digits, 200 to 599.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The text of each line, without the code, in printable ASCII.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// Whether the code starts with `digit`.
    #[must_use]
    pub fn is_class(&self, digit: u16) -> bool {
        self.code / 100 == digit
    }

    /// The reply on one line; an enhanced status that every line repeats stands once.
    #[must_use]
    pub fn to_reply(&self) -> Reply {
        let first = self.lines.first().map_or("", String::as_str);
        let status = first.split(' ').next().filter(|word| word.split('.').count() == 3);
        let mut text = first.to_owned();
        for line in self.lines.iter().skip(1).take(16) {
            let repeated = status.and_then(|status| line.strip_prefix(status));
            text.push(' ');
            text.push_str(repeated.unwrap_or(line).trim_start());
        }
        Reply::new(self.code, &text)
    }
}

/// Collects bytes into replies.
#[derive(Debug, Default)]
pub(crate) struct ReplyReader {
    /// The line that is not complete yet; never longer than [`MAX_LINE`].
    line: Vec<u8>,
    /// The reply that is not complete yet.
    partial: Option<WireReply>,
    complete: VecDeque<WireReply>,
    /// Set once; nothing that follows is read.
    failed: Option<ReplyError>,
}

impl ReplyReader {
    /// Takes bytes as they came; what they complete is given out by [`ReplyReader::next`].
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        for byte in bytes {
            if self.failed.is_some() {
                return;
            }
            let result = match byte {
                b'\n' => self.end_of_line(),
                _ if self.line.len() < MAX_LINE => {
                    self.line.push(*byte);
                    Ok(())
                }
                _ => Err(ReplyError::LongLine),
            };
            self.failed = result.err();
        }
    }

    /// The next complete reply; an error once the bytes before it are used up and what follows them
    /// is no reply; nothing while more bytes are needed.
    pub(crate) fn next(&mut self) -> Option<Result<WireReply, ReplyError>> {
        self.complete.pop_front().map(Ok).or_else(|| self.failed.map(Err))
    }

    /// Whether nothing at all waits in here.
    pub(crate) fn is_empty(&self) -> bool {
        self.line.is_empty()
            && self.partial.is_none()
            && self.complete.is_empty()
            && self.failed.is_none()
    }

    fn end_of_line(&mut self) -> Result<(), ReplyError> {
        let line = std::mem::take(&mut self.line);
        let line = line.strip_suffix(b"\r").unwrap_or(&line);
        let (code, is_last, text) = split_line(line).ok_or(ReplyError::NoCode)?;
        let reply = self.partial.get_or_insert_with(|| WireReply { code, lines: Vec::new() });
        if reply.code != code {
            return Err(ReplyError::MixedCodes);
        }
        if reply.lines.len() == MAX_LINES {
            return Err(ReplyError::TooManyLines);
        }
        reply.lines.push(printable(text));
        if is_last {
            self.complete.extend(self.partial.take());
        }
        Ok(())
    }
}

/// Reads the first reply in `bytes`: nothing while it is not complete.
///
/// It is what the mailer reads every reply with, made callable for fuzzing.
///
/// # Errors
///
/// The bytes cannot become a reply, whatever follows.
pub fn read_reply(bytes: &[u8]) -> Result<Option<WireReply>, ReplyError> {
    let mut reader = ReplyReader::default();
    reader.feed(bytes);
    reader.next().transpose()
}

/// Code, whether it is the last line, text.
fn split_line(line: &[u8]) -> Option<(u16, bool, &[u8])> {
    let (digits, rest) = line.split_at_checked(3)?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let code = digits.iter().fold(0, |code, digit| code * 10 + u16::from(digit - b'0'));
    let is_last = match rest.first() {
        None | Some(b' ') => true,
        Some(b'-') => false,
        Some(_) => return None,
    };
    (200..600).contains(&code).then(|| (code, is_last, rest.get(1..).unwrap_or_default()))
}

fn printable(text: &[u8]) -> String {
    let one = |byte: &u8| match byte {
        b' '..=b'~' => char::from(*byte),
        b'\t' => ' ',
        _ => '?',
    };
    text.iter().take(MAX_KEPT).map(one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sendmail_core::{DeliveryReport, Envelope, Outcome};

    fn read(bytes: &[u8]) -> Result<Option<(u16, String)>, ReplyError> {
        read_reply(bytes).map(|reply| reply.map(|reply| (reply.code(), reply.lines().join("|"))))
    }

    #[test]
    fn replies_as_relays_write_them() {
        for (bytes, code, text) in [
            (&b"250 ok\r\n"[..], 250, "ok"),
            (b"250\r\n", 250, ""),
            (b"250 \r\n", 250, ""),
            (b"250-\r\n250\r\n", 250, "|"),
            (b"250 d\xe9j\xe0 vu\r\n", 250, "d?j? vu"),
            (b"571 5.7.1 no\r\n", 571, "5.7.1 no"),
            (b"299 odd\n", 299, "odd"),
            (b"250-a\r\n250- \r\n250 b\r\n", 250, "a| |b"),
            (b"354 go\r\n250 next\r\n", 354, "go"),
        ] {
            assert_eq!(read(bytes), Ok(Some((code, text.to_owned()))), "{bytes:?}");
        }
    }

    #[test]
    fn what_is_no_reply_is_an_error_and_what_is_short_waits() {
        for (bytes, expected) in [
            (&b""[..], Ok(None)),
            (b"250", Ok(None)),
            (b"250-ok\r\n", Ok(None)),
            (b"hello\r\n", Err(ReplyError::NoCode)),
            (b"\r\n", Err(ReplyError::NoCode)),
            (b"2500 ok\r\n", Err(ReplyError::NoCode)),
            (b"100 ok\r\n", Err(ReplyError::NoCode)),
            (b"650 ok\r\n", Err(ReplyError::NoCode)),
            (b"250-ok\r\n251 ok\r\n", Err(ReplyError::MixedCodes)),
        ] {
            assert_eq!(read(bytes), expected, "{bytes:?}");
        }
    }

    #[test]
    fn an_endless_line_and_an_endless_reply_are_cut_off() {
        assert_eq!(read(&[b'2'; MAX_LINE + 1]), Err(ReplyError::LongLine));
        let endless = b"250-more\r\n".repeat(MAX_LINES + 1);
        assert_eq!(read(&endless), Err(ReplyError::TooManyLines));
    }

    #[test]
    fn the_longest_line_and_the_longest_reply_are_read() {
        let line = [b"250 ", "x".repeat(MAX_LINE - 4).as_bytes(), b"\n"].concat();
        assert_eq!(read(&line), Ok(Some((250, "x".repeat(MAX_KEPT)))));
        let mut most = b"250-more\r\n".repeat(MAX_LINES - 1);
        most.extend_from_slice(b"250 last\r\n");
        let reply = read_reply(&most).unwrap().unwrap();
        assert_eq!(reply.lines().len(), MAX_LINES);
        // Of a long one only the first lines are told.
        let shown = reply.to_reply();
        assert_eq!(shown.text(), ["more"; 17].join(" "));
    }

    #[test]
    fn after_an_error_nothing_more_is_read() {
        let mut reader = ReplyReader::default();
        reader.feed(b"250 ok\r\nnonsense\r\n250 never\r\n");
        assert!(matches!(reader.next(), Some(Ok(reply)) if reply.code() == 250));
        for _ in 0..2 {
            assert_eq!(reader.next(), Some(Err(ReplyError::NoCode)));
        }
    }

    #[test]
    fn a_reader_is_empty_only_if_nothing_waits_in_it() {
        for (bytes, empty) in
            [(&b""[..], true), (b"2", false), (b"250-a\r\n", false), (b"250 a\r\n", false)]
        {
            let mut reader = ReplyReader::default();
            reader.feed(bytes);
            assert_eq!(reader.is_empty(), empty, "{bytes:?}");
        }
        let mut reader = ReplyReader::default();
        reader.feed(b"250 a\r\n");
        assert!(reader.next().is_some() && reader.is_empty());
        reader.feed(b"no\r\n");
        assert!(reader.next().is_some() && !reader.is_empty(), "what failed stays failed");
    }

    #[test]
    fn a_class_is_the_first_digit_alone() {
        let reply = |code: u16| read_reply(format!("{code}\r\n").as_bytes()).unwrap().unwrap();
        for code in [200, 250, 299, 300, 399, 499, 500, 599] {
            let classes: Vec<u16> = (0..10).filter(|class| reply(code).is_class(*class)).collect();
            assert_eq!(classes, [code / 100], "{code}");
        }
    }

    #[test]
    fn a_tab_is_a_space_and_what_cannot_be_printed_is_marked() {
        assert_eq!(read(b"250 a\tb\x7f~ \x1f!\r\n"), Ok(Some((250, "a b?~ ?!".to_owned()))));
    }

    #[test]
    fn a_word_with_other_dots_is_no_status() {
        let text = |bytes: &[u8]| read_reply(bytes).unwrap().unwrap().to_reply().to_string();
        assert_eq!(text(b"550-a.b no\r\n550 a.b way\r\n"), "550 a.b no a.b way");
        assert_eq!(text(b"550-no\r\n550  way\r\n"), "550 no way");
    }

    // Proves: I16
    #[test]
    fn a_blind_copy_of_a_non_ascii_address_is_found_in_what_was_read() {
        let line = "250 for <j\u{f6}rg@b.example> and <a@b>\r\n";
        let outcome = Outcome::Accepted(read_reply(line.as_bytes()).unwrap().unwrap().to_reply());
        let envelope = Envelope::parse("s@x", ["j\u{f6}rg@b.example", "a@b"]).unwrap();
        let report = DeliveryReport::same(&envelope, &outcome);
        let told = |at: usize| report.outcomes()[at].1.reply().text();
        assert_eq!(told(0), "for <j??rg@b.example> and <[another recipient]>");
        assert_eq!(told(1), "for <[another recipient]> and <a@b>");
    }

    #[test]
    fn a_status_that_is_repeated_on_every_line_stands_once() {
        let reply = read_reply(b"550-5.1.1 no such\r\n550 5.1.1 user\r\n").unwrap().unwrap();
        assert_eq!(reply.to_reply().to_string(), "550 5.1.1 no such user");
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_read_the_same(
            bytes in proptest::collection::vec(prop_oneof![Just(b'2'), Just(b'5'), Just(b'0'),
                Just(b'-'), Just(b' '), Just(b'\r'), Just(b'\n'), any::<u8>()], 0..200),
            cut in 0usize..200,
        ) {
            let cut = cut.min(bytes.len());
            let (mut whole, mut pieces) = (ReplyReader::default(), ReplyReader::default());
            whole.feed(&bytes);
            pieces.feed(&bytes[..cut]);
            pieces.feed(&bytes[cut..]);
            for _ in 0..bytes.len() {
                let next = whole.next();
                prop_assert_eq!(&next, &pieces.next());
                if let Some(Ok(reply)) = next {
                    prop_assert!((200..600).contains(&reply.code()));
                    prop_assert!(reply.lines().iter().all(|l| l.bytes().all(|b| (32..127).contains(&b))));
                }
            }
        }
    }
}
