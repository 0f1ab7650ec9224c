//! From the way in which a program ended to the outcome of its recipients.

use sendmail_core::{Outcome, Reply};

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By itself, with this code.
    Exited(i32),
    /// By a signal that was not ours.
    Signalled(i32),
    /// By us, because its time was up.
    TimedOut,
    /// It was never started.
    NotStarted,
    /// It was started, and we could not see its end.
    Unseen,
}

/// The outcome of every recipient of a run that ended so and printed `output` last.
pub(crate) fn outcome(end: End, output: &str) -> Outcome {
    let unknown = |what: &str| {
        let text = described(&format!("{what}; the message may have been sent"), output);
        Outcome::Unknown(Reply::local(451, "4.3.0", text))
    };
    match end {
        End::Exited(code @ 129..=192) => unknown(&format!(
            "the program exited with {code}: its own last command was killed by signal {}",
            code - 128
        )),
        End::Exited(code) => exited(code, output),
        End::NotStarted => {
            let text = described("the program could not be started", output);
            Outcome::Deferred(Reply::local(451, "4.3.0", text))
        }
        End::Signalled(signal) => unknown(&format!("the program was killed by signal {signal}")),
        End::TimedOut => unknown("the program did not end in time and was killed"),
        End::Unseen => unknown("the program was started, but its end could not be observed"),
    }
}

/// The table in the crate's documentation; codes and names of `sysexits.h`.
fn exited(code: i32, output: &str) -> Outcome {
    let refused = |name, status| {
        Outcome::Refused(Reply::local(550, status, described(&exit_words(code, name), output)))
    };
    let deferred = |name, status| {
        Outcome::Deferred(Reply::local(451, status, described(&exit_words(code, name), output)))
    };
    match code {
        0 => {
            Outcome::Accepted(Reply::local(250, "2.0.0", described("taken by the program", output)))
        }
        64 => refused("EX_USAGE", "5.5.4"),
        65 => refused("EX_DATAERR", "5.6.0"),
        66 => deferred("EX_NOINPUT", "4.3.0"),
        67 => refused("EX_NOUSER", "5.1.1"),
        68 => refused("EX_NOHOST", "5.1.2"),
        69 => deferred("EX_UNAVAILABLE", "4.3.0"),
        70 => deferred("EX_SOFTWARE", "4.3.0"),
        71 => deferred("EX_OSERR", "4.3.0"),
        72 => deferred("EX_OSFILE", "4.3.0"),
        73 => deferred("EX_CANTCREAT", "4.3.0"),
        74 => deferred("EX_IOERR", "4.3.0"),
        75 => deferred("EX_TEMPFAIL", "4.3.0"),
        76 => deferred("EX_PROTOCOL", "4.5.0"),
        77 => refused("EX_NOPERM", "5.7.1"),
        78 => deferred("EX_CONFIG", "4.3.5"),
        _ => deferred("", "4.3.0"),
    }
}

fn exit_words(code: i32, name: &str) -> String {
    let named = if name.is_empty() { String::new() } else { format!(" ({name})") };
    format!("the program exited with {code}{named}")
}

/// Our words and the end of the program's, in the room that a reply has.
fn described(words: &str, output: &str) -> String {
    if output.is_empty() {
        return words.to_owned();
    }
    let room = Reply::MAX_TEXT.saturating_sub(words.len() + ": ... ".len());
    let skipped = output.chars().count().saturating_sub(room);
    let cut = if skipped > 0 { "... " } else { "" };
    let end: String = output.chars().skip(skipped).collect();
    format!("{words}: {cut}{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn word(end: End) -> &'static str {
        match outcome(end, "") {
            Outcome::Accepted(_) => "accepted",
            Outcome::Deferred(_) => "deferred",
            Outcome::Refused(_) => "refused",
            Outcome::Unknown(_) => "unknown",
        }
    }

    #[test]
    fn every_exit_code_means_what_the_documentation_says() {
        for code in 0..=255 {
            let expected = match code {
                0 => "accepted",
                64 | 65 | 67 | 68 | 77 => "refused",
                129..=192 => "unknown",
                _ => "deferred",
            };
            assert_eq!(word(End::Exited(code)), expected, "{code}");
        }
        for end in [End::Signalled(9), End::TimedOut, End::Unseen] {
            assert_eq!(word(end), "unknown", "{end:?}");
        }
        assert_eq!(word(End::NotStarted), "deferred");
    }

    #[test]
    fn replies_have_a_status_of_their_own_class() {
        for code in 0..=255 {
            let outcome = outcome(End::Exited(code), "");
            let reply = outcome.reply();
            assert_eq!(reply.status().map(|s| u16::from(s.class())), Some(reply.code() / 100));
        }
    }

    #[test]
    fn the_reply_says_the_code_its_name_and_the_last_words() {
        let reply = outcome(End::Exited(67), "no such user").reply().to_string();
        assert_eq!(reply, "550 5.1.1 the program exited with 67 (EX_NOUSER): no such user");
        let long = format!("{}the reason", "noise ".repeat(200));
        let reply = outcome(End::Exited(75), &long).reply().text().to_owned();
        assert!(reply.starts_with("the program exited with 75 (EX_TEMPFAIL): ... "), "{reply}");
        assert!(reply.ends_with("noise the reason"), "{reply}");
        assert_eq!(reply.len(), Reply::MAX_TEXT);
    }
}
