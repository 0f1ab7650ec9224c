//! Finds the lines `// Proves: I3, F-publish-power` in the source, and the test that stands below each.

use std::path::Path;

/// A line that says what a test proves, and the test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Proof {
    pub(crate) ids: Vec<String>,
    pub(crate) test: Test,
}

/// What is run to have something proved.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Test {
    /// How people call it: the name of the function that holds it; with its module, where another has
    /// the same name.
    pub(crate) name: String,
    /// In which module of its program it is; not named for unit tests, all of which are in `tests`.
    pub(crate) module: String,
    /// The packages that run it: a case of a suite is run by each that has the suite.
    pub(crate) packages: Vec<&'static str>,
    /// The names under which they run it; a test for several databases has one for each.
    pub(crate) runs: Vec<String>,
}

/// What is wrong with a tag, by the number of its line.
pub(crate) type Problem = (usize, String);

const TAG: &str = "// Proves:";

/// Where the packages are, and where the suites are that others run; the first that fits counts.
const PACKAGES: [(&str, &[&str]); 20] = [
    ("crates/sendmail-testkit/src/suite/external", &["sendmail-sqlx"]),
    ("crates/sendmail-testkit/src/suite/data_manager", &["sendmail-testkit", "sendmail-txn"]),
    ("crates/sendmail-testkit/src/suite/sink", &["sendmail-testkit", "sendmail-txn"]),
    ("crates/sendmail-testkit/src/suite", &["sendmail-maildir", "sendmail-testkit"]),
    ("crates/sendmail-testkit/src/mailer_suite", &["sendmail-program", "sendmail-smtp"]),
    ("crates/sendmail-testkit", &["sendmail-testkit"]),
    ("crates/sendmail-core", &["sendmail-core"]),
    ("crates/sendmail-clock", &["sendmail-clock"]),
    ("crates/sendmail-maildir", &["sendmail-maildir"]),
    ("crates/sendmail-smtp", &["sendmail-smtp"]),
    ("crates/sendmail-txn", &["sendmail-txn"]),
    ("crates/sendmail-processor", &["sendmail-processor"]),
    ("crates/sendmail-program", &["sendmail-program"]),
    ("crates/sendmail-sqlx", &["sendmail-sqlx"]),
    ("crates/sendmail-cli", &["sendmail-cli"]),
    ("tests/schedules", &["sendmail-schedules"]),
    ("tests", &["sendmail-tests"]),
    ("examples", &["sendmail-examples"]),
    ("xtask", &["xtask"]),
    ("fuzz", &["fuzz"]),
];

/// The proofs of one file, and the tags that prove nothing.
pub(crate) fn scan(name: &Path, text: &str) -> (Vec<Proof>, Vec<Problem>) {
    let (mut proofs, mut problems) = (Vec::new(), Vec::new());
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut at = 0;
    while at < lines.len() {
        let first = at;
        let mut ids = Vec::new();
        while let Some(tag) = lines.get(at).and_then(|line| line.strip_prefix(TAG)) {
            ids.extend(tag.split([',', ' ']).filter(|id| !id.is_empty()).map(str::to_owned));
            at += 1;
        }
        if at == first {
            at += 1;
            continue;
        }
        match test_below(name, text, &lines[at..]) {
            Ok(test) if !ids.is_empty() => proofs.push(Proof { ids, test }),
            Ok(_) => problems.push((first + 1, "the tag names no claim".to_owned())),
            Err(why) => problems.push((first + 1, why)),
        }
    }
    (proofs, problems)
}

/// Every test function of a file, whatever it proves.
pub(crate) fn tests(name: &Path, text: &str) -> Vec<Test> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let starts = (0..lines.len()).filter(|at| is_test_attribute(lines[*at]));
    starts.filter_map(|at| test_below(name, text, &lines[at..]).ok()).collect()
}

/// The test whose first line, or whose attributes or documentation, `lines` begin with.
fn test_below(name: &Path, text: &str, lines: &[&str]) -> Result<Test, String> {
    let (attributes, below) = split_attributes(lines);
    let packages = PACKAGES.iter().find(|(folder, _)| starts_with(name, folder));
    let packages = packages.map(|(_, packages)| packages.to_vec()).unwrap_or_default();
    let module = module(name);
    let test = |name: &str, runs: Vec<String>| {
        let name = name.to_owned();
        Test { name, module, packages, runs }
    };
    let one = |name: &str| vec![name.to_owned()];
    if below.starts_with("fuzz_target!") {
        let stem = name.file_stem().unwrap_or_default().to_string_lossy();
        return Ok(test(&stem, one(&stem)));
    }
    if let Some(function) = function_name(&below) {
        let in_suite = starts_with(name, "crates/sendmail-testkit/src");
        let is_test = attributes.iter().any(|attribute| is_test_attribute(attribute));
        return match runs_of(text, function) {
            Some(runs) => Ok(test(function, runs)),
            None if is_test || in_suite => Ok(test(function, one(function))),
            None => Err(format!("`{function}` below the tag is no test")),
        };
    }
    match case(&below) {
        Some((name, runs)) => Ok(test(name, runs)),
        None => Err("there is no test directly below the tag".to_owned()),
    }
}

