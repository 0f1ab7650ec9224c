//! Real database servers for tests: PostgreSQL and MariaDB as Debian packages them, each on a free port
//! of loopback and in a temporary folder.
//!
//! A server commits as durably as its defaults promise, is killed and started again at will, and never
//! outlives the process that started it, however that one ends. Whoever starts it is its superuser, by a
//! password that nobody else knows.
//!
//! Every call blocks its thread: for milliseconds, or, when a server starts, for a few seconds.
//!
//! **What is absent.** No driver: what this module has to say to a server, it says through the server's own
//! client.

mod account;
mod daemon;
mod engine;
mod mariadb;
mod postgres;
mod scratch;

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use account::Account;
use daemon::Daemon;
use scratch::Scratch;

pub use engine::Engine;
pub use mariadb::MariaDbEngine;
pub use postgres::PostgresEngine;

use crate::Result;
use crate::programs::skip;

/// A PostgreSQL server.
pub type Postgres = Server<PostgresEngine>;

/// A MariaDB server.
pub type MariaDb = Server<MariaDbEngine>;

/// A server that takes longer than this to start or to recover does not work.
const START_WITHIN: Duration = Duration::from_secs(60);

/// How long to wait between two attempts to connect to a server that is starting.
const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(20);

/// A running server, and its data. Both are gone when it is dropped.
#[derive(Debug)]
pub struct Server<E: Engine> {
    engine: E,
    // Invariant: it is stopped before its folder is removed, which is why it stands first.
    daemon: Option<Daemon>,
    place: Place,
    settings: Vec<(String, String)>,
}

/// Where a server is, and how one gets in.
#[derive(Debug)]
pub struct Place {
    scratch: Scratch,
    account: Account,
    port: u16,
    password: String,
}

impl<E: Engine> Server<E> {
    /// Starts a server with the settings that a test should have.
    ///
    /// # Errors
    ///
    /// Its package is not installed, or it does not start; the error has the end of its log.
    pub fn start() -> Result<Self> {
        Self::start_with(&[])
    }

    /// Starts a server with settings of its own: `("synchronous_commit", "off")`.
    ///
    /// # Errors
    ///
    /// As [`Server::start`].
    pub fn start_with(settings: &[(&str, &str)]) -> Result<Self> {
        let engine = E::find().ok_or_else(not_installed::<E>)?;
        let account = Account::that_serves(E::USER)?;
        let scratch = Scratch::new(E::NAME, &account)?;
        let place = Place { scratch, account, port: free_port()?, password: password() };
        engine.initialise(&place)?;
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        let settings = settings.iter().map(owned).collect();
        let mut server = Self { engine, daemon: None, place, settings };
        server.launch()?;
        Ok(server)
    }

