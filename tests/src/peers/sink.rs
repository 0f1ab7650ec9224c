//! Postfix's `smtp-sink`, which takes everything, and `smtp-source`, which has no queue and makes its messages
//! up: the limit that the sink sets.

use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use super::janitor::Janitor;
use super::{Ran, place, run};
use crate::{Result, programs};

/// How long it may take to listen.
const START_WITHIN: Duration = Duration::from_secs(10);

/// Runs a program until the other end of its standard input is closed.
const JANITOR: &str = r#"
"$@" &
cat >/dev/null
kill $!
wait
"#;

/// A running smtp-sink. It is stopped when this is dropped, and when this process ends in any other way.
#[derive(Debug)]
pub struct Sink {
    _janitor: Janitor,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Sink {
    /// Starts one.
    ///
    /// # Errors
    ///
    /// It is not installed, or does not listen.
    pub fn start() -> Result<Self> {
        let program = programs::find("smtp-sink").ok_or(NOT_INSTALLED)?;
        let address = place::free_address()?;
        let mut words = vec![program.into_os_string()];
        if rustix::process::geteuid().is_root() {
            words.extend(["-u", "nobody"].map(Into::into));
        }
        words.extend([address.to_string(), "1000".to_owned()].map(Into::into));
        let sink = Self { _janitor: Janitor::start(JANITOR, words)?, address };
        listening(address)?;
        Ok(sink)
    }
}

/// Why there is no sink and no source, if there is none.
#[must_use]
pub fn missing() -> Option<String> {
    let all = ["smtp-sink", "smtp-source"];
    (!all.iter().all(|name| programs::find(name).is_some())).then(|| NOT_INSTALLED.to_owned())
}

const NOT_INSTALLED: &str = "smtp-sink and smtp-source are not installed (Debian: postfix)";

/// Waits until somebody listens.
///
/// # Errors
///
/// Nobody does in time.
pub fn listening(address: SocketAddr) -> Result<()> {
    let begin = Instant::now();
    while TcpStream::connect(address).is_err() {
        if begin.elapsed() > START_WITHIN {
            return Err(format!("nobody listens on {address}").into());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Sends so many messages of this length over so many connections that are kept, with smtp-source.
///
/// # Errors
///
/// It is not installed, or fails.
pub fn source(
    relay: SocketAddr,
    messages: usize,
    length: usize,
    connections: usize,
) -> Result<Ran> {
    let program = programs::find("smtp-source").ok_or(NOT_INSTALLED)?;
    run(source_command(&program, messages, length, connections).arg(relay.to_string()))
}

fn source_command(program: &Path, messages: usize, length: usize, connections: usize) -> Command {
    let mut command = Command::new(program);
    command.args(["-d", "-s", &connections.to_string()]);
    command.args(["-f", "shop@example.org", "-t", "customer@example.net"]);
    command.args(["-m", &messages.to_string(), "-l", &length.to_string()]);
    command
}
