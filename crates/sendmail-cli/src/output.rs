//! What is printed: text for people, or JSON with one object a line.

use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use sendmail_core::{Cursor, Entry, MailEvent, Timestamp};
use serde_json::{Map, Value, json};

use crate::exit::{Failure, Result};

/// Where and how a command prints.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Output {
    json: bool,
}

impl Output {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(self) -> bool {
        self.json
    }

    /// Whether standard output is still read, as far as is known.
    pub(crate) fn is_read(self) -> bool {
        !UNREAD.load(Ordering::Relaxed)
    }

    /// Prints a line to standard output: `text`, or `value` where JSON is wanted.
    pub(crate) fn line(
        self,
        text: impl FnOnce() -> String,
        value: impl FnOnce() -> Value,
    ) -> Result<()> {
        let line = if self.json { value().to_string() } else { text() };
        write_line(&mut io::stdout().lock(), &line)
    }

    /// Prints a line of text to standard output, whatever the format.
    pub(crate) fn text(self, line: &str) -> Result<()> {
        write_line(&mut io::stdout().lock(), line)
    }

    /// Prints bytes to standard output: as they are, but to a terminal only what it shows.
    pub(crate) fn bytes(self, bytes: &[u8]) -> Result<()> {
        let mut stdout = io::stdout().lock();
        let shown = stdout.is_terminal().then(|| shown_on_a_terminal(bytes));
        let bytes = shown.as_ref().map_or(bytes, |text| text.as_bytes());
        unless_unread(stdout.write_all(bytes).and_then(|()| stdout.flush()))
    }

    /// Prints a remark to standard error, where it does not disturb what is printed for programs.
    pub(crate) fn remark(self, kind: &str, text: &str) {
        let line = if self.json {
            json!({ kind: text }).to_string()
        } else {
            format!("sendmail-queue: {text}")
        };
        // There is nobody to tell that a remark could not be printed.
        let _ = write_line(&mut io::stderr().lock(), &line);
    }

    /// Prints why a command failed, and returns its exit code.
    pub(crate) fn failure(self, failure: &Failure) -> ExitCode {
        if self.json {
            let line = json!({ "error": failure.to_string(), "code": failure.code.number() });
            let _ = write_line(&mut io::stderr().lock(), &line.to_string());
        } else if !failure.to_string().is_empty() {
            self.remark("error", &failure.to_string());
        }
        failure.code.into()
    }
}

/// What others wrote may hold what a terminal takes for a command, or what makes a line look like
/// another one: controls, and the marks that turn the direction of a text. They are written as escapes,
/// which JSON understands and nothing acts upon.
pub(crate) fn harmless(line: &str) -> Cow<'_, str> {
    let is_harmless = |c: char| match c {
        '\n' | '\t' => true,
        '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => false,
        other => !other.is_control(),
    };
    if line.chars().all(is_harmless) {
        return Cow::Borrowed(line);
    }
    let mut text = String::with_capacity(line.len() + 16);
    for character in line.chars() {
        if is_harmless(character) {
            text.push(character);
        } else {
            text.push_str(&format!("\\u{:04x}", u32::from(character)));
        }
    }
    Cow::Owned(text)
}

/// A message as a terminal may be shown it, with the line ends that it expects.
fn shown_on_a_terminal(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).replace("\r\n", "\n");
    harmless(&text).into_owned()
}

fn write_line(to: &mut impl io::Write, line: &str) -> Result<()> {
    let line = harmless(line);
    let written = to.write_all(line.as_bytes()).and_then(|()| to.write_all(b"\n"));
    unless_unread(written.and_then(|()| to.flush()))
}

/// Whoever read the output is gone, as with `| head`: no reason to complain, and none to leave work
/// undone. A command that only prints asks [`Output::is_read`] whether to go on.
fn unless_unread(result: io::Result<()>) -> Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
            UNREAD.store(true, Ordering::Relaxed);
            Ok(())
        }
        other => other.map_err(|error| Failure::system("print", &error)),
    }
}

