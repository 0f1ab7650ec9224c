//! What the tests share.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    DeliveryReport, Envelope, Error, Handover, Mailer, Message, Outcome, Result, Timestamp,
};
use sendmail_smtp::{SmtpConfig, SmtpMailer, Timeouts};
use sendmail_testkit::smtp::{Received, Script, ScriptedServer};

/// A time that passes only where a test wants it to.
pub(crate) const SHORT: Duration = Duration::from_millis(150);

pub(crate) struct Relay {
    pub(crate) server: ScriptedServer,
    pub(crate) mailer: SmtpMailer,
    handover: Counter,
}

#[derive(Default)]
struct Counter(AtomicUsize);

#[async_trait]
impl Handover for Counter {
    async fn before_handover(&self) -> Result<()> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

impl Relay {
    pub(crate) async fn start(script: Script) -> Self {
        Self::configured(script, |config| config).await
    }

    pub(crate) async fn timed(script: Script, timeouts: Timeouts) -> Self {
        Self::configured(script, |config| config.with_timeouts(timeouts)).await
    }

    pub(crate) async fn configured(
        script: Script,
        configure: impl FnOnce(SmtpConfig) -> SmtpConfig,
    ) -> Self {
        Self::at(script, "", configure).await
    }

    /// A relay whose URL ends in `parameters`, or begins with `user:password@` if that is given.
    pub(crate) async fn at(
        script: Script,
        parameters: &str,
        configure: impl FnOnce(SmtpConfig) -> SmtpConfig,
    ) -> Self {
        let server = ScriptedServer::start(script).await.unwrap();
        let url = match parameters.split_once('@') {
            Some((user, parameters)) => format!("smtp://{user}@{}{parameters}", server.address()),
            None => format!("{}{parameters}", server.url()),
        };
        let config = configure(SmtpConfig::from_url(&url).unwrap());
        Self { server, mailer: SmtpMailer::new(config).unwrap(), handover: Counter::default() }
    }

    pub(crate) async fn try_send(
        &self,
        envelope: &Envelope,
        message: &Message,
    ) -> Result<DeliveryReport> {
        self.mailer.send(envelope, message, &self.handover).await
    }

    /// Sends a small message, and gives the outcomes in words, or the error.
    pub(crate) async fn send(&self, recipients: &[&str]) -> String {
        self.send_message(recipients, &message("Subject: s\n\nHello.\n")).await
    }

    /// Sends a small message by another mailer.
    pub(crate) async fn send_by(&self, mailer: &SmtpMailer, recipients: &[&str]) -> String {
        let message = message("Subject: s\n\nHello.\n");
        match mailer.send(&envelope(recipients), &message, &self.handover).await {
            Ok(report) => words(&report),
            Err(error) => error_words(&error),
        }
    }

    pub(crate) async fn send_message(&self, recipients: &[&str], message: &Message) -> String {
        match self.try_send(&envelope(recipients), message).await {
            Ok(report) => words(&report),
            Err(error) => error_words(&error),
        }
    }

    pub(crate) fn handovers(&self) -> usize {
        self.handover.0.load(Ordering::SeqCst)
    }

    /// The lines of all commands of all sessions.
    pub(crate) fn lines(&self) -> Vec<String> {
        let sessions = self.server.sessions();
        sessions
            .iter()
            .flat_map(|s| s.lines().into_iter().map(str::to_owned).collect::<Vec<_>>())
            .collect()
    }

    pub(crate) fn only_message(&self) -> Received {
        let mut messages = self.server.messages();
        assert_eq!(messages.len(), 1, "{messages:?}");
        messages.remove(0)
    }
}

pub(crate) fn message(raw: impl AsRef<[u8]>) -> Message {
    Message::from_raw(raw.as_ref(), Timestamp::EPOCH, "example.org").unwrap()
}

pub(crate) fn envelope(recipients: &[&str]) -> Envelope {
    Envelope::parse("from@x.example", recipients).unwrap()
}

pub(crate) fn words(report: &DeliveryReport) -> String {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Accepted(_) => "accepted",
        Outcome::Deferred(_) => "deferred",
        Outcome::Refused(_) => "refused",
        Outcome::Unknown(_) => "unknown",
    };
    report.outcomes().iter().map(|(_, outcome)| word(outcome)).collect::<Vec<_>>().join(" ")
}

/// `error: KIND, temporary` or `error: KIND`.
pub(crate) fn error_words(error: &Error) -> String {
    let temporary = if error.is_temporary() { ", temporary" } else { "" };
    format!("error: {}{temporary}", error.kind().as_str())
}
