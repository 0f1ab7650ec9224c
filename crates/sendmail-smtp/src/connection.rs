//! One connection to the relay, kept on lettre's.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::extension::ClientId;
use sendmail_core::{Error, ErrorKind, Result};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::auth;
use crate::capabilities::Capabilities;
use crate::config::{SmtpConfig, Timeouts};
use crate::guard::Guard;
use crate::opening::{Opening, hello_name};
use crate::reply::WireReply;
use crate::trouble::{Broken, refusal};
use crate::wire::Drained;

/// The end of the time that one message may take, its connection included.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline(Instant);

impl Deadline {
    pub(crate) fn after(time: Duration) -> Self {
        let now = Instant::now();
        // A time beyond what can be represented is as good as none.
        Self(now.checked_add(time).unwrap_or_else(|| now + Duration::from_secs(86_400 * 365)))
    }

    /// `limit`, or what is left if that is less.
    pub(crate) fn within(self, limit: Duration) -> Duration {
        limit.min(self.0.saturating_duration_since(Instant::now()))
    }
}

/// A connection that is ready for MAIL.
pub(crate) struct Connection {
    lettre: AsyncSmtpConnection,
    guard: Guard,
    pub(crate) capabilities: Capabilities,
    pub(crate) timeouts: Timeouts,
    deadline: Deadline,
    /// A transaction was begun and not ended: RSET comes first.
    pub(crate) unfinished: bool,
    /// It has served before, and the relay may have given it up meanwhile.
    pub(crate) reused: bool,
    /// It came to an end out of order: not to be used again.
    pub(crate) broken: bool,
}

impl Connection {
    /// Connects, greets, does STARTTLS and AUTH as configured.
    ///
    /// # Errors
    ///
    /// The relay's trouble, of the kind that says where it was met.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the half-made connection is closed.
    pub(crate) async fn open(
        config: &SmtpConfig,
        connector: Option<&TlsConnector>,
        deadline: Deadline,
    ) -> Result<Self> {
        let opening = Opening { config, connector, deadline };
        let error = |error: Error| error.with("relay", config.relay());
        let (wire, greeting, ehlo) = opening.run().await.map_err(error)?;
        let local = wire.local_addr().ok().map(|address| address.ip());
        let clear_text_is_fine = config.clear_text_auth_on_loopback
            && wire.peer_addr().is_ok_and(|address| address.ip().to_canonical().is_loopback());
        let may_authenticate = wire.is_encrypted() || clear_text_is_fine;
        let capabilities = ehlo.capabilities();
        let (guard, end) = Guard::new(wire, &greeting, ehlo.reply);
        let name = ClientId::Domain(hello_name(config, local));
        // Both sides of this exchange are replayed, so it neither waits nor fails.
        let lettre = AsyncSmtpConnection::connect_with_transport(Box::new(end), &name).await;
        let lettre = lettre.map_err(|error| {
            Error::new(ErrorKind::Protocol, "connect to the relay", error.to_string())
        })?;
        let mut connection = Self {
            lettre,
            guard,
            capabilities,
            timeouts: config.timeouts.clone(),
            deadline,
            unfinished: false,
            reused: false,
            broken: false,
        };
        if let Some(credentials) = &config.credentials {
            if !may_authenticate {
                let text = "the connection is not encrypted: credentials were not sent";
                return Err(error(Error::new(ErrorKind::Auth, auth::OPERATION, text)));
            }
            auth::authenticate(&mut connection, credentials).await.map_err(error)?;
        }
        // What the relay has said too much by now is its own trouble, not that of the first message.
        connection.expect_silence().await.map_err(error)?;
        Ok(connection)
    }