/// Whether somebody found that nobody reads standard output any more.
static UNREAD: AtomicBool = AtomicBool::new(false);

/// The fields of a list entry; the names are part of the interface.
pub(crate) fn entry_json(entry: &Entry) -> Value {
    let recipients: Vec<&str> = entry.recipients.iter().map(|to| to.as_str()).collect();
    json!({
        "id": entry.id.to_string(),
        "message_id": entry.message_id.as_ref().map(|id| id.as_str()),
        "state": entry.state.as_str(),
        "attempts": entry.attempts,
        "from": entry.reverse_path.as_str(),
        "to": recipients,
        "queued": time(entry.queued_at),
        "next_attempt": entry.next_attempt.map(time),
        "resource": entry.resource.as_ref().map(|resource| resource.as_str()),
        "size": entry.size,
    })
}

/// The fields of an event; the names are part of the interface.
pub(crate) fn event_json(cursor: Option<&Cursor>, event: &MailEvent) -> Value {
    let mut object = Map::new();
    if let Some(cursor) = cursor {
        object.insert("cursor".into(), cursor.as_str().into());
    }
    let mut set = |key: &str, value: Value| drop(object.insert(key.into(), value));
    set("event", event.id.to_string().into());
    set("time", time(event.time).into());
    set("kind", event.kind.as_str().into());
    set("id", event.queue_id.map(|id| id.to_string()).into());
    set("message_id", event.message_id.as_ref().map(|id| id.as_str()).into());
    set("recipient", event.recipient.as_ref().map(|to| to.as_str()).into());
    set("attempt", event.attempt.into());
    set("reply", event.reply.as_ref().map(ToString::to_string).into());
    set("detail", event.detail.as_deref().into());
    Value::Object(object)
}

/// One event on one line.
pub(crate) fn event_text(event: &MailEvent) -> String {
    let mut line = format!("{} {:<18}", time(event.time), event.kind);
    if let Some(id) = event.queue_id {
        line.push_str(&format!(" {id}"));
    }
    if let Some(recipient) = &event.recipient {
        line.push_str(&format!(" to={recipient}"));
    }
    if event.attempt > 0 {
        line.push_str(&format!(" attempt={}", event.attempt));
    }
    if let Some(id) = &event.message_id {
        line.push_str(&format!(" {id}"));
    }
    if let Some(reply) = &event.reply {
        line.push_str(&format!(" {reply}"));
    }
    if let Some(detail) = &event.detail {
        line.push_str(&format!(" ({detail})"));
    }
    line
}

/// RFC 3339 in UTC.
pub(crate) fn time(timestamp: Timestamp) -> String {
    timestamp.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: A-log
    #[test]
    fn nothing_that_a_terminal_acts_upon_is_printed() {
        let told = "to=a\u{1b}]0;owned\u{7}\u{9b}2J\u{7f}\r \u{202e}evil\u{2066}\u{2028}x\tü\n";
        let shown = harmless(told);
        assert!(shown.chars().all(|c| c == '\n' || c == '\t' || !c.is_control()), "{shown}");
        assert_eq!(
            shown,
            "to=a\\u001b]0;owned\\u0007\\u009b2J\\u007f\\u000d \\u202eevil\\u2066\\u2028x\tü\n"
        );
        assert!(matches!(harmless("plain ü"), Cow::Borrowed(_)));
        let value = json!({ "detail": told });
        let line = value.to_string();
        let line = harmless(&line);
        assert!(!line.chars().any(char::is_control), "{line}");
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap(), value, "JSON stays what it is");
    }

    // Proves: A-log
    #[test]
    fn a_raw_message_on_a_terminal_is_text() {
        let shown = shown_on_a_terminal(b"Subject: \x1b[2J\r\n\r\n\xff\x07 body\r\n.\r\n");
        assert_eq!(shown, "Subject: \\u001b[2J\n\n\u{fffd}\\u0007 body\n.\n");
    }
}
