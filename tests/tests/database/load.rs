//! Many writers and many who fence, at once: no application's transaction fails, and no answer is wrong.
//!
//! Twelve applications insert rows and attach mail, and commit or roll back, as a whole or in savepoints. Six
//! recoveries fence the youngest mail all the time, and another publishes what is committed and has its
//! markers deleted in batches. The work is counted, not timed. Each answer is compared with the rows.

use std::cmp::Reverse;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use sendmail_clock::SystemClock;
use sendmail_core::{
    Decision, DecisionStore, Entry, EntryState, Error, Filter, QueueAdmin, QueueId, QueueStore,
    Result,
};
use sendmail_sqlx::{AttachExt, SqlDecisionStore, SqlDelivery};
use sendmail_testkit::MemoryStore;
use sqlx::{Connection, Pool};
use tokio::sync::{RwLock, watch};
use tokio::task::JoinSet;

use crate::fence::{Fenced, pool_of};
use crate::rows::{Rows, mail_to};

const TRANSACTIONS: usize = 1500;
const WRITERS: usize = 12;
const FENCERS: usize = 6;
/// How many ids a fencer asks about at a time.
const YOUNGEST: usize = 40;
/// After how many transactions what is committed is published and forgotten.
const BATCH: usize = 50;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_and_fences_on_postgres() {
    staged_only::<sqlx::Postgres>("many_writers_and_fences_on_postgres").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_writers_and_fences_on_mariadb() {
    staged_only::<sqlx::MySql>("many_writers_and_fences_on_mariadb").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fences_before_the_marker_on_postgres() {
    any_age::<sqlx::Postgres>("fences_before_the_marker_on_postgres").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn fences_before_the_marker_on_mariadb() {
    any_age::<sqlx::MySql>("fences_before_the_marker_on_mariadb").await;
}

/// As recovery does it, which leaves alone what a living process has not staged.
async fn staged_only<DB: Fenced + Rows>(test: &str) {
    let Some(load) = Load::<DB>::open(test, false).await else { return };
    let load = Arc::new(load);
    Arc::clone(&load).run().await;
    let refused = load.log.lock().unwrap().refused.clone();
    assert!(refused.is_empty(), "transactions failed: {refused:#?}");
    let kept: Vec<_> = (0..TRANSACTIONS).flat_map(|number| Work::of(number).kept()).collect();
    let rows: BTreeSet<_> = kept.into_iter().collect();
    assert_eq!(load.rows().await, rows, "the database itself is wrong");
    load.judge(test, 0).await;
}

/// Also what is being attached, of which recovery knows that it must wait. Then a transaction may be refused,
/// by its own mail's tombstone and by nothing else, and still no answer is wrong.
async fn any_age<DB: Fenced + Rows>(test: &str) {
    let Some(load) = Load::<DB>::open(test, true).await else { return };
    let load = Arc::new(load);
    Arc::clone(&load).run().await;
    let refused = load.log.lock().unwrap().refused.clone();
    for error in &refused {
        let duplicate = ["23505", "1062"].iter().any(|code| error.contains(code));
        assert!(duplicate, "not by a tombstone: {error}");
    }
    load.judge(test, refused.len()).await;
}

/// What transaction number so-and-so does. All combinations come.
struct Work {
    number: usize,
    rows: usize,
    mails: usize,
    commits: bool,
    /// Whether there is a nested transaction, and whether that commits.
    nested: Option<bool>,
}

impl Work {
    fn of(number: usize) -> Self {
        let nested = [None, Some(true), Some(false)][number / 3 % 3];
        let (rows, mails) = (1 + number / 9 % 3, 1 + number / 27 % 3);
        Self { number, rows, mails, commits: number % 3 != 2, nested }
    }

    fn main(&self) -> String {
        format!("t{}-main", self.number)
    }

    fn inner(&self) -> String {
        format!("t{}-inner", self.number)
    }

    /// The rows that it leaves.
    fn kept(&self) -> Vec<String> {
        let main = self.commits.then(|| self.main());
        let inner = (self.commits && self.nested == Some(true)).then(|| self.inner());
        main.into_iter().chain(inner).collect()
    }
}

/// What happened so far.
#[derive(Default)]
struct Log {
    answers: HashMap<QueueId, Decision>,
    fences: usize,
    unfinished: usize,
    retries: usize,
    forgotten: usize,
    /// Asked about at least once without an answer.
    open: HashSet<QueueId>,
    /// What transactions failed with.
    refused: Vec<String>,
    /// What must never happen.
    violations: Vec<String>,
}

impl Log {
    fn answered(&mut self, id: QueueId, answer: Result<Decision>) {
        self.fences += 1;
        self.retries += usize::from(self.open.contains(&id));
        match answer {
            Ok(Decision::Unfinished) => {
                self.unfinished += 1;
                self.open.insert(id);
            }
            Ok(answer) => {
                let before = *self.answers.entry(id).or_insert(answer);
                if before != answer {
                    self.violations.push(format!("{id} was {before:?} and is {answer:?}"));
                }
            }
            Err(error) => self.violations.push(format!("{id} was not answered: {}", full(&error))),
        }
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fences, unfinished, retries, forgotten, answers, refused, .. } = self;
        let committed = answers.values().filter(|answer| **answer == Decision::Committed).count();
        let (known, refused) = (answers.len(), refused.len());
        write!(
            f,
            "{TRANSACTIONS} transactions, {refused} refused; {fences} fences, {unfinished} unfinished, \
             {retries} asked again; {known} mails answered, {committed} of them committed; {forgotten} \
             markers forgotten"
        )
    }
}

struct Load<DB: Fenced + Rows> {
    pool: Pool<DB>,
    queue: MemoryStore,
    delivery: SqlDelivery,
    decisions: SqlDecisionStore<DB>,
    /// Whether mail is fenced that is not staged.
    any_age: bool,
    next: AtomicUsize,
    done: watch::Sender<usize>,
    /// Whoever fences holds it for reading: what is forgotten nobody asks about any more.
    asking: RwLock<()>,
    log: Mutex<Log>,
}

impl<DB: Fenced + Rows> Load<DB> {
    async fn open(test: &str, any_age: bool) -> Option<Self> {
        let pool = pool_of::<DB>(test, None, 24).await?;
        DB::make_table(&pool).await.unwrap();
        let clock = Arc::new(SystemClock);
        let queue = MemoryStore::new(clock.clone());
        let delivery = SqlDelivery::connect(Arc::new(queue.clone()), clock.clone(), &pool);
        let name = QueueStore::resource_id(&queue).clone();
        Some(Self {
            delivery: delivery.await.unwrap(),
            decisions: SqlDecisionStore::connect(pool.clone(), clock, name).await.unwrap(),
            pool,
            queue,
            any_age,
            next: AtomicUsize::new(0),
            done: watch::Sender::new(0),
            asking: RwLock::new(()),
            log: Mutex::default(),
        })
    }

    async fn run(self: Arc<Self>) {
        let mut tasks = JoinSet::new();
        for _ in 0..WRITERS {
            tasks.spawn(Arc::clone(&self).write());
        }
        for number in 0..FENCERS {
            tasks.spawn(Arc::clone(&self).fence(number));
        }
        tasks.spawn(Arc::clone(&self).finish());
        while let Some(ended) = tasks.join_next().await {
            ended.unwrap();
        }
    }

    fn is_done(&self) -> bool {
        *self.done.borrow() == TRANSACTIONS
    }

    async fn write(self: Arc<Self>) {
        loop {
            let number = self.next.fetch_add(1, Ordering::Relaxed);
            if number >= TRANSACTIONS {
                return;
            }
            if let Err(error) = self.transact(&Work::of(number)).await {
                self.log.lock().unwrap().refused.push(format!("{number}: {error}"));
            }
            self.done.send_modify(|done| *done += 1);
        }
    }

    async fn transact(&self, work: &Work) -> Result<(), String> {
        let sql = |error: sqlx::Error| format!("{error:?}");
        let mut tx = self.pool.begin().await.map_err(sql)?;
        self.part(&mut tx, &work.main(), work.rows, work.mails).await?;
        if let Some(commits) = work.nested {
            let mut inner = tx.begin().await.map_err(sql)?;
            self.part(&mut inner, &work.inner(), 1, 1).await?;
            let ended = if commits { inner.commit().await } else { inner.rollback().await };
            ended.map_err(sql)?;
        }
        if work.commits { tx.commit().await.map_err(sql) } else { tx.rollback().await.map_err(sql) }
    }

    /// Rows, and mails that say whose they are.
    async fn part(
        &self,
        connection: &mut DB::Connection,
        tag: &str,
        rows: usize,
        mails: usize,
    ) -> Result<(), String> {
        for _ in 0..rows {
            DB::insert(connection, tag).await.map_err(|error| format!("{error:?}"))?;
        }
        for number in 0..mails {
            let (envelope, message) = mail_to(&format!("{tag}.{number}"));
            let attached = self.delivery.attach(connection, envelope, message).await;
            attached.map_err(|error| full(&error))?;
        }
        Ok(())
    }

    /// Fences the youngest, one after the other as recovery does, or all at once.
    async fn fence(self: Arc<Self>, number: usize) {
        let wait = Duration::from_millis(if number.is_multiple_of(3) { 0 } else { 50 });
        while !self.is_done() {
            let asking = self.asking.read().await;
            let ids = self.youngest().await;
            let answers = if number.is_multiple_of(2) {
                self.decisions.fence_all(&ids, wait).await
            } else {
                self.fence_at_once(&ids, wait).await
            };
            drop(asking);
            self.note(answers);
            tokio::task::yield_now().await;
        }
    }

    fn note(&self, answers: Vec<(QueueId, Result<Decision>)>) {
        let mut log = self.log.lock().unwrap();
        answers.into_iter().for_each(|(id, answer)| log.answered(id, answer));
    }

    async fn fence_at_once(
        &self,
        ids: &[QueueId],
        wait: Duration,
    ) -> Vec<(QueueId, Result<Decision>)> {
        let mut tasks = JoinSet::new();
        for id in ids.iter().copied() {
            let decisions = self.decisions.clone();
            tasks.spawn(async move { (id, decisions.fence(id, wait).await) });
        }
        tasks.join_all().await
    }

    async fn youngest(&self) -> Vec<QueueId> {
        let mut undecided = self.queue.undecided().await.unwrap();
        undecided.retain(|mail| mail.staged || self.any_age);
        // First what is being attached just now, if that is meant.
        undecided.sort_unstable_by_key(|mail| (mail.staged, Reverse(mail.id)));
        undecided.iter().map(|mail| mail.id).take(YOUNGEST).collect()
    }

    async fn undecided(&self, any_age: bool) -> Vec<QueueId> {
        let undecided = self.queue.undecided().await.unwrap();
        undecided.iter().filter(|mail| mail.staged || any_age).map(|mail| mail.id).collect()
    }

    /// Publishes what is committed, and has it forgotten.
    async fn finish(self: Arc<Self>) {
        let mut done = self.done.subscribe();
        let mut next = 0;
        while next < TRANSACTIONS {
            next = (next + BATCH).min(TRANSACTIONS);
            done.wait_for(|done| *done >= next).await.unwrap();
            self.finish_some().await;
        }
    }

    async fn finish_some(&self) {
        let staged = self.undecided(false).await;
        let committed = self.decisions.visible(&staged).await.unwrap();
        self.queue.publish(&committed).await.unwrap();
        // Whoever asks from now on finds them undecided no more; whoever asked before has his answer.
        drop(self.asking.write().await);
        self.decisions.forget(&committed).await.unwrap();
        self.log.lock().unwrap().forgotten += committed.len();
    }

    async fn rows(&self) -> BTreeSet<String> {
        DB::all(&self.pool).await.unwrap().into_iter().collect()
    }

    /// Settles what is left, and compares all that was said with the rows.
    #[expect(clippy::print_stdout, reason = "a test of load tells how much there was")]
    async fn judge(&self, test: &str, refused: usize) {
        let left = self.undecided(true).await;
        self.note(self.decisions.fence_all(&left, Duration::from_secs(1)).await);
        self.decisions.sweep().await.unwrap();
        let marked = DB::marked(&self.pool).await.unwrap();
        let rows = self.rows().await;
        let mut entries = Vec::new();
        let mut visit = |entry: Entry| {
            entries.push(entry);
            ControlFlow::Continue(())
        };
        self.queue.list(&Filter::default(), &mut visit).await.unwrap();
        let mut log = self.log.lock().unwrap();
        for entry in &entries {
            let to = entry.recipients[0].as_str();
            let (tag, _) = to.split_once('.').unwrap();
            let truth = rows.contains(tag);
            let published = entry.state == EntryState::Queued;
            let told = log.answers.get(&entry.id).copied();
            let told = told.map_or(published, |told| told == Decision::Committed);
            if truth != told || truth != published {
                let text = format!("{to}: row {truth}, answer {told}, published {published}");
                log.violations.push(text);
            }
        }
        println!("{test}: {log}");
        assert!(log.violations.is_empty(), "{:#?}", log.violations);
        assert_eq!(log.refused.len(), refused);
        assert_eq!(marked, 0, "markers of finished mail were not deleted");
        assert!(log.forgotten > 0 && log.answers.len() > FENCERS * YOUNGEST, "too little happened");
    }
}

/// An error with what is below it.
fn full(error: &Error) -> String {
    let below = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    format!("{error}: {below}")
}