    /// The server that all tests of this process share, each with a [database](Server::create_database) of
    /// its own; nothing if its package is not installed: then `test` has said that it is skipped, and
    /// returns.
    ///
    /// # Panics
    ///
    /// If it does not start, or is not installed and `SENDMAIL_TEST_NO_SKIP` is `1`.
    #[must_use]
    pub fn shared(test: &str) -> Option<&'static Self> {
        if !Self::needed(test) {
            return None;
        }
        let started = E::shared().get_or_init(|| Self::start().map_err(|error| error.to_string()));
        match started {
            Ok(server) => Some(server),
            Err(error) => panic!("{test} cannot go on: {error}"),
        }
    }

    /// A server for `test` alone, which may kill it and have settings of its own; otherwise as
    /// [`Server::shared`].
    ///
    /// # Panics
    ///
    /// As [`Server::shared`].
    #[must_use]
    pub fn own(test: &str, settings: &[(&str, &str)]) -> Option<Self> {
        if !Self::needed(test) {
            return None;
        }
        match Self::start_with(settings) {
            Ok(server) => Some(server),
            Err(error) => panic!("{test} cannot go on: {error}"),
        }
    }

    fn needed(test: &str) -> bool {
        let found = E::find().is_some();
        if !found {
            skip(test, &not_installed::<E>());
        }
        found
    }

    /// Where a database of this server is: `postgres://user:password@127.0.0.1:port/database`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        let Place { port, password, .. } = &self.place;
        format!("{}://{}:{password}@127.0.0.1:{port}/{database}", E::SCHEME, E::SUPERUSER)
    }

    /// The port of 127.0.0.1 on which it listens, after a restart as before.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.place.port
    }

    /// The process: PostgreSQL's postmaster, or `mariadbd`; nothing while it is killed.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Daemon::pid)
    }

    /// Makes an empty database, and says where it is.
    ///
    /// # Errors
    ///
    /// There is one of this name, or the name has anything but `a-z`, `0-9` and `_`.
    pub fn create_database(&self, name: &str) -> Result<String> {
        let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(format!("{name:?} is no name for a database of a test").into());
        }
        self.query(E::FIRST_DATABASE, &format!("CREATE DATABASE {name}"))?;
        Ok(self.url(name))
    }

    /// What statements answer through the server's own client: a line for each row, columns divided by
    /// tabs. It is a connection of its own, and each statement commits by itself.
    ///
    /// # Errors
    ///
    /// The server refused a statement, or cannot be reached.
    pub fn query(&self, database: &str, sql: &str) -> Result<String> {
        let mut client = self.engine.client(&self.place, database, sql);
        output(&mut client)
    }

    /// Kills every process of the server with `SIGKILL`, in the middle of whatever they do, and returns
    /// when none is left.
    ///
    /// # Errors
    ///
    /// They do not end.
    pub fn kill(&mut self) -> Result<()> {
        self.daemon.take().map_or(Ok(()), Daemon::kill_all)
    }

    /// Starts the server again, on the same port and data, and returns when it has recovered. One that still
    /// runs is killed before.
    ///
    /// # Errors
    ///
    /// It does not start; the error has the end of its log.
    pub fn restart(&mut self) -> Result<()> {
        self.kill()?;
        self.launch()
    }

    /// Starts the process, and returns when it answers.
    fn launch(&mut self) -> Result<()> {
        let arguments = self.engine.server(&self.place);
        let settings = self.settings.iter().map(|(name, value)| format!("--{name}={value}"));
        let mut words = arguments;
        words.extend(settings.map(Into::into));
        let log = self.place.scratch.append("log")?;
        let daemon = Daemon::start(&self.place.account, self.place.path(), &words, E::END, log)?;
        let daemon = self.daemon.insert(daemon);
        let deadline = Instant::now() + START_WITHIN;
        loop {
            let Err(error) =
                output(&mut self.engine.client(&self.place, E::FIRST_DATABASE, "SELECT 1"))
            else {
                return Ok(());
            };
            // It is awaited rather than slept for: a server that gives up is known at once.
            let ended = daemon.ends_within(BETWEEN_ATTEMPTS)?;
            if ended || Instant::now() > deadline {
                let log = self.place.scratch.end_of("log");
                let what = if ended { "ended" } else { "does not answer" };
                return Err(format!("{} {what}: {error}; its log ends:\n{log}", E::NAME).into());
            }
        }
    }
}

impl Place {
    /// The folder of the server.
    fn path(&self) -> &Path {
        self.scratch.path()
    }

    /// A command that runs as the server does, in its folder, and with nothing of our environment that
    /// could tell it something.
    fn command(&self, program: &Path) -> Command {
        let mut command = self.account.command(program);
        daemon::plain(&mut command, self.path());
        command
    }

    /// A client of the server: as ourselves, who may be somebody else.
    fn client(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        daemon::plain(&mut command, Path::new("/"));
        command
    }
}

/// Runs a command to its end, and gives what it wrote.
fn output(command: &mut Command) -> Result<String> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(String::from_utf8(output.stdout)?);
    }
    let program = command.get_program().to_string_lossy().into_owned();
    let told = String::from_utf8_lossy(&output.stderr);
    Err(format!("{program}: {}: {}", output.status, told.trim()).into())
}

fn not_installed<E: Engine>() -> String {
    format!("{} is not installed: `apt-get install {}` brings it", E::NAME, E::PACKAGE)
}

/// A port of loopback on which nobody listens, and which the kernel gives to no client: one of those could
/// take it while the server is killed.
fn free_port() -> Result<u16> {
    const ATTEMPTS: usize = 1000;
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")?;
    let lowest = range.split_whitespace().next().and_then(|word| word.parse::<u16>().ok());
    let below = lowest.filter(|port| *port > 11_000).unwrap_or(32_768);
    let mut ports = (0..ATTEMPTS).map(|_| fastrand::u16(10_000..below));
    let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
    Ok(ports.find(free).ok_or("every port of loopback is taken")?)
}

fn password() -> String {
    std::iter::repeat_with(fastrand::alphanumeric).take(24).collect()
}
