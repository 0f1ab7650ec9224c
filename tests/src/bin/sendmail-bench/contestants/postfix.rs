//! Postfix, draining what it was given while its queue manager did not run.

use async_trait::async_trait;
use sendmail_tests::Result;
use sendmail_tests::peers::place;
use sendmail_tests::peers::postfix::{self, Postfix, Settings};

use super::relay::{Distance, Relay};
use crate::figures::Sample;
use crate::row::Contestant;
use crate::scale::Scale;

/// Drains a queue.
pub(crate) struct Drain {
    pub(crate) settings: Settings,
    pub(crate) distance: Distance,
    pub(crate) messages: (usize, usize),
    pub(crate) length: usize,
}

#[async_trait]
impl Contestant for Drain {
    fn name(&self) -> String {
        let Settings { concurrency, keeps_connections } = self.settings;
        let cache = if keeps_connections { "connection cache on" } else { "connection cache off" };
        format!("Postfix, concurrency {concurrency}, {cache}")
    }

    fn missing(&self) -> Option<String> {
        postfix::missing()
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(self.messages.0, self.messages.1);
        let relay = Relay::start(self.distance).await?;
        let postfix = Postfix::start(relay.address, self.settings)?;
        postfix.fill(messages, self.length)?;
        place::settle()?;
        let drained = postfix.drain()?;
        Ok(Sample::rate(messages, drained.seconds).with_cpu(drained.cpu, messages))
    }
}
