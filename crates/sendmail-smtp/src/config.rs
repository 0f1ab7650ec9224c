//! What a mailer is told about its relay, and its limits.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use secrecy::SecretString;
use sendmail_core::{Error, ErrorKind, Result};

use crate::relay_url;

const OPERATION: &str = "configure the SMTP relay";

/// How a connection is protected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum TlsMode {
    /// STARTTLS, or nothing is sent. The default for a relay that is not on this host.
    Required,
    /// STARTTLS if the relay offers it. What an attacker on the way can suppress; but once begun, it
    /// must succeed, certificate included.
    Opportunistic,
    /// Clear text. The default for a relay on this host that needs no credentials.
    None,
    /// TLS from the first byte (`smtps://`, RFC 8314).
    Implicit,
}

/// How credentials are shown to the relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// The obsolete LOGIN, which some providers still want.
    Login,
    /// An OAuth 2 bearer token in place of a password.
    Xoauth2,
}

impl Mechanism {
    /// The name that stands in EHLO and AUTH.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::Xoauth2 => "XOAUTH2",
        }
    }

    /// The mechanism of that name, in any case.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Plain, Self::Login, Self::Xoauth2];
        all.into_iter().find(|mechanism| mechanism.as_str().eq_ignore_ascii_case(word))
    }
}

/// A user and a password or token. Neither is ever printed.
#[derive(Clone)]
pub struct Credentials {
    pub(crate) user: String,
    pub(crate) password: SecretString,
    /// Only this one; without it PLAIN or LOGIN, whichever is offered.
    pub(crate) mechanism: Option<Mechanism>,
}

impl Credentials {
    /// Credentials for PLAIN or LOGIN, whichever the relay offers, PLAIN first.
    #[must_use]
    pub fn new(user: impl Into<String>, password: SecretString) -> Self {
        Self { user: user.into(), password, mechanism: None }
    }

    /// The same credentials for one mechanism only.
    #[must_use]
    pub fn with_mechanism(mut self, mechanism: Mechanism) -> Self {
        self.mechanism = Some(mechanism);
        self
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("mechanism", &self.mechanism).finish_non_exhaustive()
    }
}

/// How long the relay may take for each step. The defaults are those of RFC 5321 section 4.5.3.2.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// To look its name up and to open a socket to one of its addresses: 30 s each.
    pub connect: Duration,
    /// Until its greeting: 5 min.
    pub greeting: Duration,
    /// For each of EHLO, HELO, STARTTLS, AUTH, RSET: 5 min.
    pub command: Duration,
    /// For the TLS handshake: 2 min.
    pub handshake: Duration,
    /// For MAIL: 5 min.
    pub mail: Duration,
    /// For each RCPT: 5 min.
    pub rcpt: Duration,
    /// For DATA: 2 min.
    pub data: Duration,
    /// To take each block of the body: 3 min.
    pub block: Duration,
    /// For its answer to the final dot: 10 min.
    pub final_dot: Duration,
    /// For QUIT: 5 s. Nothing depends on it.
    pub quit: Duration,
    /// For all of one message, connecting included: 1 h.
    pub message: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            connect: Duration::from_secs(30),
            greeting: minutes(5),
            command: minutes(5),
            handshake: minutes(2),
            mail: minutes(5),
            rcpt: minutes(5),
            data: minutes(2),
            block: minutes(3),
            final_dot: minutes(10),
            quit: Duration::from_secs(5),
            message: minutes(60),
        }
    }
}

impl Timeouts {
    /// The same time for every step but QUIT and the whole message, which get it ten times.
    #[must_use]
    pub fn all(each: Duration) -> Self {
        Self {
            connect: each,
            greeting: each,
            command: each,
            handshake: each,
            mail: each,
            rcpt: each,
            data: each,
            block: each,
            final_dot: each,
            quit: each,
            message: each.saturating_mul(10),
        }
    }
}

/// Everything that is to be known about a relay before the first connection.
///
/// ```
/// # fn main() -> sendmail_core::Result<()> {
/// use sendmail_smtp::SmtpConfig;
///
/// let config = SmtpConfig::from_url("smtp://shop:s3cret%21@relay.example.net?tls=required")?
///     .with_hello_name("shop.example.org")?
///     .with_max_connections(4);
/// assert_eq!(config.relay(), "smtp://relay.example.net:587");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct SmtpConfig {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: TlsMode,
    pub(crate) credentials: Option<Credentials>,
    pub(crate) clear_text_auth_on_loopback: bool,
    pub(crate) hello_name: Option<String>,
    pub(crate) roots: Vec<CertificateDer<'static>>,
    pub(crate) max_connections: usize,
    pub(crate) max_idle: Duration,
    pub(crate) timeouts: Timeouts,
}

