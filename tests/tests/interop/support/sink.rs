//! `sendmail-queue sink`: the development server, as the place where mail arrives.

use std::path::Path;

use serde_json::Value;
use tokio::process::Command;

use super::{Daemon, binary, until};

/// A running sink.
pub(crate) struct Sink {
    daemon: Daemon,
    address: String,
}

impl Sink {
    /// Starts one that keeps what it gets in a Maildir.
    pub(crate) async fn start(maildir: &Path) -> Self {
        let mut command = Command::new(binary());
        command.args(["--json", "sink", "--listen", "127.0.0.1:0", "--maildir"]).arg(maildir);
        let daemon = Daemon::start(command);
        let listening = |line: &str| {
            let value: Value = serde_json::from_str(line).ok()?;
            value["listening"].as_str().map(str::to_owned)
        };
        let address = daemon.wait_for("the sink to listen", listening).await;
        Self { daemon, address }
    }

    pub(crate) fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    pub(crate) fn port(&self) -> &str {
        self.address.rsplit(':').next().unwrap()
    }

    /// What arrived: an object with `from`, `to`, `subject`, `message_id`, `file` for each message.
    pub(crate) fn messages(&self) -> Vec<Value> {
        let parse = |line: &String| serde_json::from_str::<Value>(line).ok();
        let all = self.daemon.lines();
        all.iter().filter_map(parse).filter(|value| value.get("from").is_some()).collect()
    }

    /// Waits until so many messages arrived.
    pub(crate) async fn wait_for(&self, count: usize) -> Vec<Value> {
        until("messages to arrive", || async {
            let messages = self.messages();
            (messages.len() >= count).then_some(messages)
        })
        .await
    }
}
