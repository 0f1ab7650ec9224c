//! On what it was measured.

use std::fs;
use std::path::Path;
use std::process::Command;

use sendmail_clock::SystemClock;
use sendmail_core::Clock as _;
use sendmail_tests::programs::{find, workspace_root};
use serde_json::{Value, json};

/// The facts without which figures mean nothing.
#[derive(Debug, Clone)]
pub(crate) struct Machine {
    date: String,
    cores: usize,
    processor: String,
    memory: String,
    kernel: String,
    file_system: String,
    load: String,
    versions: Vec<(&'static str, String)>,
    rounds: usize,
    quick: bool,
}

impl Machine {
    pub(crate) fn look(rounds: usize, quick: bool) -> Self {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        Self {
            date: SystemClock.now().to_string(),
            cores: std::thread::available_parallelism().map_or(0, usize::from),
            processor: field(&read("/proc/cpuinfo"), "model name"),
            memory: field(&read("/proc/meminfo"), "MemTotal"),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            file_system: file_system(&read("/proc/self/mountinfo"), &workspace_root()),
            load: read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" "),
            versions: versions(),
            rounds,
            quick,
        }
    }

    pub(crate) fn text(&self) -> String {
        let versions: Vec<String> =
            self.versions.iter().map(|(what, version)| format!("{what} {version}")).collect();
        format!(
            "{}; {} cores ({}), {}, Linux {}, {}; load {}; {}; {} rounds{}\n",
            self.date,
            self.cores,
            self.processor,
            self.memory,
            self.kernel,
            self.file_system,
            self.load,
            versions.join(", "),
            self.rounds,
            if self.quick { ", quick: the figures mean nothing" } else { "" }
        )
    }

    pub(crate) fn json(&self) -> Value {
        let versions: serde_json::Map<String, Value> = self
            .versions
            .iter()
            .map(|(what, version)| ((*what).to_owned(), Value::from(version.as_str())))
            .collect();
        json!({
            "kind": "machine",
            "date": self.date,
            "cores": self.cores,
            "processor": self.processor,
            "memory": self.memory,
            "kernel": self.kernel,
            "file_system": self.file_system,
            "load": self.load,
            "versions": versions,
            "rounds": self.rounds,
            "quick": self.quick,
        })
    }
}

/// The value of the first line with this name: `name : value`.
fn field(text: &str, name: &str) -> String {
    let line =
        text.lines().find_map(|line| line.strip_prefix(name)?.trim_start().strip_prefix(':'));
    line.unwrap_or_default().trim().to_owned()
}

/// The file system on which a folder lies, by the kernel's list of mounts.
fn file_system(mounts: &str, folder: &Path) -> String {
    let mount = |line: &str| {
        let (place, kind) = line.split_once(" - ")?;
        let place = place.split(' ').nth(4)?.to_owned();
        let kind = kind.split(' ').next()?.to_owned();
        folder.starts_with(&place).then_some((place.len(), kind))
    };
    // The longest, and of those the last one, lies on top.
    let all = mounts.lines().filter_map(mount);
    all.max_by_key(|(length, _)| *length).map(|(_, kind)| kind).unwrap_or_default()
}

fn versions() -> Vec<(&'static str, String)> {
    let of = |program: &str, words: &[&str], skip: &str| {
        let output = Command::new(find(program)?).args(words).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line = text.lines().next()?.trim();
        let version = line.split_once(skip).map_or(line, |(_, version)| version).trim();
        // What comes behind it is of no interest.
        version.split(' ').next().map(str::to_owned)
    };
    let own = Some(env!("CARGO_PKG_VERSION").to_owned());
    let all = [
        ("sendmail-rs", own),
        ("Postfix", of("postconf", &["-d", "-h", "mail_version"], "")),
        ("PostgreSQL", of("psql", &["--version"], "(PostgreSQL)")),
        ("MariaDB", of("mariadbd", &["--version"], " Ver ")),
    ];
    all.into_iter().filter_map(|(what, version)| Some((what, version?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_lies_on_the_innermost_mount() {
        let mounts = "1 0 8:1 / / rw - ext4 /dev/a rw\n2 1 0:5 / /tmp rw - tmpfs tmpfs rw\n\
                      3 1 8:2 / /srv/a rw shared:1 - xfs /dev/b rw\n";
        assert_eq!(file_system(mounts, Path::new("/srv/a/target")), "xfs");
        assert_eq!(file_system(mounts, Path::new("/srv/ab")), "ext4");
        assert_eq!(file_system(mounts, Path::new("/tmp/x")), "tmpfs");
    }

    #[test]
    fn fields_are_found_by_their_names() {
        assert_eq!(field("model\t: 1\nmodel name\t: A processor\n", "model name"), "A processor");
        assert_eq!(field("MemTotal:       24 kB\n", "MemTotal"), "24 kB");
        assert_eq!(field("", "MemTotal"), "");
    }

    #[test]
    fn this_machine_has_a_core_and_a_kernel() {
        let machine = Machine::look(5, true);
        assert!(machine.cores > 0 && !machine.kernel.is_empty() && !machine.file_system.is_empty());
        assert!(machine.text().contains("5 rounds, quick"));
    }
}
