//! Bare loops, and bare round trips: the limits.

use async_trait::async_trait;
use sendmail_tests::Result;
use sendmail_tests::peers::round_trips::{self, Answerer};
use sendmail_tests::peers::{bare, place};

use super::relay;
use crate::figures::Sample;
use crate::row::Contestant;
use crate::scale::Scale;

/// Makes files durable.
pub(crate) struct Enqueue {
    pub(crate) threads: usize,
    pub(crate) messages: (usize, usize),
    pub(crate) length: usize,
}

#[async_trait]
impl Contestant for Enqueue {
    fn name(&self) -> String {
        let threads = self.threads;
        let threads =
            if threads == 1 { "1 thread".to_owned() } else { format!("{threads} threads") };
        format!("bare create, write, fsync, rename, fsync directory, {threads}")
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(self.messages.0, self.messages.1);
        let folder = place::folder()?;
        let seconds = bare::enqueue(folder.path(), messages, self.length, self.threads)?;
        Ok(Sample::rate(messages, seconds))
    }
}

/// Takes files out of a queue, and keeps a log of it.
pub(crate) struct Drain {
    pub(crate) in_flight: usize,
    pub(crate) messages: (usize, usize),
    pub(crate) length: usize,
}

#[async_trait]
impl Contestant for Drain {
    fn name(&self) -> String {
        format!("bare claim, append, unlink, {} at a time", self.in_flight)
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(self.messages.0, self.messages.1);
        let folder = place::folder()?;
        let seconds = bare::drain(folder.path(), messages, self.length, self.in_flight)?;
        Ok(Sample::rate(messages, seconds))
    }
}

/// One message for each round trip on each connection, over the same long line.
pub(crate) struct RoundTrips {
    pub(crate) connections: usize,
    pub(crate) messages: (usize, usize),
    pub(crate) length: usize,
}

#[async_trait]
impl Contestant for RoundTrips {
    fn name(&self) -> String {
        format!("a message per round trip, {} connections", self.connections)
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let messages = scale.of(self.messages.0, self.messages.1);
        let answerer = Answerer::start(self.length).await?;
        let line = relay::far(answerer.address).await?;
        let seconds =
            round_trips::run(line.address, messages, self.length, self.connections).await?;
        Ok(Sample::rate(messages, seconds))
    }
}