    /// Sends the next command, or the next group of them, and reads one reply; without a text, reads
    /// the next reply of the group.
    ///
    /// Invariant: a reply that was there before its command was sent is the answer to nothing. Were it
    /// taken for one, each reply that follows would be told of the wrong recipient. A 421 is another
    /// matter: a relay may say it at any time (RFC 5321 section 3.8).
    pub(crate) async fn ask(
        &mut self,
        text: Option<String>,
        limit: Duration,
    ) -> Result<WireReply, Broken> {
        if text.is_some() && self.guard.listen().await? == Drained::Interrupted {
            let reply = self.exchange(None, limit).await?;
            return if reply.code() == 421 { Ok(reply) } else { Err(Broken::OutOfTurn) };
        }
        self.exchange(text, limit).await
    }

    async fn expect_silence(&mut self) -> Result<()> {
        const OPERATION: &str = "set up a connection to the relay";
        let broken = match self.guard.listen().await {
            Ok(Drained::Written) => return Ok(()),
            Ok(Drained::Interrupted) => match self.exchange(None, self.timeouts.command).await {
                Ok(reply) if reply.code() == 421 => {
                    return Err(refusal(ErrorKind::Unreachable, OPERATION, &reply));
                }
                Ok(_) => Broken::OutOfTurn,
                Err(broken) => broken,
            },
            Err(broken) => broken,
        };
        Err(broken.into_error(OPERATION))
    }

    /// Sends `text`, if there is any, and reads one reply.
    pub(crate) async fn exchange(
        &mut self,
        text: Option<String>,
        limit: Duration,
    ) -> Result<WireReply, Broken> {
        let limit = self.deadline.within(limit);
        // lettre's judgement of the reply is not ours: only that it has read one counts.
        let read = async {
            match text {
                Some(text) => drop(self.lettre.command(text).await),
                None => drop(self.lettre.read_response().await),
            }
        };
        timeout(limit, read).await.map_err(|_| Broken::Timeout(limit))?;
        self.guard.take_reply()
    }

    /// Our end of the wire, to say what comes next while a reply is waited for.
    pub(crate) fn guard(&self) -> &Guard {
        &self.guard
    }

    /// Writes the final dot, as far as that does not wait.
    pub(crate) async fn write_dot(&self) {
        self.guard.gather(b".\r\n");
        poll_fn(|cx| {
            self.guard.poll_push(cx);
            Poll::Ready(())
        })
        .await;
    }

    /// Gathers a piece of the body.
    pub(crate) fn gather(&self, piece: &[u8]) {
        self.guard.gather(piece);
    }

    /// Looks, without waiting, whether the relay has spoken out of turn.
    pub(crate) async fn listen(&self) -> Result<Drained, Broken> {
        self.guard.listen().await
    }

    /// Writes what was gathered.
    pub(crate) async fn drain(&self) -> Result<Drained, Broken> {
        let limit = self.deadline.within(self.timeouts.block);
        timeout(limit, self.guard.drain()).await.unwrap_or(Err(Broken::Timeout(limit)))
    }

    /// Whether it can be kept for another message: the last exchange ended in order, and the relay
    /// has said nothing since.
    pub(crate) async fn is_in_order(&self) -> bool {
        !self.broken && matches!(self.guard.listen().await, Ok(Drained::Written))
    }

    /// Makes it serve another message.
    pub(crate) fn reuse(&mut self, deadline: Deadline) {
        self.reused = true;
        self.deadline = deadline;
    }

    /// Takes leave. Whatever the relay answers is of no interest.
    pub(crate) async fn quit(mut self) {
        let limit = self.timeouts.quit;
        self.deadline = Deadline::after(limit);
        drop(self.exchange(Some("QUIT\r\n".to_owned()), limit).await);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_deadline_takes_what_is_left() {
        let hour = Duration::from_secs(3600);
        assert!(Deadline::after(Duration::from_secs(5)).within(hour) <= Duration::from_secs(5));
        assert_eq!(Deadline::after(hour).within(Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(Deadline::after(Duration::ZERO).within(hour), Duration::ZERO);
        assert_eq!(Deadline::after(Duration::MAX).within(hour), hour);
    }
}
