//! One session of the scripted server.

use std::collections::VecDeque;
use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;

use super::body::split_body;
use super::record::{Command, Received, verb};
use super::script::{At, Do, Script};
use super::{Session, Shared};

/// What a session runs on: a socket, or TLS over one.
pub(super) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// What follows from an action.
enum Next {
    /// The server has answered; the first digit of what it sent.
    Answered(u8),
    /// The session is over.
    Over,
}

/// Follows `script` on one connection until either side ends it.
pub(super) async fn run(
    tcp: TcpStream,
    script: Script,
    number: usize,
    shared: &Shared,
) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    if script.resets() {
        // Dropping the socket then resets the connection.
        tcp.set_zero_linger()?;
    }
    let mut session = Dialogue {
        stream: Box::new(tcp),
        script,
        number,
        shared,
        transaction: 0,
        unread: Vec::new(),
        reads: 0,
        encrypted: false,
        state: State::default(),
    };
    if session.script.implicit_tls && !session.encrypt().await {
        return Ok(());
    }
    if let Next::Over = session.act(&[At::Greeting], "220 scripted.example ESMTP").await? {
        return Ok(());
    }
    while let Some(line) = session.command().await? {
        if session.answer(&line).await?.is_none() {
            break;
        }
    }
    session.stream.shutdown().await
}

#[derive(Default)]
struct State {
    mail: Option<String>,
    rcpts: usize,
    recipients: Vec<String>,
    /// AUTH was answered with 334: the next line continues it.
    authenticating: bool,
}

struct Dialogue<'a> {
    stream: Box<dyn Stream>,
    script: Script,
    number: usize,
    shared: &'a Shared,
    transaction: usize,
    unread: Vec<u8>,
    reads: usize,
    encrypted: bool,
    state: State,
}

