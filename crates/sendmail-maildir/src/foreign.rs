//! Messages that zope.sendmail and repoze.sendmail put into the queue.
//!
//! zope.sendmail writes `X-Zope-From:` and `X-Zope-To:` as the first two lines, then the message.
//! repoze.sendmail adds `X-Actually-From:` and `X-Actually-To:` somewhere in the header, encoded as
//! RFC 2047 says. Neither has a checksum: the files are taken as they are.

use mail_parser::{Address, MessageParser};
use sendmail_core::{Envelope, Message, MessageId, QueueId, Timestamp};
use sha2::{Digest as _, Sha256};

/// The names of the envelope fields that other programs write.
const FIELDS: [(&[u8], &[u8]); 2] =
    [(b"X-Zope-From", b"X-Zope-To"), (b"X-Actually-From", b"X-Actually-To")];

/// Why a foreign file cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ForeignError {
    /// It is no queue file of any program we know: it stays where it is.
    #[error("it has no envelope: neither X-Envelope-, X-Zope- nor X-Actually-From and -To")]
    NoEnvelope,
    #[error("its envelope is not understood: {0}")]
    Envelope(String),
    #[error("its message cannot be sent: {0}")]
    Message(String),
}

/// The id of a foreign message: what it is called and what is in it. The same file always has the
/// same id; two files differ.
pub(crate) fn id(name: &[u8], content: &[u8]) -> QueueId {
    let base = name.split(|byte| *byte == b':').next().unwrap_or(name);
    let length = (base.len() as u64).to_le_bytes();
    let digest =
        Sha256::new().chain_update(length).chain_update(base).chain_update(content).finalize();
    let mut bytes = [0; 16];
    bytes.iter_mut().zip(digest).for_each(|(byte, digest)| *byte = digest);
    // RFC 9562 section 5.8: a UUID of version 8 is whatever its maker wants.
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    QueueId::from_bytes(bytes)
}

/// Reads a foreign file. Date and Message-ID are added where they are missing, the same ones each
/// time it is read.
pub(crate) fn decode(
    content: &[u8],
    id: QueueId,
    written: Timestamp,
) -> Result<(Envelope, Message), ForeignError> {
    let (header, body) = split(content);
    let mut kept = Vec::with_capacity(content.len());
    let mut found: [[Option<String>; 2]; 2] = Default::default();
    for field in fields(header) {
        match slot(field, &mut found) {
            None => kept.extend_from_slice(field),
            // Somebody put a line into an address: whom the program meant cannot be told.
            Some(Some(_)) => {
                return Err(ForeignError::Envelope("an envelope field occurs twice".to_owned()));
            }
            Some(slot) => *slot = Some(decoded(field)),
        }
    }
    kept.extend_from_slice(body);
    if found[0][1].is_some() && holds_envelope_of_zope(body) {
        return Err(ForeignError::Envelope("another envelope stands in the message".to_owned()));
    }
    let [from, to] =
        found.into_iter().find(|pair| pair[1].is_some()).ok_or(ForeignError::NoEnvelope)?;
    let (from, to) = (from.ok_or(ForeignError::NoEnvelope)?, to.ok_or(ForeignError::NoEnvelope)?);
    let senders = addresses(&from);
    if senders.len() > 1 {
        return Err(ForeignError::Envelope("there are two senders".to_owned()));
    }
    let envelope = Envelope::parse(senders.first().map_or("", String::as_str), addresses(&to))
        .map_err(|error| ForeignError::Envelope(error.to_string()))?;
    let minted = || {
        let text = format!("<{id}@queue.invalid>");
        // A UUID and a fixed domain make a Message-ID.
        text.parse().unwrap_or_else(|_| MessageId::mint(written, "queue.invalid"))
    };
    let message = Message::from_raw_or(&kept, written, minted)
        .map_err(|error| ForeignError::Message(error.to_string()))?;
    Ok((envelope, message))
}