impl SmtpConfig {
    /// A relay by host name or IP address, and port.
    ///
    /// TLS is [`TlsMode::Required`], or [`TlsMode::None`] if the host is this one.
    ///
    /// # Errors
    ///
    /// `host` is empty, or has a character that no host name has.
    pub fn new(host: &str, port: u16) -> Result<Self> {
        let host = relay_url::check_host(host)?;
        let tls = if is_loopback(&host) { TlsMode::None } else { TlsMode::Required };
        Ok(Self {
            host,
            port,
            tls,
            credentials: None,
            clear_text_auth_on_loopback: false,
            hello_name: None,
            roots: Vec::new(),
            max_connections: 16,
            max_idle: Duration::from_secs(60),
            timeouts: Timeouts::default(),
        })
    }

    /// A relay by URL: `smtp://[user:password@]host[:port][?…]`, or `smtps://…` for TLS from the
    /// first byte.
    ///
    /// | parameter | values | default |
    /// |---|---|---|
    /// | `tls` | `required`, `opportunistic`, `none` | `required`; `none` for a relay on this host, if there are no credentials |
    /// | `auth` | `plain`, `login`, `xoauth2` | PLAIN or LOGIN, whichever is offered |
    /// | `hello` | the name for EHLO | the address of our end, as a literal |
    /// | `clear-text-auth` | `loopback` | credentials are never sent without TLS |
    ///
    /// The port is 465 for `smtps`, 587 for `smtp` with `tls=required` or `tls=opportunistic` written
    /// out, and 25 otherwise. Special characters in user and password are percent-encoded.
    ///
    /// # Errors
    ///
    /// The URL says something else, or something that would not be safe. The message never repeats
    /// what the URL says, since it may hold a password.
    pub fn from_url(url: &str) -> Result<Self> {
        relay_url::parse(url)
    }

    /// How connections are protected.
    #[must_use]
    pub fn with_tls(mut self, mode: TlsMode) -> Self {
        self.tls = mode;
        self
    }

    /// Credentials to show to the relay once the connection is protected.
    ///
    /// # Errors
    ///
    /// One of them is empty or has a control character.
    pub fn with_credentials(mut self, credentials: Credentials) -> Result<Self> {
        relay_url::check_credentials(&credentials)?;
        self.credentials = Some(credentials);
        Ok(self)
    }

    /// Lets credentials go over clear text if the relay's address is a loopback address.
    #[must_use]
    pub fn with_clear_text_auth_on_loopback(mut self, allowed: bool) -> Self {
        self.clear_text_auth_on_loopback = allowed;
        self
    }

    /// The name for EHLO: this host's full name, or an address literal in brackets.
    ///
    /// # Errors
    ///
    /// The name is empty, longer than 255 bytes, or not printable ASCII without spaces.
    pub fn with_hello_name(mut self, name: &str) -> Result<Self> {
        let misfit = name.bytes().position(|byte| !byte.is_ascii_graphic());
        if misfit.is_some() || !(1..=255).contains(&name.len()) {
            let error = invalid("the EHLO name has to be 1 to 255 printable ASCII characters");
            return Err(match misfit {
                Some(offset) => error.with("offset", offset),
                None => error.with("length", name.len()),
            });
        }
        self.hello_name = Some(name.to_owned());
        Ok(self)
    }

