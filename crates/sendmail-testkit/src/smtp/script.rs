//! What a [`ScriptedServer`](super::ScriptedServer) does, and when.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

/// A moment of a session at which a rule may apply.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum At {
    /// The client has connected: in place of the greeting. On implicit TLS after the handshake.
    Greeting,
    /// EHLO was received.
    Ehlo,
    /// EHLO was received, and not over TLS.
    EhloInClear,
    /// HELO was received.
    Helo,
    /// STARTTLS was received. If the reply starts with 220 the handshake follows.
    StartTls,
    /// A TLS handshake is due, STARTTLS or implicit: in its place, on the bare socket.
    Handshake,
    /// AUTH was received, or a line that continues it.
    Auth,
    /// MAIL was received.
    Mail,
    /// The n-th RCPT of the transaction was received, counted from 1.
    Rcpt(usize),
    /// A RCPT that names this address was received.
    RcptTo(String),
    /// Any RCPT was received.
    AnyRcpt,
    /// DATA was received. If the reply starts with 354 the body follows.
    Data,
    /// So many bytes of the body were received, and not all of it.
    Body(usize),
    /// The final dot was received.
    Dot,
    /// RSET was received.
    Rset,
    /// QUIT was received.
    Quit,
}

/// What the server does at such a moment.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Do {
    /// Sends these bytes, and takes the first digit for what it has answered.
    Send(Vec<u8>),
    /// Sends these bytes, then closes the connection.
    SendAndClose(Vec<u8>),
    /// Closes the connection.
    Close,
    /// Says nothing, until the client gives up.
    Silence,
    /// Sends these bytes again and again, until the client gives up.
    Endless(Vec<u8>),
    /// Sends these bytes one at a time, again and again, with a pause before each.
    Drip(Vec<u8>, Duration),
    /// Sends these bytes, says that nothing more will come, and reads on until the client gives up.
    HalfClose(Vec<u8>),
    /// Sends these bytes, then resets the connection.
    Reset(Vec<u8>),
    /// Neither reads nor says anything for so long, then goes on.
    Pause(Duration),
    /// Waits until the test opens the gate, then does the other.
    Wait(Gate, Box<Do>),
    /// Does one after the other; what the first sends is the answer.
    Sequence(Vec<Do>),
}

impl Do {
    /// A reply: one line, or several separated by LF; CRLF is added.
    #[must_use]
    pub fn reply(text: &str) -> Self {
        Self::Send(wire(text))
    }

    /// A reply, after which the connection is closed, as after a 421.
    #[must_use]
    pub fn reply_and_close(text: &str) -> Self {
        Self::SendAndClose(wire(text))
    }

    /// Bytes that are no reply.
    #[must_use]
    pub fn garbage() -> Self {
        Self::Send(b"\x00\xffHTTP/1.1 400 Bad Request\r\n\r\n".to_vec())
    }

    /// A line that never ends.
    #[must_use]
    pub fn endless_line() -> Self {
        Self::Endless(vec![b'2'; 1024])
    }

    /// A reply that always has one more line.
    #[must_use]
    pub fn endless_reply(code: u16) -> Self {
        Self::Endless(format!("{code}-and more\r\n").repeat(64).into_bytes())
    }

    /// A reply that comes byte by byte and never ends.
    #[must_use]
    pub fn drip() -> Self {
        Self::Drip(b"250-slowly\r\n".to_vec(), Duration::from_millis(5))
    }
}

fn wire(text: &str) -> Vec<u8> {
    format!("{}\r\n", text.replace('\n', "\r\n")).into_bytes()
}

/// Something that a server waits for and a test opens.
#[derive(Debug, Clone)]
pub struct Gate(Arc<Semaphore>);

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Opens the gate, for good.
    pub fn open(&self) {
        self.0.close();
    }

    /// Waits until it is open.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn opened(&self) {
        // The semaphore has no permits; closing it ends the wait with an error, as meant.
        drop(self.0.acquire().await);
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

/// When and what.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) at: At,
    /// Only in this session of the server, counted from 1.
    pub(super) session: Option<usize>,
    /// Only in this transaction of the server, counted from 1.
    pub(super) transaction: Option<usize>,
    pub(super) action: Do,
}

