//! Rules for the pages: links lead somewhere, and what a page calls a test or a function exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Component, Path, PathBuf};

/// What pages may refer to.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    /// Files and folders, relative to the workspace.
    paths: BTreeSet<PathBuf>,
    /// The headings of each page, as links name them.
    headings: BTreeMap<PathBuf, BTreeSet<String>>,
    /// The long names that occur in the source.
    names: BTreeSet<String>,
}

impl Tree {
    /// Adds a file, which is named relative to the workspace; without a text if it is none.
    pub(crate) fn add(&mut self, name: &Path, text: Option<&str>) {
        self.paths.extend(name.ancestors().map(Path::to_owned));
        let Some(text) = text else { return };
        if is_page(name) {
            let headings = prose(text).filter_map(|(_, line)| heading(line)).collect();
            self.headings.insert(name.to_owned(), headings);
        } else if name.extension().is_some_and(|extension| extension == "rs") {
            let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
            self.names.extend(words.filter(|word| is_long_name(word)).map(str::to_owned));
        }
    }
}

/// What is wrong with one page.
pub(crate) fn check(name: &Path, text: &str, tree: &Tree) -> Vec<String> {
    let mut problems = Vec::new();
    if !is_page(name) {
        return problems;
    }
    for (number, line) in prose(text) {
        for link in links(line) {
            if let Some(why) = broken(name, link, tree) {
                problems.push(format!("line {number}: the link to {link} is broken: {why}"));
            }
        }
        for span in line.split('`').skip(1).step_by(2) {
            let last = span.rsplit("::").next().unwrap_or(span);
            if is_long_name(last) && !tree.names.contains(last) {
                problems.push(format!("line {number}: there is no `{last}` in the source"));
            }
        }
    }
    problems
}

pub(crate) fn is_page(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "md")
}

/// The lines outside of fenced blocks, counted from 1.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    text.lines().enumerate().filter_map(move |(index, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        (!fenced && !fence).then_some((index + 1, line))
    })
}

/// A heading as a link names it: lower case, without punctuation, hyphens for spaces.
fn heading(line: &str) -> Option<String> {
    let text = line.strip_prefix('#')?.trim_start_matches('#').strip_prefix(' ')?;
    let kept = text.trim().chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
    Some(kept.map(|c| if c == ' ' { '-' } else { c.to_ascii_lowercase() }).collect())
}

/// The targets of a line's links.
fn links(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

/// Why a link leads nowhere, if it does. What other hosts have is theirs.
fn broken(page: &Path, link: &str, tree: &Tree) -> Option<&'static str> {
    if link.contains("://") || link.starts_with("mailto:") {
        return None;
    }
    let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = match path {
        "" => page.to_owned(),
        _ => match resolve(page, path) {
            Some(target) => target,
            None => return Some("it leaves the tree"),
        },
    };
    if !tree.paths.contains(&target) {
        return Some("there is no such file");
    }
    let headings = tree.headings.get(&target);
    let there = anchor.is_empty() || headings.is_none_or(|headings| headings.contains(anchor));
    (!there).then_some("there is no such heading")
}

/// Where a relative link leads; nothing if that is above the tree.
fn resolve(page: &Path, link: &str) -> Option<PathBuf> {
    let mut target = page.parent()?.to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => target.push(name),
            Component::ParentDir if target.pop() => {}
            Component::CurDir => {}
            _ => return None,
        }
    }
    Some(target)
}

/// A name of at least three words, as tests have it: nothing else in prose looks like that.
fn is_long_name(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    word.matches('_').count() >= 2
        && word.chars().all(plain)
        && word.starts_with(|c: char| c.is_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> Tree {
        let mut tree = Tree::default();
        tree.add(
            Path::new("docs/a.md"),
            Some("# The `first` page, really\n```\n# no heading\n```\n"),
        );
        tree.add(Path::new("docs/sub/b.md"), Some("## Two\n"));
        tree.add(Path::new("src/lib.rs"), Some("fn it_does_what_it_says() {}"));
        tree.add(Path::new("LICENSE"), None);
        tree
    }

    fn problems(text: &str) -> Vec<String> {
        check(Path::new("docs/a.md"), text, &tree())
    }

    #[test]
    fn links_lead_somewhere() {
        for fine in [
            "[b](sub/b.md) and [up](../LICENSE), [folder](../src), [root](..)",
            "[b](./sub/b.md#two) [own](#the-first-page-really)",
            "[out](https://example.org/no/such.md) [mail](mailto:a@example.org)",
            "```\n[in a block](nowhere.md)\n```",
        ] {
            assert_eq!(problems(fine), [""; 0], "{fine}");
        }
        for bad in [
            "[x](nowhere.md)",
            "[x](sub/b.md#three)",
            "[x](#no-heading)",
            "[x](../../a)",
            "[x](b.md)",
        ] {
            assert_eq!(problems(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn what_is_named_exists() {
        assert_eq!(problems("`it_does_what_it_says`, `tests::it_does_what_it_says`"), [""; 0]);
        assert_eq!(problems("it_is_only_prose and `two_words` and `SOME_BIG_NAME`"), [""; 0]);
        let problems = problems("fine\n`it_does_what_it_said`");
        assert_eq!(problems, ["line 2: there is no `it_does_what_it_said` in the source"]);
    }
}
