//! The processors of a crash test: `sendmail-queue run`.

use std::net::SocketAddr;
use std::time::Duration;

use rustix::process::Signal;

use super::group::Group;
use crate::Result;
use crate::process::signal;
use crate::queue::{Processor, Queue};

/// All of them that live.
pub(crate) struct Processors {
    queue: Queue,
    relay: SocketAddr,
    pub(crate) group: Group<()>,
}

impl Processors {
    /// How many connections each opens, and so how many messages it has in flight at most.
    pub(crate) const CONNECTIONS: u16 = 8;

    pub(crate) fn new(queue: Queue, relay: SocketAddr) -> Self {
        Self { queue, relay, group: Group::new("processor") }
    }

    /// The name by which the relay and the ledger know one.
    pub(crate) fn name(id: u64) -> String {
        format!("p{id}")
    }

    pub(crate) fn start(&mut self) -> Result<u64> {
        let name = Self::name(self.group.next_id());
        let (relay, connections) = (self.relay, Self::CONNECTIONS);
        let child = self.queue.start(&Processor { name, relay, connections })?;
        Ok(self.group.add(child, ()))
    }

    /// Asks all to end in order, and waits for them.
    pub(crate) async fn finish(&mut self) -> Result<Vec<String>> {
        let mut trouble = Vec::new();
        for member in self.group.members() {
            signal(&member.child, Signal::TERM)?;
        }
        for mut member in self.group.take() {
            let ended = tokio::time::timeout(Duration::from_secs(30), member.child.wait()).await;
            match ended {
                Ok(status) if status.as_ref().is_ok_and(|status| status.success()) => {}
                Ok(status) => trouble.push(format!("processor {}: {status:?}", member.id)),
                Err(_) => trouble.push(format!("processor {} does not end", member.id)),
            }
        }
        Ok(trouble)
    }
}
