//! Messages that tests write and look for.

use sendmail_testkit::smtp::Received;

/// A complete message with this subject, as a program on this host writes it.
pub(crate) fn mail(subject: &str) -> String {
    format!(
        "From: Shop <from@example.org>\nTo: to@example.net\nSubject: {subject}\n\
         Date: Thu, 01 Jan 2026 12:00:00 +0000\n\nA line.\n.\n..two dots\nThe end.\n"
    )
}

/// The value of a header field of a message.
fn field<'a>(message: &'a [u8], name: &str) -> Option<&'a str> {
    let text = std::str::from_utf8(message).ok()?;
    let header = text.split("\r\n\r\n").next()?;
    header.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

/// The subjects of messages, sorted.
pub(crate) fn subjects(messages: &[Received]) -> Vec<String> {
    let subject = |message: &Received| field(&message.bytes, "Subject").unwrap_or("").to_owned();
    let mut subjects: Vec<String> = messages.iter().map(subject).collect();
    subjects.sort_unstable();
    subjects
}
