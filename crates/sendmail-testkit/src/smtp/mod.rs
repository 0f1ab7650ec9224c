//! A real SMTP server on loopback that follows a script: each way in which a relay can misbehave is one
//! line of a test.
//!
//! ```
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> std::io::Result<()> {
//! use sendmail_testkit::smtp::{At, Do, Script, ScriptedServer};
//!
//! let script = Script::new().on(At::Rcpt(2), Do::reply("450 4.2.0 later"));
//! let server = ScriptedServer::start(script).await?;
//! // … let the client under test send to `server.url()`, then look:
//! assert!(server.messages().is_empty());
//! # Ok(())
//! # }
//! ```
//!
//! What comes from the client is recorded as it was sent ([`Session`], [`Received`]); tests wait for
//! conditions ([`ScriptedServer::wait_for_messages`]) and never for time.

mod body;
mod hostile;
mod record;
mod script;
mod session;
#[cfg(feature = "tls")]
mod tls;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};

pub use hostile::{Effect, Mode, Phase};
pub use record::{Command, Received, Session};
pub use script::{At, Do, Gate, Script};
#[cfg(feature = "tls")]
pub use tls::{Certificates, ServerTls};

/// How long a test waits for a condition before it says what it saw instead.
const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Default)]
struct Log {
    sessions: Vec<Session>,
    received: Vec<Received>,
    transactions: usize,
}

/// Which script a session follows, by its number, counted from 1.
type Choose = Box<dyn FnMut(usize) -> Script + Send>;

/// What the sessions share with the test.
pub(crate) struct Shared {
    script: Mutex<Choose>,
    log: Mutex<Log>,
    changed: Notify,
}

impl Shared {
    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn script(&self) -> MutexGuard<'_, Choose> {
        self.script.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update<T>(&self, change: impl FnOnce(&mut Log) -> T) -> T {
        let result = change(&mut self.log());
        self.changed.notify_waiters();
        result
    }
}

/// A server on a free port of 127.0.0.1. It stops when it is dropped.
pub struct ScriptedServer {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

impl ScriptedServer {
    /// Starts a server that follows `script`.
    ///
    /// # Errors
    ///
    /// No port could be had.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn start(script: Script) -> io::Result<Self> {
        Self::start_each(move |_| script.clone()).await
    }

    /// Starts a server that asks for the script of each session, by its number, counted from 1.
    ///
    /// # Errors
    ///
    /// No port could be had.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn start_each(
        choose: impl FnMut(usize) -> Script + Send + 'static,
    ) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            script: Mutex::new(Box::new(choose)),
            log: Mutex::default(),
            changed: Notify::new(),
        });
        let task = tokio::spawn(serve(listener, shared.clone()));
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL: `smtp://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("smtp://{}", self.address)
    }

    /// Follows another script in the sessions that begin from now on.
    pub fn set_script(&self, script: Script) {
        *self.shared.script() = Box::new(move |_| script.clone());
    }

    /// The messages that were accepted, in the order of their final dots.
    #[must_use]
    pub fn messages(&self) -> Vec<Received> {
        self.submitted().into_iter().filter(|message| message.accepted).collect()
    }

    /// All messages whose final dot was received, whatever it was answered.
    #[must_use]
    pub fn submitted(&self) -> Vec<Received> {
        self.shared.log().received.clone()
    }

    /// All connections so far, in the order in which they were made.
    #[must_use]
    pub fn sessions(&self) -> Vec<Session> {
        self.shared.log().sessions.clone()
    }

    /// How many connections were made.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.log().sessions.len()
    }

    /// Waits until `count` messages were accepted.
    ///
    /// # Panics
    ///
    /// They are still not there after half a minute.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_for_messages(&self, count: usize) -> Vec<Received> {
        self.wait_for(&format!("{count} messages"), |server| {
            let messages = server.messages();
            (messages.len() >= count).then_some(messages)
        })
        .await
    }

    /// Waits until a command that starts with `prefix`, in any case, was received in any session.
    ///
    /// # Panics
    ///
    /// It is still not there after half a minute.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_for_command(&self, prefix: &str) -> Command {
        let wanted = prefix.to_ascii_uppercase();
        self.wait_for(prefix, |server| {
            let log = server.shared.log();
            let mut commands = log.sessions.iter().flat_map(|session| &session.commands);
            commands.find(|command| command.line.to_ascii_uppercase().starts_with(&wanted)).cloned()
        })
        .await
    }

    /// Waits until `count` sessions are over.
    ///
    /// # Panics
    ///
    /// They are not after half a minute.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe.
    pub async fn wait_for_ended(&self, count: usize) {
        self.wait_for(&format!("{count} sessions to end"), |server| {
            let ended = server.shared.log().sessions.iter().filter(|s| s.ended).count();
            (ended >= count).then_some(())
        })
        .await;
    }

    async fn wait_for<T>(&self, what: &str, look: impl Fn(&Self) -> Option<T>) -> T {
        let watch = async {
            loop {
                let mut changed = std::pin::pin!(self.shared.changed.notified());
                changed.as_mut().enable();
                if let Some(found) = look(self) {
                    return found;
                }
                changed.await;
            }
        };
        match tokio::time::timeout(PATIENCE, watch).await {
            Ok(found) => found,
            Err(_) => panic!("waited in vain for {what}; sessions: {:?}", self.sessions()),
        }
    }
}

impl Drop for ScriptedServer {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Accepts connections until the server is dropped, and with it all sessions.
async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let mut sessions = JoinSet::new();
    while let Ok((tcp, _)) = listener.accept().await {
        let number = shared.update(|log| {
            log.sessions.push(Session::default());
            log.sessions.len()
        });
        let script = (shared.script())(number);
        let shared = shared.clone();
        sessions.spawn(async move {
            // How a session ends is for its client to judge.
            let longest = script.longest.unwrap_or(Duration::MAX);
            let running = session::run(tcp, script, number, &shared);
            drop(tokio::time::timeout(longest, running).await);
            shared.update(|log| log.sessions[number - 1].ended = true);
        });
        while sessions.try_join_next().is_some() {}
    }
}
