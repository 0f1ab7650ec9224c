//! Mail servers in cages: with namespaces of their own, in which their packages lie over `/usr`, their
//! configuration over `/etc`, and no process outlives the first.
//!
//! A server that insists on fixed paths and users gets them, and the machine does not notice.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use sendmail_tests::programs::{skip, workspace_root};

/// Mounts, then runs the server. It is not replaced by it: a server that is process 1 behaves differently.
const SCRIPT: &str = r#"
set -e
cage=$1 tree=$2
shift 2
over() { mount -t overlay overlay -o "ro,lowerdir=$1:$2" "$2"; }
mount -t proc proc /proc
[ -z "$tree" ] || over "$tree/usr" /usr
[ ! -d "$cage/var" ] || { over "$cage/var" /var; mount --bind "$cage/spool" /var/spool/smtpd; }
[ ! -d "$cage/run" ] || mount --bind "$cage/run" /run
over "$cage/etc" /etc
"$@"
exit $?
"#;

/// A user that exists only in cages.
const USER: u32 = 64_001;

/// A place for one server, empty when it is new.
pub(crate) struct Cage {
    folder: tempfile::TempDir,
    /// Where its packages are unpacked; nothing for one that is installed.
    tree: Option<PathBuf>,
}

impl Cage {
    /// One for a server whose packages are unpacked, `program` among them, or that is installed. Nothing
    /// means that the test has skipped itself.
    pub(crate) fn new(unpacked: Option<(&str, &str)>) -> Option<Self> {
        if !rustix::process::geteuid().is_root() {
            return skipped("only root can run a mail server in namespaces of its own");
        }
        let tree = match unpacked {
            None => None,
            Some((name, program)) => {
                let tree = workspace_root().join("target/interop/relays").join(name);
                if !tree.join(program).is_file() {
                    return skipped(&format!("{name} is not unpacked; `cargo xtask test` does it"));
                }
                Some(tree)
            }
        };
        let folder = tempfile::Builder::new().prefix("sendmail-relay-").tempdir().unwrap();
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        let cage = Self { folder, tree };
        for made in ["etc", "mail", "spool", "log"] {
            cage.folder_for_user(made, None);
        }
        if !cage.command("true").status().is_ok_and(|status| status.success()) {
            return skipped("this machine does not let root mount an overlay in a namespace");
        }
        Some(cage)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Makes users of these names, all with the same number, and gives them the mailboxes.
    pub(crate) fn users(&self, names: &[&str]) {
        let (mut users, mut groups) =
            (fs::read_to_string("/etc/passwd").unwrap(), fs::read_to_string("/etc/group").unwrap());
        for (number, name) in (USER..).zip(names) {
            users.push_str(&format!("{name}:x:{number}:{number}::/:/bin/sh\n"));
            groups.push_str(&format!("{name}:x:{number}:\n"));
        }
        self.write("etc/passwd", &users);
        self.write("etc/group", &groups);
        self.folder_for_user("mail", Some(USER));
    }

    /// Makes a folder and gives it to a user, by default the one that serves.
    pub(crate) fn folder_for_user(&self, name: &str, user: Option<u32>) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(&path).unwrap();
        std::os::unix::fs::chown(&path, user, user).unwrap();
        path
    }

    /// The number of the first of its users.
    pub(crate) fn user() -> u32 {
        USER
    }

    /// Writes a file that everybody may read.
    pub(crate) fn write(&self, name: &str, content: &str) -> PathBuf {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }

    /// Writes a file that only root may read.
    pub(crate) fn secret(&self, name: &str, content: &str) {
        let path = self.write(name, content);
        fs::set_permissions(path, Permissions::from_mode(0o600)).unwrap();
    }

    /// Starts a server in the foreground of the cage.
    pub(crate) fn start(&self, words: &[&str]) -> Process {
        let mut command = self.command(words[0]);
        command.args(&words[1..]);
        Process::start(command, &self.path().join("log/output"))
    }

    fn command(&self, program: &str) -> Command {
        // It ends with the thread that starts it, which is the test's own: also when that is killed.
        let mut command = Command::new("setpriv");
        command.args([
            "--pdeathsig",
            "KILL",
            "unshare",
            "--mount",
            "--pid",
            "--fork",
            "--kill-child",
            "--propagation",
            "private",
        ]);
        command.args(["sh", "-c", SCRIPT, "cage"]).arg(self.path());
        command.arg(self.tree.as_deref().unwrap_or(Path::new(""))).arg(program);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }
}

fn skipped<T>(why: &str) -> Option<T> {
    // A test runs on a thread of its own, which has its name.
    skip(std::thread::current().name().unwrap_or("a test"), why);
    None
}

/// A server that runs, with all its processes. It is killed when it is dropped.
pub(crate) struct Process {
    child: Child,
}

impl Process {
    /// Starts it; what it prints goes to the end of a file.
    pub(crate) fn start(mut command: Command, log: &Path) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self { child: command.spawn().unwrap() }
    }

    /// Whether it has ended by itself.
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// `kill -9`, for all of it.
    pub(crate) fn kill(&mut self) {
        // In a cage what we started only waits: its child is the first process, and takes all with it.
        for pid in descendants(self.child.id()) {
            let _ = kill_process(pid, Signal::KILL);
        }
        drop(self.child.kill());
        self.child.wait().unwrap();
    }

    /// Stops all of its processes, or lets them go on.
    pub(crate) fn signal(&self, signal: Signal) {
        let own = Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        for pid in descendants(self.child.id()).into_iter().chain([own]) {
            // One that is gone needs no signal.
            let _ = kill_process(pid, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The children of a process, their children, and so on.
fn descendants(of: u32) -> Vec<Pid> {
    let mut found = Vec::new();
    let mut parents = vec![of.to_string()];
    let all: Vec<(String, String)> = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| {
            let stat = fs::read_to_string(entry.ok()?.path().join("stat")).ok()?;
            // `PID (NAME) STATE PARENT …`, and a name may hold anything.
            let pid = stat.split(' ').next()?.to_owned();
            let parent = stat.rsplit(')').next()?.split_whitespace().nth(1)?.to_owned();
            Some((pid, parent))
        })
        .collect();
    while let Some(parent) = parents.pop() {
        for (pid, _) in all.iter().filter(|(_, its)| *its == parent) {
            parents.push(pid.clone());
            found.extend(pid.parse().ok().and_then(Pid::from_raw));
        }
    }
    found
}
