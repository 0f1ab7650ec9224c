//! Honest commits on PostgreSQL and MariaDB: through a proxy that cuts the line, and with futures that
//! are dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::{DataManager, Decision, DecisionStore, ErrorKind};
use sendmail_sqlx::{Commit, MailTransaction, SqlDataManager, SqlDecisionStore};
use sendmail_testkit::ManualClock;
use sendmail_testkit::suite::data_manager::{self, DataManagerHarness};
use sendmail_testkit::suite::{CASE_TIMEOUT, run_case};
use sendmail_tests::servers::{MariaDb, Postgres};
use sqlx::pool::PoolOptions;
use sqlx::{MySql, Pool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fence::{Fenced, fresh, pool_of, queue, run, store};
use crate::support::{ORDER, on_each_server};

const TABLES: &str = "CREATE TABLE orders (customer varchar(64) NOT NULL)";

async fn shop<DB: Fenced>(test: &str) -> Option<Pool<DB>> {
    let pool = pool_of::<DB>(test, None, 6).await?;
    run(&pool, TABLES).await;
    Some(pool)
}

async fn orders<DB: Fenced>(pool: &Pool<DB>) -> i64 {
    DB::count(pool, "SELECT COUNT(*) FROM orders").await.unwrap()
}

async fn markers<DB: Fenced>(pool: &Pool<DB>) -> i64 {
    DB::count(pool, "SELECT COUNT(*) FROM sendmail_marker WHERE kind = 2").await.unwrap()
}

async fn order<DB: Fenced>(tx: &mut MailTransaction<DB>) {
    DB::execute(&mut **tx, ORDER).await.unwrap();
}

on_each_server! {
    // Proves: I19
    dropped => a_commit_dropped_at_any_poll_on_postgres, a_commit_dropped_at_any_poll_on_mariadb;
    // Proves: I19
    cut => a_line_cut_at_the_commit_on_postgres, a_line_cut_at_the_commit_on_mariadb;
    // Proves: I19
    out_of_reach => postgres_out_of_reach_is_unknown_and_asked_again,
        mariadb_out_of_reach_is_unknown_and_asked_again;
    hung => a_postgres_that_hangs_holds_nobody_up, a_mariadb_that_hangs_holds_nobody_up;
    ended => postgres_tells_a_transaction_that_a_statement_ended,
        mariadb_tells_a_transaction_that_a_statement_ended;
}

async fn dropped<DB: Fenced>(test: &str) {
    let Some(pool) = shop::<DB>(test).await else { return };
    run(&pool, "CREATE TABLE gate (passed integer)").await;
    run(&pool, "INSERT INTO gate VALUES (0)").await;
    let store = store(&pool).await;
    let mut expected = 0;
    for polls in 0.. {
        let mut tx = store.begin().await.unwrap();
        order(&mut tx).await;
        DB::execute(&mut *tx, "UPDATE gate SET passed = 1").await.unwrap();
        let told = poll_times(polls, tx.commit()).await;
        // It waits until the transaction has ended, one way or the other.
        run(&pool, "UPDATE gate SET passed = 2").await;
        expected += i64::from(polls > 0);
        assert_eq!((orders(&pool).await, markers(&pool).await), (expected, expected), "{polls}");
        if let Some(told) = told {
            assert!(matches!(told.unwrap(), Commit::Committed));
            break;
        }
    }
    assert!(expected > 1, "it was never dropped half-way");
}

/// Polls `future` that often, and drops it unless it was done.
async fn poll_times<T>(times: u32, future: impl Future<Output = T>) -> Option<T> {
    let mut future = Box::pin(future);
    let mut polled = 0;
    std::future::poll_fn(move |context| {
        if polled == times {
            return Poll::Ready(None);
        }
        polled += 1;
        match future.as_mut().poll(context) {
            Poll::Ready(done) => Poll::Ready(Some(done)),
            Poll::Pending if polled == times => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// The COMMIT reaches the server and its answer nobody; or not even the COMMIT.
async fn cut<DB: Fenced>(test: &str) {
    let Some(pool) = shop::<DB>(test).await else { return };
    let store = store(&pool).await;
    for (cut, committed) in [(CUT_BEHIND, true), (CUT_BEFORE, false)] {
        let before = orders(&pool).await;
        let (proxy, through) = proxied(&pool).await;
        let mut tx = MailTransaction::begin(&through, &store).await.unwrap();
        order(&mut tx).await;
        proxy.store(cut, Ordering::SeqCst);
        match tx.commit().await.unwrap() {
            Commit::Committed => assert!(committed),
            Commit::RolledBack(_) => assert!(!committed),
            Commit::Unknown(in_doubt) => panic!("the database can be asked: {in_doubt:?}"),
        }
        assert_eq!(orders(&pool).await - before, i64::from(committed));
    }
}

async fn out_of_reach<DB: Fenced>(test: &str) {
    let Some(pool) = shop::<DB>(test).await else { return };
    let (proxy, through) = proxied(&pool).await;
    let store = SqlDecisionStore::connect(through, Arc::new(SystemClock), queue()).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    order(&mut tx).await;
    proxy.store(CUT_BEHIND | REFUSE, Ordering::SeqCst);
    let Commit::Unknown(in_doubt) = tx.commit().await.unwrap() else { panic!("nobody can know") };
    in_doubt.ask().await.unwrap_err();
    proxy.store(PASS, Ordering::SeqCst);
    for _ in 0..2 {
        assert_eq!(in_doubt.ask().await.unwrap(), Decision::Committed);
    }
    assert_eq!(orders(&pool).await, 1);
}

/// Time passes for the store alone, until it gives up; then the line is there again.
async fn hung<DB: Fenced>(test: &str) {
    let Some(pool) = shop::<DB>(test).await else { return };
    let (proxy, through) = proxied(&pool).await;
    let clock = ManualClock::default();
    let store = SqlDecisionStore::connect(through, Arc::new(clock.clone()), queue()).await.unwrap();
    let id = fresh();
    proxy.store(STALL, Ordering::SeqCst);
    let asking = store.clone();
    let asked = tokio::spawn(async move { asking.fence(id, Duration::ZERO).await });
    while !asked.is_finished() {
        clock.advance(Duration::from_secs(1));
        tokio::task::yield_now().await;
    }
    assert_eq!(asked.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    proxy.store(PASS, Ordering::SeqCst);
    assert_eq!(store.fence(id, Duration::ZERO).await.unwrap(), Decision::Aborted);
}

async fn ended<DB: Fenced>(test: &str) {
    let Some(pool) = shop::<DB>(test).await else { return };
    let store = store(&pool).await;
    for end in ["COMMIT", "ROLLBACK"] {
        let mut tx = store.begin().await.unwrap();
        DB::execute(&mut *tx, end).await.unwrap();
        assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::InvalidState, "{end}");
    }
    assert_eq!(markers(&pool).await, 0);
}

// Proves: I19
#[tokio::test]
async fn a_transaction_that_failed_is_rolled_back_though_the_driver_says_ok() {
    let test = "a_transaction_that_failed_is_rolled_back_though_the_driver_says_ok";
    let Some(pool) = shop::<sqlx::Postgres>(test).await else { return };
    run(&pool, "CREATE TABLE once (number integer PRIMARY KEY)").await;
    run(&pool, "CREATE TABLE later (number integer UNIQUE DEFERRABLE INITIALLY DEFERRED)").await;
    let store = store(&pool).await;
    for twice in ["INSERT INTO once VALUES (1), (1)", "INSERT INTO later VALUES (1), (1)"] {
        let mut plain = pool.begin().await.unwrap();
        let swallowed = sqlx::raw_sql(twice).execute(&mut *plain).await.is_err();
        assert_eq!(plain.commit().await.is_ok(), swallowed, "sqlx takes a failed commit for one");
        let mut tx = store.begin().await.unwrap();
        order(&mut tx).await;
        // An application that goes on as if nothing had happened.
        let _ = sqlx::raw_sql(twice).execute(&mut *tx).await;
        assert!(matches!(tx.commit().await.unwrap(), Commit::RolledBack(_)), "{twice}");
    }
    assert_eq!((orders(&pool).await, markers(&pool).await), (0, 0));
    let mut tx = store.begin().await.unwrap();
    order(&mut tx).await;
    assert!(matches!(tx.commit().await.unwrap(), Commit::Committed));
}

const PASS: u8 = 0;
/// Closes the connection instead of passing a COMMIT on.
const CUT_BEFORE: u8 = 1;
/// Passes a COMMIT on, waits for the answer, and closes the connection instead of passing that on.
const CUT_BEHIND: u8 = 2;
/// Closes new connections at once.
const REFUSE: u8 = 4;

/// Swallows what the client says.
const STALL: u8 = 8;

/// A pool through a proxy to the server of `pool`, and what the proxy does.
async fn proxied<DB: Fenced>(pool: &Pool<DB>) -> (Arc<AtomicU8>, Pool<DB>) {
    use sqlx::ConnectOptions;
    let url = pool.connect_options().to_url_lossy();
    let server = format!("{}:{}", url.host_str().unwrap(), url.port().unwrap());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut through = url.clone();
    through.set_port(Some(listener.local_addr().unwrap().port())).unwrap();
    let mode = Arc::new(AtomicU8::new(PASS));
    let shared = Arc::clone(&mode);
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            if shared.load(Ordering::SeqCst) & REFUSE == 0 {
                let server = TcpStream::connect(&server).await.unwrap();
                tokio::spawn(pass(client, server, Arc::clone(&shared)));
            }
        }
    });
    let options = PoolOptions::new().max_connections(2).acquire_timeout(Duration::from_secs(1));
    (mode, options.connect(through.as_str()).await.unwrap())
}

/// Passes bytes both ways until one end closes, or the line is to be cut.
async fn pass(mut client: TcpStream, mut server: TcpStream, mode: Arc<AtomicU8>) {
    let (mut asked, mut answered) = (vec![0; 65536], vec![0; 65536]);
    loop {
        tokio::select! {
            Ok(length @ 1..) = client.read(&mut asked) => {
                let asked = &asked[..length];
                let commits = asked.windows(6).any(|word| word == b"COMMIT");
                let mode = mode.load(Ordering::SeqCst);
                if mode & STALL != 0 {
                    continue;
                }
                if commits && mode & CUT_BEFORE != 0 {
                    return;
                }
                server.write_all(asked).await.unwrap();
                if commits && mode & CUT_BEHIND != 0 {
                    let _ = server.read(&mut answered).await;
                    return;
                }
            }
            Ok(length @ 1..) = server.read(&mut answered) => {
                client.write_all(&answered[..length]).await.unwrap();
            }
            else => return,
        }
    }
}

/// A table of orders, and a transaction for each data manager.
struct Database<DB: Fenced> {
    pool: Pool<DB>,
    store: SqlDecisionStore<DB>,
}

#[async_trait]
impl<DB: Fenced> DataManagerHarness for Database<DB> {
    async fn new() -> Self {
        let pool = shop::<DB>("the suite").await.unwrap();
        let store = store(&pool).await;
        Self { pool, store }
    }

    async fn manager(&self) -> Box<dyn DataManager> {
        Box::new(SqlDataManager::new(self.store.begin().await.unwrap()))
    }

    async fn work(&self, manager: &mut dyn DataManager) {
        let manager: &mut dyn std::any::Any = manager;
        let manager = manager.downcast_mut::<SqlDataManager<DB>>().unwrap();
        DB::execute(manager.connection().unwrap(), ORDER).await.unwrap();
    }

    async fn visible(&self) -> usize {
        usize::try_from(orders(&self.pool).await).unwrap()
    }

    async fn recover(&self) {}
}

#[test]
fn postgres_as_a_data_manager_keeps_the_contract() {
    if Postgres::shared("postgres_as_a_data_manager_keeps_the_contract").is_some() {
        suite::<Database<sqlx::Postgres>>();
    }
}

#[test]
fn mariadb_as_a_data_manager_keeps_the_contract() {
    if MariaDb::shared("mariadb_as_a_data_manager_keeps_the_contract").is_some() {
        suite::<Database<MySql>>();
    }
}

fn suite<H: DataManagerHarness>() {
    for case in data_manager::cases::<H>() {
        run_case(case.name, H::new, case.run, CASE_TIMEOUT);
    }
}
