//! A producer: a process that runs the transactions it is told to on standard input, and says on
//! standard output how far it is with each.
//!
//! Each line is written in one piece, so that whoever reads the pipe after the process was killed knows
//! exactly how far it had come.

mod shop;

use std::io::{self, BufRead as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::{
    Clock, DataManager, DecisionStore, Envelope, Error, ErrorKind, MailDelivery as _, Message,
    Order, PrepareContext, QueueId, QueueStore, Result as CoreResult, SavepointMark, TransactionId,
    Vote,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_txn::{CommitOutcome, MailDataManager, QueuedDelivery, TransactionManager};

use crate::Result;
use crate::plan::{Ending, Mail, Plan};

/// How far a transaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Its commit is about to be called.
    Committing,
    /// Its commit returned success.
    Committed,
    /// It was rolled back, or its commit returned that it was.
    RolledBack,
    /// Its commit returned that it cannot say.
    Uncertain,
}

impl Progress {
    const ALL: [Self; 4] = [Self::Committing, Self::Committed, Self::RolledBack, Self::Uncertain];

    fn word(self) -> &'static str {
        match self {
            Self::Committing => "committing",
            Self::Committed => "committed",
            Self::RolledBack => "rolled-back",
            Self::Uncertain => "uncertain",
        }
    }

    /// Reads a line that a producer wrote: the transaction, how far it is, and any remark.
    #[must_use]
    pub fn parse(line: &str) -> Option<(u64, Self, &str)> {
        let mut words = line.splitn(3, ' ');
        let word = words.next()?;
        let progress = Self::ALL.into_iter().find(|progress| progress.word() == word)?;
        Some((words.next()?.parse().ok()?, progress, words.next().unwrap_or_default()))
    }
}

/// Runs transactions until standard input ends; several at once if several are told at once. They are
/// those of the database at this URL, if there is one.
///
/// # Errors
///
/// The queue or the database cannot be opened, or a line cannot be understood or written.
pub async fn run(queue: &Path, database: Option<&str>) -> Result<()> {
    let store: Arc<dyn QueueStore> =
        Arc::new(MaildirStore::open(queue, MaildirOptions::default()).await?);
    let performer = match database {
        Some(url) => shop::open(url, store).await?,
        None => Arc::new(MailOnly { store }),
    };
    let (sender, mut plans) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            let Ok(line) = line else { break };
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let mut running = tokio::task::JoinSet::new();
    while let Some(line) = plans.recv().await {
        let plan: Plan = serde_json::from_str(&line)?;
        let performer = performer.clone();
        running.spawn(async move { performer.perform(&plan).await });
        while let Some(ended) = running.try_join_next() {
            ended??;
        }
    }
    while let Some(ended) = running.join_next().await {
        ended??;
    }
    Ok(())
}

/// Runs transactions of one kind.
#[async_trait]
trait Perform: Send + Sync {
    /// Runs one, and says how far it is.
    ///
    /// # Errors
    ///
    /// It could not be said.
    async fn perform(&self, plan: &Plan) -> Result<()>;
}

/// Transactions with mail and nothing else.
struct MailOnly {
    store: Arc<dyn QueueStore>,
}

#[async_trait]
impl Perform for MailOnly {
    async fn perform(&self, plan: &Plan) -> Result<()> {
        perform(self.store.clone(), plan).await
    }
}

async fn perform(store: Arc<dyn QueueStore>, plan: &Plan) -> Result<()> {
    if plan.ending == Ending::AbortPrepared {
        return abort_prepared(store, plan).await;
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let manager = TransactionManager::new(clock.clone());
    let delivery = QueuedDelivery::new(store, clock);
    let mut transaction = manager.begin();
    for mail in &plan.mails {
        let (envelope, message) = compose(mail)?;
        if mail.undone {
            let savepoint = manager.savepoint(&mut transaction).await?;
            delivery.send(&mut transaction, envelope, message).await?;
            manager.rollback_to(&mut transaction, &savepoint).await?;
        } else {
            delivery.send(&mut transaction, envelope, message).await?;
        }
    }
    match plan.ending {
        Ending::Commit => {}
        Ending::Refused => transaction.join(Box::new(Refuser))?,
        Ending::Abort | Ending::AbortPrepared => {
            manager.abort(transaction).await;
            return say(plan, Progress::RolledBack, "");
        }
    }
    if plan.ending == Ending::Commit {
        say(plan, Progress::Committing, "")?;
    }
    match manager.commit(transaction).await {
        CommitOutcome::Committed => say(plan, Progress::Committed, ""),
        CommitOutcome::CommittedFinishPending(pending) => {
            let why = pending.first().map(|left| left.error.to_string()).unwrap_or_default();
            say(plan, Progress::Committed, &why)
        }
        CommitOutcome::Aborted(error) => say(plan, Progress::RolledBack, &error.to_string()),
        CommitOutcome::Uncertain(error) => say(plan, Progress::Uncertain, &error.to_string()),
    }
}

/// Drives the data manager itself, since a transaction offers no way to change one's mind that late.
async fn abort_prepared(store: Arc<dyn QueueStore>, plan: &Plan) -> Result<()> {
    let now = || SystemClock.now();
    let resource = store.resource_id().clone();
    let mut manager = MailDataManager::new(store);
    for mail in plan.kept() {
        let (envelope, message) = compose(mail)?;
        manager.hand_over(QueueId::mint(now()), envelope, message);
    }
    let mut context = PrepareContext::new(TransactionId::mint(now()), Some(resource));
    let prepared = manager.prepare(&mut context).await;
    manager.abort().await;
    let remark = prepared.err().map(|error| error.to_string()).unwrap_or_default();
    say(plan, Progress::RolledBack, &remark)
}

fn compose(mail: &Mail) -> Result<(Envelope, Message)> {
    let envelope = Envelope::parse("shop@example.org", &mail.recipients)?;
    Ok((envelope, Message::from_raw(&mail.bytes(), SystemClock.now(), "crash.test")?))
}

fn say(plan: &Plan, progress: Progress, remark: &str) -> Result<()> {
    let remark = remark.replace(['\r', '\n'], " ");
    let line = format!("{} {} {remark}\n", progress.word(), plan.number);
    let mut stdout = io::stdout().lock();
    stdout.write_all(line.as_bytes())?;
    Ok(stdout.flush()?)
}

/// A participant that votes no.
struct Refuser;

#[async_trait]
impl DataManager for Refuser {
    fn name(&self) -> &str {
        "refuser"
    }

    fn order(&self) -> Order {
        Order::Normal
    }

    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>> {
        None
    }

    fn needs_decision(&self) -> bool {
        false
    }

    async fn savepoint(&mut self) -> CoreResult<SavepointMark> {
        Ok(SavepointMark(0))
    }

    async fn rollback_to(&mut self, _: SavepointMark) -> CoreResult<()> {
        Ok(())
    }

    async fn prepare(&mut self, _: &mut PrepareContext) -> CoreResult<Vote> {
        Err(Error::new(ErrorKind::Aborted, "prepare the refuser", "it always votes no"))
    }

    async fn commit(&mut self) -> CoreResult<()> {
        Ok(())
    }

    async fn abort(&mut self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_was_cut_is_not_understood() {
        let line = "committed 17 ";
        assert_eq!(Progress::parse(line), Some((17, Progress::Committed, "")));
        assert_eq!(
            Progress::parse("rolled-back 3 why so"),
            Some((3, Progress::RolledBack, "why so"))
        );
        assert_eq!(Progress::parse("commit"), None);
        assert_eq!(Progress::parse("committed"), None);
    }
}
