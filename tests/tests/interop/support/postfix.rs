//! A Postfix of our own: configuration, queue and port are nobody else's.

use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use tempfile::TempDir;

use super::{demand, files_in};

/// A stock Postfix that relays everything to another server. It is stopped when it is dropped.
pub(crate) struct Postfix {
    temp: TempDir,
    program: PathBuf,
    port: u16,
}

impl Postfix {
    /// Starts one that hands everything to `port` of this host. Nothing means that the test has skipped
    /// itself.
    pub(crate) fn start(relay_port: &str) -> Option<Self> {
        let program = demand::program("postfix")?;
        if !demand::root("start Postfix") {
            return None;
        }
        let temp = tempfile::tempdir().unwrap();
        let postfix = Self { program, port: free_port(), temp };
        postfix.write(relay_port);
        assert!(postfix.postfix("start"), "Postfix does not start: {}", postfix.log());
        Some(postfix)
    }

    pub(crate) fn url(&self) -> String {
        format!("smtp://127.0.0.1:{}", self.port)
    }

    fn folder(&self) -> &Path {
        self.temp.path()
    }

    fn write(&self, relay_port: &str) {
        let folder = self.folder();
        // Its processes run as users of their own.
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755)).unwrap();
        let data = folder.join("data");
        for made in [&folder.join("queue"), &data] {
            std::fs::create_dir(made).unwrap();
        }
        chown_to_postfix(&data);
        let place = folder.display();
        let main = format!(
            "compatibility_level = 3.6\n\
             config_directory = {place}\n\
             queue_directory = {place}/queue\n\
             data_directory = {place}/data\n\
             maillog_file = {place}/log\n\
             maillog_file_prefixes = {place}\n\
             daemon_directory = {}\n\
             inet_interfaces = 127.0.0.1\n\
             inet_protocols = ipv4\n\
             myhostname = relay.example.org\n\
             mydestination =\n\
             alias_maps =\n\
             alias_database =\n\
             relayhost = [127.0.0.1]:{relay_port}\n",
            daemons().display()
        );
        std::fs::write(folder.join("main.cf"), main).unwrap();
        let master = format!(
            "127.0.0.1:{} inet n - n - - smtpd\n\
             pickup unix n - n 60 1 pickup\n\
             cleanup unix n - n - 0 cleanup\n\
             qmgr unix n - n 300 1 qmgr\n\
             rewrite unix - - n - - trivial-rewrite\n\
             bounce unix - - n - 0 bounce\n\
             defer unix - - n - 0 bounce\n\
             trace unix - - n - 0 bounce\n\
             flush unix n - n 1000? 0 flush\n\
             proxymap unix - - n - - proxymap\n\
             smtp unix - - n - - smtp\n\
             relay unix - - n - - smtp\n\
             error unix - - n - - error\n\
             retry unix - - n - - error\n\
             discard unix - - n - - discard\n\
             anvil unix - - n - 1 anvil\n\
             scache unix - - n - 1 scache\n\
             tlsmgr unix - - n 1000? 1 tlsmgr\n\
             postlog unix-dgram n - n - 1 postlogd\n",
            self.port
        );
        std::fs::write(folder.join("master.cf"), master).unwrap();
    }

    fn postfix(&self, what: &str) -> bool {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder()).arg(what);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command.status().unwrap().success()
    }

    /// Whether it has nothing left to do.
    pub(crate) fn is_idle(&self) -> bool {
        let folders = ["maildrop", "incoming", "active", "deferred"];
        let files = |folder| files_in(&self.folder().join("queue").join(folder));
        folders.iter().all(|folder| files(folder).is_empty())
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        let stopped = self.postfix("stop") || self.postfix("abort");
        assert!(stopped || std::thread::panicking(), "Postfix does not stop: {}", self.log());
    }
}

/// Where Postfix has its daemons.
fn daemons() -> PathBuf {
    let places = ["/usr/lib/postfix/sbin", "/usr/libexec/postfix", "/usr/lib/postfix"];
    let place = places.into_iter().map(PathBuf::from).find(|place| place.join("smtpd").is_file());
    place.expect("Postfix is installed with its daemons")
}

fn chown_to_postfix(path: &Path) {
    let users = std::fs::read_to_string("/etc/passwd").unwrap();
    let line = users.lines().find(|line| line.starts_with("postfix:")).unwrap();
    let uid = line.split(':').nth(2).unwrap().parse().unwrap();
    std::os::unix::fs::chown(path, Some(uid), None).unwrap();
}

fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.local_addr().unwrap().port()
}
