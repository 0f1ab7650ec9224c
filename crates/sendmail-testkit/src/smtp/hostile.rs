//! Relays that mean harm: every way to misbehave, at every moment of a session.

use std::time::Duration;

use super::script::{At, Do};

/// A moment of a session at which a relay may misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Phase {
    /// In place of the greeting.
    Greeting,
    /// In answer to EHLO.
    Ehlo,
    /// In answer to STARTTLS.
    StartTls,
    /// In place of the TLS handshake.
    Handshake,
    /// In answer to AUTH.
    Auth,
    /// In answer to MAIL.
    Mail,
    /// In answer to RCPT.
    Rcpt,
    /// In answer to DATA.
    Data,
    /// In answer to the final dot.
    Dot,
    /// In answer to RSET.
    Rset,
    /// In answer to QUIT.
    Quit,
}

impl Phase {
    /// All of them, in the order of a session.
    pub const ALL: [Self; 11] = [
        Self::Greeting,
        Self::Ehlo,
        Self::StartTls,
        Self::Handshake,
        Self::Auth,
        Self::Mail,
        Self::Rcpt,
        Self::Data,
        Self::Dot,
        Self::Rset,
        Self::Quit,
    ];

    /// The same for a script.
    #[must_use]
    pub fn at(self) -> At {
        match self {
            Self::Greeting => At::Greeting,
            Self::Ehlo => At::Ehlo,
            Self::StartTls => At::StartTls,
            Self::Handshake => At::Handshake,
            Self::Auth => At::Auth,
            Self::Mail => At::Mail,
            Self::Rcpt => At::AnyRcpt,
            Self::Data => At::Data,
            Self::Dot => At::Dot,
            Self::Rset => At::Rset,
            Self::Quit => At::Quit,
        }
    }

    /// The code that a relay would answer with which goes on.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Greeting | Self::StartTls | Self::Handshake => 220,
            Self::Ehlo | Self::Mail | Self::Rcpt | Self::Dot | Self::Rset => 250,
            Self::Auth => 235,
            Self::Data => 354,
            Self::Quit => 221,
        }
    }

    /// The replies that are due afterwards, up to the last.
    fn rest(self) -> &'static str {
        match self {
            Self::Greeting => "250 hello\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n",
            Self::Ehlo | Self::StartTls | Self::Handshake | Self::Auth | Self::Rset => {
                "250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n"
            }
            Self::Mail => "250 ok\r\n354 go\r\n250 taken\r\n",
            Self::Rcpt => "354 go\r\n250 taken\r\n",
            Self::Data => "250 taken\r\n",
            Self::Dot | Self::Quit => "221 bye\r\n",
        }
    }
}

/// What a client can make of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// It is a reply, however odd, and the session goes on.
    Reply,
    /// It is no reply, and that can be told at once.
    NoReply,
    /// It is no reply, and only a deadline tells.
    Silence,
    /// It is a reply, with more behind it for which nobody has asked.
    TooMuch,
    /// It is a reply, and the connection is gone behind it.
    Gone,
}

/// A way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Mode {
    /// A line without an end.
    EndlessLine,
    /// A reply that always has one more line.
    EndlessReply,
    /// A reply of a thousand lines.
    ThousandLines,
    /// A reply of a million lines.
    MillionLines,
    /// A reply that comes byte by byte, and never whole.
    Drip,
    /// Nothing.
    Silence,
    /// Nothing, and what the client sends is not read.
    Deaf,
    /// A reply, and all replies that are due later behind it.
    EarlyReplies,
    /// A reply, twice.
    ExtraReply,
    /// Lines of one space, of nothing, of odd signs and of five hundred bytes.
    OddLines,
    /// A line of 64 KiB.
    HugeLine,
    /// The code 000.
    Code000,
    /// The code 099.
    Code099,
    /// The code 199.
    Code199,
    /// The code 999.
    Code999,
    /// A code with a letter in it.
    LetterInCode,
    /// A code below zero.
    NegativeCode,
    /// A reply whose lines have different codes.
    ChangingCodes,
    /// A text without a code.
    NoCode,
    /// An empty line.
    EmptyLine,
    /// A reply with NUL in its text.
    Nul,
    /// A reply with bytes in its text that are in no encoding.
    NotUtf8,
    /// A reply that breaks off in the middle of a character.
    HalfCharacter,
    /// A reply with CR in its text.
    CrInText,
    /// A reply that ends in CR alone.
    LoneCr,
    /// A reply that ends in LF alone.
    LoneLf,
    /// The greeting of a web server.
    OtherProtocol,
    /// A TLS alert in clear text.
    TlsAlert,
    /// TLS records with nothing in them, without end.
    EmptyRecords,
    /// TLS records that each say "no renegotiation", without end.
    EndlessAlerts,
    /// The beginning of a TLS message of 16 MiB, and bytes without end.
    HugeHandshake,
    /// The end of the connection.
    Close,
    /// The end of what the server says, while it listens on.
    HalfClose,
    /// A reset.
    Reset,
    /// A reply, then the end of the connection.
    ReplyAndClose,
    /// A reply, then the end of what the server says, while it listens on.
    ReplyAndHalfClose,
    /// A reply, then a reset.
    ReplyAndReset,
}

