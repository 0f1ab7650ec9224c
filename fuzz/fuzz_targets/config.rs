//! The configuration file: no panic, and no error that repeats a password.
#![no_main]
#![allow(
    dead_code,
    unused_imports,
    reason = "the modules are the program's own, of which only the reader is used"
)]

use libfuzzer_sys::fuzz_target;

// As they lie in the program, so that each finds its own.
#[path = "../../crates/sendmail-cli/src"]
mod program {
    pub(crate) mod config;
    pub(crate) mod exit;
    pub(crate) mod units;
}
use program::{config, exit, units};

// The drivers' readers of URLs are theirs, and sqlx takes longer to build than all the rest: without it, what stands in
// for them understands everything.
#[cfg(not(feature = "more"))]
extern crate self as sqlx;
#[cfg(not(feature = "more"))]
macro_rules! stand_in {
    ($driver:ident, $options:ident) => {
        mod $driver {
            pub(crate) struct $options;

            impl std::str::FromStr for $options {
                type Err = std::convert::Infallible;

                fn from_str(_: &str) -> Result<Self, Self::Err> {
                    Ok(Self)
                }
            }
        }
    };
}
#[cfg(not(feature = "more"))]
stand_in!(mysql, MySqlConnectOptions);
#[cfg(not(feature = "more"))]
stand_in!(postgres, PgConnectOptions);
#[cfg(not(feature = "more"))]
stand_in!(sqlite, SqliteConnectOptions);

const PASSWORD: &str = "hunter2-hunter2";

fuzz_target!(|text: &str| {
    let _ = config::Config::parse(text);
    let with_password = format!("[relay]\nuser = \"u\"\npassword = \"{PASSWORD}\"\n{text}");
    told_nothing(text, config::Config::parse(&with_password));
    let quoted = text.replace(['"', '\\', '\n', '\r'], "");
    let database = format!("[databases.a]\nurl = \"postgres://u:{PASSWORD}@{quoted}\"\n");
    told_nothing(&quoted, config::Config::parse(&database));
    let shown = config::mask_url(&format!("smtp://u:{PASSWORD}@{quoted}"));
    assert!(quoted.contains(PASSWORD) || !shown.contains(PASSWORD), "{shown}");
    if let Ok(duration) = units::parse_duration(text) {
        let _ = units::show_duration(duration);
        assert_eq!(units::parse_duration(&format!("{}ms", duration.as_millis())), Ok(duration));
    }
    if let Ok(size) = units::parse_size(text) {
        assert_eq!(units::parse_size(&size.to_string()), Ok(size));
    }
});

/// Neither an error nor the debugging output of what was read repeats the password.
fn told_nothing(text: &str, read: Result<config::Config, String>) {
    let told = read.map_or_else(|error| error, |config| format!("{config:?}"));
    assert!(text.contains(PASSWORD) || !told.contains(PASSWORD), "{told}");
}
