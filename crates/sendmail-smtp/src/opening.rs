//! From the first packet to the answer to EHLO: connecting, greeting, STARTTLS.

use std::net::{IpAddr, SocketAddr};

use sendmail_core::{Error, ErrorKind, Result};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::capabilities::Capabilities;
use crate::config::{SmtpConfig, TlsMode};
use crate::connection::Deadline;
use crate::reply::WireReply;
use crate::tls;
use crate::trouble::{Broken, refusal};
use crate::wire::Wire;

/// How many of a name's addresses are tried.
const MAX_ADDRESSES: usize = 8;

/// What is said before lettre takes over.
pub(crate) struct Opening<'a> {
    pub(crate) config: &'a SmtpConfig,
    pub(crate) connector: Option<&'a TlsConnector>,
    pub(crate) deadline: Deadline,
}

impl Opening<'_> {
    /// A wire on which the relay has greeted and answered EHLO, encrypted as configured.
    pub(crate) async fn run(&self) -> Result<(Wire, WireReply, Ehlo)> {
        let mut wire = Wire::new(self.connect().await?);
        if self.config.tls == TlsMode::Implicit {
            wire = self.handshake(wire).await?;
        }
        let greeting = self.greeting(&mut wire).await?;
        let mut ehlo = self.ehlo(&mut wire).await?;
        let offered = ehlo.capabilities().starttls;
        match self.config.tls {
            TlsMode::Required if !offered => {
                let text = "the relay does not offer STARTTLS, and nothing is sent without it";
                return Err(Error::new(ErrorKind::Tls, "set up TLS", text).permanent());
            }
            TlsMode::Required | TlsMode::Opportunistic if offered => {
                wire = self.starttls(wire).await?;
                ehlo = self.ehlo(&mut wire).await?;
            }
            _ => {}
        }
        Ok((wire, greeting, ehlo))
    }

    async fn connect(&self) -> Result<TcpStream> {
        let limit = || self.deadline.within(self.config.timeouts.connect);
        let host = (self.config.host.as_str(), self.config.port);
        let failed = |broken: Broken| broken.into_error("connect to the relay");
        let found = timeout(limit(), lookup_host(host)).await;
        let found = found.map_err(|_| failed(Broken::Timeout(limit())))?;
        let addresses: Vec<SocketAddr> = found
            .map_err(|error| failed(Broken::NoConnection(error)))?
            .take(MAX_ADDRESSES)
            .collect();
        let nowhere = std::io::Error::other("its name has no address");
        let mut last = Broken::NoConnection(nowhere);
        for address in addresses {
            let limit = limit();
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    // A socket that refuses the option works, only more slowly.
                    drop(tcp.set_nodelay(true));
                    return Ok(tcp);
                }
                Ok(Err(error)) => last = Broken::NoConnection(error),
                Err(_) => last = Broken::Timeout(limit),
            }
        }
        Err(failed(last))
    }

    async fn greeting(&self, wire: &mut Wire) -> Result<WireReply> {
        const OPERATION: &str = "read the relay's greeting";
        let limit = self.deadline.within(self.config.timeouts.greeting);
        let reply = wire.reply(limit).await.map_err(|broken| broken.into_error(OPERATION))?;
        if reply.is_class(2) {
            Ok(reply)
        } else {
            Err(refusal(ErrorKind::Unreachable, OPERATION, &reply))
        }
    }

    /// EHLO, or HELO for a relay that does not know it.
    async fn ehlo(&self, wire: &mut Wire) -> Result<Ehlo> {
        const OPERATION: &str = "say EHLO to the relay";
        let local = wire.local_addr().ok().map(|address| address.ip());
        let name = hello_name(self.config, local);
        let limit = || self.deadline.within(self.config.timeouts.command);
        let error = |broken: Broken| broken.into_error(OPERATION);
        let reply = wire.ask(&format!("EHLO {name}\r\n"), limit()).await.map_err(error)?;
        if reply.is_class(2) {
            return Ok(Ehlo { reply, extended: true });
        }
        if !reply.is_class(5) {
            return Err(refusal(ErrorKind::Unreachable, OPERATION, &reply));
        }
        let reply = wire.ask(&format!("HELO {name}\r\n"), limit()).await.map_err(error)?;
        if reply.is_class(2) {
            return Ok(Ehlo { reply, extended: false });
        }
        Err(refusal(ErrorKind::Unreachable, OPERATION, &reply))
    }

    async fn starttls(&self, mut wire: Wire) -> Result<Wire> {
        const OPERATION: &str = "start TLS with the relay";
        let limit = self.deadline.within(self.config.timeouts.command);
        let reply = wire.ask("STARTTLS\r\n", limit).await;
        let reply = reply.map_err(|broken| broken.into_error(OPERATION))?;
        if !reply.is_class(2) {
            return Err(refusal(ErrorKind::Tls, OPERATION, &reply));
        }
        self.handshake(wire).await
    }

    async fn handshake(&self, wire: Wire) -> Result<Wire> {
        // Whatever was read by now came in clear text, and somebody on the way may have put it there
        // to be taken for an answer that came encrypted (RFC 3207 section 6).
        if wire.has_unread() {
            let text = "there was clear text after the reply to STARTTLS: somebody tampers with the connection";
            return Err(Error::new(ErrorKind::Tls, "set up TLS", text).permanent());
        }
        let Some(connector) = self.connector else {
            return Err(Error::new(ErrorKind::Tls, "set up TLS", "TLS is not configured"));
        };
        let name = tls::server_name(&self.config.host)?;
        let limit = self.deadline.within(self.config.timeouts.handshake);
        match timeout(limit, wire.encrypt(connector, name)).await {
            Ok(result) => result.map_err(tls::handshake_error),
            Err(_) => Err(Broken::Timeout(limit).into_error("set up TLS")),
        }
    }
}

/// The answer to EHLO, or to HELO if EHLO is not known.
pub(crate) struct Ehlo {
    pub(crate) reply: WireReply,
    extended: bool,
}

impl Ehlo {
    pub(crate) fn capabilities(&self) -> Capabilities {
        if self.extended { Capabilities::from_ehlo(&self.reply) } else { Capabilities::default() }
    }
}

/// The name for EHLO: as configured, or our address as a literal (RFC 5321 section 4.1.4).
pub(crate) fn hello_name(config: &SmtpConfig, local: Option<IpAddr>) -> String {
    match (&config.hello_name, local.map(|address| address.to_canonical())) {
        (Some(name), _) => name.clone(),
        (None, Some(IpAddr::V6(address))) => format!("[IPv6:{address}]"),
        (None, Some(IpAddr::V4(address))) => format!("[{address}]"),
        (None, None) => "[127.0.0.1]".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use tokio::net::TcpListener;

    #[tokio::test]
    async fn the_socket_does_not_wait_for_more_to_send() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let config = SmtpConfig::new("127.0.0.1", port).unwrap();
        let deadline = Deadline::after(Duration::from_secs(30));
        let opening = Opening { config: &config, connector: None, deadline };
        assert!(opening.connect().await.unwrap().nodelay().unwrap());
    }
}
