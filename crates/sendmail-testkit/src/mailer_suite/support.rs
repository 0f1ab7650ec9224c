//! What the cases share: the handover that watches, messages, and ways to send them.

use std::future::Future;
use std::io::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    DeliveryReport, Envelope, Error, ErrorKind, Handover, Message, Outcome, Result, Timestamp,
};

use super::{Behaviour, Declined, Delivered, MailerHarness};

/// No case takes longer, or it has failed.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) const FROM: &str = "sender@suite.example";

/// A handover that counts, and either consents, refuses, or never answers.
pub(super) struct Watch<'a, H> {
    harness: &'a H,
    answer: Answer,
    calls: AtomicUsize,
    /// How much was delivered already when the handover was announced.
    pub(super) delivered_before: AtomicUsize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Consent,
    Refuse,
    Never,
}

impl<'a, H: MailerHarness> Watch<'a, H> {
    pub(super) fn new(harness: &'a H, answer: Answer) -> Self {
        let (calls, delivered_before) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Self { harness, answer, calls, delivered_before }
    }

    pub(super) fn calls(&self) -> usize {
        self.calls.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl<H: MailerHarness> Handover for Watch<'_, H> {
    async fn before_handover(&self) -> Result<()> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        self.delivered_before.store(self.harness.delivered().await.len(), Ordering::SeqCst);
        match self.answer {
            Answer::Consent => Ok(()),
            Answer::Refuse => Err(Error::new(
                ErrorKind::Cancelled,
                "announce the handover",
                "refused by the suite",
            )),
            Answer::Never => std::future::pending().await,
        }
    }
}

/// A harness for the case, or nothing if it declined; then that is said where it is seen.
pub(super) async fn start<H: MailerHarness>(case: &str, behaviour: Behaviour) -> Option<H> {
    let must_be_there = behaviour == Behaviour::AcceptAll;
    match H::start(behaviour).await {
        Ok(harness) => Some(harness),
        Err(Declined(why)) => {
            assert!(
                !must_be_there,
                "{case}: a mailer's other end must be able to accept all: {why}"
            );
            // Written past the capture of test output, which only hears the print macros; if standard
            // error is closed there is nobody to tell.
            drop(writeln!(std::io::stderr(), "mailer suite: {case} DECLINED: {why}"));
            None
        }
    }
}

pub(super) fn envelope(recipients: &[&str]) -> Envelope {
    Envelope::parse(FROM, recipients)
        .unwrap_or_else(|error| panic!("the suite's envelope: {error}"))
}

pub(super) fn message_of(raw: &[u8]) -> Message {
    Message::from_raw(raw, Timestamp::EPOCH, "suite.example")
        .unwrap_or_else(|error| panic!("the suite's message: {error}"))
}

pub(super) fn message(subject: &str) -> Message {
    message_of(format!("Subject: {subject}\r\n\r\nHello.\r\n").as_bytes())
}

pub(super) async fn patiently<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(result) => result,
        Err(_) => panic!("{what} did not end within {PATIENCE:?}"),
    }
}

pub(super) async fn try_send<H: MailerHarness>(
    harness: &H,
    envelope: &Envelope,
    message: &Message,
    handover: &Watch<'_, H>,
) -> Result<DeliveryReport> {
    let mailer = harness.mailer();
    let report = patiently("send", mailer.send(envelope, message, handover)).await;
    if let Ok(report) = &report {
        let named: Vec<_> = report.outcomes().iter().map(|(recipient, _)| recipient).collect();
        let wanted: Vec<_> = envelope.recipients().iter().collect();
        assert_eq!(named, wanted, "the report must answer for each recipient, in envelope order");
    }
    report
}

/// Sends with a consenting handover, expects a report, and gives it in words: `accepted deferred`.
pub(super) async fn send<H: MailerHarness>(
    harness: &H,
    recipients: &[&str],
    message: &Message,
) -> String {
    let watch = Watch::new(harness, Answer::Consent);
    let report = try_send(harness, &envelope(recipients), message, &watch).await;
    words(
        &report
            .unwrap_or_else(|error| panic!("expected outcomes, but the relay is blamed: {error}")),
    )
}

pub(super) fn words(report: &DeliveryReport) -> String {
    let word = |outcome: &Outcome| match outcome {
        Outcome::Accepted(_) => "accepted",
        Outcome::Deferred(_) => "deferred",
        Outcome::Refused(_) => "refused",
        Outcome::Unknown(_) => "unknown",
    };
    report.outcomes().iter().map(|(_, outcome)| word(outcome)).collect::<Vec<_>>().join(" ")
}

pub(super) fn recipients_of(delivered: &[Delivered]) -> Vec<String> {
    let mut all: Vec<_> = delivered.iter().flat_map(|one| one.recipients.clone()).collect();
    all.sort();
    all
}

pub(super) async fn expect_usable<H: MailerHarness>(harness: &H) {
    let before = harness.delivered().await.len();
    let outcome = send(harness, &["after@y.example"], &message("after")).await;
    assert_eq!(outcome, "accepted", "the mailer must be usable afterwards");
    assert_eq!(harness.delivered().await.len(), before + 1, "and deliver the next message");
}

pub(super) fn mixed() -> Behaviour {
    Behaviour::Except {
        deferred: vec!["later@y.example".to_owned()],
        refused: vec!["never@y.example".to_owned()],
    }
}

/// All at once, in one task; what a small crate would do.
pub(super) async fn join_all<T>(
    futures: Vec<std::pin::Pin<Box<dyn Future<Output = T> + Send + '_>>>,
) -> Vec<T> {
    let mut running: Vec<_> = futures.into_iter().map(Some).collect();
    let mut results = Vec::new();
    std::future::poll_fn(move |cx| {
        for slot in &mut running {
            if let Some(future) = slot
                && let std::task::Poll::Ready(result) = future.as_mut().poll(cx)
            {
                results.push(result);
                *slot = None;
            }
        }
        if running.iter().all(Option::is_none) {
            std::task::Poll::Ready(std::mem::take(&mut results))
        } else {
            std::task::Poll::Pending
        }
    })
    .await
}
