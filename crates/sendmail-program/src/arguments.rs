//! The command line: options, reverse-path, recipients, and how many of them fit.

use sendmail_core::{Envelope, Recipient, ReversePath};

/// The most bytes of recipients that one run of the program is given.
///
/// Systems allow at least 128 KiB for arguments and environment together (Linux: far more). Each
/// recipient counts with its terminator and the pointer to it.
pub const ARGUMENT_BYTES: usize = 96 << 10;

/// What one recipient costs beside its own bytes.
const OVERHEAD: usize = 1 + size_of::<usize>();

/// Why no command line can be made for this envelope, if so.
///
/// `-f -x@y` is safe with `getopt`, which takes the next argument whatever it looks like. Programs that
/// read their options by themselves may see an option in it, and the reverse-path cannot stand behind
/// the `--`.
pub(crate) fn objection(envelope: &Envelope) -> Option<&'static str> {
    envelope.reverse_path().as_str().starts_with('-').then_some(
        "the reverse-path begins with -, which a program may take for an option; \
         use another sender or a relay that is reached by SMTP",
    )
}

/// The arguments for some recipients of an envelope.
pub(crate) fn arguments<'a>(from: &'a ReversePath, to: &'a [Recipient]) -> Vec<&'a str> {
    let from = if from.is_null() { "<>" } else { from.as_str() };
    ["-i", "-f", from, "--"].into_iter().chain(to.iter().map(Recipient::as_str)).collect()
}

/// The recipients in their order, cut into as few runs as `limit` bytes for each allow.
///
/// A recipient that does not fit by itself has a run of its own.
pub(crate) fn runs(recipients: &[Recipient], limit: usize) -> Vec<&[Recipient]> {
    let cost = |recipient: &Recipient| recipient.as_str().len() + OVERHEAD;
    let mut used = recipients.first().map_or(0, cost);
    let fits = |_: &Recipient, next: &Recipient| {
        used += cost(next);
        let fits = used <= limit;
        if !fits {
            used = cost(next);
        }
        fits
    };
    recipients.chunk_by(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(from: &str, to: &[&str], expected: &[&str]) {
        let envelope = Envelope::parse(from, to).unwrap();
        assert_eq!(arguments(envelope.reverse_path(), envelope.recipients()), expected);
    }

    #[test]
    fn recipients_stand_behind_the_end_of_options() {
        check("a@b", &["c@d", "-oQ@e"], &["-i", "-f", "a@b", "--", "c@d", "-oQ@e"]);
    }

    #[test]
    fn the_null_reverse_path_is_written_as_brackets() {
        check("", &["c@d"], &["-i", "-f", "<>", "--", "c@d"]);
    }

    #[test]
    fn a_sender_that_looks_like_an_option_is_objected_to() {
        let objection = |from: &str| objection(&Envelope::parse(from, ["c@d"]).unwrap());
        assert!(objection("-x@y").is_some_and(|why| why.contains("begins with -")));
        for harmless in ["x-@y", "\"-x\"@y", ""] {
            assert_eq!(objection(harmless), None, "{harmless}");
        }
    }

    proptest! {
        #[test]
        fn every_recipient_has_one_run_and_no_run_is_too_large(
            sizes in proptest::collection::vec(1usize..60, 1..200),
            limit in 1usize..2000,
        ) {
            let recipients: Vec<Recipient> = sizes
                .iter()
                .enumerate()
                .map(|(number, size)| format!("{}@{number}.example", "x".repeat(*size)))
                .map(|address| address.parse().unwrap())
                .collect();
            let runs = runs(&recipients, limit);
            prop_assert_eq!(runs.concat(), recipients.clone());
            for run in &runs {
                let used: usize = run.iter().map(|r| r.as_str().len() + OVERHEAD).sum();
                prop_assert!(run.len() == 1 || (!run.is_empty() && used <= limit));
            }
        }
    }
}
