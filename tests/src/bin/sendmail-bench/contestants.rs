//! Who takes part, and how.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sendmail_tests::{Result, fill, programs};
use tempfile::TempDir;

use crate::report::Table;

/// How long a message is.
const LENGTH: usize = 1024;
/// How many messages go into one transaction where it is many.
const MANY: usize = 100;

const ONE_EACH: &str = "sendmail-rs, a transaction each";
const MANY_EACH: &str = "sendmail-rs, 100 in a transaction";
const BARE: &str = "bare write, fsync, rename, fsync of directory";
const ZOPE_FILL: &str = "zope.sendmail 7.3 (syncs nothing)";
const OURS: &str = "sendmail-queue run --once";
const ZOPE_DRAIN: &str = "zope.sendmail 7.3";
const SOURCE: &str = "smtp-source, 10 sessions, no queue";

const ZOPE_SCRIPT: &str = include_str!("zope_queue.py");

/// The programs that take part.
pub(crate) struct Bench {
    messages: usize,
    queue_program: PathBuf,
    python: Option<PathBuf>,
}

impl Bench {
    pub(crate) fn new(messages: usize) -> Result<Self> {
        let queue_program = programs::sendmail_queue()?;
        Ok(Self { messages, queue_program, python: programs::python() })
    }

    /// One round of filling.
    pub(crate) async fn enqueue(&self, table: &mut Table) -> Result<()> {
        for (who, at_once) in [(ONE_EACH, 1), (MANY_EACH, MANY)] {
            let folder = tempfile::tempdir()?;
            let begin = Instant::now();
            fill::fill(&folder.path().join("queue"), self.messages, LENGTH, at_once).await?;
            table.add(who, begin.elapsed().as_secs_f64());
        }
        let folder = tempfile::tempdir()?;
        let begin = Instant::now();
        bare(folder.path(), self.messages)?;
        table.add(BARE, begin.elapsed().as_secs_f64());
        match self.zope_fill(&tempfile::tempdir()?)? {
            Some(seconds) => table.add(ZOPE_FILL, seconds),
            None => table.absent(ZOPE_FILL, NO_PYTHON),
        }
        Ok(())
    }

    /// One round of draining, all into a sink of the same kind.
    pub(crate) async fn drain(&self, table: &mut Table) -> Result<()> {
        let (Some(sink), Some(source)) =
            (programs::find("smtp-sink"), programs::find("smtp-source"))
        else {
            table.absent(OURS, "smtp-sink and smtp-source are not installed (Debian: postfix)");
            return Ok(());
        };
        let folder = tempfile::tempdir()?;
        let queue = folder.path().join("queue");
        fill::fill(&queue, self.messages, LENGTH, MANY).await?;
        let relay = Sink::start(&sink)?;
        table.add(OURS, self.drain_ours(&queue, relay.address)?);
        drop(relay);

        let folder = tempfile::tempdir()?;
        if self.zope_fill(&folder)?.is_some() {
            let relay = Sink::start(&sink)?;
            let port = relay.address.port().to_string();
            table.add(ZOPE_DRAIN, self.zope(&folder, "drain", &[&port])?);
            let left = fs::read_dir(folder.path().join("queue/new"))?.count();
            if left > 0 {
                return Err(format!("zope.sendmail left {left} messages").into());
            }
        } else {
            table.absent(ZOPE_DRAIN, NO_PYTHON);
        }

        let relay = Sink::start(&sink)?;
        table.add(SOURCE, self.source(&source, relay.address)?);
        Ok(())
    }

    fn drain_ours(&self, queue: &Path, relay: SocketAddr) -> Result<f64> {
        let mut command = Command::new(&self.queue_program);
        command.env_remove("SENDMAIL_CONFIG").arg("--queue").arg(queue);
        command.args(["--relay", &format!("smtp://{relay}"), "run", "--once", "--quiet"]);
        let begin = Instant::now();
        succeed(&mut command)?;
        Ok(begin.elapsed().as_secs_f64())
    }

    fn source(&self, program: &Path, relay: SocketAddr) -> Result<f64> {
        let mut command = Command::new(program);
        command.args(["-d", "-s", "10", "-f", "a@example.org", "-t", "b@example.net"]);
        command.args(["-m", &self.messages.to_string(), "-l", &LENGTH.to_string()]);
        command.arg(relay.to_string());
        let begin = Instant::now();
        succeed(&mut command)?;
        Ok(begin.elapsed().as_secs_f64())
    }

    /// Lets zope.sendmail fill a queue; nothing if it is not there.
    fn zope_fill(&self, folder: &TempDir) -> Result<Option<f64>> {
        if self.python.is_none() {
            return Ok(None);
        }
        let (messages, length) = (self.messages.to_string(), LENGTH.to_string());
        self.zope(folder, "fill", &[&messages, &length]).map(Some)
    }

    /// Its own measure: neither the interpreter's start nor its imports count.
    fn zope(&self, folder: &TempDir, what: &str, words: &[&str]) -> Result<f64> {
        let script = folder.path().join("zope_queue.py");
        fs::write(&script, ZOPE_SCRIPT)?;
        let mut command = Command::new(self.python.as_deref().unwrap_or(Path::new("python3")));
        command.arg(script).arg(what).arg(folder.path().join("queue")).args(words);
        let text = succeed(&mut command)?;
        Ok(text.trim().parse()?)
    }
}

const NO_PYTHON: &str = "there is no Python with zope.sendmail (cargo xtask test installs one)";

/// The least that makes one file after the other durable: what the file system allows one thread.
fn bare(folder: &Path, messages: usize) -> io::Result<()> {
    let (tmp, new) = (folder.join("tmp"), folder.join("new"));
    fs::create_dir(&tmp)?;
    fs::create_dir(&new)?;
    let directory = File::open(&new)?;
    let content = vec![b'x'; LENGTH];
    for number in 0..messages {
        let name = number.to_string();
        let mut file = File::create(tmp.join(&name))?;
        file.write_all(&content)?;
        file.sync_all()?;
        fs::rename(tmp.join(&name), new.join(&name))?;
        directory.sync_all()?;
    }
    Ok(())
}

fn succeed(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}: {text}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A running smtp-sink, stopped when it is dropped.
struct Sink {
    child: Child,
    address: SocketAddr,
}

impl Sink {
    fn start(program: &Path) -> Result<Self> {
        // It cannot choose a free port itself.
        let address = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?;
        let mut command = Command::new(program);
        if rustix::process::geteuid().is_root() {
            command.args(["-u", "nobody"]);
        }
        let child = command.arg(address.to_string()).arg("100").spawn()?;
        let sink = Self { child, address };
        let begin = Instant::now();
        while TcpStream::connect(address).is_err() {
            if begin.elapsed() > Duration::from_secs(10) {
                return Err("smtp-sink does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(sink)
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        // It is ours, and there is nobody to tell if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
