//! A tap on the line between the mailer and a relay: at a moment of the dialogue it does something to the
//! relay, or cuts the line.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// When the tap acts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum When {
    /// The relay has said 354; it gets nothing of the message yet.
    GoAhead,
    /// The relay has answered the message; the mailer does not get to know.
    Answered,
}

/// What it does then, beside.
type Deed = Arc<dyn Fn() + Send + Sync>;

/// What becomes of the line then.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    Cut,
    /// Everything goes through as before.
    Kept,
}

/// A port that leads to the relay. It is closed when it is dropped.
pub(crate) struct Tap {
    pub(crate) port: u16,
    task: JoinHandle<()>,
}

impl Tap {
    pub(crate) async fn on(
        relay: u16,
        when: When,
        line: Line,
        deed: impl Fn() + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let deed: Deed = Arc::new(deed);
        let task = tokio::spawn(async move {
            while let Ok((mailer, _)) = listener.accept().await {
                let Ok(relay) = TcpStream::connect(("127.0.0.1", relay)).await else { continue };
                tokio::spawn(tapped(mailer, relay, when, line, deed.clone()));
            }
        });
        Self { port, task }
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn tapped(mailer: TcpStream, relay: TcpStream, when: When, line: Line, deed: Deed) {
    let (from_mailer, to_mailer) = mailer.into_split();
    let (from_relay, to_relay) = relay.into_split();
    let forth = tokio::spawn(copy(from_mailer, to_relay));
    back(from_relay, to_mailer, when, line, &deed).await;
    forth.abort();
}

async fn copy(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    drop(tokio::io::copy(&mut from, &mut to).await);
}

/// Replies, until the moment has come.
async fn back(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    when: When,
    line: Line,
    deed: &Deed,
) {
    let (mut seen, mut done) = (Vec::new(), false);
    let mut buffer = [0; 4096];
    while let Ok(count @ 1..) = from.read(&mut buffer).await {
        let before = seen.len();
        seen.extend_from_slice(&buffer[..count]);
        let from = if before == 0 {
            0
        } else {
            seen[..before].iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1)
        };
        let go_ahead =
            seen[from..].split(|byte| *byte == b'\n').any(|line| line.starts_with(b"354"));
        let had_go_ahead =
            seen[..before].split(|byte| *byte == b'\n').any(|line| line.starts_with(b"354"));
        let now = match when {
            When::GoAhead => go_ahead,
            When::Answered => had_go_ahead,
        };
        if now && !std::mem::replace(&mut done, true) {
            deed();
            if line == Line::Cut {
                return;
            }
        }
        if to.write_all(&buffer[..count]).await.is_err() {
            return;
        }
    }
}