/// What a server offers and how it behaves. Without rules it accepts everything.
///
/// ```
/// use sendmail_testkit::smtp::{At, Do, Script};
///
/// let script = Script::new()
///     .without("PIPELINING")
///     .on(At::RcptTo("b@y.example".into()), Do::reply("450 4.2.0 later"))
///     .on_transaction(2, At::Dot, Do::Close);
/// ```
#[derive(Debug, Clone)]
pub struct Script {
    pub(super) capabilities: Vec<String>,
    pub(super) rules: Vec<Rule>,
    pub(super) lenient: bool,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<super::ServerTls>,
    pub(super) implicit_tls: bool,
    pub(super) longest: Option<Duration>,
}

impl Script {
    /// Offers PIPELINING, 8BITMIME, SMTPUTF8, SIZE without a limit and ENHANCEDSTATUSCODES, and
    /// accepts everything.
    #[must_use]
    pub fn new() -> Self {
        let offered = ["PIPELINING", "8BITMIME", "SMTPUTF8", "SIZE", "ENHANCEDSTATUSCODES"];
        Self {
            capabilities: offered.map(str::to_owned).into(),
            rules: Vec::new(),
            lenient: false,
            #[cfg(feature = "tls")]
            tls: None,
            implicit_tls: false,
            longest: None,
        }
    }

    /// Offers exactly these lines in answer to EHLO, as they are written.
    #[must_use]
    pub fn capabilities<T: Into<String>>(mut self, lines: impl IntoIterator<Item = T>) -> Self {
        self.capabilities = lines.into_iter().map(Into::into).collect();
        self
    }

    /// Offers one more line.
    #[must_use]
    pub fn with(mut self, line: &str) -> Self {
        self.capabilities.push(line.to_owned());
        self
    }

    /// Does not offer the lines that start with this word.
    #[must_use]
    pub fn without(mut self, keyword: &str) -> Self {
        self.capabilities.retain(|line| line.split(' ').next() != Some(keyword));
        self
    }

    /// Does `action` whenever that moment comes. The rule that was given first counts.
    #[must_use]
    pub fn on(self, at: At, action: Do) -> Self {
        self.rule(at, None, None, action)
    }

    /// Does `action` in the `session`-th session of the server only, counted from 1.
    #[must_use]
    pub fn on_session(self, session: usize, at: At, action: Do) -> Self {
        self.rule(at, Some(session), None, action)
    }

    /// Does `action` in the `transaction`-th transaction of the server only. MAIL begins one, whatever
    /// it is answered; they are counted from 1.
    #[must_use]
    pub fn on_transaction(self, transaction: usize, at: At, action: Do) -> Self {
        self.rule(at, None, Some(transaction), action)
    }

    /// Takes LF, CR and CRLF each for the end of a line, in the body too, as careless servers do.
    #[must_use]
    pub fn lenient_line_ends(mut self) -> Self {
        self.lenient = true;
        self
    }

    /// Ends a session after so long, whatever it is at: what never ends then does not pile up.
    #[must_use]
    pub fn for_at_most(mut self, longest: Duration) -> Self {
        self.longest = Some(longest);
        self
    }

    /// Offers STARTTLS, with this certificate.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn starttls(mut self, tls: super::ServerTls) -> Self {
        self.tls = Some(tls);
        self.with("STARTTLS")
    }

    /// Speaks TLS from the first byte, with this certificate.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn implicit_tls(mut self, tls: super::ServerTls) -> Self {
        self.tls = Some(tls);
        self.implicit_tls = true;
        self
    }

    fn rule(
        mut self,
        at: At,
        session: Option<usize>,
        transaction: Option<usize>,
        action: Do,
    ) -> Self {
        self.rules.push(Rule { at, session, transaction, action });
        self
    }

    /// Whether some session of it ends in a reset.
    pub(super) fn resets(&self) -> bool {
        fn resets(action: &Do) -> bool {
            match action {
                Do::Reset(_) => true,
                Do::Wait(_, then) => resets(then),
                Do::Sequence(actions) => actions.iter().any(resets),
                _ => false,
            }
        }
        self.rules.iter().any(|rule| resets(&rule.action))
    }

    /// What the first rule that applies to one of these moments says.
    pub(super) fn action(&self, at: &[At], session: usize, transaction: usize) -> Option<Do> {
        let applies = |rule: &&Rule| {
            at.contains(&rule.at)
                && rule.session.is_none_or(|only| only == session)
                && rule.transaction.is_none_or(|only| only == transaction)
        };
        self.rules.iter().find(applies).map(|rule| rule.action.clone())
    }
}

impl Default for Script {
    fn default() -> Self {
        Self::new()
    }
}
