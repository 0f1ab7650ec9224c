//! Queue files of our own.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| sendmail_maildir::fuzz::queue_file(bytes));
