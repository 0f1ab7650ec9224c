//! smtp-source: no queue, connections that are kept. What the sink can take.

use async_trait::async_trait;
use sendmail_tests::Result;
use sendmail_tests::peers::sink;

use super::relay::{Distance, Relay};
use crate::figures::Sample;
use crate::row::Contestant;
use crate::scale::Scale;

/// Sends as many messages over as many connections.
pub(crate) struct Source {
    pub(crate) connections: usize,
    pub(crate) messages: (usize, usize),
    pub(crate) length: usize,
}

#[async_trait]
impl Contestant for Source {
    fn name(&self) -> String {
        format!("smtp-source, {} connections, no queue", self.connections)
    }

    fn missing(&self) -> Option<String> {
        sink::missing()
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(self.messages.0, self.messages.1);
        let relay = Relay::start(Distance::Near).await?;
        let ran = sink::source(relay.address, messages, self.length, self.connections)?;
        Ok(Sample::rate(messages, ran.seconds).with_cpu(ran.cpu, messages))
    }
}
