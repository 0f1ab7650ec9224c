//! The guard stream: what lies between lettre and the socket.
//!
//! [`Wire`] gathers what is written until something is read, so that a pipelined group leaves in one
//! piece; it writes while it reads, so that neither side can block the other; and it reads replies
//! within bounds ([`crate::reply`]). The greeting, EHLO and STARTTLS are spoken on it directly.
//!
//! [`Guard`] then gives the wire to lettre: [`LettreEnd`] replays greeting and EHLO, and shows lettre
//! every reply, one at a time, in a form that its parser takes. What the relay really said is kept
//! beside it and is what we judge by.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use lettre::transport::smtp::client::AsyncTokioStream;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::reply::{ReplyReader, WireReply};
use crate::trouble::Broken;

/// How much is read at once.
const READ_SIZE: usize = 8192;

enum Socket {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

impl Socket {
    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0,
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buf),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }
}

/// How the handing over of a block of the body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drained {
    /// All that was gathered is with the operating system.
    Written,
    /// The relay has said something, although it was not its turn.
    Interrupted,
}

/// A socket with gathered writes and bounded replies.
pub(crate) struct Wire {
    socket: Socket,
    gathered: Vec<u8>,
    written: usize,
    reader: ReplyReader,
    /// Writing failed. Kept until reading fails too: a relay that said why it hung up is heard.
    write_error: Option<io::Error>,
}

impl Wire {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self {
            socket: Socket::Plain(tcp),
            gathered: Vec::new(),
            written: 0,
            reader: ReplyReader::default(),
            write_error: None,
        }
    }

    pub(crate) fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.socket.tcp().peer_addr()
    }

    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.tcp().local_addr()
    }

    pub(crate) fn is_encrypted(&self) -> bool {
        matches!(self.socket, Socket::Tls(_))
    }

    /// Whether bytes were read that no reply we waited for accounts for.
    pub(crate) fn has_unread(&self) -> bool {
        !self.reader.is_empty()
    }

    /// Sends `line` and reads the reply to it.
    pub(crate) async fn ask(&mut self, line: &str, limit: Duration) -> Result<WireReply, Broken> {
        self.gathered.extend_from_slice(line.as_bytes());
        self.reply(limit).await
    }

    /// Reads one reply.
    pub(crate) async fn reply(&mut self, limit: Duration) -> Result<WireReply, Broken> {
        let reply = poll_fn(|cx| self.poll_reply(cx));
        tokio::time::timeout(limit, reply).await.unwrap_or(Err(Broken::Timeout(limit)))
    }

    /// The same wire after a TLS handshake. The caller has made sure that nothing is unread.
    pub(crate) async fn encrypt(
        self,
        connector: &TlsConnector,
        name: ServerName<'static>,
    ) -> io::Result<Self> {
        let tcp = match self.socket {
            Socket::Plain(tcp) => tcp,
            Socket::Tls(_) => return Err(io::Error::other("the connection is encrypted already")),
        };
        let tls = connector.connect(name, tcp).await?;
        let mut wire = Self::new_over(Socket::Tls(Box::new(tls)));
        wire.reader = self.reader;
        Ok(wire)
    }

    fn new_over(socket: Socket) -> Self {
        Self {
            socket,
            gathered: Vec::new(),
            written: 0,
            reader: ReplyReader::default(),
            write_error: None,
        }
    }

    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<WireReply, Broken>> {
        loop {
            if let Some(result) = self.reader.next() {
                return Poll::Ready(result.map_err(Broken::from));
            }
            if self.write_error.is_none()
                && let Poll::Ready(Err(error)) = self.poll_drain(cx)
            {
                self.write_error = Some(error);
            }
            if let Err(broken) = ready!(self.poll_fill(cx)) {
                return Poll::Ready(Err(self.write_error.take().map_or(broken, Broken::Io)));
            }
        }
    }

    /// Writes all that was gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.gathered.len() {
            let count = ready!(self.socket.poll_write(cx, &self.gathered[self.written..]))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.gathered.clear();
        self.written = 0;
        self.socket.poll_flush(cx)
    }

    /// Reads once into the reader.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        let mut storage = [0; READ_SIZE];
        let mut buffer = ReadBuf::new(&mut storage);
        ready!(self.socket.poll_read(cx, &mut buffer))?;
        if buffer.filled().is_empty() {
            return Poll::Ready(Err(Broken::Closed));
        }
        self.reader.feed(buffer.filled());
        Poll::Ready(Ok(()))
    }

    fn poll_body(&mut self, cx: &mut Context<'_>, drain: bool) -> Poll<Result<Drained, Broken>> {
        if self.has_unread() {
            return Poll::Ready(Ok(Drained::Interrupted));
        }
        match self.poll_fill(cx) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(Drained::Interrupted)),
            Poll::Ready(Err(broken)) => return Poll::Ready(Err(broken)),
            Poll::Pending if drain => {}
            Poll::Pending => return Poll::Ready(Ok(Drained::Written)),
        }
        self.poll_drain(cx).map(|result| result.map(|()| Drained::Written).map_err(Broken::Io))
    }
}

struct State {
    wire: Wire,
    /// The EHLO that lettre will send is swallowed, and answered with this.
    replay_ehlo: Option<WireReply>,
    /// What lettre has still to read.
    shown: VecDeque<u8>,
    /// What the relay said, for each reply that lettre was shown.
    replies: VecDeque<WireReply>,
    broken: Option<Broken>,
}

/// Our end of the wire that lettre holds the other end of.
#[derive(Clone)]
pub(crate) struct Guard(Arc<Mutex<State>>);

/// lettre's end.
pub(crate) struct LettreEnd(Guard);

