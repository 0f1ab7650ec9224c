//! A relay far away: a proxy that passes every byte on after a while, in both directions.
//!
//! It delays and does not narrow: what arrives is read at once, and waits beside what arrived before it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

/// What is read at once at the most.
const CHUNK: usize = 64 * 1024;

/// The proxy. It stops taking connections when it is dropped.
#[derive(Debug)]
pub struct Delay {
    /// Where it listens.
    pub address: SocketAddr,
    accepting: JoinHandle<()>,
}

impl Delay {
    /// Passes everything on to `target`, each way after `one_way`. Opening a connection takes as long as it
    /// would on such a line: a round trip more.
    ///
    /// # Errors
    ///
    /// No port can be had.
    pub async fn start(target: SocketAddr, one_way: Duration) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                // A client that has gone, or a target that has, ends the connection and nothing else.
                tokio::spawn(connection(client, target, one_way));
            }
        });
        Ok(Self { address, accepting })
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connection(client: TcpStream, target: SocketAddr, one_way: Duration) -> io::Result<()> {
    client.set_nodelay(true)?;
    sleep_until(Instant::now() + one_way).await;
    let server = TcpStream::connect(target).await?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::spawn(pass(from_client, to_server, one_way));
    pass(from_server, to_client, one_way).await;
    Ok(())
}

/// Passes one direction on until it ends.
async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, one_way: Duration) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let reading = async move {
        let mut buffer = vec![0; CHUNK];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            let due = Instant::now() + one_way;
            if sender.send((due, buffer[..length].to_vec())).is_err() {
                return;
            }
        }
    };
    let writing = async move {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
        // The other end learns of the end only when all that was said has arrived. If it has gone, so what.
        let _ = to.shutdown().await;
    };
    tokio::join!(reading, writing);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn everything_arrives_in_order_and_no_sooner_than_it_may() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a port");
        let one_way = Duration::from_millis(20);
        let target = listener.local_addr().expect("an address");
        let delay = Delay::start(target, one_way).await.expect("a proxy");
        let echo = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await?;
            let (mut reader, mut writer) = stream.split();
            tokio::io::copy(&mut reader, &mut writer).await
        });
        let begin = Instant::now();
        let mut stream = TcpStream::connect(delay.address).await.expect("a connection");
        for word in [b"one".as_slice(), b"two"] {
            stream.write_all(word).await.expect("it is there");
        }
        stream.shutdown().await.expect("it is there");
        let mut back = Vec::new();
        stream.read_to_end(&mut back).await.expect("it is there");
        assert_eq!(back, b"onetwo");
        assert!(begin.elapsed() >= 2 * one_way);
        assert_eq!(echo.await.expect("a task").expect("a copy"), 6);
    }
}
