//! For people.

use std::fmt::Write as _;

use super::{number, words};
use crate::figures::{median, range};
use crate::row::{Against, Row, Verdict};
use crate::run::{Entry, Outcome};

/// Who took part in a work, and what came of its goals.
pub(crate) fn text(outcome: &Outcome) -> String {
    let mut text = format!("{}\n", outcome.work);
    for entry in &outcome.entries {
        add_entry(&mut text, entry);
    }
    for row in &outcome.rows {
        let _ = writeln!(text, "  → {}", comparison(outcome, row));
    }
    text
}

/// One line for each row of all works: what the table of goals has come to.
pub(crate) fn summary(outcomes: &[Outcome]) -> String {
    let rows = || outcomes.iter().flat_map(|outcome| &outcome.rows);
    let judged = outcomes
        .iter()
        .flat_map(|outcome| outcome.rows.iter().map(move |row| row.goal.judge(outcome.value(row))));
    let count = |wanted: Verdict| judged.clone().filter(|verdict| *verdict == wanted).count();
    let mut text = String::new();
    let all =
        [Verdict::Met, Verdict::Counts, Verdict::Missed, Verdict::NotMeasured, Verdict::NoGoal];
    let counts = all.map(|verdict| format!("{} {}", count(verdict), verdict.word()));
    let _ = writeln!(text, "{} rows: {}", rows().count(), counts.join(", "));
    text
}

fn add_entry(text: &mut String, entry: &Entry) {
    let mut who = entry.name.as_str();
    for (metric, samples) in entry.figures.iter() {
        let (Some(median), Some((low, high))) = (median(samples), range(samples)) else { continue };
        let figure = format!("{}{}", number(median), metric.unit());
        let range = format!("({} to {})", number(low), number(high));
        let _ = writeln!(text, "  {who:<64} {figure:>24}  {range}");
        who = "";
    }
    if let Some(why) = &entry.absent {
        let _ = writeln!(text, "  {who:<64} left out: {why}");
    }
}

fn comparison(outcome: &Outcome, row: &Row) -> String {
    let ratio = !matches!(row.against, Against::Nobody);
    let value = outcome.value(row);
    let verdict = row.goal.judge(value);
    let figure = match value {
        Some(value) if ratio => {
            let theirs = outcome.theirs(row).map(number).unwrap_or_default();
            let (value, unit) = (number(value), row.metric.unit());
            format!("{value} × the {theirs}{unit} of {}", row.against.words())
        }
        Some(value) => format!("{}{}", number(value), row.metric.unit()),
        None => format!("beside {}", row.against.words()),
    };
    let goal = words(row.goal, ratio);
    match verdict {
        Verdict::NoGoal => format!("{}: {figure}", row.name),
        _ => format!("{}: {figure}; goal {goal}: {}", row.name, verdict.word()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::json::tests::outcome;
    use super::*;

    #[test]
    fn a_table_has_figures_ratios_goals_and_who_is_out() {
        let outcome = outcome();
        let text = text(&outcome);
        for part in [
            "work\n",
            "ours ",
            "50.0/s  (25.0 to 100)",
            "left out: not installed",
            "→ one: 5.00 × the 10.0/s of theirs; goal ≥ 10.0 × (4.00 counts): missed, but counts",
            "→ two: beside gone; goal ≤ 2.00 ×: not measured",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        let summary = summary(&[outcome]);
        assert!(
            summary.starts_with("2 rows: 0 met, 1 missed, but counts, 0 missed, 1 not m"),
            "{summary}"
        );
    }
}