impl Dialogue<'_> {
    /// Answers one command; nothing when the session is over.
    async fn answer(&mut self, line: &str) -> io::Result<Option<()>> {
        if self.state.authenticating {
            return self.auth(line).await;
        }
        let next = match verb(line).as_str() {
            "EHLO" => self.ehlo().await?,
            "HELO" => self.act(&[At::Helo], "250 scripted.example").await?,
            "STARTTLS" => return self.starttls().await,
            "AUTH" => return self.auth(line).await,
            "MAIL" => self.mail(line).await?,
            "RCPT" => self.rcpt(line).await?,
            "DATA" => return self.data().await,
            "RSET" => {
                self.state = State::default();
                self.act(&[At::Rset], "250 2.0.0 ok").await?
            }
            "NOOP" => self.send(b"250 2.0.0 ok\r\n").await?,
            "QUIT" => {
                self.act(&[At::Quit], "221 2.0.0 bye").await?;
                Next::Over
            }
            _ => self.send(b"500 5.5.2 unknown command\r\n").await?,
        };
        Ok(going_on(&next))
    }

    async fn ehlo(&mut self) -> io::Result<Next> {
        self.state = State::default();
        let mut lines = vec!["scripted.example".to_owned()];
        lines.extend(self.script.capabilities.iter().cloned());
        if self.encrypted {
            lines.retain(|line| !line.eq_ignore_ascii_case("STARTTLS"));
            return self.act(&[At::Ehlo], &multi_line(250, &lines)).await;
        }
        self.act(&[At::EhloInClear, At::Ehlo], &multi_line(250, &lines)).await
    }

    async fn mail(&mut self, line: &str) -> io::Result<Next> {
        self.transaction = self.shared.update(|log| {
            log.transactions += 1;
            log.transactions
        });
        if self.state.mail.is_some() {
            return self.send(b"503 5.5.1 nested MAIL\r\n").await;
        }
        let next = self.act(&[At::Mail], "250 2.1.0 ok").await?;
        if matches!(next, Next::Answered(b'2')) {
            self.state.mail = Some(line.to_owned());
        }
        Ok(next)
    }

    async fn rcpt(&mut self, line: &str) -> io::Result<Next> {
        if self.state.mail.is_none() {
            return self.send(b"503 5.5.1 MAIL first\r\n").await;
        }
        self.state.rcpts += 1;
        let address = in_brackets(line);
        let moments = [At::RcptTo(address.clone()), At::Rcpt(self.state.rcpts), At::AnyRcpt];
        let next = self.act(&moments, "250 2.1.5 ok").await?;
        if matches!(next, Next::Answered(b'2')) {
            self.state.recipients.push(address);
        }
        Ok(next)
    }

    async fn data(&mut self) -> io::Result<Option<()>> {
        let usual = if self.state.recipients.is_empty() {
            "503 5.5.1 no valid recipients"
        } else {
            "354 go ahead"
        };
        match self.act(&[At::Data], usual).await? {
            Next::Answered(b'3') => {}
            next => return Ok(going_on(&next)),
        }
        let Some(bytes) = self.body().await? else { return Ok(None) };
        let state = std::mem::take(&mut self.state);
        let mail = state.mail.unwrap_or_default();
        let received = Received {
            reverse_path: in_brackets(&mail),
            mail,
            recipients: state.recipients,
            bytes,
            accepted: false,
            encrypted: self.encrypted,
            session: self.number,
        };
        let index = self.shared.update(|log| {
            log.received.push(received);
            log.received.len() - 1
        });
        // Taken down before it is said, as a real server does: who hears the 250 may rely on it.
        let action = self.action(&[At::Dot], "250 2.0.0 taken");
        if says_yes(&action) {
            self.shared.update(|log| log.received[index].accepted = true);
        }
        Ok(going_on(&self.perform(action).await?))
    }

    async fn auth(&mut self, line: &str) -> io::Result<Option<()>> {
        let waits_for_more = verb(line) == "AUTH" && line.split(' ').nth(2).is_none();
        let usual = match (waits_for_more, self.login_step(line)) {
            (_, Some(prompt)) => prompt,
            (true, None) => "334 ",
            (false, None) => "235 2.7.0 welcome",
        };
        let next = self.act(&[At::Auth], usual).await?;
        self.state.authenticating = matches!(next, Next::Answered(b'3'));
        Ok(going_on(&next))
    }

    /// The prompts of LOGIN, in base64: `Username:` and `Password:`.
    fn login_step(&self, line: &str) -> Option<&'static str> {
        if line.eq_ignore_ascii_case("AUTH LOGIN") {
            return Some("334 VXNlcm5hbWU6");
        }
        let log = self.shared.log();
        let commands = &log.sessions[self.number - 1].commands;
        let before = commands.len().checked_sub(2).and_then(|index| commands.get(index));
        let after_login =
            before.is_some_and(|command| command.line.eq_ignore_ascii_case("AUTH LOGIN"));
        (self.state.authenticating && after_login).then_some("334 UGFzc3dvcmQ6")
    }

    async fn starttls(&mut self) -> io::Result<Option<()>> {
        match self.act(&[At::StartTls], "220 2.0.0 go ahead").await? {
            Next::Answered(b'2') => {}
            next => return Ok(going_on(&next)),
        }
        // What the client sent behind STARTTLS in clear text is thrown away (RFC 3207 section 4.2).
        self.unread.clear();
        self.state = State::default();
        Ok(self.encrypt().await.then_some(()))
    }

    #[cfg(feature = "tls")]
    async fn encrypt(&mut self) -> bool {
        if let Some(action) = self.script.action(&[At::Handshake], self.number, self.transaction) {
            self.note(|session| session.handshake_failed = true);
            // Whatever it was, no session is left to go on with.
            drop(self.perform(action).await);
            return false;
        }
        let Some(tls) = self.script.tls.clone() else { return false };
        let stream = std::mem::replace(&mut self.stream, Box::new(tokio::io::empty()));
        let accepted = tls.accept(stream).await;
        let worked = accepted.is_ok();
        if let Ok(stream) = accepted {
            self.stream = stream;
            self.encrypted = true;
        }
        self.note(|session| {
            session.encrypted = worked;
            session.handshake_failed = !worked;
        });
        worked
    }

    #[cfg(not(feature = "tls"))]
    #[expect(clippy::unused_async, reason = "it is one with feature `tls`")]
    async fn encrypt(&mut self) -> bool {
        false
    }

    /// The next line, or nothing at the end of the connection.
    async fn command(&mut self) -> io::Result<Option<String>> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
                let (read, encrypted) = (self.reads, self.encrypted);
                let command = Command { line: line.clone(), read, encrypted };
                self.note(|session| session.commands.push(command));
                return Ok(Some(line));
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    /// The body up to the final dot, with the doubled dots undone; nothing if the session ended.
    async fn body(&mut self) -> io::Result<Option<Vec<u8>>> {
        let interrupt = self.script.rules.iter().find_map(|rule| match &rule.at {
            At::Body(after) => Some((*after, rule.at.clone())),
            _ => None,
        });
        loop {
            if let Some((body, used)) = split_body(&self.unread, self.script.lenient) {
                self.unread.drain(..used);
                return Ok(Some(body));
            }
            if let Some((after, at)) = &interrupt
                && self.unread.len() >= *after
                && let Some(action) =
                    self.script.action(std::slice::from_ref(at), self.number, self.transaction)
            {
                self.perform(action).await?;
                return Ok(None);
            }
            if !self.read().await? {
                return Ok(None);
            }
        }
    }

    async fn read(&mut self) -> io::Result<bool> {
        let mut buffer = vec![0; 65536];
        let count = self.stream.read(&mut buffer).await?;
        self.reads += 1;
        self.unread.extend_from_slice(&buffer[..count]);
        self.note(|session| session.raw.extend_from_slice(&buffer[..count]));
        Ok(count > 0)
    }

    fn note(&self, change: impl FnOnce(&mut Session)) {
        self.shared.update(|log| change(&mut log.sessions[self.number - 1]));
    }

    fn action(&self, at: &[At], usual: &str) -> Do {
        let scripted = self.script.action(at, self.number, self.transaction);
        scripted.unwrap_or_else(|| Do::reply(usual))
    }

    async fn act(&mut self, at: &[At], usual: &str) -> io::Result<Next> {
        let action = self.action(at, usual);
        self.perform(action).await
    }

    async fn perform(&mut self, action: Do) -> io::Result<Next> {
        let mut waiting = VecDeque::from([action]);
        let mut answered = None;
        while let Some(action) = waiting.pop_front() {
            match action {
                Do::Wait(gate, then) => {
                    gate.opened().await;
                    waiting.push_front(*then);
                }
                Do::Sequence(actions) => {
                    actions.into_iter().rev().for_each(|a| waiting.push_front(a));
                }
                action => match self.perform_one(action).await? {
                    Next::Answered(digit) => answered = answered.or(Some(digit)),
                    Next::Over => return Ok(Next::Over),
                },
            }
        }
        Ok(Next::Answered(answered.unwrap_or_default()))
    }

    async fn perform_one(&mut self, action: Do) -> io::Result<Next> {
        match action {
            Do::Send(bytes) => self.send(&bytes).await,
            Do::SendAndClose(bytes) => {
                self.send(&bytes).await?;
                self.stream.shutdown().await?;
                Ok(Next::Over)
            }
            Do::Silence => {
                while self.read().await? {}
                Ok(Next::Over)
            }
            Do::Endless(bytes) => loop {
                self.send(&bytes).await?;
            },
            Do::Drip(bytes, pause) => loop {
                for byte in &bytes {
                    tokio::time::sleep(pause).await;
                    self.send(&[*byte]).await?;
                }
            },
            Do::HalfClose(bytes) => {
                self.send(&bytes).await?;
                self.stream.shutdown().await?;
                while self.read().await? {}
                Ok(Next::Over)
            }
            Do::Reset(bytes) => {
                self.send(&bytes).await?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Do::Pause(pause) => {
                tokio::time::sleep(pause).await;
                Ok(Next::Answered(0))
            }
            // The other two are taken apart by the caller.
            Do::Close | Do::Wait(..) | Do::Sequence(_) => Ok(Next::Over),
        }
    }

    async fn send(&mut self, bytes: &[u8]) -> io::Result<Next> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await?;
        Ok(Next::Answered(bytes.first().copied().unwrap_or_default()))
    }
}

fn going_on(next: &Next) -> Option<()> {
    matches!(next, Next::Answered(_)).then_some(())
}

/// Whether the action answers with a 2yz in the end.
fn says_yes(action: &Do) -> bool {
    match action {
        Do::Send(bytes) | Do::SendAndClose(bytes) | Do::HalfClose(bytes) | Do::Reset(bytes) => {
            bytes.first() == Some(&b'2')
        }
        Do::Wait(_, then) => says_yes(then),
        Do::Sequence(actions) => actions.first().is_some_and(says_yes),
        _ => false,
    }
}

fn multi_line(code: u16, lines: &[String]) -> String {
    let last = lines.len() - 1;
    let line = |(index, text): (usize, &String)| {
        format!("{code}{}{text}", if index == last { ' ' } else { '-' })
    };
    lines.iter().enumerate().map(line).collect::<Vec<_>>().join("\n")
}

fn in_brackets(line: &str) -> String {
    let inner = line.split_once('<').and_then(|(_, rest)| rest.rsplit_once('>'));
    inner.map(|(inner, _)| inner.to_owned()).unwrap_or_default()
}
