//! One connection to the relay, from the first packet to QUIT, on lettre's.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::extension::ClientId;
use secrecy::ExposeSecret;
use sendmail_core::{Error, ErrorKind, Result};
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::capabilities::Capabilities;
use crate::config::{Credentials, Mechanism, SmtpConfig, Timeouts, TlsMode};
use crate::guard::{Drained, Guard, Wire};
use crate::reply::WireReply;
use crate::tls;
use crate::trouble::{Broken, refusal};

/// How many of a name's addresses are tried.
const MAX_ADDRESSES: usize = 8;

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
                return Err(error(Error::new(ErrorKind::Auth, AUTHENTICATE, text)));
            }
            connection.authenticate(credentials).await.map_err(error)?;
        }
        Ok(connection)
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

    async fn authenticate(&mut self, credentials: &Credentials) -> Result<()> {
        let offered = &self.capabilities.mechanisms;
        let wanted = credentials
            .mechanism
            .map_or(vec![Mechanism::Plain, Mechanism::Login], |mechanism| vec![mechanism]);
        let Some(mechanism) = wanted.into_iter().find(|wanted| offered.contains(wanted)) else {
            let text = "the relay does not offer the AUTH mechanism";
            return Err(Error::new(ErrorKind::Auth, AUTHENTICATE, text).with(
                "offered",
                offered.iter().map(|m| m.as_str()).collect::<Vec<_>>().join(" "),
            ));
        };
        let password = credentials.password.expose_secret();
        let lines = auth_lines(mechanism, &credentials.user, password);
        let limit = self.timeouts.command;
        let mut lines = lines.into_iter();
        let mut reply = None;
        while reply.as_ref().is_none_or(|reply: &WireReply| reply.code() == 334) {
            // A relay that asks for more than the mechanism has to say (XOAUTH2 does, after a refusal)
            // gets the empty answer once, then is given up.
            let Some(line) = lines.next() else { break };
            let answer = self.exchange(Some(format!("{line}\r\n")), limit).await;
            reply = Some(answer.map_err(|broken| broken.into_error(AUTHENTICATE))?);
        }
        match reply {
            Some(reply) if reply.is_class(2) => Ok(()),
            Some(reply) if reply.code() == 421 => {
                Err(refusal(ErrorKind::Unreachable, AUTHENTICATE, &reply))
            }
            Some(reply) if reply.is_class(3) => {
                let text = "the relay asks for more than the AUTH mechanism has to say";
                Err(Error::new(ErrorKind::Auth, AUTHENTICATE, text))
            }
            Some(reply) => Err(auth_refusal(&reply)),
            None => Err(Error::new(ErrorKind::Auth, AUTHENTICATE, "nothing was said")),
        }
    }
}

const AUTHENTICATE: &str = "authenticate to the relay";

/// A refusal of our credentials. Its text is left out: relays exist that repeat what they were sent.
fn auth_refusal(reply: &WireReply) -> Error {
    let told = reply.to_reply();
    let status = told.status().map_or(String::new(), |status| format!(" {status}"));
    let text = format!("the relay answered {}{status} to our credentials", reply.code());
    let error = Error::new(ErrorKind::Auth, AUTHENTICATE, text);
    if reply.is_class(4) { error.temporary() } else { error.permanent() }
}

/// The lines that a mechanism has to say, each after a 334 to the one before.
fn auth_lines(mechanism: Mechanism, user: &str, password: &str) -> Vec<String> {
    let name = mechanism.as_str();
    match mechanism {
        Mechanism::Plain => {
            vec![format!("AUTH {name} {}", BASE64.encode(format!("\0{user}\0{password}")))]
        }
        Mechanism::Login => {
            vec![format!("AUTH {name}"), BASE64.encode(user), BASE64.encode(password)]
        }
        Mechanism::Xoauth2 => {
            let token = format!("user={user}\x01auth=Bearer {password}\x01\x01");
            vec![format!("AUTH {name} {}", BASE64.encode(token)), String::new()]
        }
    }
}

/// The name for EHLO: as configured, or our address as a literal (RFC 5321 section 4.1.4).
fn hello_name(config: &SmtpConfig, local: Option<IpAddr>) -> String {
    match (&config.hello_name, local.map(|address| address.to_canonical())) {
        (Some(name), _) => name.clone(),
        (None, Some(IpAddr::V6(address))) => format!("[IPv6:{address}]"),
        (None, Some(IpAddr::V4(address))) => format!("[{address}]"),
        (None, None) => "[127.0.0.1]".to_owned(),
    }
}

/// The answer to EHLO, or to HELO if EHLO is not known.
struct Ehlo {
    reply: WireReply,
    extended: bool,
}

impl Ehlo {
    fn capabilities(&self) -> Capabilities {
        if self.extended { Capabilities::from_ehlo(&self.reply) } else { Capabilities::default() }
    }
}

/// What is said before lettre takes over.
struct Opening<'a> {
    config: &'a SmtpConfig,
    connector: Option<&'a TlsConnector>,
    deadline: Deadline,
}

impl Opening<'_> {
    async fn run(&self) -> Result<(Wire, WireReply, Ehlo)> {
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
        let addresses: Vec<SocketAddr> =
            found.map_err(|error| failed(Broken::Io(error)))?.take(MAX_ADDRESSES).collect();
        let nowhere = std::io::Error::other("its name has no address");
        let mut last = Broken::Io(nowhere);
        for address in addresses {
            let limit = limit();
            match timeout(limit, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => {
                    // A socket that refuses the option works, only more slowly.
                    drop(tcp.set_nodelay(true));
                    return Ok(tcp);
                }
                Ok(Err(error)) => last = Broken::Io(error),
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

#[cfg(test)]
mod tests {
    use super::*;
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

    #[tokio::test]
    async fn a_deadline_takes_what_is_left() {
        let hour = Duration::from_secs(3600);
        assert!(Deadline::after(Duration::from_secs(5)).within(hour) <= Duration::from_secs(5));
        assert_eq!(Deadline::after(hour).within(Duration::from_secs(1)), Duration::from_secs(1));
        assert_eq!(Deadline::after(Duration::ZERO).within(hour), Duration::ZERO);
        assert_eq!(Deadline::after(Duration::MAX).within(hour), hour);
    }

    #[test]
    fn auth_lines_are_those_of_the_mechanisms() {
        assert_eq!(auth_lines(Mechanism::Plain, "u", "p"), ["AUTH PLAIN AHUAcA=="]);
        assert_eq!(auth_lines(Mechanism::Login, "u", "p"), ["AUTH LOGIN", "dQ==", "cA=="]);
        assert_eq!(auth_lines(Mechanism::Xoauth2, "u", "p").len(), 2);
    }
}