/// Whether zope.sendmail's own envelope field stands behind the header.
///
/// It writes senders as they are: one that brings a recipient field and an empty line along pushes the
/// true field into the body. There it is followed by the true header, which zope.sendmail never leaves
/// without a Message-ID; a mail that only speaks of such fields is hardly like that.
fn holds_envelope_of_zope(body: &[u8]) -> bool {
    let begins = |line: &[u8], name: &[u8]| {
        line.get(..name.len()).is_some_and(|start| start.eq_ignore_ascii_case(name))
    };
    let mut inside = false;
    for line in body.split(|byte| *byte == b'\n') {
        if begins(line, b"X-Zope-To:") {
            inside = true;
        } else if inside && begins(line, b"Message-Id:") {
            return true;
        } else if line.trim_ascii_end().is_empty() {
            inside = false;
        }
    }
    false
}

/// The slot that `field` fills, if it is an envelope field.
fn slot<'a>(
    field: &[u8],
    found: &'a mut [[Option<String>; 2]; 2],
) -> Option<&'a mut Option<String>> {
    let name = field.split(|byte| *byte == b':').next()?.trim_ascii_end();
    let pairs = FIELDS.iter().zip(found.iter_mut());
    for ((from, to), [from_slot, to_slot]) in pairs {
        if name.eq_ignore_ascii_case(from) {
            return Some(from_slot);
        }
        if name.eq_ignore_ascii_case(to) {
            return Some(to_slot);
        }
    }
    None
}

/// Header and the rest; the rest begins with the empty line.
fn split(content: &[u8]) -> (&[u8], &[u8]) {
    let mut start = 0;
    for line in content.split_inclusive(|byte| *byte == b'\n') {
        if line.trim_ascii_end().is_empty() {
            break;
        }
        start += line.len();
    }
    content.split_at(start)
}

/// The fields of a header, each with its continuation lines.
fn fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        let mut lines = rest.split_inclusive(|byte| *byte == b'\n');
        let mut length = lines.next()?.len();
        for line in lines {
            if !matches!(line.first(), Some(b' ' | b'\t')) {
                break;
            }
            length += line.len();
        }
        let (field, after) = rest.split_at(length);
        rest = after;
        Some(field)
    })
}

/// The text of a field, unfolded, its encoded words (RFC 2047) decoded.
fn decoded(field: &[u8]) -> String {
    let value = field.splitn(2, |byte| *byte == b':').nth(1).unwrap_or_default().trim_ascii();
    if !value.windows(2).any(|two| two == b"=?") {
        return String::from_utf8_lossy(value).into_owned();
    }
    let header = [b"Subject: ", value, b"\r\n\r\n"].concat();
    let parsed = MessageParser::default().parse_headers(&header);
    parsed.as_ref().and_then(|message| message.subject()).unwrap_or_default().to_owned()
}

