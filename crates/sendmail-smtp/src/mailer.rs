//! The mailer itself.

use async_trait::async_trait;
use sendmail_core::{
    DeliveryReport, Envelope, Error, ErrorKind, Handover, Mailer, Message, Result,
};
use tokio_rustls::TlsConnector;

use crate::config::{SmtpConfig, TlsMode};
use crate::connection::{Connection, Deadline};
use crate::plan::{NoAscii, no_ascii, rcpt, reverse_path};
use crate::pool::Pool;
use crate::stuffing::check_wire_form;
use crate::tls;
use crate::transaction::{Announcement, Ended, deliver};
use crate::trouble::refusal;

/// A [`Mailer`] that hands messages to one SMTP relay.
///
/// It keeps connections between messages and opens as many as are needed, up to the configured
/// number; whoever comes then waits. It may be shared and used from any number of tasks.
pub struct SmtpMailer {
    config: SmtpConfig,
    relay: String,
    connector: Option<TlsConnector>,
    pool: Pool,
}

impl std::fmt::Debug for SmtpMailer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SmtpMailer").field("relay", &self.relay).finish_non_exhaustive()
    }
}

impl SmtpMailer {
    /// A mailer for a relay. It connects when it is first asked to.
    ///
    /// # Errors
    ///
    /// The configuration would send a password in clear text, or TLS is wanted and there are no root
    /// certificates to check the relay's with.
    pub fn new(config: SmtpConfig) -> Result<Self> {
        config.check()?;
        let connector = match config.tls {
            TlsMode::None => None,
            _ => Some(tls::connector(&config.roots)?),
        };
        Ok(Self {
            relay: config.relay(),
            connector,
            pool: Pool::new(config.max_connections, config.max_idle),
            config,
        })
    }

    async fn open(&self, deadline: Deadline) -> Result<Connection> {
        Connection::open(&self.config, self.connector.as_ref(), deadline).await
    }

    fn unauthenticated(&self, reply: &crate::WireReply) -> Error {
        refusal(ErrorKind::Auth, "send a message through the relay", reply)
            .with("relay", &self.relay)
    }
}

#[async_trait]
impl Mailer for SmtpMailer {
    fn relay(&self) -> &str {
        &self.relay
    }

    async fn send(
        &self,
        envelope: &Envelope,
        message: &Message,
        handover: &dyn Handover,
    ) -> Result<DeliveryReport> {
        check_wire_form(message.as_bytes()).map_err(|error| {
            Error::new(ErrorKind::InvalidInput, "send a message", error.to_string())
                .with("message", message.message_id())
        })?;
        let deadline = Deadline::after(self.config.timeouts.message);
        let mut announcement = Announcement::new(handover);
        let _turn = self.pool.turn(deadline).await?;
        // At most twice: a kept connection that turns out to be dead is replaced by a new one, and a
        // new one is never stale.
        let mut kept = self.pool.take(deadline).await;
        loop {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => self.open(deadline).await?,
            };
            match deliver(&mut connection, envelope, message, &mut announcement).await {
                Ended::Outcomes(outcomes) => {
                    self.pool.keep(connection).await;
                    return DeliveryReport::new(envelope, outcomes).ok_or_else(|| {
                        // One outcome for each is what `deliver` makes of its plan.
                        Error::new(ErrorKind::InvalidState, "send a message", "outcomes missing")
                    });
                }
                Ended::Stale => self.pool.forget(),
                Ended::Unauthenticated(reply) => return Err(self.unauthenticated(&reply)),
            }
        }
    }

    fn check(&self, envelope: &Envelope) -> Result<()> {
        let refuse = |which| {
            let text = no_ascii(NoAscii::Domain, which).to_string();
            Error::new(ErrorKind::InvalidInput, "send a message", text).permanent()
        };
        if reverse_path(envelope.reverse_path(), false) == Err(NoAscii::Domain) {
            return Err(refuse("reverse-path"));
        }
        let impossible = |recipient| rcpt(recipient, false) == Err(NoAscii::Domain);
        if envelope.recipients().iter().all(impossible) {
            return Err(refuse("recipient"));
        }
        Ok(())
    }

    async fn probe(&self) -> Result<()> {
        let deadline = Deadline::after(self.config.timeouts.message);
        let _turn = self.pool.turn(deadline).await?;
        let connection = self.open(deadline).await?;
        self.pool.keep(connection).await;
        Ok(())
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
