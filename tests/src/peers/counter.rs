//! A relay that takes everything, keeps nothing, and notes when it was.
//!
//! It offers PIPELINING, and says what it has to say to all that it has read in one write.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What is read at once at the most.
const CHUNK: usize = 64 * 1024;

/// The relay. It stops taking connections when it is dropped.
#[derive(Debug)]
pub struct Counter {
    /// Where it listens.
    pub address: SocketAddr,
    accepted: watch::Receiver<Accepted>,
    accepting: JoinHandle<()>,
}

/// What was accepted so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Accepted {
    /// How many messages.
    pub count: usize,
    /// When the first one was.
    pub first: Option<Instant>,
    /// When the last one was.
    pub last: Option<Instant>,
}

impl Counter {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// No port can be had.
    pub async fn start() -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (sender, accepted) = watch::channel(Accepted::default());
        let sender = Arc::new(sender);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // It ends when the client has gone.
                tokio::spawn(session(stream, Arc::clone(&sender)));
            }
        });
        Ok(Self { address, accepted, accepting })
    }

    /// What was accepted so far.
    #[must_use]
    pub fn accepted(&self) -> Accepted {
        *self.accepted.borrow()
    }

    /// Waits until so many messages were accepted.
    ///
    /// # Errors
    ///
    /// It no longer takes any.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only looks.
    pub async fn reached(&self, count: usize) -> crate::Result<Accepted> {
        let mut accepted = self.accepted.clone();
        let reached = *accepted.wait_for(|accepted| accepted.count >= count).await?;
        Ok(reached)
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn session(mut stream: TcpStream, accepted: Arc<watch::Sender<Accepted>>) -> io::Result<()> {
    stream.set_nodelay(true)?;
    stream.write_all(b"220 counter.test ESMTP\r\n").await?;
    let mut buffer = vec![0; CHUNK];
    let mut talk = Talk::default();
    loop {
        let length = stream.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let mut replies = Vec::new();
        let messages = talk.hear(&buffer[..length], &mut replies);
        if messages > 0 {
            let now = Instant::now();
            accepted.send_modify(|accepted| {
                accepted.count += messages;
                accepted.first.get_or_insert(now);
                accepted.last = Some(now);
            });
        }
        stream.write_all(&replies).await?;
        if talk.over {
            return stream.shutdown().await;
        }
    }
}

/// Where a session is.
#[derive(Debug, Default)]
struct Talk {
    /// What was read of a line that has not ended.
    line: Vec<u8>,
    in_data: bool,
    over: bool,
}

impl Talk {
    /// Reads on, adds what there is to say, and tells how many messages ended.
    fn hear(&mut self, bytes: &[u8], replies: &mut Vec<u8>) -> usize {
        let mut messages = 0;
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") {
                messages += usize::from(self.line(replies));
                self.line.clear();
            }
        }
        messages
    }

    /// One line; whether it ended a message.
    fn line(&mut self, replies: &mut Vec<u8>) -> bool {
        if self.in_data {
            let ended = self.line == b".\r\n";
            if ended {
                self.in_data = false;
                replies.extend_from_slice(b"250 2.0.0 taken\r\n");
            }
            return ended;
        }
        let verb = self.line.get(..4).unwrap_or(&self.line).to_ascii_uppercase();
        let reply: &[u8] = match verb.as_slice() {
            b"EHLO" => b"250-counter.test\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SIZE\r\n",
            b"DATA" => b"354 go on\r\n",
            b"QUIT" => b"221 2.0.0 bye\r\n",
            _ => b"250 2.0.0 ok\r\n",
        };
        self.in_data = verb == b"DATA";
        self.over = verb == b"QUIT";
        replies.extend_from_slice(reply);
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_messages_are_told_apart_wherever_they_are_cut() {
        let all = b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nQUIT\r\n..\r\n.\r\n\
                    MAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\n\r\n.\r\nQUIT\r\n";
        for cut in 0..all.len() {
            let (mut talk, mut replies) = (Talk::default(), Vec::new());
            let before = talk.hear(&all[..cut], &mut replies);
            assert_eq!(before + talk.hear(&all[cut..], &mut replies), 2, "cut at {cut}");
            let text = String::from_utf8(replies).expect("replies");
            let codes: Vec<&str> = text.lines().filter_map(|line| line.get(..4)).collect();
            let transaction = ["250 ", "250 ", "354 ", "250 "];
            let mut expected = vec!["250-", "250-", "250-", "250 "];
            expected.extend(transaction.iter().chain(&transaction));
            expected.push("221 ");
            assert_eq!(codes, expected);
            assert!(talk.over);
        }
    }

    #[tokio::test]
    async fn what_was_accepted_is_known() {
        let counter = Counter::start().await.expect("a port");
        let mut stream = TcpStream::connect(counter.address).await.expect("a connection");
        let all = b"EHLO a\r\nMAIL FROM:<a@b>\r\nRCPT TO:<c@d>\r\nDATA\r\nx\r\n.\r\nQUIT\r\n";
        stream.write_all(all).await.expect("it listens");
        let accepted = counter.reached(1).await.expect("it takes mail");
        assert_eq!(accepted.count, 1);
        assert_eq!(accepted.first, accepted.last);
        assert!(accepted.first.is_some());
    }
}
