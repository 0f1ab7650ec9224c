//! The figures of long runs, and the claims that they bear out: the one place where they are written down.
//!
//! `docs/testing.md` shows all of them, `docs/guarantees.md` each beside its claims. Who repeats a run writes
//! its figures here, and runs `cargo xtask claims --write`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What was run for long, once.
struct LongRun {
    /// What it is, or its command.
    what: &'static str,
    /// The day, as `24 November 2026`.
    when: &'static str,
    /// From which all of it follows, if there is one.
    seed: &'static str,
    /// All that came of it.
    came: &'static str,
    /// What it says of single claims: their ids, in which `*` stands for anything, and a few words.
    says: &'static [(&'static [&'static str], &'static str)],
}

/// How long a fuzz target ran in sum.
struct Fuzzed {
    target: &'static str,
    seconds: u64,
    executions: u64,
    /// How often it crashed, and why.
    crashes: &'static str,
}

/// The day of the last fuzzing.
const FUZZED_ON: &str = "24 November 2026";

const LONG_RUNS: [LongRun; 9] = [
    LongRun {
        what: "`cargo xtask crash-test --long`",
        when: "24 November 2026",
        seed: "15222940639326886435",
        came: "10,005 kills, 200,058 mails: 0 lost, 0 after a rollback, 0 half; 8,776 second copies, 9,334 events; 20 races, 0 of 400,000 messages claimed twice",
        says: &[
            (&["I1"], "0 half, 10,005 kills"),
            (&["I2"], "0 sent, 10,005 kills"),
            (&["I3", "F-*-kill"], "0 lost, 10,005 kills"),
            (&["I7"], "0 of 400,000 claimed twice"),
            (&["I8"], "8,776 second copies, 9,334 events"),
            (&["I12"], "400,000 of 400,000 taken over"),
        ],
    },
    LongRun {
        what: "crash tests with databases",
        when: "24 November 2026",
        seed: "",
        came: "[2,000 kills and 50,000 mails each](guarantees.md#the-long-run)",
        says: &[(
            &["I5", "I19", "D-attach", "F-window-kill"],
            "0 lost, 0 without its rows, 6,000 kills",
        )],
    },
    LongRun {
        what: "the protocol's model",
        when: "24 November 2026",
        seed: "",
        came: "869,929 states, 8,260,459 steps, 0 violations",
        says: &[(&["D-interleavings", "F-window-power"], "869,929 states, 0 violations")],
    },
    LongRun {
        what: "the disk's simulation",
        when: "24 November 2026",
        seed: "0x5eed",
        came: "20 histories, some 8,900 disks of power cuts and as many with old names, 0 violations; each operation in seven ways, 0; all pairs of operations, 19 of one kind, [mended](disk.md), and 0 when they were run again; the search without bounds was stopped half-way, 0",
        says: &[(&["I3", "F-*-power"], "8,900 disks, 0 violations")],
    },
    LongRun {
        what: "crashes of XFS and btrfs under load",
        when: "24 November 2026",
        seed: "1795552505000 to 1795555006000",
        came: "XFS shut down in 250 rounds, snapshots of XFS in 200 and of btrfs in 150: 21,670 mails acknowledged, 0 lost, 0 after a rollback; in a further round of btrfs a half-made file was left, which does no harm, and is swept since",
        says: &[(&["I3"], "0 of 21,670 lost in 600 crashes of file systems")],
    },
    LongRun {
        what: "mutants",
        when: "24 November 2026",
        seed: "",
        came: "normalise 117 of 117 tested, 0 missed; commit 179 of 179, 0 missed, 2 explained; classify 249 of 249, 0 missed; fence 197 of 219; claim not run",
        says: &[],
    },
    LongRun {
        what: "a relay that is hostile for ten minutes",
        when: "24 November 2026",
        seed: "",
        came: "638 connections in 304 of 407 ways, nothing lost or wrongly sent; 15,568 KiB resident after the warm-up and in the end: memory grew by 0 KiB",
        says: &[(&["A-endless", "I11"], "memory grew by 0 KiB in 10 minutes")],
    },
    LongRun {
        what: "1,000,000 queued messages",
        when: "24 November 2026",
        seed: "",
        came: "at most 14.5 MB resident while 20,079 of them were delivered, 8.7 MB for listing and counting them",
        says: &[(&["I15"], "14.5 MB for 1,000,000 messages")],
    },
    LongRun {
        what: "real relays",
        when: "24 November 2026",
        seed: "",
        came: "48 cases on Postfix, Exim, OpenSMTPD and aiosmtpd, 31 with options of `smtp-sink`, and the matrix: 169 tests",
        says: &[(&["S-*"], "169 tests with real relays")],
    },
];

const FUZZED: [Fuzzed; 15] = [
    fuzzed("address", 601, 6_882_201, "0"),
    fuzzed("config", 601, 3_164_221, "0"),
    fuzzed("event_log", 854, 2_851_622, "1: the test's own mistake, one event in two segments"),
    fuzzed("file_name", 601, 9_768_825, "0"),
    fuzzed("foreign_file", 601, 6_146_697, "0"),
    fuzzed("header", 601, 5_185_511, "0"),
    fuzzed("journal", 601, 4_779_761, "0"),
    fuzzed("message", 601, 1_833_743, "0"),
    fuzzed(
        "queue_dir",
        1_113,
        155_620,
        "1: one of two files with one id replaced the other; mended",
    ),
    fuzzed("queue_file", 601, 3_181_231, "0"),
    fuzzed("relay", 922, 32_927, "1: the test's own mistake, it hung up on what it had taken"),
    fuzzed("relay_url", 931, 3_053_915, "1: the test's own mistake, about the case of letters"),
    fuzzed("reply", 601, 5_322_134, "0"),
    fuzzed("sink", 601, 1_026_452, "0"),
    fuzzed("sql_answers", 601, 6_253_388, "0"),
];

