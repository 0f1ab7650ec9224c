//! A Postfix of our own: configuration, queue and port are nobody else's.
//!
//! Its queue manager is not part of it until it is wanted, so that a queue can be filled first and drained
//! then.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::janitor::Janitor;
use super::{cpu, place, sink};
use crate::{Result, programs};

/// How long it may go without delivering anything before it counts as stuck.
const PATIENCE: Duration = Duration::from_secs(300);
/// How often it is looked whether its queue is empty.
const LOOK: Duration = Duration::from_millis(5);

/// How it delivers.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// How many deliveries run at once.
    pub concurrency: usize,
    /// Whether connections are kept for the next message.
    pub keeps_connections: bool,
}

/// Stops a Postfix when the other end of its standard input is closed.
const JANITOR: &str = r#"
cat >/dev/null
"$1" -c "$2" stop || "$1" -c "$2" abort
"#;

/// A Postfix that relays everything to another server. It is stopped when this is dropped, and when this
/// process ends in any other way.
#[derive(Debug)]
pub struct Postfix {
    // Invariant: it is stopped before its folder is removed, which is why the janitor stands first.
    _janitor: Janitor,
    temp: TempDir,
    program: PathBuf,
    /// Where it listens.
    pub address: SocketAddr,
}

/// What a drain took.
#[derive(Debug, Clone, Copy)]
pub struct Drained {
    /// From the signal that starts the queue manager until nothing was left.
    pub seconds: f64,
    /// What all its processes used of the processors meanwhile.
    pub cpu: Duration,
}

/// Why there is none, if there is none.
#[must_use]
pub fn missing() -> Option<String> {
    if programs::find("postfix").is_none() || daemons().is_none() {
        return Some("Postfix is not installed (Debian: postfix)".to_owned());
    }
    let root = rustix::process::geteuid().is_root();
    (!root).then(|| "only root can start Postfix".to_owned())
}

impl Postfix {
    /// Starts one that hands everything to `relay`, when it is told to deliver.
    ///
    /// # Errors
    ///
    /// It is not installed or does not start.
    pub fn start(relay: SocketAddr, settings: Settings) -> Result<Self> {
        let program = programs::find("postfix").ok_or("Postfix is not installed")?;
        let (temp, address) = (place::folder()?, place::free_address()?);
        let janitor = Janitor::start(JANITOR, [program.as_path(), temp.path()])?;
        let postfix = Self { _janitor: janitor, temp, program, address };
        postfix.write(relay, settings)?;
        postfix.postfix("start")?;
        sink::listening(postfix.address)?;
        Ok(postfix)
    }

    /// Lets it take so many messages from smtp-source, and keep them.
    ///
    /// # Errors
    ///
    /// It does not take them all.
    pub fn fill(&self, messages: usize, length: usize) -> Result<()> {
        sink::source(self.address, messages, length, 20)?;
        let there = self.count("incoming");
        if there != messages {
            return Err(format!("Postfix has queued {there} of {messages} messages").into());
        }
        Ok(())
    }

    /// Lets it deliver, and waits until nothing is left.
    ///
    /// # Errors
    ///
    /// Something is left.
    pub fn drain(&self) -> Result<Drained> {
        let master = self.master()?;
        let before = cpu::of_tree(master);
        let mut services = fs::read_to_string(self.folder().join("master.cf"))?;
        services.push_str("qmgr unix n - n 300 1 qmgr\n");
        fs::write(self.folder().join("master.cf"), services)?;
        // The script that ends with the signal to its master is not what delivers.
        self.postfix("reload")?;
        let begin = Instant::now();
        // Nothing arrives any more, so that what has left the first folder is in the second one.
        while ["incoming", "active"].iter().any(|folder| self.has_files(folder)) {
            if begin.elapsed() > PATIENCE {
                return Err(format!("Postfix does not deliver; {}", self.end_of_log()).into());
            }
            std::thread::sleep(LOOK);
        }
        let drained = Drained {
            seconds: begin.elapsed().as_secs_f64(),
            cpu: cpu::of_tree(master).saturating_sub(before),
        };
        let deferred = self.count("deferred");
        if deferred > 0 {
            let log = self.end_of_log();
            return Err(format!("Postfix has deferred {deferred} messages; {log}").into());
        }
        Ok(drained)
    }

