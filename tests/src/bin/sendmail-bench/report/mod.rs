//! What was measured, for people and for programs.

mod json;
mod machine;
mod table;

pub(crate) use json::lines;
pub(crate) use machine::Machine;
pub(crate) use table::{summary, text};

use crate::row::Goal;

/// A figure as people read it: three digits say as much as can be said.
pub(crate) fn number(value: f64) -> String {
    match value.abs() {
        large if large >= 100.0 => format!("{value:.0}"),
        middle if middle >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// A goal in words: what a ratio has to be, or a figure.
fn words(goal: Goal, ratio: bool) -> String {
    let times = if ratio { " ×" } else { "" };
    match goal {
        Goal::AtLeast(goal, least) if goal > least => {
            format!("≥ {}{times} ({} counts)", number(goal), number(least))
        }
        Goal::AtLeast(goal, _) => format!("≥ {}{times}", number(goal)),
        Goal::AtMost(goal) => format!("≤ {}{times}", number(goal)),
        Goal::Told => "no goal".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_three_digits() {
        assert_eq!(number(12_345.6), "12346");
        assert_eq!(number(12.345), "12.3");
        assert_eq!(number(0.456), "0.46");
        assert_eq!(number(0.0), "0.00");
    }

    #[test]
    fn goals_are_told_as_they_are_stated() {
        assert_eq!(words(Goal::AtLeast(10.0, 6.0), true), "≥ 10.0 × (6.00 counts)");
        assert_eq!(words(Goal::at_least(0.5), true), "≥ 0.50 ×");
        assert_eq!(words(Goal::AtMost(64.0), false), "≤ 64.0");
    }
}
