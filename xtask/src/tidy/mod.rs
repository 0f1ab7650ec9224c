//! `cargo xtask tidy`: rules that no compiler checks. The rules are pure functions in the files below;
//! here they meet the tree.

mod arrows;
mod contracts;
mod pages;
mod panics;
mod sources;

use std::path::{Path, PathBuf};

use crate::shell::{self, Failure, Result, cargo, root};

/// Checks what compilers do not, and lists everything that is wrong.
///
/// No crate depends on one that it must not know, and the core on next to nothing; the methods of its
/// traits say whether they are cancel safe; each source file starts with its documentation, and
/// each public item has some; there is no unsafe code, and libraries deny what may panic; each member
/// takes the lints of the workspace; no file names a path of one machine; links between pages lead
/// somewhere, and the tests that pages name exist.
#[derive(clap::Args)]
pub(crate) struct Arguments {}

/// Checks the whole tree, and lists everything that is wrong.
pub(crate) fn run() -> Result {
    let root = root();
    let metadata = metadata()?;
    let mut problems = arrows::check(&arrows::read(&metadata)?);
    problems.extend(contracts::core_dependencies(&metadata));
    let own = sources::machine_paths(&root);
    let mut files = Vec::new();
    collect(&root, &mut files)?;
    files.sort();
    let mut tree = pages::Tree::default();
    let mut texts = Vec::new();
    for file in &files {
        let name = file.strip_prefix(&root).unwrap_or(file);
        // What is not text has no rules.
        let text = std::fs::read_to_string(file).ok();
        tree.add(name, text.as_deref());
        texts.extend(text.map(|text| (name, text)));
    }
    for (name, text) in &texts {
        let mut found = sources::check(name, text, &own);
        found.extend(pages::check(name, text, &tree));
        found.extend(contracts::check(name, text));
        found.extend(panics::check(name, text));
        problems.extend(found.into_iter().map(|problem| format!("{}: {problem}", name.display())));
    }
    if problems.is_empty() {
        println!("{} files are tidy", files.len());
        return documentation();
    }
    for problem in &problems {
        println!("{problem}");
    }
    Err(Failure::new(format!("{} problems", problems.len())))
}

/// Builds the documentation; a public item without any is an error, and so is a broken link.
pub(crate) fn documentation() -> Result {
    let mut command = cargo();
    command.args(["doc", "--workspace", "--no-deps", "--all-features"]);
    shell::run(command.env("RUSTDOCFLAGS", "--deny warnings --deny missing_docs"))
}

fn metadata() -> Result<serde_json::Value> {
    let text = shell::output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))
        .ok_or_else(|| Failure::new("`cargo metadata` failed; run it to see why"))?;
    serde_json::from_str(&text)
        .map_err(|error| Failure::new(format!("cannot read what cargo metadata says: {error}")))
}

/// All files of the tree but what is built or generated.
fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result {
    const SKIPPED: [&str; 4] = [".git", "target", "corpus", "artifacts"];
    let trouble = |error| Failure::new(format!("cannot read {}: {error}", folder.display()));
    for entry in std::fs::read_dir(folder).map_err(trouble)? {
        let path = entry.map_err(trouble)?.path();
        let skipped = path.file_name().is_some_and(|name| SKIPPED.iter().any(|skip| name == *skip));
        if skipped || path.is_symlink() {
            continue;
        }
        if path.is_dir() {
            collect(&path, files)?;
        } else {
            files.push(path);
        }
    }
    Ok(())
}
