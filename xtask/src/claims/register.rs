//! The register: every claim that the project makes and a test must hold up, by section of
//! `docs/guarantees.md`.

use super::matrix;

/// One claim.
#[derive(Debug, Clone)]
pub(crate) struct Claim {
    pub(crate) id: String,
    /// In a few words.
    pub(crate) what: String,
    /// What it means for somebody who relies on it.
    pub(crate) means: String,
}

/// What stands together in one generated table.
#[derive(Debug)]
pub(crate) struct Section {
    /// How the table's place in the page is marked.
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) claims: Vec<Claim>,
}

/// How a section is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One row for each claim: id, claim, meaning, tests.
    List,
    /// A table moment × fault with what is expected, and the tests of each cell below it.
    Matrix(&'static matrix::Matrix),
}

/// Every section, in the order of the page.
pub(crate) fn sections() -> Vec<Section> {
    vec![
        list("invariants", &INVARIANTS),
        grid("faults", &matrix::FAULTS, &[]),
        grid("smtp", &matrix::SMTP, &SMTP_MORE),
        list("input", &INPUT),
        list("attacks", &ATTACKS),
        list("queue", &QUEUE),
        list("databases", &DATABASES),
    ]
}

type Row = (&'static str, &'static str, &'static str);

fn list(name: &'static str, rows: &[Row]) -> Section {
    Section { name, kind: Kind::List, claims: rows.iter().map(claim).collect() }
}

fn grid(name: &'static str, matrix: &'static matrix::Matrix, more: &[Row]) -> Section {
    let mut claims = matrix.claims();
    claims.extend(more.iter().map(claim));
    Section { name, kind: Kind::Matrix(matrix), claims }
}

fn claim((id, what, means): &Row) -> Claim {
    Claim { id: (*id).to_owned(), what: (*what).to_owned(), means: (*means).to_owned() }
}

/// What always holds.
const INVARIANTS: [Row; 20] = [
    (
        "I1",
        "all or none",
        "all mails of a transaction become deliverable, or none; a savepoint that is rolled back takes its own",
    ),
    (
        "I2",
        "no mail after a rollback",
        "a mail whose transaction aborted is never offered to a relay",
    ),
    (
        "I3",
        "no loss",
        "once commit has returned success, each mail is, after any crash or power cut, in exactly one place: staged and decided, queued, claimed, deferred, held, failed, or with the relay",
    ),
    (
        "I4",
        "no false success",
        "commit never reports success while the decision is not durable; in doubt, it says so",
    ),
    (
        "I5",
        "in doubt is kept",
        "what is staged and undecided is never sent, and no timer deletes it",
    ),
    (
        "I6",
        "whole or not at all",
        "a queue file whose length or checksum does not match is never sent",
    ),
    ("I7", "one sender", "while the owner of a claim lives, nobody else sends that message"),
    (
        "I8",
        "second copies are bounded and announced",
        "there is one only if something died between our final dot and our durable record; each recipient's is announced by an event of its own before it is sent, with the same bytes and Message-ID",
    ),
    (
        "I9",
        "each recipient has its own fate",
        "who was served or refused for good is never tried again; who was deferred is",
    ),
    (
        "I10",
        "failures are kept",
        "nothing that was committed is unlinked, except after acceptance or by an operator",
    ),
    (
        "I11",
        "the relay's trouble is not the mail's",
        "trouble with connecting, greeting, EHLO, TLS and AUTH fails nothing, expires nothing and costs no attempt",
    ),
    (
        "I12",
        "progress",
        "one bad file, recipient, message, sink or slow relay never stops the others; after kill -9 another processor takes over at its next look",
    ),
    (
        "I13",
        "clocks do no harm",
        "a clock that steps, either way, loses nothing and lets nobody claim twice",
    ),
    (
        "I14",
        "the bytes are yours",
        "the relay receives the queued message; no line over 998, no bare CR or LF",
    ),
    ("I15", "bounded use", "memory grows neither with the queue nor with what a peer sends"),
    (
        "I16",
        "no leak",
        "no credential in a log, event, error, panic or `Debug`; no Bcc recipient in a message, in a DSN or in an event about somebody else; queue, journal and logs are their owner's to read",
    ),
    (
        "I17",
        "a failed sync proves nothing",
        "after an error of fsync nothing claims success for that file, and it is not tried again on it",
    ),
    (
        "I18",
        "mail readers are harmless",
        "they may read, flag and move messages, without loss and without a second copy",
    ),
    (
        "I19",
        "the honest commit",
        "`Committed` only if it did; `Aborted` only if it did not and cannot",
    ),
    ("I20", "recovery may run at any time", "by many at once, and killed half-way"),
];

/// What is true of replies besides the cells of the matrix.
const SMTP_MORE: [Row; 3] = [
    (
        "S-too-many",
        "too many recipients",
        "452 or 552 to RCPT after some were accepted: those are sent, then the rest",
    ),
    (
        "S-codes",
        "the first digit counts",
        "250 without text, text in Latin-1, any second and third digit is a 250",
    ),
    ("S-354", "354 is not an end", "as the last reply it is not a success"),
];

/// What applications, operators and other programs may hand over.
const INPUT: [Row; 16] = [
    (
        "B-recipients",
        "no recipients, an empty address, no `@`, two addresses in one",
        "an error that names which; nothing is joined",
    ),
    (
        "B-controls",
        "CR, LF, NUL, controls in an address, display name, subject, header, Message-ID, reply, EHLO name, host, user",
        "an error with the field and where in it; never a panic",
    ),
    (
        "B-lengths",
        "a local part over 64, a domain over 255, too many recipients, a message that is too large",
        "an error with both numbers",
    ),
    (
        "B-utf8-local",
        "a local part that is not ASCII, and a relay without SMTPUTF8",
        "that recipient fails, and is told why; a domain goes as IDNA",
    ),
    (
        "B-8bit",
        "an 8-bit body, and a relay without 8BITMIME",
        "re-encoded, or a clear permanent failure; never 8-bit bytes",
    ),
    (
        "B-missing",
        "no Message-ID, no Date",
        "added once, when the application hands the message over",
    ),
    (
        "B-bcc",
        "Bcc in a raw message",
        "removed from the bytes; used for the envelope only with `-t`",
    ),
    (
        "B-line-ends",
        "bare CR or LF, lone dots, no final newline",
        "CRLF once; dots are doubled on the wire only",
    ),
    (
        "B-long-lines",
        "a line over 998, NUL in a body, an 8-bit header",
        "re-encoded, or a clear error that names the line",
    ),
    (
        "B-damaged",
        "a queue file that is empty, truncated, changed, or under another's name",
        "moved to `.failed/` as damaged, with an event; the others go on",
    ),
    (
        "B-unknown-format",
        "an unknown format version; a message without an envelope",
        "left where it is, reported once",
    ),
    (
        "B-special-files",
        "directory, symlink, FIFO, socket, device, unreadable or foreign file in `new/` or `cur/`",
        "never blocks, never followed; reported and skipped",
    ),
    (
        "B-file-names",
        "names of 255 bytes, not UTF-8, with newline, dot, dash or flags; another's claim; two files with one id",
        "handled as bytes",
    ),
    (
        "B-growing",
        "a file that grows while it is read, or vanishes before it is opened",
        "damaged; or silently the next",
    ),
    (
        "B-config",
        "an unknown key, a negative number, a password without TLS, a file that others can read",
        "refused at start with key and line; the value is never printed",
    ),
    (
        "B-clock",
        "a clock at 1970, ten years on, or stepping while something is sent",
        "an earlier retry or a clamped one; nothing expires without one more attempt; no loss",
    ),
];

/// What somebody who means harm may try.
const ATTACKS: [Row; 15] = [
    (
        "A-envelope",
        "an LF in an address, through the queue file",
        "impossible by type; checked again when it is read",
    ),
    ("A-injection", "headers and SMTP commands in what is handed over", "refused before the wire"),
    (
        "A-smuggling",
        "LF.LF, LF.CRLF, CRLF.LF, CR.CR, across the borders of reads",
        "exactly one mail at every relay",
    ),
    ("A-stripped", "STARTTLS is taken out of the relay's offer", "refused, nothing sent, no AUTH"),
    (
        "A-early-reply",
        "replies in clear text before TLS starts, or before they are due",
        "never believed",
    ),
    (
        "A-certificate",
        "a wrong name, an expired, self-signed or unknown certificate",
        "refused, and told as TLS",
    ),
    ("A-auth-clear", "AUTH over clear text", "refused, except on loopback with an explicit switch"),
    (
        "A-endless",
        "an endless line or reply, a byte a minute, a thousand lines, silence",
        "lines and replies are bounded; each phase and each message has its deadline",
    ),
    (
        "A-secrets",
        "secrets in what is printed",
        "a type that does not print them; all output searched at the highest level, plain and base64",
    ),
    (
        "A-traversal",
        "a path in a Message-ID, transaction id or host name",
        "names of files are our own; nothing that was supplied reaches a path",
    ),
    (
        "A-symlink",
        "the queue's directories are swapped for symlinks",
        "handles of directories, `O_NOFOLLOW`; 0700 and 0600 whatever the umask",
    ),
    (
        "A-550",
        "a relay that says 550 to everything",
        "paused after some different messages in a row; the queue is kept",
    ),
    (
        "A-flood",
        "a bomb of recipients, a flood of messages",
        "limits for each transaction and each queue; the prepare votes no with \"queue full\"",
    ),
    ("A-log", "lines of log made by a peer", "controls are escaped, the text of replies is cut"),
    (
        "A-advisory",
        "a dependency with an advisory",
        "`cargo xtask deny` fails, in every run of CI that reaches the database of advisories; one that does not says so",
    ),
];

/// What a queue promises besides.
const QUEUE: [Row; 13] = [
    (
        "Q-retried",
        "a transaction that is tried again sends once",
        "what a failed attempt handed over is not sent",
    ),
    (
        "Q-handover",
        "the record comes before the dot",
        "no final dot without a record of it that survives our process",
    ),
    ("Q-delivered", "delivered is not sent again", "also if its file comes back"),
    ("Q-policy", "the policy for the window", "sent again, held or dropped, as the message says"),
    (
        "Q-reserve",
        "a full disk never wedges the queue",
        "new mail is refused before the processor runs out",
    ),
    (
        "Q-events",
        "events are true and complete",
        "durable before they are told; a cursor skips none",
    ),
    (
        "Q-handler",
        "a handler cannot harm the past",
        "it runs afterwards, in a transaction of its own",
    ),
    (
        "Q-frozen",
        "a frozen queue is left alone",
        "nothing is claimed and nothing decided, over restarts",
    ),
    (
        "Q-gone",
        "a lost mail is told",
        "a committed mail whose file is gone is an alarm, and stays remembered",
    ),
    ("Q-soon", "a commit is on its way soon", "whoever commits, in whichever process"),
    (
        "Q-stop",
        "a stop is orderly",
        "the first signal finishes what is on the wire, the second loses nothing",
    ),
    (
        "Q-newer",
        "old programs bury nothing",
        "a file or a queue of a newer version is left as it is, and reported",
    ),
    (
        "Q-peers",
        "queues of zope.sendmail and repoze.sendmail are delivered",
        "written by those themselves, each message once",
    ),
];

/// What is promised to whoever attaches mail to a transaction of a database.
const DATABASES: [Row; 14] = [
    (
        "D-attach",
        "a mail goes with its database transaction",
        "committed and sent, or rolled back and never, with its savepoint",
    ),
    (
        "D-outside",
        "no mail outside a transaction",
        "refused by the database's own answer, and nothing is left",
    ),
    (
        "D-interleavings",
        "every interleaving",
        "no order of steps, deaths and power cuts loses or invents a mail, and each step is needed",
    ),
    (
        "D-outlives",
        "a COMMIT that outlives its client",
        "unfinished while the server is at it; then what the server did",
    ),
    ("D-forgotten", "forgotten, panicked, shut down", "as if killed there"),
    ("D-fence", "a fence decides once", "many ask at once, and all get one answer"),
    (
        "D-undecidable",
        "who cannot decide is not believed",
        "another database, read-only, without tables, out of reach: in doubt, with a reason",
    ),
    (
        "D-restores",
        "restores and clones",
        "what follows is in [the table](#restores-clones-and-moves)",
    ),
    (
        "D-markers",
        "markers are not left for good",
        "the dead's are cleaned up, none before its mail is safe",
    ),
    ("D-seen", "seen is durable", "no mail goes out on a commit that the server can still forget"),
    ("D-relaxed", "relaxed durability is told", "found, and refused if so configured"),
    (
        "D-effects",
        "an event's effect on the database happens once",
        "over crashes, from any process",
    ),
    ("D-apart", "one database holds up no other", "each that decides is asked apart"),
    ("D-drivers", "other drivers keep the promise", "a commit, a rollback and a kill each"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn each_id_is_there_once_and_says_something() {
        let all: Vec<Claim> = sections().into_iter().flat_map(|section| section.claims).collect();
        let ids: BTreeSet<&str> = all.iter().map(|claim| claim.id.as_str()).collect();
        assert_eq!(ids.len(), all.len());
        for claim in &all {
            assert!(!claim.what.is_empty() && !claim.means.is_empty(), "{claim:?}");
            assert!(!format!("{}{}", claim.what, claim.means).contains(['|', '\n']), "{claim:?}");
        }
        for id in ["I20", "F-decide-full", "F-unlink-access", "S-quit-garbage", "A-advisory"] {
            assert!(ids.contains(id), "{id}");
        }
        for id in ["F-window-full", "F-send-eio", "F-dot-access", "I21"] {
            assert!(!ids.contains(id), "{id}");
        }
    }
}
