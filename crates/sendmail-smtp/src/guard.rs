//! The guard stream: what lies between lettre and the wire.
//!
//! [`Guard`] gives a [`Wire`] to lettre: [`LettreEnd`] replays greeting and EHLO, which have been spoken
//! by then, and shows lettre every reply, one at a time, in a form that its parser takes. What the relay
//! really said is kept beside it and is what we judge by.

use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use lettre::transport::smtp::client::AsyncTokioStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::reply::WireReply;
use crate::trouble::Broken;
use crate::wire::{Drained, Wire};

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

    /// No await ever happens with the lock held.
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
        self.lock().wire.gather(bytes);
    }

    /// Gathers commands of the message that comes next, while the reply to this one is waited for. Says
    /// whether they are the first to leave: then whoever says them pushes, and otherwise who waits for
    /// the reply, who is at it already.
    pub(crate) fn say(&self, commands: &[u8]) -> bool {
        let mut state = self.lock();
        let is_first = state.wire.is_written();
        state.wire.gather(commands);
        is_first
    }

    /// Writes what can be written at once; the rest leaves when a reply is waited for.
    pub(crate) fn poll_push(&self, cx: &mut Context<'_>) {
        self.lock().wire.poll_push(cx);
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
            None => state.wire.gather(bytes),
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
pub(crate) fn shown_to_lettre(reply: &WireReply) -> Vec<u8> {
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
