//! Queue files of zope.sendmail and repoze.sendmail.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| sendmail_maildir::fuzz::foreign_file(bytes));
