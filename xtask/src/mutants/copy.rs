//! The copy of the workspace that is changed: nobody's work is, and a build can be gone on with.

use std::collections::HashSet;
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use crate::shell::{Failure, Result, output, root};

/// Makes `to` equal to what git knows of the workspace, and to what it would add. Files that are equal
/// keep their times, so that only what changed is built again; a mutant that an interrupted run left
/// behind is gone.
pub(super) fn workspace(to: &Path) -> Result {
    let mut command = Command::new("git");
    command.args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
    let listed = output(command.current_dir(root())).ok_or_else(|| {
        Failure::new("`git ls-files` failed; the workspace is copied by its list")
    })?;
    let names: HashSet<&str> = listed.split('\0').filter(|name| !name.is_empty()).collect();
    for name in &names {
        copy(&root().join(name), &to.join(name))?;
    }
    let note = to.join(".copied");
    let before = std::fs::read_to_string(&note).unwrap_or_default();
    for gone in before.split('\0').filter(|name| !name.is_empty() && !names.contains(name)) {
        let _ = std::fs::remove_file(to.join(gone));
    }
    std::fs::write(&note, &listed).map_err(|error| trouble(&note, &error))
}

/// Lets what was built of `file` count as old: it may be that of a mutant whose build was cut off.
pub(super) fn touch(file: &Path) -> Result {
    File::options()
        .write(true)
        .open(file)
        .and_then(|opened| opened.set_modified(SystemTime::now()))
        .map_err(|error| trouble(file, &error))
}

fn copy(from: &Path, to: &Path) -> Result {
    // Deleted, and not committed yet.
    let Ok(bytes) = std::fs::read(from) else {
        let _ = std::fs::remove_file(to);
        return Ok(());
    };
    if std::fs::read(to).is_ok_and(|there| there == bytes) {
        return Ok(());
    }
    let folder = to.parent().unwrap_or(to);
    std::fs::create_dir_all(folder)
        .and_then(|()| std::fs::write(to, bytes))
        .map_err(|error| trouble(to, &error))
}

fn trouble(path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(format!("{}: {error}", path.display()))
}
