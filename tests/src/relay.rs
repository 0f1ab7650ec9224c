//! A relay that takes everything and remembers each copy before it says so.
//!
//! Some recipients have their fate in their name: [`LATER`] is asked to come back later until the relay
//! relents, and [`NEVER`] is refused for good.
//!
//! It is slow at random moments, so that a process that is killed is often killed in the short time
//! between the final dot and its record of the reply.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use crate::now_ms;
use crate::plan::marker_in;

/// A recipient that is deferred until the relay relents.
pub const LATER: &str = "later@example.net";

/// A recipient that is refused for good.
pub const NEVER: &str = "never@example.net";

/// How long the relay takes.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// The longest wait before the reply to a command.
    pub command: Duration,
    /// The shortest and the longest wait between the final dot and its reply.
    pub dot: (Duration, Duration),
    /// Of a hundred recipients, and of a hundred messages, how many it asks to come back later with.
    pub deferred_percent: u8,
}

/// One message that arrived whole.
#[derive(Debug, Clone)]
pub struct Copy {
    /// Which mail it is; nothing if it is none that anybody knows.
    pub marker: Option<String>,
    /// To whom.
    pub recipients: Vec<String>,
    /// The name that the client gave.
    pub client: String,
    /// When its final dot was read, in milliseconds since the epoch.
    pub at_ms: i64,
    /// What its bytes come to.
    pub digest: u64,
}

/// What the relay tells while it happens.
#[derive(Debug, Clone)]
pub enum Sign {
    /// The final dot was read from this client, and nothing said yet.
    Dot(String),
    /// The reply to a final dot was written to this client.
    Replied(String),
}

/// The relay. It stops when it is dropped.
#[derive(Debug)]
pub struct Relay {
    /// Where it listens.
    pub address: SocketAddr,
    received: Arc<Mutex<Vec<Copy>>>,
    relents: Arc<AtomicBool>,
    accepting: JoinHandle<()>,
}

/// What every connection shares.
#[derive(Clone)]
struct Shared {
    received: Arc<Mutex<Vec<Copy>>>,
    relents: Arc<AtomicBool>,
    pace: Pace,
    signs: Option<UnboundedSender<Sign>>,
}

impl Relay {
    /// Begins to listen on a free port of loopback.
    ///
    /// # Errors
    ///
    /// There is none.
    pub async fn start(
        pace: Pace,
        seed: u64,
        signs: Option<UnboundedSender<Sign>>,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let received = Arc::new(Mutex::<Vec<Copy>>::default());
        let relents = Arc::<AtomicBool>::default();
        let shared =
            Shared { received: Arc::clone(&received), relents: Arc::clone(&relents), pace, signs };
        let mut random = Rng::with_seed(seed);
        let accepting = tokio::spawn(async move {
            loop {
                // A client that is gone before it was accepted is nobody's trouble.
                let Ok((stream, _)) = listener.accept().await else { continue };
                let session = Session::new(stream, shared.clone(), random.fork());
                tokio::spawn(async move {
                    // The client was killed: what it had said in full is remembered.
                    let _ = session.run().await;
                });
            }
        });
        Ok(Self { address, received, relents, accepting })
    }

    /// From now on nobody is asked to come back later because of the name.
    pub fn relent(&self) {
        self.relents.store(true, Ordering::SeqCst);
    }

    /// Everything that arrived so far.
    #[must_use]
    pub fn copies(&self) -> Vec<Copy> {
        lock(&self.received).clone()
    }

