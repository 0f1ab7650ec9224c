//! Where mail goes, as a URL, and the name that is said to the relay: no panic, nothing that could end
//! a command, and no password in what is shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sendmail_program::ProgramMailer;
use sendmail_smtp::SmtpConfig;

const PASSWORD: &str = "hunter2-hunter2";

fuzz_target!(|text: &str| {
    // Whatever says the password itself, in whatever spelling, may be told it again.
    if text.to_lowercase().contains("hunter2") {
        return;
    }
    let with_password = format!("smtps://u:{PASSWORD}@{text}");
    for url in [text, &with_password] {
        match SmtpConfig::from_url(url) {
            Ok(config) => {
                let (relay, debug) = (config.relay(), format!("{config:?}"));
                assert!(!relay.chars().any(char::is_control), "{relay:?}");
                assert!(!relay.contains(PASSWORD) && !debug.contains(PASSWORD), "{debug}");
            }
            Err(error) => {
                let told = format!("{error} {error:?}");
                assert!(!told.contains(PASSWORD), "{told}");
            }
        }
    }
    if let Ok(mailer) = ProgramMailer::from_url(text) {
        assert!(mailer.program().is_absolute());
    }
    if let Ok(config) = SmtpConfig::new(text, 25) {
        assert!(!config.relay().chars().any(char::is_control));
    }
    if SmtpConfig::new("h", 25).is_ok_and(|config| config.with_hello_name(text).is_ok()) {
        assert!(!text.is_empty() && !text.chars().any(|c| c.is_control() || c.is_whitespace()));
    }
});
