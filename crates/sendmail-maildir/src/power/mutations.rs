//! Each sync of the store taken out, or done one operation too late: the search must find it.
//!
//! A sync is known by the function that asks for it. All are found in the source, so that none can be
//! added without a row in the table, and each row says in which history its absence is found and what is
//! wrong then, or why nothing is.

use std::collections::BTreeMap;
use std::fs;
use std::panic::Location;
use std::path::{Path, PathBuf};

use super::cut::Model;
use super::record::{Change, Step};

/// What is changed about a sync.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// It is never done.
    Without,
    /// It is done after what comes next on the disk, be that to another file or after a promise.
    Late,
}

/// What comes of a mutation.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Finding {
    /// It is found in this history, on disks of this kind.
    In(&'static str, Model),
    /// It is not found, for this reason.
    No(&'static str),
    /// No history reaches it, for this reason.
    Outside(&'static str),
}

/// A sync, and what comes of taking it out and of putting it off.
pub(crate) type Row = (&'static str, Finding, Finding);

const fn whole(history: &'static str) -> Finding {
    Finding::In(history, Model::Whole)
}

const fn two_names(history: &'static str) -> Finding {
    Finding::In(history, Model::TwoNames)
}

/// Nothing is promised, and nobody acts upon it, before another sync that comes later.
const SOON: Finding = Finding::No("what is promised waits for a later sync");
/// A seal is made again, and records end at the first that is not whole.
const CHECKED: Finding = Finding::No(
    "a watermark that leads meets a checksum that does not match; it is not relied upon",
);
const ABOVE: Finding =
    Finding::Outside("it is above the queue's directory, where nothing is simulated");
const NOBODY: Finding =
    Finding::No("a fence stands against whoever lives; nobody outlives the machine to propose");
const TOLD_AGAIN: Finding = Finding::No("it is found damaged again, and told again");
const TWO_CUTS: Finding = Finding::Outside(
    "it takes two power cuts: an old name that comes back after its message was sent and is gone",
);
const OUTLIVES: Finding = Finding::No(
    "a takeover removes the old name; that it outlives the sent message, no disk of the model shows",
);
const FAILED_ALONE: Finding =
    Finding::No("the history removes failed mail alone, and what comes back there is not sent");
const DISCARDED_AGAIN: Finding =
    Finding::No("what comes back is undecided as before, and is discarded again");

const UNFINISHED: Finding = Finding::Outside(
    "it takes a transaction that commits although its process died before the message was staged",
);

/// Every sync there is.
pub(crate) const TABLE: &[Row] = &[
    ("admin.rs: act_once", FAILED_ALONE, SOON),
    ("admin.rs: file_again", two_names("operator"), SOON),
    ("admin.rs: file_again #2", whole("operator"), SOON),
    ("claim.rs: confirm", OUTLIVES, SOON),
    ("claim.rs: confirm #2", whole("one message"), SOON),
    ("claim.rs: confirm #3", whole("operator"), SOON),
    ("disk.rs: make_dir", whole("open"), SOON),
    ("freeze.rs: freeze", whole("freeze"), whole("freeze")),
    ("freeze.rs: thaw", whole("freeze"), whole("freeze")),
    ("held.rs: record", whole("policies"), whole("policies")),
    ("journal/mod.rs: turn_over", whole("new segment"), SOON),
    ("journal/mod.rs: seal_or_doubt", CHECKED, CHECKED),
    ("journal/mod.rs: new_segment", whole("one message"), SOON),
    ("journal/mod.rs: write_segment", whole("new segment"), SOON),
    ("layout.rs: identity", whole("open"), whole("open")),
    ("layout.rs: make_root", ABOVE, ABOVE),
    ("layout.rs: open_all", whole("open"), SOON),
    ("layout.rs: open_all #2", whole("open"), SOON),
    ("manifest.rs: propose", whole("dying decision"), whole("open")),
    ("manifest.rs: propose #2", whole("open"), SOON),
    ("manifest.rs: decide", whole("open"), whole("open")),
    ("manifest.rs: ensure_decided", whole("dying decision"), whole("dying decision")),
    ("manifest.rs: fence", NOBODY, NOBODY),
    ("manifest.rs: fence #2", NOBODY, NOBODY),
    ("manifest.rs: write_decided", whole("dying decision"), whole("dying decision")),
    ("manifest.rs: write_decided #2", whole("dying decision"), whole("dying decision")),
    ("old_names.rs: remove_durably", TWO_CUTS, TWO_CUTS),
    ("pending.rs: sync_content", whole("open"), SOON),
    ("pending.rs: publish_found", UNFINISHED, UNFINISHED),
    ("pending.rs: stage", whole("database"), whole("database")),
    ("pending.rs: publish_once", whole("open"), whole("open")),
    ("pending.rs: sync_published", whole("two publish"), SOON),
    ("pending.rs: discard", DISCARDED_AGAIN, SOON),
    ("queue.rs: log", whole("rolled back"), whole("rolled back")),
    ("reading.rs: put_with_failed", TOLD_AGAIN, TOLD_AGAIN),
    ("settle.rs: keep_failed", whole("outcomes"), SOON),
    ("settle.rs: record_outcome", whole("one message"), whole("one message")),
    ("settle.rs: write_for", whole("outcomes"), whole("outcomes")),
    ("sweep.rs: forget_own", whole("forgotten manifest"), whole("forgotten manifest")),
    ("sweep.rs: sweep_journal", whole("forgotten journal"), whole("forgotten journal")),
    ("takeover.rs: seal_segment", whole("dying settlement"), SOON),
    ("takeover.rs: write_down", whole("takeover"), SOON),
    ("wishes.rs: clear_wish", two_names("operator"), SOON),
    ("wishes.rs: clear_wish #2", whole("operator"), SOON),
    ("wishes.rs: leave_wish", whole("operator"), SOON),
    ("wishes.rs: leave_wish #2", whole("operator"), SOON),
];

/// A line of the source that syncs something.
pub(crate) type Line = (PathBuf, u32);

/// All lines of the source that sync something, with their names: the file and the function, and a
/// number for every further one in the same function.
pub(crate) fn sites() -> BTreeMap<Line, String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sites = BTreeMap::new();
    for path in files(&source) {
        let name = path.strip_prefix(&source).unwrap().to_owned();
        // Its callers are the sites.
        if name.starts_with("power") || name == Path::new("fuzz.rs") {
            continue;
        }
        let text = fs::read_to_string(&path).unwrap();
        let mut function = String::new();
        let mut counts: BTreeMap<String, u32> = BTreeMap::new();
        let mut passed_on = false;
        for (number, line) in text.lines().enumerate() {
            if line.trim() == "#[cfg(test)]"
                && text.lines().nth(number + 1).is_some_and(|next| next.starts_with("mod tests"))
            {
                break;
            }
            if line.contains("track_caller") {
                passed_on = true;
            } else if let Some(name) = function_name(line) {
                // What is passed on to the caller is the caller's.
                function = if std::mem::take(&mut passed_on) { String::new() } else { name };
            } else if syncs(line) && !function.is_empty() {
                let label = format!("{}: {function}", name.display());
                let count = counts.entry(label.clone()).or_default();
                *count += 1;
                let label = if *count == 1 { label } else { format!("{label} #{count}") };
                sites.insert((name.clone(), u32::try_from(number + 1).unwrap()), label);
            }
        }
    }
    sites
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let start = line.trim_start();
    let rest = start
        .strip_prefix("pub(crate) fn ")
        .or_else(|| start.strip_prefix("pub(super) fn "))
        .or_else(|| start.strip_prefix("fn "))?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    Some(rest[..end].to_owned())
}

fn syncs(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    const CALLS: [&str; 6] =
        [".sync()", ".sync_all()", ".sync(&", " sync(&", " sync_data(", ".write_synced("];
    CALLS.iter().any(|call| code.contains(call))
}

/// The line of a call in terms of [`sites`].
pub(crate) fn line_of(location: &Location<'_>) -> Line {
    let file = location.file();
    let name = file.rsplit_once("/src/").map_or(file, |(_, name)| name);
    (PathBuf::from(name), location.line())
}

/// The same steps with one sync, wherever it is done, changed.
pub(crate) fn mutate(steps: &[Step], site: &Line, mutation: Mutation) -> Vec<Step> {
    let mut mutated = Vec::with_capacity(steps.len());
    let mut late: Vec<Step> = Vec::new();
    let mut promised = false;
    for step in steps {
        match step {
            Step::Did(_, Some(_)) if step.is_at(site) => {
                if mutation == Mutation::Late {
                    late.push(step.clone());
                    promised = false;
                }
            }
            Step::Did(change, None) => {
                mutated.push(step.clone());
                // What a journal writes about its own sync belongs to that.
                let own =
                    |sync: &Step| matches!(sync, Step::Did(sync, _) if same_file(sync, change));
                if promised || !late.iter().any(own) {
                    mutated.append(&mut late);
                }
            }
            Step::Did(..) => mutated.push(step.clone()),
            Step::Noted(_) => {
                mutated.push(step.clone());
                promised = true;
            }
        }
    }
    mutated.append(&mut late);
    mutated
}

fn same_file(sync: &Change, change: &Change) -> bool {
    match (sync, change) {
        (
            Change::SyncData { file } | Change::SyncFile { file },
            Change::Write { file: other, .. },
        ) => file == other,
        _ => false,
    }
}

/// Whether a sync is done in these steps.
pub(crate) fn is_in(steps: &[Step], site: &Line) -> bool {
    steps.iter().any(|step| step.is_at(site))
}
