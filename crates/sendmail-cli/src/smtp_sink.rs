//! A small SMTP server (RFC 5321) that takes every message and hands it to a function.
//!
//! It offers PIPELINING, 8BITMIME, SMTPUTF8 and SIZE, bounds everything it reads, and refuses messages
//! with bare LF instead of guessing where they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The longest command line, in bytes.
const MAX_COMMAND: u64 = 4096;
/// The longest line of a message, in bytes, with room for those who do not keep to the limit.
const MAX_LINE: u64 = 64 << 10;
/// The largest message, in bytes.
const MAX_MESSAGE: usize = 64 << 20;
/// The most recipients of one message.
const MAX_RECIPIENTS: usize = 10_000;
/// How long a client may be silent.
const PATIENCE: Duration = Duration::from_secs(300);

/// A message as it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Captured {
    pub(crate) from: String,
    pub(crate) to: Vec<String>,
    /// The bytes between DATA and the final dot, dots unstuffed.
    pub(crate) bytes: Vec<u8>,
}

/// Called for each message before it is accepted; an error refuses it for now.
pub(crate) type OnMessage = Arc<dyn Fn(Captured) -> io::Result<()> + Send + Sync>;

/// The server, listening.
pub(crate) struct SmtpSink {
    listener: TcpListener,
    on_message: OnMessage,
    /// How many messages were accepted, and their clients told so.
    accepted: Arc<watch::Sender<u64>>,
}

impl SmtpSink {
    /// Listens at `address`.
    pub(crate) async fn bind(address: SocketAddr, on_message: OnMessage) -> io::Result<Self> {
        let accepted = Arc::new(watch::Sender::new(0));
        Ok(Self { listener: TcpListener::bind(address).await?, on_message, accepted })
    }

    /// How many messages were accepted, and their clients told so.
    pub(crate) fn accepted(&self) -> watch::Receiver<u64> {
        self.accepted.subscribe()
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until it is dropped.
    pub(crate) async fn serve(self) -> io::Result<()> {
        loop {
            let (stream, _) = self.listener.accept().await?;
            let (on_message, accepted) = (self.on_message.clone(), self.accepted.clone());
            // A session that breaks concerns nobody but its client.
            tokio::spawn(async move { Session::new(stream, on_message, accepted)?.run().await });
        }
    }
}

/// One connection.
struct Session {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    on_message: OnMessage,
    accepted: Arc<watch::Sender<u64>>,
    from: Option<String>,
    to: Vec<String>,
}

/// A line, or why there is none.
enum Line {
    Whole(Vec<u8>),
    TooLong,
    End,
}

impl Session {
    fn new(
        stream: TcpStream,
        on_message: OnMessage,
        accepted: Arc<watch::Sender<u64>>,
    ) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader: BufReader::new(reader),
            writer,
            on_message,
            accepted,
            from: None,
            to: Vec::new(),
        })
    }

    async fn run(mut self) -> io::Result<()> {
        self.reply("220 sendmail-queue sink ESMTP").await?;
        loop {
            let line = match self.read_line(MAX_COMMAND).await? {
                Line::Whole(line) => line,
                Line::TooLong => {
                    self.reply("500 5.5.2 line too long").await?;
                    return Ok(());
                }
                Line::End => return Ok(()),
            };
            let line = String::from_utf8_lossy(&line).trim_end().to_owned();
            if !self.command(&line).await? {
                return Ok(());
            }
        }
    }

    /// Does what a command says; false at the end of the session.
    async fn command(&mut self, line: &str) -> io::Result<bool> {
        let (verb, argument) = line.split_once(' ').unwrap_or((line, ""));
        match verb.to_ascii_uppercase().as_str() {
            "EHLO" => {
                self.reset();
                let size = format!("250-SIZE {MAX_MESSAGE}");
                let lines = ["250-sink", "250-PIPELINING", "250-8BITMIME", "250-SMTPUTF8", &size];
                self.reply(&[&lines[..], &["250 ENHANCEDSTATUSCODES"]].concat().join("\r\n"))
                    .await?;
            }
            "HELO" => {
                self.reset();
                self.reply("250 sink").await?;
            }
            "MAIL" => match path(argument, "FROM:") {
                Some(from) if self.from.is_none() => {
                    self.from = Some(from);
                    self.reply("250 2.1.0 ok").await?;
                }
                Some(_) => self.reply("503 5.5.1 there is a sender already").await?,
                None => self.reply("501 5.5.4 MAIL FROM:<address>").await?,
            },
            "RCPT" => match path(argument, "TO:").filter(|to| !to.is_empty()) {
                Some(_) if self.from.is_none() => self.reply("503 5.5.1 MAIL first").await?,
                Some(_) if self.to.len() >= MAX_RECIPIENTS => {
                    self.reply("452 4.5.3 too many recipients").await?;
                }
                Some(to) => {
                    self.to.push(to);
                    self.reply("250 2.1.5 ok").await?;
                }
                None => self.reply("501 5.5.4 RCPT TO:<address>").await?,
            },
            "DATA" if self.to.is_empty() => self.reply("503 5.5.1 RCPT first").await?,
            "DATA" => return self.data().await,
            "RSET" => {
                self.reset();
                self.reply("250 2.0.0 ok").await?;
            }
            "NOOP" | "VRFY" => self.reply("252 2.0.0 ok").await?,
            "QUIT" => {
                self.reply("221 2.0.0 bye").await?;
                return Ok(false);
            }
            _ => self.reply("502 5.5.1 not implemented").await?,
        }
        Ok(true)
    }

    async fn data(&mut self) -> io::Result<bool> {
        self.reply("354 end with a dot on a line of its own").await?;
        let mut bytes = Vec::new();
        let mut refusal = None;
        loop {
            let line = match self.read_line(MAX_LINE).await? {
                Line::Whole(line) => line,
                Line::TooLong | Line::End => return Ok(false),
            };
            if line == b".\r\n" {
                break;
            }
            if line.strip_suffix(b"\r\n").is_none_or(|text| text.contains(&b'\r')) {
                refusal = Some("550 5.6.0 bare CR or LF in the message");
            }
            if bytes.len() + line.len() > MAX_MESSAGE {
                refusal = Some("552 5.3.4 message too large");
            }
            if refusal.is_none() {
                bytes.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
            }
        }
        let captured = Captured {
            from: self.from.take().unwrap_or_default(),
            to: std::mem::take(&mut self.to),
            bytes,
        };
        let mut taken = false;
        let answer = match refusal {
            Some(refusal) => refusal.to_owned(),
            None => match (self.on_message)(captured) {
                Ok(()) => {
                    taken = true;
                    "250 2.0.0 captured".to_owned()
                }
                Err(error) => format!("451 4.3.0 {}", error.to_string().replace(['\r', '\n'], " ")),
            },
        };
        self.reply(&answer).await?;
        if taken {
            self.accepted.send_modify(|count| *count += 1);
        }
        Ok(true)
    }

    fn reset(&mut self) {
        self.from = None;
        self.to.clear();
    }

    async fn read_line(&mut self, limit: u64) -> io::Result<Line> {
        let mut line = Vec::new();
        let mut bounded = (&mut self.reader).take(limit);
        let read = tokio::time::timeout(PATIENCE, bounded.read_until(b'\n', &mut line)).await;
        let count = read.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        Ok(match () {
            () if line.ends_with(b"\n") => Line::Whole(line),
            () if count as u64 == limit => Line::TooLong,
            () => Line::End,
        })
    }

    async fn reply(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(format!("{text}\r\n").as_bytes()).await?;
        self.writer.flush().await
    }
}

