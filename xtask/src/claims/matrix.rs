//! The two matrices: what happens at each moment with each fault.

use super::register::Claim;

/// A table whose cells are claims.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Matrix {
    /// What ids begin with.
    prefix: &'static str,
    /// What stands in the corner.
    pub(crate) corner: &'static str,
    /// The columns: how ids name them, and how people do.
    pub(crate) columns: [(&'static str, &'static str); 5],
    pub(crate) rows: &'static [Moment],
}

/// A row: how ids name the moment, how people do, and what is expected in each column; nothing where the
/// two cannot meet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Moment {
    pub(crate) key: &'static str,
    pub(crate) title: &'static str,
    pub(crate) cells: [&'static str; 5],
}

impl Matrix {
    /// The claim that each cell makes.
    pub(crate) fn claims(&self) -> Vec<Claim> {
        let mut claims = Vec::new();
        for row in self.rows {
            for ((key, column), cell) in self.columns.iter().zip(row.cells) {
                if !cell.is_empty() {
                    let id = format!("{}-{}-{key}", self.prefix, row.key);
                    let what = format!("{}: {column}", row.title);
                    claims.push(Claim { id, what, means: cell.to_owned() });
                }
            }
        }
        claims
    }
}

const fn moment(key: &'static str, title: &'static str, cells: [&'static str; 5]) -> Moment {
    Moment { key, title, cells }
}

/// What the disk and the machine may do.
pub(crate) static FAULTS: Matrix = Matrix {
    prefix: "F",
    corner: "moment ↓ fault →",
    columns: [
        ("kill", "kill -9"),
        ("power", "power cut"),
        ("full", "ENOSPC, EDQUOT, no inodes"),
        ("eio", "EIO, also of fsync"),
        ("access", "EACCES, EROFS"),
    ],
    rows: &[
        moment(
            "write",
            "a message is written",
            [
                "gone; cleaned",
                "gone; cleaned",
                "an error to the caller; the transaction can abort",
                "an error to the caller; the transaction can abort",
                "an error to the caller; the transaction can abort",
            ],
        ),
        moment(
            "prepare",
            "prepare: syncs and stages",
            [
                "aborted, or in doubt; kept",
                "aborted, or in doubt; kept",
                "votes no",
                "votes no; the file is given up, no second fsync",
                "votes no",
            ],
        ),
        moment(
            "window",
            "the database's commit … finish",
            ["recovery, by marker and fence", "recovery, by marker and fence", "", "", ""],
        ),
        moment(
            "decide",
            "the decision, mail only",
            [
                "decided or in doubt",
                "decided or in doubt",
                "several messages: cannot happen; one: an error to the caller, undecided",
                "uncertain, kept, reported",
                "uncertain, kept, reported",
            ],
        ),
        moment(
            "publish",
            "publishing",
            [
                "recovery publishes",
                "recovery publishes",
                "published when there is space again",
                "published later",
                "published later",
            ],
        ),
        moment(
            "claim",
            "the claim",
            [
                "free at once on this host",
                "unclaimed",
                "retried",
                "set aside, with an event",
                "no more claims; health is red",
            ],
        ),
        moment(
            "send",
            "SMTP before the final dot",
            ["sent again; no copy was delivered", "sent again; no copy was delivered", "", "", ""],
        ),
        moment(
            "dot",
            "final dot … reply",
            [
                "sent again and announced; or held or dropped, as the message says",
                "sent again and announced; or held or dropped, as the message says",
                "",
                "",
                "",
            ],
        ),
        moment(
            "record",
            "recording the outcome",
            [
                "the window: announced, then as the message says",
                "the window: announced, then as the message says",
                "the claim is kept, the outcome stays in memory; nobody who is done is sent to again",
                "stops before it sends more",
                "stops before it sends more",
            ],
        ),
        moment(
            "unlink",
            "unlinking",
            [
                "the journal knows: not sent again",
                "the journal knows: not sent again",
                "works",
                "the journal knows: not sent again",
                "the journal knows: not sent again",
            ],
        ),
    ],
};

/// What a relay may answer.
pub(crate) static SMTP: Matrix = Matrix {
    prefix: "S",
    corner: "moment ↓ answer →",
    columns: [
        ("4xx", "4xx"),
        ("5xx", "5xx"),
        ("421", "421, close"),
        ("silence", "silence"),
        ("garbage", "garbage, endless"),
    ],
    rows: &[
        moment(
            "connect",
            "connect, greeting, EHLO, TLS, AUTH",
            [
                "the relay is paused",
                "the relay is paused, with an event",
                "the relay is paused",
                "deadline; the relay is paused",
                "close; the relay is paused",
            ],
        ),
        moment(
            "mail",
            "MAIL",
            [
                "deferred",
                "failed; many in a row: the relay is paused",
                "deferred",
                "deferred",
                "close; deferred",
            ],
        ),
        moment(
            "rcpt-one",
            "one RCPT",
            [
                "that one is deferred",
                "that one fails",
                "those without a result are deferred",
                "deferred",
                "close; deferred",
            ],
        ),
        moment(
            "rcpt-all",
            "every RCPT",
            ["no DATA; deferred", "failed", "deferred", "deferred", "close; deferred"],
        ),
        moment("data", "DATA", ["deferred", "failed", "deferred", "deferred", "close; deferred"]),
        moment(
            "dot",
            "final dot",
            [
                "deferred",
                "failed",
                "in doubt, announced",
                "in doubt after 10 minutes",
                "in doubt, announced",
            ],
        ),
        moment("quit", "QUIT", ["ignored", "ignored", "ignored", "5 s, ignored", "ignored"]),
    ],
};
