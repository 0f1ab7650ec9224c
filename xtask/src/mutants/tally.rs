//! The table at the end, and whether it is good.

use super::mutant::Mutant;
use super::plan::Explained;
use super::record::{Outcome, Record};
use crate::shell::{Failure, Result};

/// One scope's line of the table.
#[derive(Debug, Default)]
pub(super) struct Row {
    scope: String,
    caught: usize,
    timed_out: usize,
    unviable: usize,
    explained: usize,
    /// Names of those that no test noticed and nothing explains.
    missed: Vec<String>,
    /// How many were not tested.
    left: usize,
    /// Which of the explanations were met by a mutant, and whether by one that was caught.
    met: Vec<(usize, bool)>,
}

impl Row {
    pub(super) fn new(scope: &str) -> Self {
        Self { scope: scope.to_owned(), ..Self::default() }
    }

    /// Adds the mutants of one part.
    pub(super) fn add(&mut self, mutants: &[Mutant], record: &Record, explained: &[Explained]) {
        for mutant in mutants {
            let explanation = explained.iter().position(|explained| explains(explained, mutant));
            let outcome = record.of(mutant);
            match outcome {
                None => self.left += 1,
                Some(Outcome::Caught) => self.caught += 1,
                Some(Outcome::TimedOut) => self.timed_out += 1,
                Some(Outcome::Unviable) => self.unviable += 1,
                Some(Outcome::Missed) if explanation.is_some() => self.explained += 1,
                Some(Outcome::Missed) => {
                    self.missed.push(format!("{}\n    {}", mutant.name(), mutant.line()));
                }
            }
            let needless = outcome.is_some_and(|outcome| outcome != Outcome::Missed);
            self.met.extend(explanation.map(|index| (index, needless)));
        }
    }

    fn tested(&self) -> usize {
        self.caught + self.timed_out + self.unviable + self.explained + self.missed.len()
    }
}

fn explains(explained: &Explained, mutant: &Mutant) -> bool {
    explained.mutant == mutant.lasting_name() && explained.line == mutant.line()
}

/// Prints the table and what is wrong.
///
/// # Errors
///
/// Something is wrong: a mutant was missed or not tested, or an explanation is needless. Whether one
/// speaks of a mutant that does not exist shows only where `all` scopes are in the table.
pub(super) fn report(rows: &[Row], explained: &[Explained], all: bool) -> Result {
    println!("\n{}", table(rows));
    let wrong = trouble(rows, explained, all);
    for line in &wrong {
        println!("{line}");
    }
    if wrong.is_empty() { Ok(()) } else { Err(Failure::new(format!("{} to mend", wrong.len()))) }
}

fn table(rows: &[Row]) -> String {
    let line = |scope: &str, counts: [&dyn std::fmt::Display; 7]| {
        let mut text = format!("{scope:<10}");
        for count in counts {
            text += &format!("{count:>11}");
        }
        text + "\n"
    };
    let mut text = line(
        "scope",
        [&"tested", &"caught", &"timed out", &"unviable", &"explained", &"missed", &"not tested"],
    );
    for row in rows {
        let missed = row.missed.len();
        let counts: [&dyn std::fmt::Display; 7] = [
            &row.tested(),
            &row.caught,
            &row.timed_out,
            &row.unviable,
            &row.explained,
            &missed,
            &row.left,
        ];
        text += &line(&row.scope, counts);
    }
    text
}

fn trouble(rows: &[Row], explained: &[Explained], all: bool) -> Vec<String> {
    let mut wrong = Vec::new();
    for row in rows {
        wrong.extend(row.missed.iter().map(|mutant| format!("missed: {mutant}")));
        if row.left > 0 {
            wrong.push(format!("{}: {} mutants were not tested", row.scope, row.left));
        }
    }
    for (index, explained) in explained.iter().enumerate() {
        let mut met =
            rows.iter().flat_map(|row| &row.met).filter(|(met, _)| *met == index).peekable();
        if met.peek().is_none() && all {
            wrong.push(format!("explained, but there is none such: {}", describe(explained)));
        }
        if met.any(|(_, needless)| *needless) {
            wrong.push(format!("explained, but detected: {}", describe(explained)));
        }
    }
    wrong
}

fn describe(explained: &Explained) -> String {
    format!("{}\n    {}", explained.mutant, explained.line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn explained(mutant: &str, line: &str) -> Explained {
        Explained { mutant: mutant.to_owned(), line: line.to_owned(), why: "it is".to_owned() }
    }

    fn row(outcomes: &[(&str, &str, Option<Outcome>)], explained: &[Explained]) -> Row {
        let mut record = Record::open("/does/not/exist".as_ref()).unwrap();
        let mutants: Vec<Mutant> = outcomes
            .iter()
            .map(|(name, line, outcome)| {
                let mutant = Mutant::new(name, name, line);
                if let Some(outcome) = outcome {
                    record.note(&mutant, *outcome);
                }
                mutant
            })
            .collect();
        let mut row = Row::new("commit");
        row.add(&mutants, &record, explained);
        row
    }

    #[test]
    fn mutants_are_counted_by_what_became_of_them() {
        let row = row(
            &[
                ("a.rs:1:1: x", "l", Some(Outcome::Caught)),
                ("a.rs:2:1: x", "l", Some(Outcome::Caught)),
                ("a.rs:3:1: x", "l", Some(Outcome::TimedOut)),
                ("a.rs:4:1: x", "l", Some(Outcome::Unviable)),
                ("a.rs:5:1: y", "l", Some(Outcome::Missed)),
                ("a.rs:6:1: z", "m", Some(Outcome::Missed)),
                ("a.rs:7:1: x", "l", None),
            ],
            &[explained("a.rs: y", "l")],
        );
        let expected = "\
scope          tested     caught  timed out   unviable  explained     missed not tested
commit              6          2          1          1          1          1          1
";
        assert_eq!(table(&[row]), expected);
    }

    #[test]
    fn what_is_missed_or_left_is_trouble_unless_it_is_explained() {
        let outcomes = [
            ("a.rs:5:1: y", "l", Some(Outcome::Missed)),
            ("a.rs:6:1: y", "m", Some(Outcome::Missed)),
        ];
        let known = [explained("a.rs: y", "l")];
        let wrong = trouble(&[row(&outcomes, &known)], &known, true);
        assert_eq!(wrong, ["missed: a.rs:6:1: y\n    m"]);
        let wrong = trouble(&[row(&[("a.rs:1:1: x", "l", None)], &[])], &[], true);
        assert_eq!(wrong, ["commit: 1 mutants were not tested"]);
        assert!(trouble(&[row(&outcomes[..1], &known)], &known, true).is_empty());
    }

    #[test]
    fn an_explanation_of_nothing_and_one_of_what_is_caught_are_trouble() {
        let known = [explained("a.rs: y", "l"), explained("a.rs: z", "l")];
        let outcomes = [("a.rs:1:1: y", "l", Some(Outcome::Caught))];
        let wrong = trouble(&[row(&outcomes, &known)], &known, true);
        assert_eq!(
            wrong,
            [
                "explained, but detected: a.rs: y\n    l",
                "explained, but there is none such: a.rs: z\n    l"
            ]
        );
        // Where only some scopes ran, the other may be in another.
        assert_eq!(trouble(&[row(&outcomes, &known)], &known, false).len(), 1);
    }
}