const fn fuzzed(
    target: &'static str,
    seconds: u64,
    executions: u64,
    crashes: &'static str,
) -> Fuzzed {
    Fuzzed { target, seconds, executions, crashes }
}

/// The figures of a claim, with their dates; nothing if no long run speaks of it.
pub(super) fn of(id: &str) -> Option<String> {
    let mut by_day: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for run in &LONG_RUNS {
        let spoken = run.says.iter().filter(|(ids, _)| ids.iter().any(|each| fits(each, id)));
        by_day.entry(short(run.when)).or_default().extend(spoken.map(|(_, words)| *words));
    }
    by_day.retain(|_, words| !words.is_empty());
    let days = by_day.into_iter().map(|(day, words)| format!("{} ({day})", words.join("; ")));
    Some(days.collect::<Vec<_>>().join("; ")).filter(|text| !text.is_empty())
}

/// The table of all long runs.
pub(super) fn long_runs() -> String {
    let mut text = "| | when, with which seed | what came of it |\n|---|---|---|\n".to_owned();
    for LongRun { what, when, seed, came, .. } in &LONG_RUNS {
        let seed = if seed.is_empty() { String::new() } else { format!(", {seed}") };
        let _ = writeln!(text, "| {what} | {when}{seed} | {came} |");
    }
    text
}

/// The table of what was fuzzed.
pub(super) fn fuzzing() -> String {
    let mut text = format!(
        "In sum until {FUZZED_ON}:\n\n| target | seconds | executions | crashes |\n|---|---|---|---|\n"
    );
    for Fuzzed { target, seconds, executions, crashes } in &FUZZED {
        let _ = writeln!(text, "| {target} | {seconds} | {} | {crashes} |", grouped(*executions));
    }
    text
}

/// Figures of claims or fuzz targets that there are not, and targets without a figure.
pub(super) fn problems(claims: &[&str], targets: &[&str]) -> Vec<String> {
    let ids = LONG_RUNS.iter().flat_map(|run| run.says).flat_map(|(ids, _)| *ids);
    let unknown = ids.filter(|id| !claims.iter().any(|claim| fits(id, claim)));
    let mut problems: Vec<String> =
        unknown.map(|id| format!("a long run speaks of {id}, and no claim is called so")).collect();
    let known: Vec<&str> = FUZZED.iter().map(|fuzzed| fuzzed.target).collect();
    let gone = known.iter().filter(|target| !targets.contains(target));
    problems.extend(gone.map(|gone| format!("{gone} was fuzzed, and is no fuzz target")));
    let new = targets.iter().filter(|target| !known.contains(target));
    problems.extend(new.map(|new| format!("the fuzz target {new} has no figure of a long run")));
    problems
}

fn fits(pattern: &str, id: &str) -> bool {
    match pattern.split_once('*') {
        Some((begin, end)) => {
            id.len() >= begin.len() + end.len() && id.starts_with(begin) && id.ends_with(end)
        }
        None => pattern == id,
    }
}

/// `24 November 2026` as `24 Nov 2026`.
fn short(day: &str) -> String {
    let words = day.split(' ').map(|word| match word.parse::<u32>() {
        Ok(_) => word.to_owned(),
        Err(_) => word.chars().take(3).collect(),
    });
    words.collect::<Vec<String>>().join(" ")
}

/// A number in groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_fits_itself_and_a_star_fits_anything() {
        assert!(fits("I1", "I1") && !fits("I1", "I10"));
        assert!(fits("F-*-kill", "F-claim-kill") && !fits("F-*-kill", "F-claim-power"));
        assert!(fits("S-*", "S-too-many") && !fits("F-*-kill", "F-kill"));
    }

    #[test]
    fn a_claim_has_its_figures_with_their_day() {
        let figure = of("I3").unwrap();
        assert!(figure.contains(" kills; ") && figure.contains(" disks") && figure.contains("20"));
        assert_eq!(figure.matches('(').count(), 1, "one day for both: {figure}");
        assert_eq!(of("Q-stop"), None);
    }

    #[test]
    fn days_and_numbers_are_written_short_and_readable() {
        assert_eq!(short("24 November 2026"), "24 Nov 2026");
        for (number, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (6_882_201, "6,882,201")] {
            assert_eq!(grouped(number), text);
        }
    }

    #[test]
    fn what_does_not_fit_together_is_named() {
        let targets: Vec<&str> = FUZZED.iter().map(|fuzzed| fuzzed.target).collect();
        let found = problems(&["I1"], &[&targets[1..], &["new"]].concat());
        assert!(found.iter().any(|problem| problem.contains("speaks of I2,")), "{found:?}");
        assert!(found.contains(&"address was fuzzed, and is no fuzz target".to_owned()));
        assert!(found.contains(&"the fuzz target new has no figure of a long run".to_owned()));
        assert!(!found.iter().any(|problem| problem.contains("speaks of I1,")), "{found:?}");
    }
}
