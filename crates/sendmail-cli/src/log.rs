//! What the layers tell about themselves, on standard error.

use std::io::{self, Write};

use tracing_subscriber::filter::LevelFilter;

use crate::args::LogLevel;
use crate::output::harmless;

/// Prints what is told at this level or above, as text or as JSON.
pub(crate) fn start(level: LogLevel, json: bool) {
    let level = match level {
        LogLevel::Off => LevelFilter::OFF,
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(|| OneLine(io::stderr()))
        .with_ansi(false);
    if json { log.json().init() } else { log.init() }
}

/// Writes each record on one line, and nothing that a terminal acts upon: what is told may come from a
/// relay or from a message.
struct OneLine<W>(W);

impl<W: Write> Write for OneLine<W> {
    /// The subscriber hands over a whole record at a time.
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(record);
        let line = text.strip_suffix('\n').unwrap_or(&text).replace('\n', "\\u000a");
        self.0.write_all(format!("{}\n", harmless(&line)).as_bytes())?;
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: A-log
    #[test]
    fn a_record_is_one_line_whatever_is_in_it() {
        let mut written = OneLine(Vec::new());
        let record = "WARN reply=\"550 no\n2026 INFO all is well\u{1b}[2K\u{9b}\"\n";
        assert_eq!(written.write(record.as_bytes()).unwrap(), record.len());
        let line = String::from_utf8(written.0).unwrap();
        assert_eq!(line, "WARN reply=\"550 no\\u000a2026 INFO all is well\\u001b[2K\\u009b\"\n");
    }
}
