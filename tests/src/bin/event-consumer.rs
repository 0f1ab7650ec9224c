//! A process that handles the events of a queue in a database, to be killed by a test; and what else
//! that test has to say to the database, whichever it is.

#![expect(clippy::print_stdout, reason = "this program talks to the test that started it")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use clap::{Parser, Subcommand};
use sendmail_clock::SystemClock;
use sendmail_core::{Error, ErrorKind, MailEvent};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::{EventDatabase, EventSource, SqlEventConsumer, SqlEventHandler};
use sendmail_tests::Result;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{MySql, Pool, Postgres, Sqlite};

/// How long it waits when there is nothing new.
const PAUSE: Duration = Duration::from_millis(5);

/// Handles the events of a queue in a database.
#[derive(Parser)]
#[command(name = "event-consumer")]
struct Arguments {
    #[command(subcommand)]
    role: Role,
    /// postgres://, mysql:// or sqlite://
    #[arg(long)]
    database: String,
}

#[derive(Subcommand)]
enum Role {
    /// Makes the tables
    Prepare,
    /// Handles what there is and what comes, and says so before each event, until it is killed
    Follow { queue: PathBuf },
    /// Handles what there is
    Once { queue: PathBuf },
    /// Prints what the tables show: how often each event has had its effect, and the sum
    Effects,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(&Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(Arguments { role, database }: &Arguments) -> Result<()> {
    match database.split(':').next() {
        Some("postgres") => play(role, Pool::<Postgres>::connect(database).await?).await,
        Some("mysql") => play(role, Pool::<MySql>::connect(database).await?).await,
        _ => {
            let options: SqliteConnectOptions = database.parse()?;
            let options = options.create_if_missing(true).journal_mode(SqliteJournalMode::Wal);
            let options = options.busy_timeout(Duration::from_secs(60));
            play(role, Pool::<Sqlite>::connect_with(options).await?).await
        }
    }
}

async fn play<DB: Effects>(role: &Role, pool: Pool<DB>) -> Result<()> {
    match role {
        Role::Prepare => {
            sendmail_sqlx::migrate(&pool).await?;
            DB::prepare(&pool).await?;
        }
        Role::Follow { queue } => consumer(queue, pool).await?.follow(PAUSE).await?,
        Role::Once { queue } => {
            let consumed = consumer(queue, pool).await?.poll().await?;
            if consumed.waits.is_some() {
                return Err("an event could not be handled".into());
            }
        }
        Role::Effects => {
            for (event, count) in DB::effects(&pool).await? {
                println!("{event} {count}");
            }
            println!("tally {}", DB::tally(&pool).await?);
        }
    }
    Ok(())
}

async fn consumer<DB: Effects>(queue: &Path, pool: Pool<DB>) -> Result<SqlEventConsumer<DB>> {
    let store = Arc::new(MaildirStore::open(queue, MaildirOptions::default()).await?);
    let consumer = SqlEventConsumer::new(
        "effects",
        EventSource::of(&store),
        pool,
        Arc::new(SystemClock),
        Arc::new(Handler),
        Arc::new(|trouble| println!("error: {}", trouble.error)),
    )?;
    Ok(consumer)
}

/// Writes a row for the event, and counts it in another table.
struct Handler;

#[async_trait]
impl<DB: Effects> SqlEventHandler<DB> for Handler {
    async fn handle(
        &self,
        tx: &mut DB::Connection,
        event: &MailEvent,
    ) -> sendmail_core::Result<()> {
        say(event).map_err(|error| Error::io("say which event is handled", error))?;
        DB::note(tx, &event.id.to_string()).await.map_err(|error| {
            Error::new(ErrorKind::Io, "note the event", error.to_string()).with_source(error)
        })
    }
}

fn say(event: &MailEvent) -> std::io::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "handling {}", event.id)?;
    stdout.flush()
}

/// What is said to each database in its own words.
#[async_trait]
trait Effects: EventDatabase {
    async fn prepare(pool: &Pool<Self>) -> sqlx::Result<()>;
    async fn note(tx: &mut Self::Connection, event: &str) -> sqlx::Result<()>;
    async fn effects(pool: &Pool<Self>) -> sqlx::Result<Vec<(String, i64)>>;
    async fn tally(pool: &Pool<Self>) -> sqlx::Result<i64>;
}

macro_rules! effects {
    ($database:ty, $note:literal) => {
        #[async_trait]
        impl Effects for $database {
            async fn prepare(pool: &Pool<Self>) -> sqlx::Result<()> {
                let tables = "CREATE TABLE effect (event varchar(36) NOT NULL);
                    CREATE TABLE tally (total bigint NOT NULL);
                    INSERT INTO tally (total) VALUES (0);";
                sqlx::raw_sql(tables).execute(pool).await.map(|_| ())
            }

            async fn note(tx: &mut Self::Connection, event: &str) -> sqlx::Result<()> {
                sqlx::query::<Self>($note).bind(event).execute(&mut *tx).await?;
                let count = sqlx::query::<Self>("UPDATE tally SET total = total + 1");
                count.execute(tx).await.map(|_| ())
            }

            async fn effects(pool: &Pool<Self>) -> sqlx::Result<Vec<(String, i64)>> {
                let sql = "SELECT event, count(*) FROM effect GROUP BY event";
                sqlx::query_as(sql).fetch_all(pool).await
            }

            async fn tally(pool: &Pool<Self>) -> sqlx::Result<i64> {
                sqlx::query_scalar("SELECT total FROM tally").fetch_one(pool).await
            }
        }
    };
}

effects!(Postgres, "INSERT INTO effect (event) VALUES ($1)");
effects!(MySql, "INSERT INTO effect (event) VALUES (?)");
effects!(Sqlite, "INSERT INTO effect (event) VALUES (?)");