/// The addresses of a list as `To:` would have it: display names, quoted commas, comments and groups
/// are understood. What has no address in it comes out as it is, to be refused by the envelope.
fn addresses(list: &str) -> Vec<String> {
    let header = format!("To: {}\r\n\r\n", list.replace(['\r', '\n'], " "));
    let parsed = MessageParser::default().parse_headers(header.as_bytes());
    let Some(to) = parsed.as_ref().and_then(|message| message.to()) else {
        return Vec::new();
    };
    let text = |address: &mail_parser::Addr<'_>| {
        let text = address.address.as_deref().or(address.name.as_deref());
        text.map(str::to_owned)
    };
    match to {
        Address::List(list) => list.iter().filter_map(text).collect(),
        Address::Group(groups) => {
            groups.iter().flat_map(|group| &group.addresses).filter_map(text).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(content: &str, from: &str, to: &[&str], message: &str) {
        let id = QueueId::from_bytes([1; 16]);
        let (envelope, found) = decode(content.as_bytes(), id, Timestamp::EPOCH).unwrap();
        assert_eq!(envelope.reverse_path().as_str(), from);
        let recipients: Vec<_> = envelope.recipients().iter().map(|r| r.as_str()).collect();
        assert_eq!(recipients, to);
        assert_eq!(String::from_utf8_lossy(found.as_bytes()), message);
    }

    #[test]
    fn zopes_files_are_read_with_commas_in_display_names() {
        check(
            "X-Zope-From: \"Shop, The\" <shop@example.org>\n\
             X-Zope-To: \"Doe, John\" <john@example.org>, plain@example.org, (x, y) z@example.org\n\
             Message-ID: <a@b>\nDate: d\nX-Zope-Other: kept\n\nX-Zope-To: body\n",
            "shop@example.org",
            &["john@example.org", "plain@example.org", "z@example.org"],
            "Message-ID: <a@b>\r\nDate: d\r\nX-Zope-Other: kept\r\n\r\nX-Zope-To: body\r\n",
        );
    }

    #[test]
    fn repozes_files_are_read_with_encoded_fields_in_any_place() {
        check(
            "Message-ID: <a@b>\nDate: d\n\
             X-Actually-From: =?utf-8?q?shop=40example=2Eorg?=\n\
             Subject: s\n\
             X-Actually-To: =?utf-8?q?=22Doe=2C_John=22_=3Cjohn=40example=2Eorg=3E=2C?=\n =?utf-8?q?b=40example=2Eorg?=\n\nbody\n",
            "shop@example.org",
            &["john@example.org", "b@example.org"],
            "Message-ID: <a@b>\r\nDate: d\r\nSubject: s\r\n\r\nbody\r\n",
        );
    }

    // Proves: A-envelope
    #[test]
    fn a_line_that_was_smuggled_into_an_address_is_noticed() {
        let content = b"X-Zope-From: a@b\nX-Zope-To: evil@x\nX-Zope-To: real@x\n\nbody\n";
        let error = decode(content, QueueId::from_bytes([1; 16]), Timestamp::EPOCH).unwrap_err();
        assert!(matches!(error, ForeignError::Envelope(_)), "{error}");
    }

    // Proves: A-envelope
    #[test]
    fn an_envelope_that_was_pushed_into_the_body_is_noticed() {
        let smuggled = "a@b\nX-Zope-To: evil@x\n";
        for (sender, rest) in [
            (smuggled, "Message-Id: <m@z>\nSubject: s\n\nbody\n"),
            (smuggled, "Subject: s\r\nMESSAGE-ID: <m@z>\r\n\r\nbody\r\n"),
            ("a@b\nX-Zope-To: evil@x\n\nSubject: mine\n", "Message-Id: <m@z>\n\nbody\n"),
        ] {
            let content = format!("X-Zope-From: {sender}\nX-Zope-To: real@x\n{rest}");
            let id = QueueId::from_bytes([1; 16]);
            let error = decode(content.as_bytes(), id, Timestamp::EPOCH).unwrap_err();
            assert!(matches!(error, ForeignError::Envelope(_)), "{content}: {error}");
        }
    }

    #[test]
    fn a_mail_without_envelope_is_not_ours() {
        for content in
            ["", "Subject: s\n\nbody\n", "X-Zope-From: a@b\n\nbody", "\nX-Zope-To: a@b\n"]
        {
            let result = decode(content.as_bytes(), QueueId::from_bytes([1; 16]), Timestamp::EPOCH);
            assert_eq!(result.unwrap_err(), ForeignError::NoEnvelope, "{content:?}");
        }
    }

    // Proves: B-missing
    #[test]
    fn what_is_missing_is_added_the_same_each_time() {
        let content = b"X-Zope-From: \nX-Zope-To: a@b\n\nbody\n";
        let read = || {
            let id = id(b"name:2,S", content);
            decode(content, id, Timestamp::from_millis(5)).unwrap()
        };
        assert!(read().0.reverse_path().is_null());
        assert_eq!(read().1.as_bytes(), read().1.as_bytes());
        assert_eq!(id(b"name", b"x"), id(b"name:2,S", b"x"));
        assert_ne!(id(b"name", b"x"), id(b"nam", b"ex"));
    }

    proptest! {
        #[test]
        fn reading_never_panics(content in "(X-Zope-From: .*\n)?(X-Zope-To: .*\n)?(X-Actually-To: .*\n)?.*") {
            let _ = decode(content.as_bytes(), QueueId::from_bytes([1; 16]), Timestamp::EPOCH);
        }
    }
}