impl Mode {
    /// All of them.
    pub const ALL: [Self; 37] = [
        Self::EndlessLine,
        Self::EndlessReply,
        Self::ThousandLines,
        Self::MillionLines,
        Self::Drip,
        Self::Silence,
        Self::Deaf,
        Self::EarlyReplies,
        Self::ExtraReply,
        Self::OddLines,
        Self::HugeLine,
        Self::Code000,
        Self::Code099,
        Self::Code199,
        Self::Code999,
        Self::LetterInCode,
        Self::NegativeCode,
        Self::ChangingCodes,
        Self::NoCode,
        Self::EmptyLine,
        Self::Nul,
        Self::NotUtf8,
        Self::HalfCharacter,
        Self::CrInText,
        Self::LoneCr,
        Self::LoneLf,
        Self::OtherProtocol,
        Self::TlsAlert,
        Self::EmptyRecords,
        Self::EndlessAlerts,
        Self::HugeHandshake,
        Self::Close,
        Self::HalfClose,
        Self::Reset,
        Self::ReplyAndClose,
        Self::ReplyAndHalfClose,
        Self::ReplyAndReset,
    ];

    /// What a client can make of it, where a reply is due.
    #[must_use]
    pub fn effect(self) -> Effect {
        match self {
            Self::OddLines
            | Self::Nul
            | Self::NotUtf8
            | Self::HalfCharacter
            | Self::CrInText
            | Self::LoneLf => Effect::Reply,
            Self::Drip | Self::Silence | Self::Deaf | Self::LoneCr => Effect::Silence,
            Self::EarlyReplies | Self::ExtraReply => Effect::TooMuch,
            Self::ReplyAndClose | Self::ReplyAndHalfClose | Self::ReplyAndReset => Effect::Gone,
            _ => Effect::NoReply,
        }
    }

    /// What a relay does that misbehaves so at `phase`.
    #[must_use]
    pub fn action(self, phase: Phase) -> Do {
        let code = phase.code();
        let good = format!("{code} ok\r\n");
        let send = |text: &str| Do::Send(text.as_bytes().to_vec());
        let with = |text: &[u8]| Do::Send([format!("{code} ").as_bytes(), text].concat());
        match self {
            Self::EndlessLine => Do::endless_line(),
            Self::EndlessReply => Do::endless_reply(code),
            Self::ThousandLines => send(&long_reply(code, 1000)),
            Self::MillionLines => send(&long_reply(code, 1_000_000)),
            Self::Drip => Do::drip(),
            Self::Silence => Do::Silence,
            Self::Deaf => Do::Sequence(vec![Do::Pause(Duration::from_secs(3600)), Do::Close]),
            Self::EarlyReplies => send(&(good + phase.rest())),
            Self::ExtraReply => send(&good.repeat(2)),
            Self::OddLines => send(&odd_lines(code)),
            Self::HugeLine => send(&format!("{code} {}\r\n", "x".repeat(65_536))),
            Self::Code000 => send("000 ok\r\n"),
            Self::Code099 => send("099 ok\r\n"),
            Self::Code199 => send("199 ok\r\n"),
            Self::Code999 => send("999 ok\r\n"),
            Self::LetterInCode => send("25O ok\r\n"),
            Self::NegativeCode => send(&format!("-{code} ok\r\n")),
            Self::ChangingCodes => send(&format!("{code}-ok\r\n{} ok\r\n", code + 1)),
            Self::NoCode => send("ok\r\n"),
            Self::EmptyLine => send("\r\n"),
            Self::Nul => with(b"o\0k\0\r\n"),
            Self::NotUtf8 => with(b"\xff\xfe\x80\xc0\xaf\r\n"),
            Self::HalfCharacter => with(b"caf\xc3\r\n"),
            Self::CrInText => with(b"o\rk\r\r\n"),
            Self::LoneCr => with(b"ok\r"),
            Self::LoneLf => with(b"ok\n"),
            Self::OtherProtocol => send("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
            Self::TlsAlert => Do::SendAndClose(b"\x15\x03\x03\x00\x02\x02\x28".to_vec()),
            Self::EmptyRecords => Do::Endless(b"\x16\x03\x03\x00\x00".repeat(200)),
            Self::EndlessAlerts => Do::Endless(b"\x15\x03\x03\x00\x02\x01\x64".repeat(200)),
            Self::HugeHandshake => {
                let record = [&b"\x16\x03\x03\x40\x00"[..], &[0; 16_384]].concat();
                let mut first = record.clone();
                first[5..9].copy_from_slice(b"\x0b\xff\xff\xff");
                Do::Sequence(vec![Do::Send(first), Do::Endless(record)])
            }
            Self::Close => Do::Close,
            Self::HalfClose => Do::HalfClose(Vec::new()),
            Self::Reset => Do::Reset(Vec::new()),
            Self::ReplyAndClose => Do::SendAndClose(good.into_bytes()),
            Self::ReplyAndHalfClose => Do::HalfClose(good.into_bytes()),
            Self::ReplyAndReset => Do::Reset(good.into_bytes()),
        }
    }
}

fn long_reply(code: u16, lines: usize) -> String {
    format!("{code}-more\r\n").repeat(lines) + &format!("{code} done\r\n")
}

fn odd_lines(code: u16) -> String {
    let long = "K".repeat(500);
    let lines =
        ["odd.example", " ", "", "=", "SIZE=", "AUTH", "250-x", "%s%n", &long, "\x07\x1b[2J"];
    let lines: String = lines.iter().map(|line| format!("{code}-{line}\r\n")).collect();
    format!("{lines}{code} \r\n")
}
