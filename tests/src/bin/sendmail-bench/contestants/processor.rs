//! Ours: `sendmail-queue run`, as a process.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use async_trait::async_trait;
use rustix::process::{Pid, Signal, kill_process};
use sendmail_tests::peers::{cpu, place, sink};
use sendmail_tests::{Result, fill, programs};

use super::relay::{Distance, Relay};
use crate::figures::Sample;
use crate::row::Contestant;
use crate::scale::Scale;

/// How many messages one transaction of the filling has.
const AT_ONCE: usize = 100;
/// What may be in flight unless more connections need more.
const IN_FLIGHT: usize = 64;

/// Drains a queue.
pub(crate) struct Drain {
    pub(crate) connections: usize,
    /// How many processes share the queue.
    pub(crate) processors: usize,
    pub(crate) distance: Distance,
    /// How many messages, and how many if it is quick.
    pub(crate) messages: (usize, usize),
    pub(crate) length: usize,
}

#[async_trait]
impl Contestant for Drain {
    fn name(&self) -> String {
        let connections = self.connections;
        match self.processors {
            1 => format!("sendmail-queue run, {connections} connections"),
            many => format!("{many} × sendmail-queue run, {connections} connections each"),
        }
    }

    fn missing(&self) -> Option<String> {
        sink::missing()
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(self.messages.0, self.messages.1);
        let folder = place::folder()?;
        let queue = folder.path().join("queue");
        // What large messages take in memory while they are queued is bounded.
        let at_once = if self.length > 100_000 { 10 } else { AT_ONCE };
        fill::fill(&queue, messages, self.length, at_once).await?;
        place::settle()?;
        let relay = Relay::start(self.distance).await?;
        let setup = Setup { relay: relay.address, connections: self.connections, database: None };
        let commands = (0..self.processors).map(|number| {
            let mut command = setup.command(&queue, &format!("run-{number}"))?;
            command.arg("--once");
            Ok(command)
        });
        let mut commands = commands.collect::<Result<Vec<_>>>()?;
        let before = cpu::of_ended_children()?;
        let begin = Instant::now();
        let children = commands.iter_mut().map(Command::spawn).collect::<Result<Vec<_>, _>>()?;
        for mut child in children {
            let status = child.wait()?;
            if !status.success() {
                return Err(format!("sendmail-queue run --once: {status}").into());
            }
        }
        let seconds = begin.elapsed().as_secs_f64();
        let cpu = cpu::of_ended_children()?.saturating_sub(before);
        Ok(Sample::rate(messages, seconds).with_cpu(cpu, messages))
    }
}

/// How a processor is run.
pub(crate) struct Setup {
    pub(crate) relay: SocketAddr,
    pub(crate) connections: usize,
    pub(crate) database: Option<String>,
}

impl Setup {
    /// The command that runs it on `queue`; its configuration lies beside that, under this name.
    pub(crate) fn command(&self, queue: &Path, name: &str) -> Result<Command> {
        let config = queue.with_file_name(format!("{name}.toml"));
        let in_flight = IN_FLIGHT.max(2 * self.connections);
        let text = format!(
            "[relay]\nurl = \"smtp://{}\"\nmax_connections = {}\n\n\
             [delivery]\nmax_in_flight = {in_flight}\n",
            self.relay, self.connections
        );
        fs::write(&config, text)?;
        let mut command = Command::new(program()?);
        command.env_remove("SENDMAIL_CONFIG").env_remove("SENDMAIL_RELAY");
        match &self.database {
            Some(url) => command.env("SENDMAIL_DATABASE", url),
            None => command.env_remove("SENDMAIL_DATABASE"),
        };
        command.arg("--config").arg(config).arg("--queue").arg(queue).args(["run", "--quiet"]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Ok(command)
    }

    /// Starts it, and it runs until it is told to stop; what it has to say goes to a file beside the queue.
    pub(crate) fn start(&self, queue: &Path, name: &str) -> Result<Running> {
        let log = queue.with_file_name(format!("{name}.log"));
        let child = self.command(queue, name)?.stderr(File::create(&log)?).spawn()?;
        Ok(Running { child, log })
    }
}

/// `sendmail-queue`.
pub(crate) fn program() -> Result<PathBuf> {
    programs::sendmail_queue()
}

/// A processor that runs. It is killed when it is dropped.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells it to stop, and waits until it has.
    pub(crate) fn stop(mut self) -> Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let status = self.child.wait()?;
        if status.success() {
            return Ok(());
        }
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        Err(format!("sendmail-queue run: {status}: {log}").into())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It is ours, and there is nobody to tell if it is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
