//! Adds up what test binaries report.

use std::fmt;

/// How many tests passed, failed and were skipped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    pub(crate) skipped: usize,
}

impl Tally {
    /// Adds what one line of a test binary's output says, if it is the line that says it:
    /// `test result: ok. 8 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; …`.
    pub(crate) fn add_line(&mut self, line: &str) {
        let Some((_, counts)) =
            line.strip_prefix("test result: ").and_then(|rest| rest.split_once(". "))
        else {
            return;
        };
        for part in counts.split(';') {
            let mut words = part.split_whitespace();
            let count = words.next().and_then(|word| word.parse::<usize>().ok());
            match (count, words.next()) {
                (Some(count), Some("passed")) => self.passed += count,
                (Some(count), Some("failed")) => self.failed += count,
                (Some(count), Some("ignored")) => self.skipped += count,
                _ => {}
            }
        }
    }

    /// Takes tests that skipped themselves out of those that passed, which is what the test binaries
    /// took them for.
    pub(crate) fn skipped_themselves(&mut self, count: usize) {
        self.passed = self.passed.saturating_sub(count);
        self.skipped += count;
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "running 9 tests",
            "test a ... ok",
            "test result: ok. 8 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 4 filtered out; finished in 1s",
            "the test result: ok. 5 passed",
        ] {
            tally.add_line(line);
        }
        assert_eq!(tally, Tally { passed: 11, failed: 2, skipped: 1 });
        tally.skipped_themselves(4);
        assert_eq!(tally.to_string(), "7 passed, 2 failed, 5 skipped");
    }
}
