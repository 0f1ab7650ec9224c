//! The event log: any segments, read from any cursor.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

static DIRECTORY: LazyLock<tempfile::TempDir> =
    LazyLock::new(|| tempfile::tempdir().expect("a temporary directory"));

fuzz_target!(|bytes: &[u8]| sendmail_maildir::fuzz::event_log(DIRECTORY.path(), bytes));
