//! The names of queue files, manifests and event cursors.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| sendmail_maildir::fuzz::names(bytes));