    /// Its `sendmail`, which queues a message that it reads.
    ///
    /// # Errors
    ///
    /// It is not beside the other program.
    pub fn sendmail(&self) -> Result<String> {
        let program = self.program.with_file_name("sendmail");
        if !program.is_file() {
            return Err(format!("there is no {}", program.display()).into());
        }
        Ok(format!("{} -C {}", program.display(), self.folder().display()))
    }

    fn folder(&self) -> &Path {
        self.temp.path()
    }

    fn queue(&self, folder: &str) -> PathBuf {
        self.folder().join("queue").join(folder)
    }

    fn has_files(&self, folder: &str) -> bool {
        fs::read_dir(self.queue(folder)).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// The files below a folder, of which some have folders of their own for each first letter.
    fn count(&self, folder: &str) -> usize {
        let mut folders = vec![self.queue(folder)];
        let mut count = 0;
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.file_type() {
                    Ok(kind) if kind.is_dir() => folders.push(entry.path()),
                    _ => count += 1,
                }
            }
        }
        count
    }

    fn master(&self) -> Result<u32> {
        let pid = fs::read_to_string(self.queue("pid/master.pid"))?;
        Ok(pid.trim().parse()?)
    }

    fn write(&self, relay: SocketAddr, settings: Settings) -> Result<()> {
        let folder = self.folder();
        // Its processes run as users of their own.
        fs::set_permissions(folder, PermissionsExt::from_mode(0o755))?;
        let data = folder.join("data");
        for made in [&folder.join("queue"), &data] {
            fs::create_dir(made)?;
        }
        chown(&data, Some(postfix_user()?), None)?;
        let daemons = daemons().ok_or("Postfix is installed without its daemons")?;
        fs::write(folder.join("main.cf"), main(folder, &daemons, relay, settings))?;
        fs::write(folder.join("master.cf"), master(self.address))?;
        Ok(())
    }

    fn postfix(&self, what: &str) -> Result<()> {
        let mut command = Command::new(&self.program);
        command.arg("-c").arg(self.folder()).arg(what);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if command.status()?.success() {
            return Ok(());
        }
        Err(format!("postfix {what} fails; {}", self.end_of_log()).into())
    }

    fn end_of_log(&self) -> String {
        let log = fs::read_to_string(self.folder().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        let lines: Vec<&str> = lines.into_iter().rev().collect();
        format!("its log ends:\n{}", lines.join("\n"))
    }
}

/// Where Postfix has its daemons.
fn daemons() -> Option<PathBuf> {
    let places = ["/usr/lib/postfix/sbin", "/usr/libexec/postfix", "/usr/lib/postfix"];
    places.into_iter().map(PathBuf::from).find(|place| place.join("smtpd").is_file())
}

fn postfix_user() -> Result<u32> {
    let users = fs::read_to_string("/etc/passwd")?;
    let line = users.lines().find(|line| line.starts_with("postfix:"));
    let id = line.and_then(|line| line.split(':').nth(2)).ok_or("there is no user postfix")?;
    Ok(id.parse()?)
}

/// Its settings: what it needs to live in this folder, and to deliver as fast as it can.
fn main(folder: &Path, daemons: &Path, relay: SocketAddr, settings: Settings) -> String {
    let place = folder.display();
    let Settings { concurrency, keeps_connections } = settings;
    let keeps = if keeps_connections { "yes" } else { "no" };
    format!(
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
         relayhost = [{}]:{}\n\
         disable_dns_lookups = yes\n\
         in_flow_delay = 0\n\
         default_process_limit = 200\n\
         default_destination_concurrency_limit = {concurrency}\n\
         initial_destination_concurrency = {concurrency}\n\
         smtp_connection_cache_on_demand = {keeps}\n",
        daemons.display(),
        relay.ip(),
        relay.port(),
    )
}

/// Its services, without the one that delivers.
fn master(address: SocketAddr) -> String {
    format!(
        "{address} inet n - n - - smtpd\n\
         pickup unix n - n 60 1 pickup\n\
         cleanup unix n - n - 0 cleanup\n\
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
         postlog unix-dgram n - n - 1 postlogd\n"
    )
}