/// The module that a file is, in the library or the test program that it belongs to.
fn module(name: &Path) -> String {
    let name = name.with_extension("");
    let words: Vec<_> = name.iter().filter_map(|word| word.to_str()).collect();
    let root = words.iter().rposition(|word| matches!(*word, "src" | "tests"));
    let inside = root.map_or(&words[..], |at| match words[at] {
        "tests" => words.get(at + 2..).unwrap_or_default(),
        _ => &words[at + 1..],
    });
    let is_named = |word: &&&str| !matches!(**word, "mod" | "lib" | "main");
    inside.iter().filter(is_named).copied().collect::<Vec<_>>().join("::")
}

fn starts_with(name: &Path, folder: &str) -> bool {
    name.starts_with(folder) || name == Path::new(&format!("{folder}.rs"))
}

/// The attributes, each in one line, and all that follows them and the comments between.
fn split_attributes(lines: &[&str]) -> (Vec<String>, String) {
    let mut attributes: Vec<String> = Vec::new();
    let mut open = false;
    for (index, line) in lines.iter().enumerate() {
        match attributes.last_mut() {
            Some(attribute) if open => attribute.push_str(line),
            _ if line.starts_with("#[") => attributes.push((*line).to_owned()),
            _ if line.starts_with("//") => continue,
            _ => return (attributes, lines[index..].join(" ")),
        }
        open = attributes.last().is_some_and(|attribute| !is_balanced(attribute));
    }
    (attributes, String::new())
}

fn is_balanced(attribute: &str) -> bool {
    attribute.matches('[').count() == attribute.matches(']').count()
}

/// `#[test]`, `#[tokio::test(…)]`.
fn is_test_attribute(attribute: &str) -> bool {
    let path = attribute.trim_start_matches("#[").split(['(', ']']).next().unwrap_or_default();
    path.rsplit("::").next() == Some("test")
}

/// The name of the function that a text begins with, if it begins with one.
fn function_name(text: &str) -> Option<&str> {
    let mut rest = text;
    for word in ["pub(crate) ", "pub(super) ", "pub ", "async "] {
        rest = rest.strip_prefix(word).unwrap_or(rest);
    }
    identifier(rest.strip_prefix("fn ")?).map(|(name, _)| name)
}

/// The case of a macro that a text begins with: `name: …`, `name,`, `name;` or `body => name, name;`.
fn case(text: &str) -> Option<(&str, Vec<String>)> {
    let (name, rest) = identifier(text)?;
    match rest.trim_start() {
        rest if rest.starts_with("=>") => Some((name, runs_in(rest)?)),
        rest if rest.starts_with([':', ',', ';']) && !rest.starts_with("::") => {
            Some((name, vec![name.to_owned()]))
        }
        _ => None,
    }
}

/// Under which names a file's macros run this body, if one of them does.
fn runs_of(text: &str, body: &str) -> Option<Vec<String>> {
    text.match_indices(body).find_map(|(at, _)| {
        let before = text[..at].chars().next_back();
        let whole = before.is_none_or(|c| !(c.is_alphanumeric() || c == '_'));
        let rest = text[at + body.len()..].trim_start();
        if whole && rest.starts_with("=>") { runs_in(rest) } else { None }
    })
}

/// The names in `=> name, name;`.
fn runs_in(text: &str) -> Option<Vec<String>> {
    let (names, _) = text.strip_prefix("=>")?.split_once(';')?;
    let names: Vec<&str> =
        names.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
    let all = names.iter().all(|name| identifier(name).is_some_and(|(_, rest)| rest.is_empty()));
    (all && !names.is_empty()).then(|| names.into_iter().map(str::to_owned).collect())
}

