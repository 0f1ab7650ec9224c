//! The configuration file: no panic, and no error that repeats a password.
#![no_main]
#![allow(dead_code, reason = "the modules are the program's own, of which only the reader is used")]

use libfuzzer_sys::fuzz_target;

#[path = "../../crates/sendmail-cli/src/config.rs"]
mod config;
#[path = "../../crates/sendmail-cli/src/exit.rs"]
mod exit;
#[path = "../../crates/sendmail-cli/src/units.rs"]
mod units;

const PASSWORD: &str = "hunter2-hunter2";

fuzz_target!(|text: &str| {
    let _ = config::Config::parse(text);
    let with_password = format!("[relay]\nuser = \"u\"\npassword = \"{PASSWORD}\"\n{text}");
    if let Err(error) = config::Config::parse(&with_password) {
        assert!(text.contains(PASSWORD) || !error.contains(PASSWORD), "{error}");
    }
});
