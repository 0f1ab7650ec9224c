//! Rules for single files.

use std::path::Path;

/// What is wrong with one file, which is named relative to the workspace.
pub(crate) fn check(name: &Path, text: &str, machine_paths: &[String]) -> Vec<String> {
    let mut problems = Vec::new();
    if name.extension().is_some_and(|extension| extension == "rs") {
        if !starts_with_documentation(text) {
            problems.push("has no `//!` documentation at its start".to_owned());
        }
        if let Some(line) = line_of_unsafe(text) {
            problems.push(format!("line {line}: `unsafe`"));
        }
    }
    if is_member_manifest(name) && !takes_workspace_lints(text) {
        problems.push("has no `[lints]` with `workspace = true`".to_owned());
    }
    for path in machine_paths {
        if let Some(line) = text.lines().position(|line| names_path(line, path)) {
            problems
                .push(format!("line {}: names {path}, which is a path of one machine", line + 1));
        }
    }
    problems
}

/// The paths that only one machine has: where this tree is, and where people's homes are.
pub(crate) fn machine_paths(root: &Path) -> Vec<String> {
    // Written in parts, since this file is checked as well.
    let homes = ["home", "root", "Users"].iter().map(|folder| format!("/{folder}/"));
    homes.chain([root.display().to_string()]).collect()
}

/// Whether `path` stands in the line as an absolute path or its start.
fn names_path(line: &str, path: &str) -> bool {
    let in_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '-');
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + path.len()..].chars().next();
        !before.is_some_and(|c| in_name(c) || matches!(c, '/' | '.' | '}' | '*'))
            && (path.ends_with('/') || !after.is_some_and(in_name))
    })
}

fn starts_with_documentation(text: &str) -> bool {
    text.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| line.starts_with("//!"))
}

/// Whether it is the manifest of a package of the workspace; fuzz targets are a workspace of their own.
fn is_member_manifest(name: &Path) -> bool {
    name.ends_with("Cargo.toml") && name.components().count() > 1 && !name.starts_with("fuzz")
}

fn takes_workspace_lints(manifest: &str) -> bool {
    let mut in_lints = false;
    manifest.lines().map(str::trim).any(|line| {
        if line.starts_with('[') {
            in_lints = line == "[lints]";
        }
        let plain: String = line.chars().filter(|c| !c.is_whitespace()).collect();
        (in_lints && plain == "workspace=true") || plain == "lints.workspace=true"
    })
}

/// The line of the first `unsafe` that is code: not in a comment, not in a literal, not part of a name.
fn line_of_unsafe(text: &str) -> Option<usize> {
    let code = blank_out(text);
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let hit = code.match_indices("unsafe").find(|(at, word)| {
        let before = code[..*at].chars().next_back();
        let after = code[at + word.len()..].chars().next();
        !before.is_some_and(is_name) && !after.is_some_and(is_name)
    });
    hit.map(|(at, _)| code[..at].matches('\n').count() + 1)
}

/// The text without comments and literals; lines stay where they are.
fn blank_out(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '/' if rest.starts_with("/*") => block_comment(rest),
            '"' => literal(rest, '"'),
            'r' if !code.ends_with(|c: char| c.is_alphanumeric() || c == '_') => raw_string(rest),
            '\'' => character(rest),
            _ => 0,
        };
        if length == 0 {
            code.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            code.push(' ');
            code.extend(rest[..length].chars().filter(|c| *c == '\n'));
            rest = &rest[length..];
        }
    }
    code
}

fn block_comment(text: &str) -> usize {
    let mut depth = 0;
    let mut at = 0;
    while at < text.len() {
        if text[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if text[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += text[at..].chars().next().map_or(1, char::len_utf8);
        }
    }
    text.len()
}

/// The length of a literal that starts and ends with `quote`.
fn literal(text: &str, quote: char) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        if escaped {
            escaped = false;
        } else if c == '\\' {
            escaped = true;
        } else if c == quote {
            return at + 1;
        }
    }
    text.len()
}

/// The length of a raw string; 0 if none starts here.
fn raw_string(text: &str) -> usize {
    let hashes = text[1..].chars().take_while(|c| *c == '#').count();
    let start = 1 + hashes + 1;
    if !text[1 + hashes..].starts_with('"') {
        return 0;
    }
    let end = format!("\"{}", "#".repeat(hashes));
    text[start..].find(&end).map_or(text.len(), |at| start + at + end.len())
}

/// The length of a character literal; 0 for a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text[1..].chars();
    match (chars.next(), chars.next()) {
        (Some('\\'), _) => literal(text, '\''),
        (Some(c), Some('\'')) => 2 + c.len_utf8(),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(name: &str, text: &str) -> Vec<String> {
        let own = machine_paths(Path::new("/build/tree"));
        check(Path::new(name), text, &own)
    }

    #[test]
    fn a_source_file_starts_with_its_documentation() {
        assert_eq!(problems("a.rs", "//! What it is.\nfn a() {}\n"), [""; 0]);
        assert_eq!(problems("a.rs", "\n//! What it is.\n"), [""; 0]);
        for bad in ["", "fn a() {}\n//! Late.\n", "// Not documentation.\n"] {
            assert_eq!(problems("a.rs", bad).len(), 1, "{bad:?}");
        }
        assert_eq!(problems("a.md", "text"), [""; 0]);
    }

    #[test]
    fn unsafe_code_is_found_and_talk_of_it_is_not() {
        let check = |code: &str| line_of_unsafe(code);
        assert_eq!(check("fn a() {\n    unsafe { b() }\n}"), Some(2));
        assert_eq!(check("\"\\\"\"; unsafe fn a() {}"), Some(1));
        assert_eq!(check("fn a<'a>(x: &'a str) { unsafe {} }"), Some(1));
        assert_eq!(check("let q = '\"'; /* /* */ */ unsafe impl Send for A {}"), Some(1));
        for talk in [
            "// unsafe { }",
            "/* unsafe\n /* unsafe */ unsafe */",
            "\"unsafe\"",
            "r#\"a\" unsafe\"#",
            "unsafe_code = 1; not_unsafe();",
            "'\\''; \"unsafe\"",
        ] {
            assert_eq!(check(talk), None, "{talk:?}");
        }
    }

    #[test]
    fn a_member_takes_the_lints_of_the_workspace() {
        let manifest = "crates/a/Cargo.toml";
        assert_eq!(problems(manifest, "[package]\n[lints]\nworkspace = true\n"), [""; 0]);
        assert_eq!(problems(manifest, "[package]\n").len(), 1);
        assert_eq!(problems(manifest, "[lints]\n[dependencies]\nworkspace = true\n").len(), 1);
        assert_eq!(problems("Cargo.toml", "[workspace]\n"), [""; 0]);
        assert_eq!(problems("fuzz/Cargo.toml", "[package]\n"), [""; 0]);
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let user = format!("see {}", ["", "home", "me", "x"].join("/"));
        assert_eq!(problems("a.md", &format!("one\n{user}\n")).len(), 1);
        assert_eq!(problems("a.md", "in `/build/tree/src`\n").len(), 1);
        for fine in [
            "https://example.org/home/x",
            "crates/home/x",
            "/usr/bin/home/x",
            "/srv/q",
            "/build/trees",
        ] {
            assert_eq!(problems("a.md", fine), [""; 0], "{fine}");
        }
    }
}
