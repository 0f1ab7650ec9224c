//! lettre's pool of connections, in a program of its own.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;

use async_trait::async_trait;
use sendmail_tests::Result;
use sendmail_tests::peers::{self, sink};

use super::relay::{Distance, Relay};
use crate::figures::Sample;
use crate::row::Contestant;
use crate::scale::Scale;

/// The program with the crates that we are compared with.
pub(crate) fn program() -> Option<PathBuf> {
    let built = || Some(std::env::current_exe().ok()?.with_file_name("sendmail-bench-peers"));
    let program = std::env::var_os("SENDMAIL_BENCH_PEERS").map(PathBuf::from).or_else(built)?;
    program.is_file().then_some(program)
}

/// Why it is not there, if it is not.
pub(crate) fn missing() -> Option<String> {
    let missing = program().is_none();
    missing.then(|| "sendmail-bench-peers is not built (`cargo xtask bench` does it)".to_owned())
}

/// How a run of it begins.
pub(crate) fn command(
    peer: &str,
    relay: SocketAddr,
    messages: usize,
    length: usize,
    connections: usize,
) -> Result<Command> {
    let mut command = Command::new(program().ok_or("sendmail-bench-peers is not built")?);
    command.arg(peer).args(["--relay", &relay.to_string()]);
    command.args(["--messages", &messages.to_string(), "--length", &length.to_string()]);
    command.args(["--connections", &connections.to_string()]);
    Ok(command)
}

/// Sends without a queue.
pub(crate) struct Pool {
    pub(crate) connections: usize,
    pub(crate) distance: Distance,
    pub(crate) messages: (usize, usize),
    pub(crate) length: usize,
}

#[async_trait]
impl Contestant for Pool {
    fn name(&self) -> String {
        format!("lettre's pool, {} connections, no queue", self.connections)
    }

    fn missing(&self) -> Option<String> {
        missing().or_else(sink::missing)
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(self.messages.0, self.messages.1);
        let relay = Relay::start(self.distance).await?;
        let mut command =
            command("lettre", relay.address, messages, self.length, self.connections)?;
        let ran = peers::run(&mut command)?;
        Ok(Sample::rate(messages, ran.output.trim().parse()?).with_cpu(ran.cpu, messages))
    }
}
