//! What a database says: ids, error codes, error texts, settings.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| sendmail_sqlx::fuzz::answers(text));
