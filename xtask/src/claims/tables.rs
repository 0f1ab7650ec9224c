//! The generated parts of pages: what stands between `<!-- generated: NAME -->` and `<!-- end -->`.

use std::collections::BTreeMap;

use super::figures;
use super::matrix::Matrix;
use super::register::{Claim, Kind, Section};
use super::scan::Test;

/// The tests of each claim.
pub(crate) type Proven<'a> = BTreeMap<&'a str, Vec<&'a Test>>;

const END: &str = "<!-- end -->";

/// The page with each part written anew.
///
/// Fails if a part has no place in the page, or a place has no part.
pub(crate) fn write(page: &str, parts: &[(String, String)]) -> Result<String, String> {
    let mut written = page.to_owned();
    for (name, part) in parts {
        let begin = format!("<!-- generated: {name} -->\n");
        let place = written.find(&begin).map(|at| at + begin.len());
        let end = place.and_then(|at| written[at..].find(END).map(|length| at + length));
        let (Some(place), Some(end)) = (place, end) else {
            return Err(format!("there is no place for `{name}`"));
        };
        written.replace_range(place..end, &format!("\n{part}\n"));
    }
    let places = written.matches("<!-- generated: ").count();
    if places == parts.len() { Ok(written) } else { Err("a place has no part".to_owned()) }
}

/// A section as a page shows it.
pub(crate) fn section(section: &Section, proven: &Proven<'_>) -> String {
    match section.kind {
        Kind::List => list(&section.claims, proven),
        Kind::Matrix(matrix) => format!("{}\n{}", grid(matrix), cells(&section.claims, proven)),
    }
}

fn list(claims: &[Claim], proven: &Proven<'_>) -> String {
    let row = |Claim { id, what, means }: &Claim| {
        vec![id.clone(), what.clone(), means.clone(), tests(id, proven)]
    };
    table(&["", "claim", "what it means", "tests that would fail"], claims, row)
}

fn cells(claims: &[Claim], proven: &Proven<'_>) -> String {
    let row = |Claim { id, what, means }: &Claim| {
        vec![format!("{id}: {what}: {means}"), tests(id, proven)]
    };
    table(&["", "tests that would fail"], claims, row)
}

/// A row for each claim, and the figures of long runs in a last column, if there are any.
fn table(titles: &[&str], claims: &[Claim], row: impl Fn(&Claim) -> Vec<String>) -> String {
    let figures: Vec<_> = claims.iter().map(|claim| figures::of(&claim.id)).collect();
    let has_figures = figures.iter().any(Option::is_some);
    let titles = titles.iter().copied().chain(has_figures.then_some("last long run"));
    let titles: Vec<&str> = titles.collect();
    let mut text = format!("| {} |\n|{}\n", titles.join(" | "), "---|".repeat(titles.len()));
    text = text.replace("|  |", "| |");
    for (claim, figure) in claims.iter().zip(figures) {
        let mut columns = row(claim);
        if has_figures {
            columns.push(figure.unwrap_or_else(|| "–".to_owned()));
        }
        text += &format!("| {} |\n", columns.join(" | "));
    }
    text
}

fn grid(matrix: &Matrix) -> String {
    let titles = matrix.columns.map(|(_, title)| title).join(" | ");
    let mut text = format!("| {} | {titles} |\n|---|---|---|---|---|---|\n", matrix.corner);
    for row in matrix.rows {
        let cells = row.cells.map(|cell| if cell.is_empty() { "–" } else { cell });
        text += &format!("| {} | {} |\n", row.title, cells.join(" | "));
    }
    text
}

/// The tests of a claim by their packages, as people call both.
fn tests(id: &str, proven: &Proven<'_>) -> String {
    let mut by_package: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for test in proven.get(id).into_iter().flatten() {
        by_package.entry(package(test)).or_default().push(&test.name);
    }
    let lines = by_package.into_iter().map(|(package, mut names)| {
        names.sort_unstable();
        names.dedup();
        format!("{package}: `{}`", names.join("`, `"))
    });
    lines.collect::<Vec<_>>().join("; ")
}

/// What runs a test: the folder of its package, or the suite's packages.
fn package(test: &Test) -> String {
    let short = |name: &&str| name.trim_start_matches("sendmail-").to_owned();
    let names: Vec<String> = test.packages.iter().map(short).collect();
    names.join(" and ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_written_between_their_marks_and_nowhere_else() {
        let page =
            "a\n<!-- generated: x -->\nold\n<!-- end -->\nb\n<!-- generated: y --><!-- end -->";
        let page = page.replace("y -->", "y -->\n");
        let parts = [("x".to_owned(), "1".to_owned()), ("y".to_owned(), "2".to_owned())];
        let written = write(&page, &parts).unwrap();
        let wanted = "a\n<!-- generated: x -->\n\n1\n<!-- end -->\nb\n<!-- generated: y -->\n\n2\n<!-- end -->";
        assert_eq!(written, wanted);
        assert_eq!(write(&written, &parts).unwrap(), written);
        assert!(write(&page, &parts[..1]).is_err(), "a place is left");
        assert!(write("a", &parts).is_err(), "there is no place");
    }

    #[test]
    fn the_last_column_is_there_if_a_claim_has_a_figure() {
        let claim = |id: &str| Claim { id: id.to_owned(), what: "a".into(), means: "b".into() };
        let without = list(&[claim("Q-stop")], &Proven::new());
        assert!(without.starts_with("| | claim | what it means | tests that would fail |\n"));
        assert!(without.ends_with("\n| Q-stop | a | b |  |\n"), "{without}");
        let with = list(&[claim("Q-stop"), claim("I3")], &Proven::new());
        assert!(
            with.contains("| tests that would fail | last long run |\n|---|---|---|---|---|\n")
        );
        assert!(with.contains("| Q-stop | a | b |  | – |\n"), "{with}");
        assert!(with.contains("| I3 | a | b |  | 0 lost, "), "{with}");
    }

    #[test]
    fn tests_stand_with_their_packages() {
        let test = |name: &str, packages: &[&'static str]| Test {
            name: name.to_owned(),
            module: String::new(),
            packages: packages.to_vec(),
            runs: vec![name.to_owned()],
        };
        let one = test("b_one", &["sendmail-txn"]);
        let two = test("a_two", &["sendmail-txn"]);
        let suite = test("case", &["sendmail-maildir", "sendmail-testkit"]);
        let proven = Proven::from([("I1", vec![&one, &two, &suite, &one])]);
        assert_eq!(tests("I1", &proven), "maildir and testkit: `case`; txn: `a_two`, `b_one`");
        assert_eq!(tests("I2", &proven), "");
    }
}
