//! Counts of the tree for `docs/testing.md`. Large ones are rounded down to two digits, so that the page need
//! not be written anew with each change.

use std::fmt;
use std::path::Path;

use super::Files;

/// How much there is.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    code: usize,
    test_code: usize,
    tests: usize,
    suite_cases: usize,
    properties: usize,
    fuzz_targets: usize,
    tags: usize,
}

/// Counts.
pub(crate) fn count(files: &Files<'_>) -> Counts {
    let mut counts = Counts::default();
    for (name, text) in files {
        if name.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let (code, test_code) = lines(name, text);
        counts.code += code;
        counts.test_code += test_code;
        counts.tests += tests(text);
        counts.suite_cases += cases(name, text);
        counts.properties += properties(text);
        counts.fuzz_targets += lines_that_begin_with(text, "fuzz_target!(");
        counts.tags += lines_that_begin_with(text, "// Proves:");
    }
    counts
}

/// Lines that are neither empty nor comments: of what is shipped, and of what tests it.
fn lines(name: &Path, text: &str) -> (usize, usize) {
    let counted = |line: &&str| !line.trim().is_empty() && !line.trim().starts_with("//");
    let all = text.lines().filter(counted).count();
    let is_shipped = name.starts_with("crates") && name.components().nth(2) == Some(src());
    let is_test = name.starts_with("crates/sendmail-testkit") || name.ends_with("tests.rs");
    if !is_shipped || is_test {
        return (0, all);
    }
    // Unit tests stand at the end of their file.
    let shipped = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let code = shipped.lines().filter(counted).count();
    (code, all - code)
}

fn src() -> std::path::Component<'static> {
    std::path::Component::Normal("src".as_ref())
}

/// Test functions, however they are run.
fn tests(text: &str) -> usize {
    let is_test = |line: &&str| {
        let line = line.trim();
        line == "#[test]" || line.starts_with("#[tokio::test")
    };
    text.lines().filter(is_test).count()
}

/// Names in the list of a suite's macro.
fn cases(name: &Path, text: &str) -> usize {
    if !name.starts_with("crates/sendmail-testkit/src") {
        return 0;
    }
    let begins = |line: &&str| line.trim().ends_with("; [");
    let ends = |line: &&str| line.trim().starts_with(']');
    let mut lines = text.lines();
    let mut count = 0;
    while lines.by_ref().find(begins).is_some() {
        let names = lines.by_ref().take_while(|line| !ends(line));
        count += names.filter(|line| line.trim().ends_with(',')).count();
    }
    count
}

/// Tests inside of `proptest!`.
fn properties(text: &str) -> usize {
    text.split("proptest! {").skip(1).map(block).map(tests).sum()
}

/// What stands before the brace that closes the block in which the text begins.
fn block(text: &str) -> &str {
    let mut depth = 1_usize;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[..at];
        }
    }
    text
}

fn lines_that_begin_with(text: &str, begin: &str) -> usize {
    text.lines().filter(|line| line.trim().starts_with(begin)).count()
}

/// Rounds down to two digits.
fn rounded(count: usize) -> String {
    let digits = count.max(1).ilog10();
    let unit = 10_usize.pow(digits.saturating_sub(1));
    let about = count / unit * unit;
    if about >= 1000 { format!("{},{:03}", about / 1000, about % 1000) } else { about.to_string() }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| counted in the tree | at least |\n|---|---|")?;
        for (what, count) in [
            ("lines of code in the crates, without comments", self.code),
            ("lines of code that test it, without comments", self.test_code),
            ("test functions", self.tests),
            ("cases of conformance suites, each run on every implementation", self.suite_cases),
            ("of the test functions, properties with random input", self.properties),
            ("fuzz targets", self.fuzz_targets),
            ("tags that tie a test to a claim", self.tags),
        ] {
            writeln!(f, "| {what} | {} |", rounded(count))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_counts_are_rounded_down() {
        for (count, text) in [(0, "0"), (9, "9"), (15, "15"), (128, "120"), (34_567, "34,000")] {
            assert_eq!(rounded(count), text);
        }
    }

    #[test]
    fn code_and_what_tests_it_are_told_apart() {
        let text = "//! Doc.\nfn a() {}\n\n#[cfg(test)]\nmod tests {\n    // No.\n    b();\n}\n";
        assert_eq!(lines(Path::new("crates/sendmail-txn/src/a.rs"), text), (1, 4));
        assert_eq!(lines(Path::new("crates/sendmail-txn/tests/it/a.rs"), text), (0, 5));
        assert_eq!(lines(Path::new("crates/sendmail-testkit/src/a.rs"), text), (0, 5));
        assert_eq!(lines(Path::new("tests/src/a.rs"), text), (0, 5));
    }

    #[test]
    fn tests_cases_and_properties_are_counted() {
        let text = "proptest! {\n  #[test]\n  fn a(x in y()) { z(); }\n}\n#[tokio::test(a)]\nfn b() {}\n#[test]\n";
        assert_eq!((tests(text), properties(text)), (3, 1));
        let suite = "=> { $c! { $($a)*; store; [\n  one,\n  two,\n] } };\nother,\n";
        assert_eq!(cases(Path::new("crates/sendmail-testkit/src/suite/x.rs"), suite), 2);
        assert_eq!(cases(Path::new("tests/src/x.rs"), suite), 0);
    }
}
