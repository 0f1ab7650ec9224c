//! How a message leaves the host.

use async_trait::async_trait;

use crate::{DeliveryReport, Envelope, Message, Result};

/// Called by a [`Mailer`] before it does what it cannot take back.
///
/// This is how the processor gets its record in before the final dot: whoever finds the record after
/// a crash knows that the message may have been sent.
#[async_trait]
pub trait Handover: Send + Sync {
    /// Records that the message is about to be handed over.
    ///
    /// # Errors
    ///
    /// The record could not be written: the mailer must give up, and nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped the record may or may not have been written.
    async fn before_handover(&self) -> Result<()>;
}

/// Delivers messages: to a relay, to a program, to wherever it was written for (zope's `IMailer`).
///
/// A mailer is shared: it may be asked to send several messages at once, and decides itself how many
/// connections it keeps.
#[async_trait]
pub trait Mailer: Send + Sync {
    /// The relay's name for people: in events, in logs. It holds no credential.
    fn relay(&self) -> &str;

    /// Sends `message` to the recipients of `envelope`.
    ///
    /// It awaits [`Handover::before_handover`] exactly once before it does what it cannot take back
    /// (SMTP: after the 354 and before the last bytes of the body; a program: before the spawn), and
    /// not at all if it never comes to that. If that fails, it gives up: every recipient that was not
    /// refused already is deferred, or the whole attempt is an error of kind
    /// [`ErrorKind::Cancelled`](crate::ErrorKind::Cancelled).
    ///
    /// The report has exactly one outcome for each recipient, in the envelope's order. `Accepted` is
    /// said only when the relay has taken responsibility; `Unknown` only when the handover was
    /// announced and no answer came.
    ///
    /// # Errors
    ///
    /// Nobody was attempted, and the relay is the trouble, not the message: it cannot be reached, TLS
    /// or AUTH failed, it greets with a refusal. The caller waits and tries again; it costs the
    /// message nothing.
    ///
    /// That is known before the handover. Once `before_handover` has consented an error is not
    /// believed: the message counts as perhaps sent. A mailer that is certain all the same that
    /// nothing was handed over (the program could not be started) defers every recipient.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future before the handover was announced means that nothing was sent. Dropped
    /// later, the message may have been sent. In either case the mailer stays usable.
    async fn send(
        &self,
        envelope: &Envelope,
        message: &Message,
        handover: &dyn Handover,
    ) -> Result<DeliveryReport>;

    /// Whether something that is known without the network keeps this envelope from being sent.
    ///
    /// # Errors
    ///
    /// The reason, permanent: the message is failed without an attempt.
    fn check(&self, envelope: &Envelope) -> Result<()>;

    /// Whether the relay can be used right now (zope's `vote`): connects, does TLS and AUTH as needed.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    async fn probe(&self) -> Result<()>;

    /// Ends idle connections in good order; errors are of no interest any more. The mailer may be used
    /// again afterwards.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: what was not ended in good order is cut.
    async fn close(&self);
}
