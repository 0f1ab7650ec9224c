//! From a message's start to its acceptance, one at a time.

use std::time::{Duration, Instant};

use async_trait::async_trait;
use sendmail_core::{Handover, Mailer as _};
use sendmail_smtp::{SmtpConfig, SmtpMailer};
use sendmail_tests::Result;
use sendmail_tests::peers::counter::Counter;
use sendmail_tests::peers::place;
use tokio::time::{sleep, timeout};

use super::enqueue::Queue;
use super::processor::Setup;
use super::{KIB, mail};
use crate::figures::{Metric, Sample, median};
use crate::row::Contestant;
use crate::scale::Scale;

/// How many messages, and how many if it is quick.
const MESSAGES: (usize, usize) = (500, 50);
/// How long nothing happens before the next one, so that each begins from rest.
const REST: Duration = Duration::from_millis(5);
/// When to give up.
const PATIENCE: Duration = Duration::from_secs(30);

/// Queued by this process, and sent by a processor that another process is.
pub(crate) struct Queued;

#[async_trait]
impl Contestant for Queued {
    fn name(&self) -> String {
        "queued, and sent by sendmail-queue run".to_owned()
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let counter = Counter::start().await?;
        let folder = place::folder()?;
        let path = folder.path().join("queue");
        let queue = Queue::open(&path).await?;
        let setup = Setup { relay: counter.address, connections: 4, database: None };
        let processor = setup.start(&path, "run")?;
        let messages = scale.of(MESSAGES.0, MESSAGES.1);
        let (mut queued, mut called) = (Vec::new(), Vec::new());
        // The first is to open the connection, and does not count.
        for number in 0..=messages {
            sleep(REST).await;
            let call = Instant::now();
            queue.fill(1, 1, KIB).await?;
            let committed = Instant::now();
            let accepted = timeout(PATIENCE, counter.reached(number + 1)).await??;
            let accepted = accepted.last.ok_or("nothing was accepted")?;
            if number > 0 {
                queued.push(millis(accepted.saturating_duration_since(committed)));
                called.push(millis(accepted.saturating_duration_since(call)));
            }
        }
        processor.stop()?;
        let sample = Sample::default().with(Metric::Delay, median(&queued).unwrap_or_default());
        Ok(sample.with(Metric::DelayFromCall, median(&called).unwrap_or_default()))
    }
}

/// Sent by this process over a connection that is open, and waited for.
pub(crate) struct Sent;

/// Nobody needs a record.
struct Nothing;

#[async_trait]
impl Handover for Nothing {
    async fn before_handover(&self) -> sendmail_core::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Contestant for Sent {
    fn name(&self) -> String {
        "sent over an open connection, and waited for".to_owned()
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let counter = Counter::start().await?;
        let mailer =
            SmtpMailer::new(SmtpConfig::from_url(&format!("smtp://{}", counter.address))?)?;
        let (envelope, message) = mail(KIB)?;
        let mut delays = Vec::new();
        for number in 0..=scale.of(MESSAGES.0, MESSAGES.1) {
            sleep(REST).await;
            let begin = Instant::now();
            mailer.send(&envelope, &message, &Nothing).await?;
            if number > 0 {
                delays.push(millis(begin.elapsed()));
            }
        }
        mailer.close().await;
        let median = median(&delays).unwrap_or_default();
        let sample = Sample::default().with(Metric::Delay, median);
        Ok(sample.with(Metric::DelayFromCall, median))
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}
