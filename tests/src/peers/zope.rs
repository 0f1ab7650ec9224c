//! zope.sendmail and repoze.sendmail.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use super::{Ran, run};
use crate::{Result, programs};

const SCRIPT: &str = include_str!("queue.py");

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Package {
    /// zope.sendmail.
    Zope,
    /// repoze.sendmail.
    Repoze,
}

/// Why there is none, if there is none.
#[must_use]
pub fn missing() -> Option<String> {
    let missing = programs::python().is_none();
    missing.then(|| "there is no Python with zope.sendmail and repoze.sendmail".to_owned())
}

impl Package {
    /// Lets it fill the queue `folder/queue`, a transaction for each message.
    ///
    /// # Errors
    ///
    /// It fails.
    pub fn fill(self, folder: &Path, messages: usize, length: usize) -> Result<Ran> {
        self.run(folder, &["fill"], &[messages, length])
    }

    /// Lets it deliver all of the queue `folder/queue`. What counts is its own measure: neither the
    /// interpreter's start nor its imports do.
    ///
    /// # Errors
    ///
    /// It fails, or leaves messages.
    pub fn drain(self, folder: &Path, relay: SocketAddr) -> Result<Ran> {
        let ran = self.run(folder, &["drain"], &[relay.port().into()])?;
        let left = fs::read_dir(folder.join("queue/new"))?.count();
        if left > 0 {
            return Err(format!("{} has left {left} messages", self.name()).into());
        }
        Ok(ran)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zope => "zope.sendmail 7.3",
            Self::Repoze => "repoze.sendmail 4.5",
        }
    }

    fn run(self, folder: &Path, what: &[&str], numbers: &[usize]) -> Result<Ran> {
        let script = folder.join("queue.py");
        fs::write(&script, SCRIPT)?;
        let python = programs::python().ok_or("there is no Python")?;
        let mut command = Command::new(python);
        command.arg(script).arg(if self == Self::Zope { "zope" } else { "repoze" }).args(what);
        command.arg(folder.join("queue")).args(numbers.iter().map(ToString::to_string));
        let ran = run(&mut command)?;
        Ok(Ran { seconds: ran.output.trim().parse()?, ..ran })
    }
}
