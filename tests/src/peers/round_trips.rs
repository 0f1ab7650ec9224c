//! The limit of a line with a delay: one message of so many bytes, one byte back, and the next one.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::Result;

/// Answers every so many bytes with one. It stops taking connections when it is dropped.
#[derive(Debug)]
pub struct Answerer {
    /// Where it listens.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Answerer {
    /// Begins to listen.
    ///
    /// # Errors
    ///
    /// No port can be had.
    pub async fn start(length: usize) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // It ends when the client has gone.
                tokio::spawn(answer(stream, length));
            }
        });
        Ok(Self { address, accepting })
    }
}

impl Drop for Answerer {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn answer(mut stream: TcpStream, length: usize) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut buffer = vec![0; length];
    loop {
        stream.read_exact(&mut buffer).await?;
        stream.write_all(b".").await?;
    }
}

/// How many seconds it takes to have so many messages answered over so many connections, one at a time on
/// each.
///
/// # Errors
///
/// A connection breaks.
pub async fn run(
    address: SocketAddr,
    messages: usize,
    length: usize,
    connections: usize,
) -> Result<f64> {
    let begin = Instant::now();
    let mut tasks = JoinSet::new();
    for connection in 0..connections {
        let share = (connection..messages).step_by(connections).count();
        tasks.spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            let (message, mut reply) = (vec![b'x'; length], [0]);
            for _ in 0..share {
                stream.write_all(&message).await?;
                stream.read_exact(&mut reply).await?;
            }
            io::Result::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    Ok(begin.elapsed().as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_message_is_answered() {
        let answerer = Answerer::start(100).await.expect("a port");
        let seconds = run(answerer.address, 10, 100, 3).await.expect("answers");
        assert!(seconds > 0.0);
    }
}