    /// How many messages arrived so far.
    #[must_use]
    pub fn count(&self) -> usize {
        lock(&self.received).len()
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// What the bytes of a message come to.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

fn lock(received: &Mutex<Vec<Copy>>) -> MutexGuard<'_, Vec<Copy>> {
    received.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection.
struct Session {
    reader: BufReader<OwnedReadHalf>,
    writer: OwnedWriteHalf,
    shared: Shared,
    random: Rng,
    client: String,
    recipients: Vec<String>,
}

impl Session {
    fn new(stream: TcpStream, shared: Shared, random: Rng) -> Self {
        // Without it a reply waits for the client's acknowledgement of the one before.
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        let reader = BufReader::new(reader);
        Self { reader, writer, shared, random, client: String::new(), recipients: Vec::new() }
    }

    async fn run(mut self) -> io::Result<()> {
        self.reply("220 relay.test ESMTP").await?;
        let mut line = Vec::new();
        loop {
            line.clear();
            if self.reader.read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            let verb = text.split([' ', ':']).next().unwrap_or_default().to_ascii_uppercase();
            self.wait((Duration::ZERO, self.shared.pace.command)).await;
            match verb.as_str() {
                "EHLO" => {
                    text[4..].trim().clone_into(&mut self.client);
                    self.reply("250-relay.test\r\n250-PIPELINING\r\n250 8BITMIME").await?;
                }
                "MAIL" | "RSET" => {
                    self.recipients.clear();
                    self.reply("250 2.0.0 ok").await?;
                }
                "RCPT" => {
                    let address = text.split(['<', '>']).nth(1).unwrap_or_default();
                    self.recipient(address).await?;
                }
                "DATA" if self.recipients.is_empty() => {
                    self.reply("503 5.5.1 for whom?").await?;
                }
                "DATA" => self.data().await?,
                "QUIT" => return self.reply("221 2.0.0 bye").await,
                _ => self.reply("500 5.5.1 what?").await?,
            }
        }
    }

    async fn recipient(&mut self, address: &str) -> io::Result<()> {
        if address == NEVER {
            return self.reply("550 5.1.1 never").await;
        }
        let waits = address == LATER && !self.shared.relents.load(Ordering::SeqCst);
        if waits || self.defers() {
            return self.reply("450 4.2.1 later").await;
        }
        self.recipients.push(address.to_owned());
        self.reply("250 2.1.5 ok").await
    }

    async fn data(&mut self) -> io::Result<()> {
        self.reply("354 go on").await?;
        let bytes = self.body().await?;
        self.take(&bytes).await
    }

    /// Reads up to the final dot, and takes the dots off.
    async fn body(&mut self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        loop {
            let start = bytes.len();
            if self.reader.read_until(b'\n', &mut bytes).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if &bytes[start..] == b".\r\n" {
                bytes.truncate(start);
                return Ok(bytes);
            }
            if bytes[start] == b'.' {
                bytes.remove(start);
            }
        }
    }

    /// Remembers the copy, and only then says that it was taken.
    async fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if self.defers() {
            return self.reply("451 4.3.0 later").await;
        }
        let copy = Copy {
            marker: marker_in(bytes),
            recipients: std::mem::take(&mut self.recipients),
            client: self.client.clone(),
            at_ms: now_ms(),
            digest: digest(bytes),
        };
        lock(&self.shared.received).push(copy);
        self.tell(Sign::Dot(self.client.clone()));
        self.wait(self.shared.pace.dot).await;
        self.reply("250 2.0.0 taken").await?;
        self.tell(Sign::Replied(self.client.clone()));
        Ok(())
    }

    fn defers(&mut self) -> bool {
        self.random.u8(0..100) < self.shared.pace.deferred_percent
    }

    fn tell(&self, sign: Sign) {
        if let Some(signs) = &self.shared.signs {
            // Nobody listens any more when the test is over.
            let _ = signs.send(sign);
        }
    }

    async fn wait(&mut self, (least, most): (Duration, Duration)) {
        let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let wait = Duration::from_micros(self.random.u64(micros(least)..=micros(most)));
        if wait > Duration::from_micros(500) {
            tokio::time::sleep(wait).await;
        }
    }

    async fn reply(&mut self, text: &str) -> io::Result<()> {
        self.writer.write_all(format!("{text}\r\n").as_bytes()).await
    }
}
