//! strace: counting a process's calls, and letting one of them fail.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::path::{Path, PathBuf};

use tokio::process::Command;

/// Everything by which a process may find out about the disk, or change what others find.
pub(crate) const CALLS: [&str; 22] = [
    "openat",
    "getdents64",
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "syncfs",
    "fallocate",
    "ftruncate",
    "rename",
    "renameat",
    "renameat2",
    "link",
    "linkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "fchmod",
    "utimensat",
    "flock",
];

/// What happens at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The process is killed before it.
    Kill,
    /// It does nothing and returns this error.
    Error(&'static str),
}

impl Fault {
    /// Every one of them.
    pub(crate) const ALL: [Self; 7] = [
        Self::Kill,
        Self::Error("ENOSPC"),
        Self::Error("EDQUOT"),
        Self::Error("EIO"),
        Self::Error("EACCES"),
        Self::Error("EROFS"),
        Self::Error("EINTR"),
    ];
}

/// One call of a process: the nth of its kind that one of its threads makes. Where it is among the
/// `first`, only those count that name a directory of the queue, since the dynamic linker opens files too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Moment {
    pub(crate) call: &'static str,
    pub(crate) nth: usize,
    pub(crate) first: bool,
    /// Whether another thread's call of that number has nothing to do with the queue: what is done to both
    /// may stop the runtime itself, which writes to wake its threads.
    pub(crate) shared: bool,
}

impl Moment {
    /// Whether the call changes what others find, or makes it durable.
    pub(crate) fn changes(self) -> bool {
        !["openat", "getdents64", "flock"].contains(&self.call)
    }
}

/// A fault at a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Case {
    pub(crate) moment: Moment,
    pub(crate) fault: Fault,
}

impl Case {
    /// Whether it says something about the queue, and not about a process that cannot wake its own threads.
    pub(crate) fn is_about_the_queue(self) -> bool {
        self.fault == Fault::Kill || !self.moment.shared
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Moment { call, nth, first, .. } = self.moment;
        let which = if first { " in the queue" } else { "" };
        write!(f, "{:?} at {call} {nth}{which}", self.fault)
    }
}

/// The same command under strace, which writes down its calls.
pub(crate) fn watched(strace: &Path, log: &Path, command: &Command) -> Command {
    let trace = format!("trace={}", CALLS.join(","));
    wrapped(strace, log, &["-y", "-e", &trace], command)
}

/// The same command with that fault.
pub(crate) fn with_fault(
    strace: &Path,
    log: &Path,
    queue: &Path,
    folders: &[PathBuf],
    case: Case,
    command: &Command,
) -> Command {
    let Moment { call, nth, first, .. } = case.moment;
    let what = match case.fault {
        Fault::Kill => "signal=SIGKILL".to_owned(),
        Fault::Error(error) => format!("error={error}"),
    };
    let (trace, inject) = (format!("trace={call}"), format!("inject={call}:{what}:when={nth}"));
    let mut words = vec!["-e".to_owned(), trace, "-e".to_owned(), inject];
    if first {
        for folder in folders {
            words.extend(["-P".to_owned(), queue.join(folder).display().to_string()]);
        }
    }
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    wrapped(strace, log, &words, command)
}

fn wrapped(strace: &Path, log: &Path, words: &[&str], command: &Command) -> Command {
    let mut wrapped = Command::new(strace);
    wrapped.args(["-f", "-qq", "-o"]).arg(log).args(words);
    wrapped.arg(command.as_std().get_program()).args(command.as_std().get_args());
    for (name, value) in command.as_std().get_envs() {
        match value {
            Some(value) => wrapped.env(name, value),
            None => wrapped.env_remove(name),
        };
    }
    wrapped
}

/// Whether something was done to a call.
pub(crate) fn has_struck(log: &Path) -> bool {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.contains("(INJECTED)") || text.contains("killed by SIGKILL")
}

/// The calls that have to do with the queue, by what was written down.
pub(crate) fn moments(log: &Path, queue: &Path) -> Vec<Moment> {
    let text = std::fs::read(log).unwrap();
    let text = String::from_utf8_lossy(&text);
    let queue = queue.to_str().unwrap();
    let mut counts: HashMap<(&str, &str), usize> = HashMap::new();
    let mut ours: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    let mut others: BTreeMap<&str, BTreeSet<usize>> = BTreeMap::new();
    for line in text.lines() {
        let Some((thread, rest)) = line.split_once(' ') else { continue };
        let name = rest.trim_start().split('(').next().unwrap_or_default();
        let Some(call) = CALLS.into_iter().find(|call| *call == name) else { continue };
        let count = counts.entry((thread, call)).or_default();
        *count += 1;
        if rest.contains(queue) {
            ours.entry(call).or_default().insert(*count);
        } else {
            others.entry(call).or_default().insert(*count);
        }
    }
    let mut moments = Vec::new();
    for (call, all) in ours {
        let call = CALLS.into_iter().find(|known| *known == call).unwrap();
        let others = others.remove(call).unwrap_or_default();
        // What the dynamic linker opens, in the thread that comes first, is not what this is about.
        let most = others.last().copied().unwrap_or(0);
        let skip = if call == "openat" { most } else { 0 };
        let moment = |nth, first, shared| Moment { call, nth, first, shared };
        moments.extend((1..=skip.min(all.len())).map(|nth| moment(nth, true, false)));
        let later = all.into_iter().filter(|nth| *nth > skip);
        moments.extend(later.map(|nth| moment(nth, false, others.contains(&nth))));
    }
    moments
}

/// The directories of a queue, below it.
pub(crate) fn folders(queue: &Path) -> Vec<PathBuf> {
    let mut found = vec![PathBuf::new()];
    let mut at = 0;
    while at < found.len() {
        for entry in std::fs::read_dir(queue.join(&found[at])).into_iter().flatten().flatten() {
            if entry.path().is_dir() {
                found.push(found[at].join(entry.file_name()));
            }
        }
        at += 1;
    }
    found
}
