//! What a relay answered: a reply code, an enhanced status and a text.

use std::fmt;
use std::str::FromStr;

/// The three groups into which RFC 5321 section 4.2.1 sorts final replies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ReplyClass {
    /// 2yz: done.
    Positive,
    /// 4yz, and 3yz where a final reply was due: not now.
    Transient,
    /// 5yz: never.
    Permanent,
}

/// An enhanced status code (RFC 3463): `class.subject.detail`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct EnhancedStatus {
    class: u8,
    subject: u16,
    detail: u16,
}

impl EnhancedStatus {
    /// From its parts; nothing unless the class is 2, 4 or 5 and the others are below 1000.
    #[must_use]
    pub const fn new(class: u8, subject: u16, detail: u16) -> Option<Self> {
        if matches!(class, 2 | 4 | 5) && subject < 1000 && detail < 1000 {
            Some(Self { class, subject, detail })
        } else {
            None
        }
    }

    /// 2, 4 or 5.
    #[must_use]
    pub const fn class(self) -> u8 {
        self.class
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// The status that a reply's text starts with is read by [`Reply::new`]; this reads one by itself.
impl FromStr for EnhancedStatus {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = |part: &str| -> Option<u16> {
            let digits = (1..=3).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
            digits.then(|| part.parse().ok())?
        };
        let mut parts = text.split('.');
        let (Some(class), Some(subject), Some(detail), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(());
        };
        let class = number(class).and_then(|class| u8::try_from(class).ok()).ok_or(())?;
        Self::new(class, number(subject).ok_or(())?, number(detail).ok_or(())?).ok_or(())
    }
}

/// A reply, or what we say in a relay's place when none came.
///
/// The text is printable ASCII of at most [`Reply::MAX_TEXT`] bytes, whatever the relay sent: other
/// bytes are written as `?`, line ends as a space. It can be printed, logged and stored as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Reply {
    code: u16,
    status: Option<EnhancedStatus>,
    text: String,
}

impl Reply {
    /// The longest text that is kept, in bytes.
    pub const MAX_TEXT: usize = 512;

    /// A reply with `code`, clamped to 200 to 599, and `text`; a leading enhanced status of the
    /// code's own class is taken out of the text.
    #[must_use]
    pub fn new(code: u16, text: &str) -> Self {
        let code = code.clamp(200, 599);
        let text = text.trim();
        let (first, rest) = text.split_once(|c: char| c.is_whitespace()).unwrap_or((text, ""));
        let status = first
            .parse::<EnhancedStatus>()
            .ok()
            .filter(|status| u16::from(status.class) == code / 100);
        let text = if status.is_some() { rest.trim_start() } else { text };
        Self { code, status, text: printable(text) }
    }

    /// A reply with an enhanced status of our own making, where no relay gave one.
    ///
    /// A status that does not go with the code is left out.
    #[must_use]
    pub fn local(code: u16, status: &str, text: impl AsRef<str>) -> Self {
        Self::new(code, &format!("{status} {}", text.as_ref()))
    }

    /// The three digits, 200 to 599.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.code
    }

    /// The enhanced status, if there is one.
    #[must_use]
    pub fn status(&self) -> Option<EnhancedStatus> {
        self.status
    }

    /// The text, without code and status, on one line.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The same code and status with another text.
    pub(crate) fn with_text(&self, text: &str) -> Self {
        Self { code: self.code, status: self.status, text: printable(text) }
    }

    /// Which group the code belongs to.
    #[must_use]
    pub fn class(&self) -> ReplyClass {
        match self.code / 100 {
            2 => ReplyClass::Positive,
            5 => ReplyClass::Permanent,
            _ => ReplyClass::Transient,
        }
    }
}

/// `550 5.1.1 no such user`, on one line; [`Reply::from_str`] reads it back.
impl fmt::Display for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.code)?;
        if let Some(status) = self.status {
            write!(f, " {status}")?;
        }
        if !self.text.is_empty() {
            write!(f, " {}", self.text)?;
        }
        Ok(())
    }
}

impl FromStr for Reply {
    type Err = ();

