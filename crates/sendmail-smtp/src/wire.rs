//! The socket, in clear text or over TLS, with gathered writes and bounded replies.
//!
//! What is written is gathered until something is read, so that a pipelined group leaves in one piece;
//! writing goes on while reading, so that neither side can block the other; and replies are read within
//! bounds ([`crate::reply`]).

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

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
    /// Whether all that was gathered has left. Over TLS it may be taken, and wait as cipher text.
    flushed: bool,
    reader: ReplyReader,
    /// Writing failed. Kept until reading fails too: a relay that said why it hung up is heard.
    write_error: Option<io::Error>,
}

impl Wire {
    pub(crate) fn new(tcp: TcpStream) -> Self {
        Self::over(Socket::Plain(tcp))
    }

    fn over(socket: Socket) -> Self {
        Self {
            socket,
            gathered: Vec::new(),
            written: 0,
            flushed: true,
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

    /// Takes bytes that leave when a reply is waited for.
    pub(crate) fn gather(&mut self, bytes: &[u8]) {
        self.flushed = false;
        self.gathered.extend_from_slice(bytes);
    }

    /// Sends `line` and reads the reply to it.
    ///
    /// Invariant: a reply that was there before its command was sent is the answer to nothing.
    pub(crate) async fn ask(&mut self, line: &str, limit: Duration) -> Result<WireReply, Broken> {
        if self.has_unread() {
            return Err(Broken::OutOfTurn);
        }
        self.gather(line.as_bytes());
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
        Ok(Self::over(Socket::Tls(Box::new(tls))))
    }

    /// One reply; what was gathered is written meanwhile.
    pub(crate) fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<Result<WireReply, Broken>> {
        loop {
            if let Some(result) = self.reader.next() {
                return Poll::Ready(result.map_err(Broken::from));
            }
            self.poll_push(cx);
            if let Err(broken) = ready!(self.poll_fill(cx)) {
                return Poll::Ready(Err(self.write_error.take().map_or(broken, Broken::Io)));
            }
        }
    }

    /// Whether all that was gathered is with the operating system.
    pub(crate) fn is_written(&self) -> bool {
        self.flushed
    }

    /// Writes what can be written at once. That it cannot be written is told when reading fails too.
    pub(crate) fn poll_push(&mut self, cx: &mut Context<'_>) {
        if self.write_error.is_none()
            && let Poll::Ready(Err(error)) = self.poll_drain(cx)
        {
            self.write_error = Some(error);
        }
    }

    /// Writes all that was gathered.
    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(rest @ [_, ..]) = self.gathered.get(self.written..) {
            let count = ready!(self.socket.poll_write(cx, rest))?;
            if count == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.written += count;
        }
        self.gathered.clear();
        self.written = 0;
        ready!(self.socket.poll_flush(cx))?;
        self.flushed = true;
        Poll::Ready(Ok(()))
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

    /// Listens; then, if `drain` is set and nothing was heard, writes what was gathered.
    pub(crate) fn poll_body(
        &mut self,
        cx: &mut Context<'_>,
        drain: bool,
    ) -> Poll<Result<Drained, Broken>> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
    use tokio::net::TcpSocket;

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
}
