//! What strace wrote, read: which call belongs to which part of a message's way.

use std::collections::BTreeMap;

use crate::figures::Stage;

/// How many calls there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Count {
    pub(super) calls: usize,
    /// Those among them that wait for a disk.
    pub(super) syncs: usize,
}

/// How many calls each part had.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(BTreeMap<Stage, Count>);

impl Counts {
    pub(super) fn of(&self, stage: Stage) -> Count {
        self.0.get(&stage).copied().unwrap_or_default()
    }
}

/// Counts the calls of a trace, whose descriptors have their paths behind them.
pub(super) fn count(trace: &str, queue: &str) -> Counts {
    let mut counts = Counts::default();
    for line in trace.lines() {
        let Some((call, rest)) = call(line) else { continue };
        let count = counts.0.entry(stage(call, rest, queue)).or_default();
        count.calls += 1;
        count.syncs +=
            usize::from(["fsync", "fdatasync", "syncfs", "sync_file_range"].contains(&call));
    }
    counts
}

/// The name of the call that a line begins, and what it is given: a line that only tells how one went on is
/// none.
fn call(line: &str) -> Option<(&str, &str)> {
    let line = line.trim_start_matches(|c: char| c.is_ascii_digit() || c == ' ');
    let (name, rest) = line.split_once('(')?;
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    (!name.is_empty() && name.chars().all(plain)).then_some((name, rest))
}

/// Which part a call belongs to, by what it is done to.
fn stage(call: &str, arguments: &str, queue: &str) -> Stage {
    if arguments.contains("<socket:") || arguments.contains("<TCP") || call == "socket" {
        return Stage::Deliver;
    }
    if !arguments.contains(queue) {
        return Stage::Runtime;
    }
    let names = |folder: &str| arguments.contains(&format!("{queue}/{folder}"));
    let (claimed, journal) = (names(".claimed"), names(".journal"));
    if journal {
        return Stage::Settle;
    }
    if call.starts_with("rename") {
        // The folder that is named last is where it goes.
        let last = arguments.rfind(queue).map_or("", |at| &arguments[at..]);
        let into_claim = last.starts_with(&format!("{queue}/.claimed"));
        return match (into_claim, claimed) {
            (true, _) => Stage::Claim,
            (false, true) => Stage::Settle,
            (false, false) => Stage::Enqueue,
        };
    }
    let syncs = call.contains("sync");
    match call {
        "unlink" | "unlinkat" if claimed => Stage::Settle,
        _ if claimed && syncs => Stage::Claim,
        _ if claimed => Stage::Deliver,
        "getdents64" => Stage::Claim,
        _ => Stage::Enqueue,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(line: &str, expected: Stage) {
        let counts = count(line, "/q");
        let count = Count { calls: 1, syncs: usize::from(line.contains("sync")) };
        assert_eq!(counts, Counts(BTreeMap::from([(expected, count)])), "{line}");
    }

    #[test]
    fn calls_belong_to_what_they_are_done_to() {
        check("7 openat(3</q/tmp>, \"a\", O_WRONLY|O_CREAT) = 4</q/tmp/a>", Stage::Enqueue);
        check("7 fsync(4</q/tmp/a>) = 0", Stage::Enqueue);
        check("7 renameat(3</q/tmp>, \"a\", 5</q/new>, \"a\") = 0", Stage::Enqueue);
        check("7 fdatasync(5</q/new> <unfinished ...>", Stage::Enqueue);
        check("7 getdents64(5</q/new>, 0x5 /* 3 entries */, 32768) = 80", Stage::Claim);
        check("7 renameat2(5</q/new>, \"a\", 6</q/.claimed/w>, \"a\", 0) = 0", Stage::Claim);
        check("7 fsync(6</q/.claimed/w>) = 0", Stage::Claim);
        check("7 openat(6</q/.claimed/w>, \"a\", O_RDONLY) = 9</q/.claimed/w/a>", Stage::Deliver);
        check("7 sendto(9<socket:[12]>, \"MAIL\", 4, 0, NULL, 0) = 4", Stage::Deliver);
        check("7 pwrite64(8</q/.journal/w>, \"...\", 96, 0) = 96", Stage::Settle);
        check("7 fdatasync(8</q/.journal/w>) = 0", Stage::Settle);
        check("7 unlinkat(6</q/.claimed/w>, \"a\", 0) = 0", Stage::Settle);
        check("7 renameat(6</q/.claimed/w>, \"a\", 5</q/.deferred/1>, \"a\") = 0", Stage::Settle);
        check("12 futex(0x7f, FUTEX_WAKE_PRIVATE, 1) = 1", Stage::Runtime);
    }

    #[test]
    fn a_call_that_goes_on_counts_once() {
        let trace = "7 fsync(4</q/tmp/a> <unfinished ...>\n7 <... fsync resumed>) = 0\n\
                     7 +++ exited with 0 +++\n";
        assert_eq!(count(trace, "/q").of(Stage::Enqueue), Count { calls: 1, syncs: 1 });
    }
}
