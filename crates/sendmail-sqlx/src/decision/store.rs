//! [`SqlDecisionStore`]: asks a database what became of its transactions.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    Clock, Decision, DecisionStore, Error, ErrorKind, QueueId, ResourceId, Result,
};
use sqlx::Pool;

use super::codes::Meaning;
use super::facts::{is_mariadb, judge, relaxed};
use super::fence::{self, Found, take};
use super::forgotten::Forgotten;
use super::lease::{Lease, bounded};
use super::speak::{Flavour, Speak};
use super::text::Text;
use super::trouble::Trouble;
use crate::engine::Engine;

/// How long a call may take besides what it waits for locks.
pub(crate) const CALL: Duration = Duration::from_secs(10);

/// How many ids one statement names at most.
pub(crate) const CHUNK: usize = 500;

/// After how many errors in a row the others of a call are not tried.
const MOST_FAILURES: u32 = 3;

/// SQLite's locks go to whoever comes first, so that a fence which does not wait may never get one.
const FILE_WAIT: Duration = Duration::from_secs(5);

/// Knows what became of the transactions of one database in which mail of one queue was attached.
///
/// It reads the markers that they left, and where there is none puts a tombstone under the same key, so
/// that a commit which is still on its way can no longer happen. It runs in transactions of its own on
/// connections of `pool`, at READ COMMITTED whatever the session's default is, and only on a server that
/// writes: a standby, a replica or a read-only server is refused, for a privileged user too.
///
/// # What it does to the application
///
/// * PostgreSQL, MariaDB, MySQL: a fence waits for the owner of its key and for nobody else. It is in no
///   other transaction's way.
/// * SQLite: there is one write lock, so that a fence waits for every writer, at least 5 s unless
///   [`lock_wait`](Self::lock_wait) says otherwise, and every writer for it. An application that reads and
///   then writes in one transaction must begin it with BEGIN IMMEDIATE, or meets `SQLITE_BUSY_SNAPSHOT`
///   (517) when a marker was deleted in between; rows are therefore deleted at most once a minute.
pub struct SqlDecisionStore<DB: Engine> {
    pub(crate) inner: Arc<Inner<DB>>,
}

pub(crate) struct Inner<DB: Engine> {
    pub(crate) pool: Pool<DB>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) text: Text,
    pub(crate) forgotten: Forgotten,
    warnings: Vec<String>,
    lock_wait: Duration,
}

impl<DB: Engine> SqlDecisionStore<DB> {
    /// Asks the database of `pool` who it is and whether it can decide about the mail of `queue` (the
    /// store's `resource_id()`). It takes at most 10 s; whoever must start without the database repeats
    /// it later.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::NotFound`]: the tables are missing; run the migration.
    /// [`ErrorKind::PermissionDenied`]: the server or the file is read-only, a standby or a replica.
    /// [`ErrorKind::Unsupported`]: the tables are not InnoDB, or the SQLite database is in memory.
    /// Others: it could not be asked.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: it only looks.
    pub async fn connect(pool: Pool<DB>, clock: Arc<dyn Clock>, queue: ResourceId) -> Result<Self> {
        let looked = look(&pool, queue);
        let (text, warnings) = bounded(&*clock, CALL, CONNECT, looked).await?;
        let forgotten = Forgotten::new(DB::FLAVOUR, clock.now());
        let lock_wait = if DB::FLAVOUR == Flavour::Sqlite { FILE_WAIT } else { Duration::ZERO };
        Ok(Self { inner: Arc::new(Inner { pool, clock, text, forgotten, warnings, lock_wait }) })
    }

    /// How long a fence waits for a lock at least, whatever its caller says. SQLite, where a short wait
    /// may never succeed: 5 s, unless it is said otherwise. Elsewhere: not at all.
    #[must_use]
    pub fn lock_wait(self, lock_wait: Duration) -> Self {
        let Inner { pool, clock, text, warnings, .. } = &*self.inner;
        let inner = Inner {
            pool: pool.clone(),
            clock: Arc::clone(clock),
            text: text.clone(),
            forgotten: Forgotten::new(DB::FLAVOUR, clock.now()),
            warnings: warnings.clone(),
            lock_wait,
        };
        Self { inner: Arc::new(inner) }
    }

    /// The queue about whose mail it is asked.
    #[must_use]
    pub fn queue(&self) -> &ResourceId {
        &self.inner.text.queue
    }

    /// Settings of the database, as this connection found them, that let a crash of the server forget what
    /// was committed: the mail is sent and its transaction is gone. SQLite's `synchronous` belongs to
    /// each connection, and only the pool's own is seen.
    #[must_use]
    pub fn warnings(&self) -> &[String] {
        &self.inner.warnings
    }