/// The identifier that a text begins with, and the rest.
fn identifier(text: &str) -> Option<(&str, &str)> {
    let end = text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len());
    let first = text.chars().next()?;
    (end > 0 && !first.is_ascii_digit()).then(|| text.split_at(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(name: &str, text: &str) -> (Vec<Proof>, Vec<Problem>) {
        scan(Path::new(name), &text.replace("PROVES", TAG))
    }

    #[track_caller]
    fn check(text: &str, ids: &[&str], name: &str, runs: &[&str]) {
        let (proofs, problems) = found("crates/sendmail-txn/tests/it/a.rs", text);
        assert_eq!(problems, []);
        let [Proof { ids: found, test }] = &proofs[..] else { panic!("{proofs:?}") };
        assert_eq!(found, ids);
        assert_eq!(test.name, name);
        assert_eq!(test.runs, runs);
        assert_eq!(test.packages, ["sendmail-txn"]);
    }

    #[track_caller]
    fn check_problem(text: &str, problem: &str) {
        let (proofs, problems) = found("crates/sendmail-txn/tests/it/a.rs", text);
        assert_eq!(proofs, []);
        assert_eq!(problems, [(1, problem.to_owned())]);
    }

    #[test]
    fn functions_are_found_below_attributes_and_comments() {
        check("PROVES I1\n#[test]\nfn one() {}\n", &["I1"], "one", &["one"]);
        check(
            "PROVES I1, I2\nPROVES I3\n#[tokio::test]\nasync fn one() {}",
            &["I1", "I2", "I3"],
            "one",
            &["one"],
        );
        check(
            "PROVES I1\n/// Why.\n#[tokio::test(\n  flavor = \"x\",\n)]\n// And.\nasync fn one() {",
            &["I1"],
            "one",
            &["one"],
        );
        check(
            "proptest! {\n    PROVES I1\n    #[test]\n    fn one(a in any()) {}\n}",
            &["I1"],
            "one",
            &["one"],
        );
    }

    #[test]
    fn cases_of_macros_are_found() {
        check(
            "matrix! {\n  PROVES S-dot-421\n  dot_421: At::Dot, leave() => \"x\";\n}",
            &["S-dot-421"],
            "dot_421",
            &["dot_421"],
        );
        check("suite! { [\n  PROVES I1\n  one,\n  two,\n] }", &["I1"], "one", &["one"]);
        let macros = "on_each! {\n  PROVES I1\n  body => on_a,\n    on_b;\n}\n";
        check(macros, &["I1"], "body", &["on_a", "on_b"]);
    }

    #[test]
    fn a_body_is_run_under_the_names_of_its_macro() {
        let text = "on_each! {\n  nobody => c, d;\n  body => on_a, on_b;\n}\nPROVES I1\nasync fn body<DB>() {}\n";
        check(text, &["I1"], "body", &["on_a", "on_b"]);
    }

    #[test]
    fn a_case_of_a_suite_is_run_by_those_who_have_the_suite() {
        let text = "PROVES I7\npub async fn a_case<H: Harness>(h: &H) {}\n";
        let packages = |name| found(name, text).0[0].test.packages.clone();
        assert_eq!(packages("crates/sendmail-testkit/src/suite/external.rs"), ["sendmail-sqlx"]);
        let store = packages("crates/sendmail-testkit/src/suite/store/dying.rs");
        assert_eq!(store, ["sendmail-maildir", "sendmail-testkit"]);
        let mailer = packages("crates/sendmail-testkit/src/mailer_suite/cases.rs");
        assert_eq!(mailer, ["sendmail-program", "sendmail-smtp"]);
    }

    #[test]
    fn each_package_has_the_files_below_its_own_folder() {
        let text = "PROVES I7\n#[test]\nfn one() {}\n";
        let packages = |name| found(name, text).0[0].test.packages.clone();
        assert_eq!(packages("tests/schedules/tests/it/main.rs"), ["sendmail-schedules"]);
        assert_eq!(packages("tests/tests/relays/exim.rs"), ["sendmail-tests"]);
        assert_eq!(packages("crates/sendmail-maildir/src/name.rs"), ["sendmail-maildir"]);
    }

    #[test]
    fn modules_are_those_of_the_program_that_a_file_belongs_to() {
        for (name, wanted) in [
            ("crates/sendmail-txn/src/lib.rs", ""),
            ("crates/sendmail-maildir/src/journal/mod.rs", "journal"),
            ("crates/sendmail-maildir/src/journal/record.rs", "journal::record"),
            ("crates/sendmail-txn/tests/it/main.rs", ""),
            ("crates/sendmail-txn/tests/it/fake/store.rs", "fake::store"),
            ("tests/tests/relays/exim.rs", "exim"),
        ] {
            assert_eq!(module(Path::new(name)), wanted, "{name}");
        }
    }

    #[test]
    fn a_fuzz_target_is_named_by_its_file() {
        let text = "PROVES B-damaged\nfuzz_target!(|data: &[u8]| {});\n";
        let (proofs, problems) = found("fuzz/targets/queue_file.rs", text);
        assert_eq!(problems, []);
        assert_eq!(proofs[0].test.name, "queue_file");
        assert_eq!(proofs[0].test.packages, ["fuzz"]);
    }

    #[test]
    fn a_tag_without_a_test_is_a_problem() {
        check_problem("PROVES I1\nfn helper() {}\n", "`helper` below the tag is no test");
        check_problem(
            "PROVES I1\n#[expect(dead_code)]\nfn test() {}\n",
            "`test` below the tag is no test",
        );
        let none = "there is no test directly below the tag";
        check_problem("PROVES I1\n\n#[test]\nfn one() {}\n", none);
        check_problem("PROVES I1\nlet a = 1;\n", none);
        check_problem("PROVES I1\nstd::mem::drop(1);\n", none);
        check_problem("PROVES I1", none);
        check_problem("PROVES\n#[test]\nfn one() {}\n", "the tag names no claim");
    }
}
