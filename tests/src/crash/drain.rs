//! The end of a crash test: the rest is delivered in peace, and everything compared.

use std::time::{Duration, Instant};

use tokio::process::Command;

use super::{Database, Kind, Report, Run, clean};
use crate::Result;
use crate::ledger::Rest;
use crate::queue::{Counts, left_overs};

/// How long nothing may get better before the queue counts as stuck.
const PATIENCE: Duration = Duration::from_secs(60);

impl Run<'_> {
    pub(super) async fn finish(mut self, tell: &impl Fn(&str)) -> Result<Report> {
        self.producers.group.continue_all()?;
        self.processors.group.continue_all()?;
        if let Some(database) = &mut self.database {
            database.settle().await?;
        }
        self.trouble.extend(self.producers.finish().await?);
        while let Ok(word) = self.words.try_recv() {
            self.note(word);
        }
        let released = self.drain(tell).await?;
        self.trouble.extend(self.processors.group.buried()?);
        self.trouble.extend(self.processors.finish().await?);
        self.clean().await?;
        if !self.queue.recover().await? {
            self.trouble.push("something stays in doubt although nobody is left".to_owned());
        }
        let left = self.queue.counts().await?;
        if left != Counts::default() {
            self.trouble.push(format!("the queue is not empty: {left:?}"));
        }
        for path in left_overs(&self.queue.path).iter().take(10) {
            self.trouble.push(format!("left over: {}", path.display()));
        }
        tell(&self.progress());
        let events = self.queue.events().await?;
        let rest = match &self.database {
            Some(database) => Some(self.rest(database).await?),
            None => None,
        };
        let account = self.ledger.compare(&self.relay.copies(), &events, rest.as_ref());
        Ok(Report {
            account,
            kills: self.kills,
            mails: self.planned,
            trouble: self.trouble,
            released,
            failed: self.failed,
        })
    }

    /// What is left in the database when it was cleaned, and what was discarded.
    async fn rest(&self, database: &Database) -> Result<Rest> {
        Ok(Rest {
            rows: database.rows().await?,
            mail_markers: database.markers(1).await?,
            discarded: self.queue.discarded().await?,
        })
    }

    /// Has the markers removed of which nobody told the database that they may be: whoever should have
    /// was killed in between.
    async fn clean(&self) -> Result<()> {
        let Some(database) = &self.database else { return Ok(()) };
        database.age().await?;
        if self.options.database == Some(Kind::Sqlite) {
            clean::clean(&self.queue.path, &database.url).await?;
        }
        Ok(())
    }

    /// Waits until the queue is empty; releases what is held because it killed too many workers.
    async fn drain(&mut self, tell: &impl Fn(&str)) -> Result<u64> {
        let mut released = 0;
        let (mut last, mut since) = (None, Instant::now());
        loop {
            let counts = self.queue.counts().await?;
            if counts.held > 0 {
                released += counts.held;
                self.release().await?;
            } else if counts.to_do() == 0 {
                return Ok(released);
            }
            if last != Some(counts) {
                (last, since) = (Some(counts), Instant::now());
            }
            if since.elapsed() > PATIENCE {
                self.trouble.push(format!("the queue does not get empty: {counts:?}"));
                return Ok(released);
            }
            tell(&format!("{} left", counts.to_do()));
            self.hear(Duration::from_millis(500)).await;
        }
    }

    async fn release(&self) -> Result<()> {
        let mut command = Command::new(&self.options.program);
        let status = command.arg("release").arg(&self.queue.path).status().await?;
        if status.success() { Ok(()) } else { Err("what is held could not be released".into()) }
    }
}