    /// Refuses a database that may forget what it committed.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Unsupported`], with the [`warnings`](Self::warnings).
    pub fn require_durable(&self) -> Result<()> {
        if self.warnings().is_empty() {
            return Ok(());
        }
        let message = self.warnings().join("; ");
        let error = Error::new(ErrorKind::Unsupported, "rely on the database", message);
        Err(error.with("resource", self.resource_id()))
    }

    pub(crate) fn error(&self, operation: &'static str, trouble: Trouble) -> Error {
        trouble.into_error(operation, Some(&self.inner.text.database))
    }

    /// As [`DecisionStore::fence`], for ids in one call: servers, one after the other.
    async fn fence_each(
        &self,
        ids: &[QueueId],
        timeout: Duration,
    ) -> HashMap<QueueId, Result<Decision>> {
        let mut answers = HashMap::with_capacity(ids.len());
        let mut left = timeout;
        let mut lease = None;
        let mut failures = 0;
        for id in ids {
            let before = self.inner.clock.now();
            let text = &self.inner.text;
            let pool = &self.inner.pool;
            let kept = lease.take();
            let wait = left.max(self.inner.lock_wait);
            let bound = wait.saturating_add(CALL);
            let one = async {
                let mut lease = match kept {
                    Some(lease) => lease,
                    None => take(pool).await.map_err(|trouble| self.error(FENCE, trouble))?,
                };
                let found: Found =
                    fence::fence_one(&mut lease, text, *id, wait, bound, before).await;
                Ok((lease, found))
            };
            let answer = match bounded(&*self.inner.clock, bound, FENCE, one).await {
                Ok((kept, found)) => {
                    lease = kept.is_in_order().then_some(kept);
                    found.map_err(|trouble| self.error(FENCE, trouble).with("queue id", id))
                }
                Err(error) => Err(error.with("queue id", id)),
            };
            // Whoever had to wait has used up what the others could wait.
            left = match &answer {
                Ok(Decision::Committed | Decision::Aborted) => {
                    left.saturating_sub(self.inner.clock.now().saturating_since(before))
                }
                Ok(Decision::Unfinished) | Err(_) => Duration::ZERO,
            };
            failures = if answer.is_err() { failures + 1 } else { 0 };
            answers.insert(*id, answer);
            if failures == MOST_FAILURES {
                // The database cannot be reached: the others are asked about later, instead of waiting
                // for each. A single one in doubt keeps nobody back.
                break;
            }
        }
        answers
    }

    /// The same in SQLite, in one transaction for each chunk.
    async fn fence_file(
        &self,
        ids: &[QueueId],
        timeout: Duration,
    ) -> HashMap<QueueId, Result<Decision>> {
        let mut answers = HashMap::with_capacity(ids.len());
        for chunk in ids.chunks(CHUNK) {
            let wait = timeout.max(self.inner.lock_wait);
            let bound = wait.saturating_mul(2).saturating_add(CALL);
            let work = async {
                let found = fence::fence_file(
                    &self.inner.pool,
                    &self.inner.text,
                    chunk,
                    wait,
                    self.inner.clock.now(),
                )
                .await;
                found.map_err(|trouble| self.error(FENCE, trouble))
            };
            match bounded(&*self.inner.clock, bound, FENCE, work).await {
                Ok(found) => answers.extend(found.into_iter().map(|(id, found)| {
                    (id, found.map_err(|trouble| self.error(FENCE, trouble).with("queue id", id)))
                })),
                Err(error) => {
                    answers.extend(chunk.first().map(|id| (*id, Err(error.with("queue id", id)))));
                    break;
                }
            }
        }
        answers
    }
}

const CONNECT: &str = "use the database for mail";
const VISIBLE: &str = "look for markers";
const FENCE: &str = "settle what became of a transaction";

#[async_trait]
impl<DB: Engine> DecisionStore for SqlDecisionStore<DB> {
    fn resource_id(&self) -> &ResourceId {
        &self.inner.text.database
    }

