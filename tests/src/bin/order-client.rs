//! A process of a service, for tests that end it: it takes orders and attaches mails in transactions, and
//! ends them in one of several ways.
//!
//! `order-client URL QUEUE WAY`. It says on its standard output how far it has come, a word a line, and waits
//! for its standard input where the test decides when it goes on.

use std::io::{BufRead as _, Write as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;

use sendmail_clock::SystemClock;
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::{AttachExt as _, Engine, SqlDelivery};
use sendmail_tests::Result;
use sendmail_tests::orders::{Orders, mail};
use sqlx::pool::PoolOptions;
use sqlx::{MySql, Pool, Postgres, Sqlite};
use tokio::runtime::Runtime;

/// How it ends its transactions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Way {
    /// Order 1 is committed, when a line was read.
    Commit,
    /// Order 2 is committed; the transaction of order 1 is forgotten.
    Forget,
    /// Order 2 is committed; the task that takes order 1 panics.
    Panic,
    /// Order 2 is committed; the runtime is shut down while order 1 is open and order 3 commits.
    Shutdown,
}

#[derive(Debug, clap::Parser)]
struct Arguments {
    url: String,
    queue: PathBuf,
    way: Way,
}

fn main() -> Result<()> {
    let Arguments { url, queue, way } = clap::Parser::parse();
    let runtime = Runtime::new()?;
    match url.split(':').next() {
        Some("postgres") => Client::<Postgres>::start(runtime, &url, &queue)?.go(way),
        Some("mysql") => Client::<MySql>::start(runtime, &url, &queue)?.go(way),
        _ => Client::<Sqlite>::start(runtime, &url, &queue)?.go(way),
    }
}

struct Client<DB: Engine> {
    runtime: Runtime,
    service: Arc<Service<DB>>,
}

struct Service<DB: Engine> {
    pool: Pool<DB>,
    delivery: SqlDelivery,
}

impl<DB: Orders> Client<DB> {
    fn start(runtime: Runtime, url: &str, queue: &Path) -> Result<Self> {
        let service = runtime.block_on(Service::open(url, queue))?;
        Ok(Self { runtime, service: Arc::new(service) })
    }

    fn go(self, way: Way) -> Result<()> {
        match way {
            Way::Commit => self.commit()?,
            Way::Forget => self.forget()?,
            Way::Panic => self.panic()?,
            Way::Shutdown => return self.shut_down(),
        }
        done()
    }

    fn commit(&self) -> Result<()> {
        self.runtime.block_on(async {
            let tx = self.service.order(1).await?;
            say("attached")?;
            wait()?;
            tx.commit().await?;
            Ok(())
        })
    }

    fn forget(&self) -> Result<()> {
        self.runtime.block_on(async {
            self.service.order(2).await?.commit().await?;
            std::mem::forget(self.service.order(1).await?);
            Ok(())
        })
    }

    fn panic(&self) -> Result<()> {
        let service = self.service.clone();
        self.runtime.block_on(async {
            service.order(2).await?.commit().await?;
            let task = tokio::spawn(async move {
                let _open = service.order(1).await.map_err(|error| error.to_string());
                panic!("in the middle of a transaction");
            });
            match task.await {
                Err(error) if error.is_panic() => Ok(()),
                _ => Err("it did not panic".into()),
            }
        })
    }

    fn shut_down(self) -> Result<()> {
        let Self { runtime, service } = self;
        runtime.block_on(async {
            Ok::<_, sendmail_tests::Error>(service.order(2).await?.commit().await?)
        })?;
        let (opened, opens) = mpsc::channel();
        let (commits, open) = (service.clone(), service);
        let told = opened.clone();
        runtime.spawn(async move {
            let Ok(tx) = commits.order(3).await else { return };
            let _ = told.send(());
            let _ = tx.commit().await;
        });
        opens.recv()?;
        if !DB::ONE_WRITER {
            runtime.spawn(async move {
                let _tx = open.order(1).await.map_err(|error| error.to_string());
                let _ = opened.send(());
                std::future::pending::<()>().await;
            });
            opens.recv()?;
        }
        drop(runtime);
        done()
    }
}

impl<DB: Orders> Service<DB> {
    async fn open(url: &str, queue: &Path) -> Result<Self> {
        let pool = PoolOptions::new().max_connections(3).connect(url).await?;
        let store = MaildirStore::open(queue, MaildirOptions::default()).await?;
        let clock = Arc::new(SystemClock);
        let delivery = SqlDelivery::connect(Arc::new(store), clock, &pool).await?;
        Ok(Self { pool, delivery })
    }

    /// An order with its mail, in a transaction that is open.
    async fn order(&self, number: u32) -> Result<sqlx::Transaction<'static, DB>> {
        let mut tx = self.pool.begin_with(DB::BEGIN).await?;
        DB::execute(&mut tx, &DB::order(number)).await?;
        let (envelope, message) = mail(number)?;
        self.delivery.attach(&mut *tx, envelope, message).await?;
        Ok(tx)
    }
}

/// It lives on until the test has seen enough.
fn done() -> Result<()> {
    say("done")?;
    wait()
}

fn say(word: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{word}")?;
    Ok(out.flush()?)
}

fn wait() -> Result<()> {
    std::io::stdin().lock().read_line(&mut String::new())?;
    Ok(())
}