impl Guard {
    /// Guards `wire`, on which greeting and EHLO have been spoken already.
    pub(crate) fn new(wire: Wire, greeting: &WireReply, ehlo: WireReply) -> (Self, LettreEnd) {
        let state = State {
            wire,
            replay_ehlo: Some(ehlo),
            shown: shown_to_lettre(greeting).into(),
            replies: VecDeque::new(),
            broken: None,
        };
        let guard = Self(Arc::new(Mutex::new(state)));
        (guard.clone(), LettreEnd(guard))
    }

    /// No await ever happens with the lock held, and both ends belong to one task.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the relay really said in the reply that lettre has just read; why there is none.
    pub(crate) fn take_reply(&self) -> Result<WireReply, Broken> {
        let mut state = self.lock();
        let reply = state.replies.pop_front();
        reply.ok_or_else(|| state.broken.take().unwrap_or(Broken::Closed))
    }

    /// Gathers bytes of the body.
    pub(crate) fn gather(&self, bytes: &[u8]) {
        self.lock().wire.gathered.extend_from_slice(bytes);
    }

    /// Hands all that was gathered to the operating system, listening meanwhile.
    pub(crate) async fn drain(&self) -> Result<Drained, Broken> {
        poll_fn(|cx| self.lock().wire.poll_body(cx, true)).await
    }

    /// Looks, without waiting, whether the relay has said something out of turn or has hung up.
    pub(crate) async fn listen(&self) -> Result<Drained, Broken> {
        poll_fn(|cx| self.lock().wire.poll_body(cx, false)).await
    }
}

impl fmt::Debug for LettreEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LettreEnd")
    }
}

impl AsyncTokioStream for LettreEnd {
    fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.0.lock().wire.peer_addr()
    }
}

impl AsyncRead for LettreEnd {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let mut state = self.0.lock();
        if state.shown.is_empty() {
            match ready!(state.wire.poll_reply(cx)) {
                Ok(reply) => {
                    state.shown = shown_to_lettre(&reply).into();
                    state.replies.push_back(reply);
                }
                Err(broken) => {
                    let error = io::Error::other(broken.to_string());
                    state.broken = Some(broken);
                    return Poll::Ready(Err(error));
                }
            }
        }
        let count = buf.remaining().min(state.shown.len());
        let bytes: Vec<u8> = state.shown.drain(..count).collect();
        buf.put_slice(&bytes);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for LettreEnd {
    /// Gathers. What was gathered is written when the next reply is waited for.
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock();
        match state.replay_ehlo.take() {
            Some(ehlo) => state.shown.extend(shown_to_lettre(&ehlo)),
            None => state.wire.gathered.extend_from_slice(bytes),
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// Whether the connection is closed is ours to decide: it is, when both ends are dropped.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// A reply on one line, in lettre's grammar: its parser takes second digits up to 5 only, wants a text
/// after the code, and panics at a line of EHLO that is one space.
fn shown_to_lettre(reply: &WireReply) -> Vec<u8> {
    let (class, second, third) = (reply.code() / 100, reply.code() / 10 % 10, reply.code() % 10);
    let text = reply.lines().first().map_or("", |line| line.trim());
    let text = if text.is_empty() { "-" } else { text };
    format!("{class}{}{third} {text}\r\n", second.min(5)).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reply::read_reply;
    use lettre::transport::smtp::response::Response;
    use proptest::prelude::*;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpSocket;

    #[test]
    fn what_lettre_cannot_parse_is_shown_in_its_grammar() {
        for (sent, shown) in [
            ("250\r\n", "250 -\r\n"),
            ("571 5.7.1 no\r\n", "551 5.7.1 no\r\n"),
            ("250- \r\n250 x\r\n", "250 -\r\n"),
        ] {
            let reply = read_reply(sent.as_bytes()).unwrap().unwrap();
            assert_eq!(String::from_utf8(shown_to_lettre(&reply)).unwrap(), shown);
        }
    }

    /// Both sides have buffers of a few KiB, and much more to say.
    #[tokio::test]
    async fn it_reads_while_it_writes() {
        const COUNT: usize = 2000;
        let small = || {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_recv_buffer_size(4096).unwrap();
            socket.set_send_buffer_size(4096).unwrap();
            socket
        };
        let listening = small();
        listening.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = listening.listen(1).unwrap();
        let client = small().connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, _) = listener.accept().await.unwrap();
        let reply = format!("250 {}\r\n", "x".repeat(400));
        let answering = async move {
            let mut server = BufReader::new(server);
            let mut line = String::new();
            for _ in 0..COUNT {
                server.read_line(&mut line).await.unwrap();
                server.write_all(reply.as_bytes()).await.unwrap();
            }
        };
        let asking = async {
            let mut wire = Wire::new(client);
            let group = format!("{}\r\n", "y".repeat(400)).repeat(COUNT);
            let limit = Duration::from_secs(30);
            assert_eq!(wire.ask(&group, limit).await.unwrap().code(), 250);
            for _ in 1..COUNT {
                assert_eq!(wire.reply(limit).await.unwrap().code(), 250);
            }
        };
        tokio::join!(answering, asking);
    }

    proptest! {
        #[test]
        fn lettre_takes_whatever_it_is_shown(code in 200u16..600, text in "\\PC{0,40}") {
            let sent = format!("{code} {text}\r\n");
            if let Ok(Some(reply)) = read_reply(sent.as_bytes()) {
                let shown = String::from_utf8(shown_to_lettre(&reply)).unwrap();
                prop_assert!(shown.parse::<Response>().is_ok(), "{shown:?}");
            }
        }
    }
}