    async fn visible(&self, ids: &[QueueId]) -> Result<Vec<QueueId>> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        // Each has its time: many of them must not keep each other from ever being answered.
        for chunk in ids.chunks(CHUNK) {
            let work = async {
                let mut lease = take(&self.inner.pool).await?;
                fence::visible(&mut lease, &self.inner.text, chunk, self.inner.clock.now()).await
            };
            let work = async { work.await.map_err(|trouble| self.error(VISIBLE, trouble)) };
            found.extend(bounded(&*self.inner.clock, CALL, VISIBLE, work).await?);
        }
        Ok(found)
    }

    async fn fence(&self, id: QueueId, timeout: Duration) -> Result<Decision> {
        let mut answers = self.fence_all(&[id], timeout).await;
        answers.pop().map_or_else(|| Err(not_asked(id)), |(_, answer)| answer)
    }

    async fn fence_all(
        &self,
        ids: &[QueueId],
        timeout: Duration,
    ) -> Vec<(QueueId, Result<Decision>)> {
        let mut answers = match DB::FLAVOUR {
            Flavour::Sqlite => self.fence_file(ids, timeout).await,
            Flavour::Postgres | Flavour::MySql => self.fence_each(ids, timeout).await,
        };
        let mut answer = |id: &QueueId| answers.remove(id).unwrap_or_else(|| Err(not_asked(*id)));
        ids.iter().map(|id| (*id, answer(id))).collect()
    }

    async fn forget(&self, ids: &[QueueId]) -> Result<()> {
        let inner = &self.inner;
        let kept = inner.forgotten.add(ids);
        if inner.forgotten.is_due(inner.clock.now()) {
            self.flush().await?;
        }
        if kept == ids.len() {
            return Ok(());
        }
        let message = "too many rows wait to be deleted; they are found again later";
        Err(Error::new(ErrorKind::Full, "forget finished mail", message))
    }

    async fn remembered(&self, age: Duration, limit: usize) -> Result<Vec<QueueId>> {
        self.look_for_remembered(age, limit).await
    }

    async fn sweep(&self) -> Result<usize> {
        self.keep_house().await
    }
}

impl<DB: Engine> Clone for SqlDecisionStore<DB> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<DB: Engine> fmt::Debug for SqlDecisionStore<DB> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqlDecisionStore")
            .field("resource", &self.inner.text.database)
            .field("queue", &self.inner.text.queue)
            .field("warnings", &self.inner.warnings)
            .finish_non_exhaustive()
    }
}

fn not_asked(id: QueueId) -> Error {
    let message = "the database could not be asked about others before it; ask again";
    Error::new(ErrorKind::Uncertain, FENCE, message).with("queue id", id)
}

/// Who the database is, whether it can decide, and which of its settings are relaxed.
async fn look<DB: Engine>(pool: &Pool<DB>, queue: ResourceId) -> Result<(Text, Vec<String>)> {
    let database = crate::migrate::inspect(pool).await?;
    let mut text = Text { flavour: DB::FLAVOUR, database, queue, zero_wait: false };
    let looked = examine(pool, &text).await;
    match looked {
        Ok((warnings, mariadb)) => {
            text.zero_wait = mariadb;
            Ok((text, warnings))
        }
        Err(trouble) => Err(trouble.into_error(CONNECT, Some(&text.database))),
    }
}

async fn examine<DB: Speak>(pool: &Pool<DB>, text: &Text) -> Result<(Vec<String>, bool), Trouble> {
    let of = |error| Trouble::of(DB::FLAVOUR, error);
    let mut lease = take(pool).await?;
    lease.in_order(false);
    let facts = text.facts().trim_end_matches("; ").to_owned();
    let facts = DB::answer(&mut lease, facts).await.map_err(of)?;
    judge(&facts, &text.database).map_err(Trouble::Unfit)?;
    can_write(&mut lease, text).await?;
    let settings = DB::answer(&mut lease, text.durability().to_owned()).await.map_err(of)?;
    lease.in_order(true);
    Ok((relaxed(&settings), is_mariadb(&settings)))
}

/// Refuses a file that only reads, which SQLite says only when it is written to. Servers have said so.
async fn can_write<DB: Speak>(lease: &mut Lease<DB>, text: &Text) -> Result<(), Trouble> {
    if DB::FLAVOUR != Flavour::Sqlite {
        return Ok(());
    }
    // Somebody else's lock is not to be waited for: who holds it can write, so that the file can be.
    let before = fence::busy_timeout(lease, Duration::ZERO).await?;
    let tried = DB::tell(lease, text.write_nothing().to_owned()).await;
    let restored = DB::tell(lease, format!("PRAGMA busy_timeout = {before}")).await;
    match tried.map_err(|error| Trouble::of(DB::FLAVOUR, error)) {
        Err(trouble) if trouble.meaning() != Meaning::Unfinished => Err(trouble),
        _ => restored.map(drop).map_err(|error| Trouble::of(DB::FLAVOUR, error)),
    }
}
