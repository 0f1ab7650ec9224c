//! zope.sendmail and repoze.sendmail, draining a queue that they have filled themselves.

use async_trait::async_trait;
use sendmail_tests::Result;
use sendmail_tests::peers::zope::{self, Package};
use sendmail_tests::peers::{place, sink};

use super::relay::{Distance, Relay};
use crate::figures::Sample;
use crate::row::Contestant;
use crate::scale::Scale;

/// Drains a queue.
pub(crate) struct Drain {
    pub(crate) package: Package,
    pub(crate) messages: (usize, usize),
    pub(crate) length: usize,
}

#[async_trait]
impl Contestant for Drain {
    fn name(&self) -> String {
        self.package.name().to_owned()
    }

    fn missing(&self) -> Option<String> {
        zope::missing().or_else(sink::missing)
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(self.messages.0, self.messages.1);
        let folder = place::folder()?;
        self.package.fill(folder.path(), messages, self.length)?;
        place::settle()?;
        let relay = Relay::start(Distance::Near).await?;
        let ran = self.package.drain(folder.path(), relay.address)?;
        Ok(Sample::rate(messages, ran.seconds).with_cpu(ran.cpu, messages))
    }
}