    /// Trusts further root certificates, in PEM, beside those of the operating system.
    ///
    /// # Errors
    ///
    /// The text holds no certificate, or one that cannot be read.
    pub fn with_root_certificates_pem(mut self, pem: &[u8]) -> Result<Self> {
        let before = self.roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let unreadable =
                |error| invalid("a root certificate is not valid PEM").with_source(error);
            self.roots.push(certificate.map_err(unreadable)?);
        }
        if self.roots.len() == before {
            return Err(invalid("there is no certificate in the PEM text of root certificates"));
        }
        Ok(self)
    }

    /// How many connections are open at once; at least 1, by default 16.
    #[must_use]
    pub fn with_max_connections(mut self, count: usize) -> Self {
        self.max_connections = count.clamp(1, 10_000);
        self
    }

    /// How long a connection without a message is kept for the next one; by default 60 s.
    #[must_use]
    pub fn with_max_idle(mut self, age: Duration) -> Self {
        self.max_idle = age;
        self
    }

    /// How long the relay may take.
    #[must_use]
    pub fn with_timeouts(mut self, timeouts: Timeouts) -> Self {
        self.timeouts = timeouts;
        self
    }

    /// The relay for people: scheme, host and port, and nothing else.
    #[must_use]
    pub fn relay(&self) -> String {
        let scheme = if self.tls == TlsMode::Implicit { "smtps" } else { "smtp" };
        if self.host.contains(':') {
            format!("{scheme}://[{}]:{}", self.host, self.port)
        } else {
            format!("{scheme}://{}:{}", self.host, self.port)
        }
    }

    /// What no single setter can see. [`SmtpMailer::new`](crate::SmtpMailer::new) checks it too.
    ///
    /// # Errors
    ///
    /// Credentials would go over clear text.
    pub fn check(&self) -> Result<()> {
        let in_clear = self.tls == TlsMode::None && self.credentials.is_some();
        if in_clear && !(self.clear_text_auth_on_loopback && is_loopback(&self.host)) {
            return Err(invalid(
                "credentials are not sent over clear text: use tls=required or smtps, or, for a \
                 relay on this host only, clear-text-auth=loopback",
            ));
        }
        Ok(())
    }
}

/// Whether `host` names this host, without asking anybody (RFC 6761 section 6.3).
pub(crate) fn is_loopback(host: &str) -> bool {
    host.parse::<IpAddr>().map_or_else(
        |_| host == "localhost" || host.ends_with(".localhost"),
        |address| address.is_loopback(),
    )
}

pub(crate) fn invalid(message: &str) -> Error {
    Error::new(ErrorKind::InvalidInput, OPERATION, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_required_unless_the_relay_is_this_host() {
        for (host, tls) in [
            ("relay.example.net", TlsMode::Required),
            ("192.0.2.1", TlsMode::Required),
            ("localhost.example.net", TlsMode::Required),
            ("localhost", TlsMode::None),
            ("LocalHost", TlsMode::None),
            ("127.1.2.3", TlsMode::None),
            ("::1", TlsMode::None),
        ] {
            assert_eq!(SmtpConfig::new(host, 25).unwrap().tls, tls, "{host}");
        }
    }

    #[test]
    fn a_password_without_tls_is_refused_before_the_first_connection() {
        let credentials = || Credentials::new("u", "p".to_owned().into());
        let far = SmtpConfig::new("relay.example.net", 25).unwrap().with_tls(TlsMode::None);
        let far = far.with_credentials(credentials()).unwrap();
        assert!(far.check().is_err());
        assert!(far.with_clear_text_auth_on_loopback(true).check().is_err());
        let near = SmtpConfig::new("localhost", 25).unwrap().with_credentials(credentials());
        let near = near.unwrap();
        assert!(near.check().is_err());
        assert!(near.with_clear_text_auth_on_loopback(true).check().is_ok());
    }

    // Proves: B-controls, A-injection
    #[test]
    fn names_with_spaces_or_controls_are_refused() {
        let config = SmtpConfig::new("localhost", 25).unwrap();
        for name in ["", "a b", "a\r\nMAIL", "é", &"x".repeat(256)] {
            assert!(config.clone().with_hello_name(name).is_err(), "{name:?}");
        }
        let error = config.clone().with_hello_name("a.b\r\nMAIL").unwrap_err().to_string();
        assert!(error.contains("EHLO name") && error.contains("offset: 3"), "{error}");
        let user = Credentials::new("us\0er", "p".to_owned().into());
        let error = config.clone().with_credentials(user).unwrap_err().to_string();
        assert!(error.contains("part: user") && error.contains("offset: 2"), "{error}");
        let password = Credentials::new("user", "p4ss\n".to_owned().into());
        let error = config.clone().with_credentials(password).unwrap_err().to_string();
        assert!(error.contains("part: password") && !error.contains("p4ss"), "{error}");
        let error = SmtpConfig::new("relay\n.example", 25).unwrap_err().to_string();
        assert!(error.contains("host") && error.contains("offset: 5"), "{error}");
        let error = SmtpConfig::from_url("smtp://a\r\nb").unwrap_err().to_string();
        assert!(error.contains("URL") && error.contains("offset: 8"), "{error}");
        assert!(config.with_root_certificates_pem(b"nothing").is_err());
        assert_eq!(SmtpConfig::new("::1", 25).unwrap().relay(), "smtp://[::1]:25");
    }
}
