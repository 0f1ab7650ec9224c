//! What the layers tell about themselves, on standard error.

use tracing_subscriber::filter::LevelFilter;

use crate::args::LogLevel;

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
        .with_writer(std::io::stderr)
        .with_ansi(false);
    if json { log.json().init() } else { log.init() }
}