    fn from_str(line: &str) -> Result<Self, ()> {
        let (code, text) = line.split_once(' ').unwrap_or((line, ""));
        let digits = code.len() == 3 && code.bytes().all(|b| b.is_ascii_digit());
        let code: u16 = digits.then(|| code.parse().ok()).flatten().ok_or(())?;
        if (200..600).contains(&code) { Ok(Self::new(code, text)) } else { Err(()) }
    }
}

fn printable(text: &str) -> String {
    let one_line = |c: char| match c {
        ' '..='~' => c,
        '\r' | '\n' | '\t' => ' ',
        _ => '?',
    };
    let text: String = text.chars().map(one_line).take(Reply::MAX_TEXT).collect();
    text.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_status_is_taken_out_of_the_text() {
        let reply = Reply::new(571, "5.7.1 blocked by policy");
        assert_eq!(reply.status().unwrap().to_string(), "5.7.1");
        assert_eq!(reply.text(), "blocked by policy");
        assert_eq!(reply.to_string(), "571 5.7.1 blocked by policy");
        assert_eq!(reply.class(), ReplyClass::Permanent);
    }

    #[test]
    fn a_status_of_another_class_is_only_text() {
        let reply = Reply::new(450, "5.7.1 odd");
        assert_eq!((reply.status(), reply.text()), (None, "5.7.1 odd"));
        assert_eq!(Reply::new(250, "10.0.0.1 is fine").status(), None);
    }

    // Proves: B-controls, A-log
    #[test]
    fn whatever_a_relay_sends_can_be_printed() {
        let reply = Reply::new(550, "a\r\nb\u{7}\u{1b}[31m ü\0");
        assert_eq!(reply.text(), "a  b??[31m ??");
        assert_eq!(Reply::new(550, &"x".repeat(5000)).text().len(), Reply::MAX_TEXT);
        assert_eq!(Reply::new(999, "").code(), 599);
        assert_eq!(Reply::new(354, "go on").class(), ReplyClass::Transient);
    }

    #[test]
    fn a_status_has_three_numbers_of_at_most_three_digits() {
        for text in ["2.0.0", "4.7.28", "5.999.999", "5.001.1"] {
            assert!(text.parse::<EnhancedStatus>().is_ok(), "{text}");
        }
        for text in
            ["", "5", "5.1", "5.1.1.1", "5..1", "3.1.1", "5.1000.1", "5.1.1000", "5.+1.1", "5.1.x"]
        {
            assert_eq!(text.parse::<EnhancedStatus>(), Err(()), "{text}");
        }
        let status = EnhancedStatus::new(4, 999, 999).unwrap();
        assert_eq!((status.class(), status.to_string().as_str()), (4, "4.999.999"));
        for (class, subject, detail) in [(3, 0, 0), (5, 1000, 0), (5, 0, 1000)] {
            assert_eq!(EnhancedStatus::new(class, subject, detail), None);
        }
    }

    #[test]
    fn a_line_that_is_no_reply_is_not_read() {
        for line in ["", "25", "0250 x", "2500", "250x", "2x0 y", "+25 x", "199 x", "600 x"] {
            assert_eq!(line.parse::<Reply>(), Err(()), "{line}");
        }
        for (line, class) in [
            ("200", ReplyClass::Positive),
            ("354", ReplyClass::Transient),
            ("450 4.2.1 later", ReplyClass::Transient),
            ("599 never", ReplyClass::Permanent),
        ] {
            let reply: Reply = line.parse().unwrap();
            assert_eq!((reply.class(), reply.to_string().as_str()), (class, line));
        }
        let local = Reply::local(451, "4.3.0", "later");
        assert_eq!((local.code(), local.to_string().as_str()), (451, "451 4.3.0 later"));
    }

    proptest! {
        #[test]
        fn a_reply_is_read_back_as_written(code in 200u16..600, text in ".*") {
            let reply = Reply::new(code, &text);
            prop_assert!(reply.text().bytes().all(|b| (b' '..=b'~').contains(&b)));
            let again: Reply = reply.to_string().parse().unwrap();
            prop_assert_eq!(again.code(), reply.code());
            prop_assert_eq!(again.to_string(), reply.to_string());
        }

        #[test]
        fn parsing_never_panics(line in ".*") {
            let _ = line.parse::<Reply>();
        }
    }
}
