//! The shop whose orders the programs take: its mail, and what each program is told when it is started.
//!
//! Only what has nothing to do with a database or its driver: that is in the programs.

use std::env;
use std::error::Error;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;

use sendmail_clock::SystemClock;
use sendmail_core::{Clock as _, Envelope, Message};

/// Who orders.
pub const CUSTOMER: &str = "alice@example.net";

/// The table that the shop has anyway.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS orders (
    id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    customer text NOT NULL
)";

/// What a program is told: `DATABASE_URL=… PROGRAM QUEUE commit|rollback|…`.
#[derive(Debug)]
pub struct Settings {
    /// Where the database is.
    pub database_url: String,
    /// Where the queue is; it is made if it is missing.
    pub queue: PathBuf,
    /// How the transaction ends.
    pub end: End,
}

impl Settings {
    /// Reads them from the environment and the command line.
    ///
    /// # Errors
    ///
    /// One of them is missing; the error says which, and how it is given.
    pub fn read() -> Result<Self, Box<dyn Error + Send + Sync>> {
        const USAGE: &str = "give the queue's directory and commit, rollback, wait-before-commit or wait-after-commit";
        let database_url = database_url()?;
        let mut arguments = env::args_os().skip(1);
        let queue = arguments.next().ok_or(USAGE)?.into();
        let end = arguments.next().ok_or(USAGE)?;
        let end = end.to_str().and_then(|word| word.parse().ok()).ok_or(USAGE)?;
        Ok(Self { database_url, queue, end })
    }
}

/// `DATABASE_URL`, where everybody looks for it.
///
/// # Errors
///
/// It is not set.
pub fn database_url() -> Result<String, Box<dyn Error + Send + Sync>> {
    let missing =
        "set DATABASE_URL to the database, as postgres://user:password@host:port/database";
    Ok(env::var("DATABASE_URL").map_err(|_| missing)?)
}

/// How a program ends its transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It commits.
    Commit,
    /// It rolls back.
    Rollback,
    /// It waits before it commits, so that somebody can see what becomes of the mail if it is killed.
    WaitBeforeCommit,
    /// It waits after it committed, for the same reason.
    WaitAfterCommit,
}

impl End {
    /// To be called when everything is done but the commit: says whether to commit, and waits if it was
    /// told to.
    ///
    /// # Errors
    ///
    /// Standard input could not be read.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe; a line that is typed later is lost.
    pub async fn commits(self) -> io::Result<bool> {
        if self == Self::WaitBeforeCommit {
            wait().await?;
        }
        Ok(self != Self::Rollback)
    }

    /// To be called when it has committed: waits if it was told to.
    ///
    /// # Errors
    ///
    /// As [`commits`](End::commits).
    ///
    /// # Cancel safety
    ///
    /// As [`commits`](End::commits).
    pub async fn committed(self) -> io::Result<()> {
        if self == Self::WaitAfterCommit {
            wait().await?;
        }
        Ok(())
    }
}

impl FromStr for End {
    type Err = Box<dyn Error + Send + Sync>;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        match word {
            "commit" => Ok(Self::Commit),
            "rollback" => Ok(Self::Rollback),
            "wait-before-commit" => Ok(Self::WaitBeforeCommit),
            "wait-after-commit" => Ok(Self::WaitAfterCommit),
            _ => Err(format!("{word:?} is no end of a transaction").into()),
        }
    }
}

/// Prints `ready`, and waits for a line on standard input, for its end, or to be killed.
#[expect(clippy::print_stdout, reason = "whoever is to kill the program waits for this line")]
async fn wait() -> io::Result<()> {
    println!("ready");
    let line = tokio::task::spawn_blocking(|| io::stdin().read_line(&mut String::new()));
    line.await?.map(drop)
}

/// The mail that confirms an order.
///
/// A missing Date and Message-ID are added here, once and for good: what is committed is what is sent.
///
/// # Errors
///
/// `customer` is no address.
pub fn confirmation(customer: &str) -> Result<(Envelope, Message), Box<dyn Error + Send + Sync>> {
    let envelope = Envelope::parse("shop@example.org", [customer])?;
    let text = format!(
        "From: shop@example.org\nTo: {customer}\nSubject: Your order\n\nThank you for your order.\n"
    );
    let message = Message::from_raw(text.as_bytes(), SystemClock.now(), "example.org")?;
    Ok((envelope, message))
}