/// The address of `FROM:<a@b> SIZE=1` or `TO:<c@d>`; parameters are of no interest.
fn path(argument: &str, key: &str) -> Option<String> {
    let (start, rest) = argument.split_at_checked(key.len())?;
    if !start.eq_ignore_ascii_case(key) {
        return None;
    }
    let (path, _parameters) = rest.trim_start().strip_prefix('<')?.rsplit_once('>')?;
    Some(path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    async fn talk(client: &[u8]) -> (String, Vec<Captured>) {
        let captured = Arc::new(Mutex::new(Vec::new()));
        let keep = captured.clone();
        let on_message: OnMessage = Arc::new(move |message| {
            keep.lock().unwrap().push(message);
            Ok(())
        });
        let sink = SmtpSink::bind("127.0.0.1:0".parse().unwrap(), on_message).await.unwrap();
        let address = sink.address().unwrap();
        let serving = tokio::spawn(sink.serve());
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(client).await.unwrap();
        let mut answers = String::new();
        stream.read_to_string(&mut answers).await.unwrap();
        serving.abort();
        let captured = captured.lock().unwrap().clone();
        (answers, captured)
    }

    #[tokio::test]
    async fn a_pipelined_message_arrives_exactly() {
        let (answers, captured) = talk(
            b"EHLO me\r\nMAIL FROM:<a@b> SIZE=9\r\nRCPT TO:<c@d>\r\nrcpt to:<e@f>\r\nDATA\r\n\
              A: b\r\n\r\n..\r\n...x\r\n.\r\nMAIL FROM:<>\r\nRCPT TO:<g@h>\r\nDATA\r\n.\r\nQUIT\r\n",
        )
        .await;
        assert!(answers.ends_with("221 2.0.0 bye\r\n"), "{answers}");
        assert_eq!(captured.len(), 2);
        assert_eq!(captured[0].to, ["c@d", "e@f"]);
        assert_eq!(captured[0].bytes, b"A: b\r\n\r\n.\r\n..x\r\n");
        assert_eq!((captured[1].from.as_str(), captured[1].bytes.len()), ("", 0));
    }

    #[tokio::test]
    async fn what_could_be_a_smuggled_end_is_refused() {
        let (answers, captured) = talk(
            b"HELO me\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\n.\r\nMAIL FROM:<evil@b>\r\n.\r\nQUIT\r\n",
        )
        .await;
        assert!(answers.contains("550 5.6.0"), "{answers}");
        assert!(captured.is_empty());
    }

    #[tokio::test]
    async fn commands_out_of_order_and_endless_lines_are_refused() {
        let (answers, _) = talk(b"RCPT TO:<a@b>\r\nDATA\r\nFOO\r\nQUIT\r\n").await;
        let codes: Vec<&str> = answers.lines().map(|line| &line[..3]).collect();
        assert_eq!(codes, ["220", "503", "503", "502", "221"]);
        let (answers, _) = talk(&vec![b'x'; 5000]).await;
        assert!(answers.contains("500 5.5.2"), "{answers}");
    }
}
