//! The mailer itself.

use async_trait::async_trait;
use sendmail_core::{
    DeliveryReport, Envelope, Error, ErrorKind, Handover, Mailer, Message, Result,
};
use tokio_rustls::TlsConnector;

use crate::config::{SmtpConfig, TlsMode};
use crate::connection::{Connection, Deadline};
use crate::overlap::Lease;
use crate::plan::{NoAscii, Plan, no_ascii, rcpt, reverse_path};
use crate::pool::{Permit, Place, Pool};
use crate::stuffing::check_wire_form;
use crate::tls;
use crate::transaction::{Announcement, Ended, deliver, first_commands};
use crate::trouble::refusal;

/// A [`Mailer`] that hands messages to one SMTP relay.
///
/// It keeps connections between messages and opens as many as are needed, up to the configured
/// number, or up to what the relay takes if that is fewer. Whoever comes then waits, and where the relay
/// offers PIPELINING says the next message's commands while the relay thinks about the last one. So with
/// twice as many tasks as connections each connection carries a message in each round trip. It may
/// be shared and used from any number of tasks.
pub struct SmtpMailer {
    config: SmtpConfig,
    relay: String,
    connector: Option<TlsConnector>,
    pool: Pool,
}

/// Whether a kept connection will do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kept {
    Gladly,
    Never,
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

    /// A connection to send from, the plan for it, and whether its first commands are on their way.
    async fn ready(
        &self,
        envelope: &Envelope,
        message: &Message,
        deadline: Deadline,
    ) -> Result<(Lease, Plan, bool)> {
        loop {
            match self.pool.place(deadline).await? {
                Place::Own(permit) => {
                    if let Some(lease) = self.lease(permit, deadline, Kept::Gladly).await? {
                        let plan = Plan::new(envelope, message, &lease.connection.capabilities);
                        return Ok((lease, plan, false));
                    }
                }
                Place::Behind(successor) => {
                    let plan = Plan::new(envelope, message, successor.capabilities());
                    if let Some(lease) = successor.follow(&first_commands(&plan), deadline).await {
                        return Ok((lease, plan, true));
                    }
                }
            }
        }
    }

    /// A connection: a kept one, or a new one. Nothing comes back where the relay takes no more of them: one
    /// of those that it serves is to be waited for.
    async fn lease(&self, permit: Permit, deadline: Deadline, kept: Kept) -> Result<Option<Lease>> {
        if kept == Kept::Gladly
            && let Some(connection) = self.pool.take(deadline).await
        {
            return Ok(Some(self.pool.lease(connection, permit)));
        }
        let opening = self.pool.opening();
        let error = match self.open(deadline).await {
            // Counted as one or the other at each moment.
            Ok(connection) => return Ok(Some(self.pool.lease(connection, permit))),
            Err(error) => error,
        };
        drop(opening);
        if error.kind() == ErrorKind::Unreachable && self.pool.lower_limit(permit).await {
            return Ok(None);
        }
        Err(error)
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
        let (mut lease, mut plan, mut said) = self.ready(envelope, message, deadline).await?;
        loop {
            match deliver(&mut lease, &plan, message, &mut announcement, said).await {
                Ended::Outcomes(outcomes) => {
                    self.pool.give_back(lease).await;
                    return DeliveryReport::new(envelope, outcomes).ok_or_else(|| {
                        // One outcome for each is what `deliver` makes of its plan.
                        Error::new(ErrorKind::InvalidState, "send a message", "outcomes missing")
                    });
                }
                // A kept connection that turned out to be dead is replaced by a new one, which is never
                // stale.
                Ended::Stale => {
                    self.pool.forget();
                    (lease, plan, said) =
                        match self.lease(lease.into_permit(), deadline, Kept::Never).await? {
                            Some(lease) => {
                                let offered = &lease.connection.capabilities;
                                let plan = Plan::new(envelope, message, offered);
                                (lease, plan, false)
                            }
                            None => self.ready(envelope, message, deadline).await?,
                        };
                }
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
