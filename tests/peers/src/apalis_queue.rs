//! A table queue in the application's database: apalis, whose worker sends with lettre.
//!
//! The job is pushed in the transaction that writes the row. The worker is woken as its storage offers it:
//! by `NOTIFY` on PostgreSQL, and on both by looking again and again, since SQLite's update hook tells only of
//! its own connection, and a notification that comes before the worker listens is lost. Syncs are the database's defaults: what apalis would turn off on SQLite stays on, since the
//! other side keeps what it has committed as well.

use std::sync::Arc;
use std::time::{Duration, Instant};

use apalis::prelude::*;
use lettre::AsyncTransport as _;
use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use tokio::task::JoinSet;

use crate::{Result, Sending, mail};

/// The name of the queue.
const QUEUE: &str = "mail";
/// How many jobs the worker takes at once.
const BATCH: usize = 100;
/// How often it is looked whether everything is done.
const LOOK: Duration = Duration::from_millis(5);
/// How often the worker looks for new jobs.
const POLL: Duration = Duration::from_millis(5);
/// When to give up.
const PATIENCE: Duration = Duration::from_secs(600);

/// A job.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Mail {
    body: String,
}

/// What the worker needs.
#[derive(Clone)]
struct Sender {
    transport: mail::Transport,
    envelope: lettre::address::Envelope,
}

async fn send(mail: Mail, sender: Data<Sender>) -> Result<(), BoxDynError> {
    sender.transport.send_raw(&sender.envelope, mail.body.as_bytes()).await?;
    Ok(())
}

/// How many seconds the whole life of all mails takes: from the first `BEGIN` until no job is left.
pub(crate) async fn run(database: &str, writers: usize, sending: &Sending) -> Result<f64> {
    let sender = Sender { transport: mail::transport(sending), envelope: mail::envelope()? };
    let body = mail::message(sending.length);
    let job = Arc::new(serde_json::to_vec(&Mail { body })?);
    if database.starts_with("sqlite") {
        sqlite(database, writers, sending, sender, job).await
    } else {
        postgres(database, writers, sending, sender, job).await
    }
}

/// The same for each database, whose types and statements are different.
macro_rules! life {
    ($pool:expr, $backend:expr, $begin:literal, $row:literal, $left:literal, $push:expr,
     $writers:expr, $sending:expr, $sender:expr, $job:expr) => {{
        let worker = WorkerBuilder::new("mailer")
            .backend($backend)
            .data($sender)
            .concurrency($sending.connections as usize)
            .build(send);
        let working = tokio::spawn(worker.run());
        sqlx::raw_sql("CREATE TABLE orders (id bigint PRIMARY KEY, note text NOT NULL)")
            .execute(&$pool)
            .await?;
        let mut tasks = JoinSet::<Result<()>>::new();
        let begin = Instant::now();
        for writer in 0..$writers {
            let (pool, job) = ($pool.clone(), Arc::clone(&$job));
            let numbers = (writer..$sending.messages).step_by($writers);
            tasks.spawn(async move {
                for number in numbers {
                    let mut tx = pool.begin_with($begin).await?;
                    sqlx::query($row).bind(i64::try_from(number)?).execute(&mut *tx).await?;
                    let task = TaskBuilder::new(job.to_vec()).build();
                    $push(&mut tx, task).await?;
                    tx.commit().await?;
                }
                Ok(())
            });
        }
        while let Some(done) = tasks.join_next().await {
            done??;
        }
        loop {
            let left: i64 = sqlx::query_scalar($left).fetch_one(&$pool).await?;
            if left == 0 {
                break;
            }
            if working.is_finished() || begin.elapsed() > PATIENCE {
                return Err(format!("the worker of apalis has left {left} jobs").into());
            }
            tokio::time::sleep(LOOK).await;
        }
        working.abort();
        Ok(begin.elapsed().as_secs_f64())
    }};
}

async fn postgres(
    url: &str,
    writers: usize,
    sending: &Sending,
    sender: Sender,
    job: Arc<Vec<u8>>,
) -> Result<f64> {
    let connections = u32::try_from(writers)? + 4;
    let pool = PgPoolOptions::new().max_connections(connections).connect(url).await?;
    apalis_postgres::PostgresStorage::setup(&pool).await?;
    let config = apalis_postgres::Config::default().queue(QUEUE).batch_size(BATCH);
    let backend = apalis_postgres::PostgresStorage::new(&pool)
        .with_config(config)
        .with_pubsub()
        .poll_with_interval(POLL);
    let push = async |tx: &mut sqlx::PgTransaction<'_>, task| {
        apalis_postgres::queries::push_tasks(&mut **tx, QUEUE, vec![task]).await
    };
    life!(
        pool,
        backend,
        "BEGIN",
        "INSERT INTO orders VALUES ($1, 'a note')",
        "SELECT count(*) FROM apalis.jobs WHERE status <> 'Done'",
        push,
        writers,
        sending,
        sender,
        job
    )
}

async fn sqlite(
    url: &str,
    writers: usize,
    sending: &Sending,
    sender: Sender,
    job: Arc<Vec<u8>>,
) -> Result<f64> {
    let options = url
        .parse::<SqliteConnectOptions>()?
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(Duration::from_secs(60));
    let connections = u32::try_from(writers)? + 4;
    let pool = SqlitePoolOptions::new().max_connections(connections);
    let pool = pool.connect_with(options).await?;
    apalis_sqlite::SqliteStorage::migrations().run(&pool).await?;
    let config = apalis_sqlite::Config::default().queue(QUEUE).batch_size(BATCH);
    let backend =
        apalis_sqlite::SqliteStorage::new(&pool).with_config(config).poll_with_interval(POLL);
    let push = async |tx: &mut sqlx::SqliteTransaction<'_>, task| {
        apalis_sqlite::queries::push_tasks(&mut **tx, QUEUE, &[task]).await
    };
    life!(
        pool,
        backend,
        "BEGIN IMMEDIATE",
        "INSERT INTO orders VALUES (?, 'a note')",
        "SELECT count(*) FROM Jobs WHERE status <> 'Done'",
        push,
        writers,
        sending,
        sender,
        job
    )
}
