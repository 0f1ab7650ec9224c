//! The fence on PostgreSQL and MariaDB: what each is known to answer, and what must not matter.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::{
    Clock, Decision, DecisionStore, Error, ErrorKind, QueueId, ResourceId, Result,
};
use sendmail_sqlx::SqlDecisionStore;
use sendmail_testkit::ManualClock;
use sendmail_testkit::suite::external::{self, ExternalHarness, Owner};
use sendmail_testkit::suite::{CASE_TIMEOUT, run_case};
use sendmail_tests::servers::{MariaDb, Postgres};
use sqlx::pool::{PoolConnection, PoolOptions};
use sqlx::{MySql, Pool};

use crate::support::{Tested, on_each_server};

/// What the fence tests need of a database.
pub(crate) trait Fenced: Tested {
    /// Makes a session's default the strictest level of isolation.
    const SERIALIZABLE: &'static str;

    /// A key as SQL writes it.
    fn key(id: QueueId) -> String;

    /// Makes every marker look older.
    fn aged(seconds: u64) -> String;
}

impl Fenced for sqlx::Postgres {
    const SERIALIZABLE: &'static str =
        "SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE";

    fn key(id: QueueId) -> String {
        format!("'{id}'")
    }

    fn aged(seconds: u64) -> String {
        format!("UPDATE sendmail_marker SET at = at - interval '1 second' * {seconds}")
    }
}

impl Fenced for MySql {
    const SERIALIZABLE: &'static str = "SET SESSION TRANSACTION ISOLATION LEVEL SERIALIZABLE";

    fn key(id: QueueId) -> String {
        format!("x'{}'", id.to_string().replace('-', ""))
    }

    fn aged(seconds: u64) -> String {
        format!("UPDATE sendmail_marker SET at = at - INTERVAL {seconds} SECOND")
    }
}

/// A statement that is made at run time. Tests are few, and end.
fn text(sql: String) -> &'static str {
    sql.leak()
}

static DATABASES: AtomicU32 = AtomicU32::new(0);

/// A pool of a new database with the tables, whose sessions are what `session` makes them.
pub(crate) async fn pool_of<DB: Fenced>(
    test: &str,
    session: Option<&'static str>,
    connections: u32,
) -> Option<Pool<DB>> {
    let number = DATABASES.fetch_add(1, Ordering::Relaxed);
    let url = DB::create(test, &format!("fence_{number}"))?;
    let options = PoolOptions::new().max_connections(connections).after_connect(
        move |connection: &mut DB::Connection, _| {
            Box::pin(async move {
                match session {
                    Some(session) => DB::execute(connection, session).await,
                    None => Ok(()),
                }
            })
        },
    );
    let pool = options.connect(&url).await.unwrap();
    sendmail_sqlx::migrate(&pool).await.unwrap();
    Some(pool)
}

pub(crate) fn queue() -> ResourceId {
    "queue-1".parse().unwrap()
}

pub(crate) fn fresh() -> QueueId {
    QueueId::mint(SystemClock.now())
}

pub(crate) async fn store<DB: Fenced>(pool: &Pool<DB>) -> SqlDecisionStore<DB> {
    SqlDecisionStore::connect(pool.clone(), Arc::new(SystemClock), queue()).await.unwrap()
}

pub(crate) async fn run<DB: Fenced>(pool: &Pool<DB>, sql: &'static str) {
    DB::execute(&mut pool.acquire().await.unwrap(), sql).await.unwrap();
}

fn insert<DB: Fenced>(id: QueueId, queue: &ResourceId) -> &'static str {
    let key = DB::key(id);
    text(format!("INSERT INTO sendmail_marker (id, kind, queue) VALUES ({key}, 1, '{queue}')"))
}

/// On a pool of one, whose connection came back with a transaction open that nobody will commit: its marker
/// is not seen, and what it wrote is never committed by our asking.
async fn left_open<DB: Fenced>(test: &str) {
    let Some(pool) = pool_of::<DB>(test, None, 1).await else { return };
    let store = store(&pool).await;
    let id = fresh();
    let mut connection = pool.acquire().await.unwrap();
    DB::execute(&mut connection, "BEGIN").await.unwrap();
    DB::execute(&mut connection, insert::<DB>(id, &queue())).await.unwrap();
    drop(connection);
    // Refused, or not seen; a connection that is refused is closed, and the next one is another.
    assert_eq!(store.visible(&[id]).await.unwrap_or_default(), []);
    assert_eq!(store.visible(&[id]).await.unwrap(), []);
    let mut answer = store.fence(id, Duration::from_secs(1)).await;
    for _ in 0..100 {
        // The server may still be ending the session that was closed.
        if matches!(answer, Ok(Decision::Aborted)) {
            break;
        }
        assert!(!matches!(answer, Ok(Decision::Committed)), "{answer:?}");
        answer = store.fence(id, Duration::from_secs(1)).await;
    }
    assert_eq!(answer.unwrap(), Decision::Aborted);
}

/// The suite's database: one with the usual sessions, one whose sessions are serializable.
struct Harness<DB: Fenced, const STRICT: bool> {
    pool: Pool<DB>,
    clock: ManualClock,
}

#[async_trait]
impl<DB: Fenced, const STRICT: bool> ExternalHarness for Harness<DB, STRICT> {
    async fn new() -> Self {
        let session = STRICT.then_some(DB::SERIALIZABLE);
        let pool = pool_of("the suite", session, 12).await.unwrap();
        Self { pool, clock: ManualClock::default() }
    }

    async fn store(&self, queue: &ResourceId) -> Arc<dyn DecisionStore> {
        let clock = Arc::new(self.clock.clone());
        let store = SqlDecisionStore::connect(self.pool.clone(), clock, queue.clone()).await;
        Arc::new(store.unwrap())
    }

    async fn begin(&self, queue: &ResourceId) -> Box<dyn Owner> {
        let mut connection = self.pool.acquire().await.unwrap();
        connection.close_on_drop();
        DB::execute(&mut connection, "BEGIN").await.unwrap();
        Box::new(Application::<DB> { connection, queue: queue.clone() })
    }

    fn one_writer(&self) -> bool {
        false
    }

    async fn age(&self, age: Duration) {
        run(&self.pool, text(DB::aged(age.as_secs()))).await;
    }

    async fn records(&self) -> usize {
        let count = DB::count(&self.pool, "SELECT COUNT(*) FROM sendmail_marker").await.unwrap();
        usize::try_from(count).unwrap()
    }

    fn clock(&self) -> &ManualClock {
        &self.clock
    }
}

struct Application<DB: Fenced> {
    connection: PoolConnection<DB>,
    queue: ResourceId,
}

#[async_trait]
impl<DB: Fenced> Owner for Application<DB> {
    async fn mark(&mut self, id: QueueId) -> Result<()> {
        let marked = DB::execute(&mut self.connection, insert::<DB>(id, &self.queue)).await;
        marked.map_err(|error| Error::new(ErrorKind::Refused, "leave a marker", error.to_string()))
    }

    async fn commit(mut self: Box<Self>) -> Result<()> {
        let done = DB::execute(&mut self.connection, "COMMIT").await;
        done.map_err(|error| Error::new(ErrorKind::Refused, "commit", error.to_string()))
    }

    async fn rollback(mut self: Box<Self>) {
        DB::execute(&mut self.connection, "ROLLBACK").await.unwrap();
    }
}

fn suite<H: ExternalHarness>() {
    for case in external::cases::<H>() {
        run_case(case.name, H::new, case.run, CASE_TIMEOUT);
    }
}

// Proves: D-fence
#[test]
fn postgres_keeps_the_contract_whatever_its_sessions_isolation() {
    if Postgres::shared("postgres_keeps_the_contract_whatever_its_sessions_isolation").is_some() {
        suite::<Harness<sqlx::Postgres, false>>();
        suite::<Harness<sqlx::Postgres, true>>();
    }
}

// Proves: D-fence
#[test]
fn mariadb_keeps_the_contract_whatever_its_sessions_isolation() {
    if MariaDb::shared("mariadb_keeps_the_contract_whatever_its_sessions_isolation").is_some() {
        suite::<Harness<MySql, false>>();
        suite::<Harness<MySql, true>>();
    }
}

on_each_server! {
    // Proves: D-fence
    a_hundred_agree => a_hundred_fences_agree_on_postgres, a_hundred_fences_agree_on_mariadb;
    a_missing_table => a_dropped_table_on_postgres, a_dropped_table_on_mariadb;
    left_open => left_open_on_postgres, left_open_on_mariadb;
    a_session_is_left_alone => postgres_sessions_are_left_alone, mariadb_sessions_are_left_alone;
}

/// InnoDB shows a commit before its log has it. So whatever is answered as committed is preceded by a write
/// of the same session, which is durable only if the earlier ones are; and it leaves nothing.
// Proves: D-seen
#[tokio::test]
async fn mariadb_is_written_to_before_anything_is_called_committed() {
    let test = "mariadb_is_written_to_before_anything_is_called_committed";
    let Some(pool) = pool_of::<MySql>(test, None, 1).await else { return };
    let store = store(&pool).await;
    let (committed, other) = (fresh(), fresh());
    run(&pool, insert::<MySql>(committed, &queue())).await;
    let writes = async || {
        let sql = "SELECT CAST(SUM(variable_value) AS SIGNED) FROM information_schema.session_status \
                   WHERE variable_name IN ('COM_INSERT', 'COM_DELETE')";
        MySql::count(&pool, sql).await.unwrap()
    };
    let before = writes().await;
    assert_eq!(store.visible(&[other]).await.unwrap(), []);
    assert_eq!(writes().await, before, "nothing is called committed");
    assert_eq!(store.visible(&[committed, other]).await.unwrap(), [committed]);
    let seen = writes().await;
    assert_eq!(seen, before + 2);
    let fenced = store.fence(committed, Duration::ZERO).await.unwrap();
    assert_eq!(fenced, Decision::Committed);
    assert_eq!(writes().await, seen + 3, "the tombstone that was refused, and the two");
    let rows = MySql::count(&pool, "SELECT COUNT(*) FROM sendmail_marker").await.unwrap();
    assert_eq!(rows, 1);
}

/// The owner rolls back while a hundred wait for its key: each of them comes to the same end.
async fn a_hundred_agree<DB: Fenced>(test: &str) {
    const ROUNDS: usize = 200;
    let Some(pool) = pool_of::<DB>(test, None, 20).await else { return };
    let store = store(&pool).await;
    let id = fresh();
    let mut owner = pool.acquire().await.unwrap();
    DB::execute(&mut owner, "BEGIN").await.unwrap();
    DB::execute(&mut owner, insert::<DB>(id, &queue())).await.unwrap();
    let asking = (0..100).map(|_| {
        let store = store.clone();
        tokio::spawn(async move {
            for _ in 0..ROUNDS {
                match store.fence(id, Duration::from_secs(1)).await {
                    Ok(Decision::Unfinished) => tokio::task::yield_now().await,
                    answer => return answer.unwrap(),
                }
            }
            Decision::Unfinished
        })
    });
    let asking: Vec<_> = asking.collect();
    tokio::task::yield_now().await;
    DB::execute(&mut owner, "ROLLBACK").await.unwrap();
    for asked in asking {
        assert_eq!(asked.await.unwrap(), Decision::Aborted);
    }
}

async fn a_missing_table<DB: Fenced>(test: &str) {
    let Some(pool) = pool_of::<DB>(test, None, 4).await else { return };
    let store = store(&pool).await;
    run(&pool, "DROP TABLE sendmail_marker").await;
    let error = store.fence(fresh(), Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    assert!(error.is_temporary() && error.to_string().contains("migrate"), "{error}");
    assert_eq!(store.visible(&[fresh()]).await.unwrap_err().kind(), ErrorKind::NotFound);
    let again = SqlDecisionStore::connect(pool, Arc::new(SystemClock), queue()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NotFound, "{again}");
}

/// A fence changes how long its session waits for locks. The application's next statement must not
/// notice, whatever the fence met.
async fn a_session_is_left_alone<DB: Fenced>(test: &str) {
    let Some(pool) = pool_of::<DB>(test, None, 2).await else { return };
    let store = store(&pool).await;
    let mut owner = pool.acquire().await.unwrap();
    let held = fresh();
    DB::execute(&mut owner, "BEGIN").await.unwrap();
    DB::execute(&mut owner, insert::<DB>(held, &queue())).await.unwrap();
    let setting = if DB::NAME == "PostgreSQL" {
        "SELECT setting::bigint FROM pg_settings WHERE name = 'lock_timeout'"
    } else {
        "SELECT CAST(@@session.innodb_lock_wait_timeout AS SIGNED)"
    };
    let before = DB::count(&pool, setting).await.unwrap();
    for (id, expected) in [(held, Decision::Unfinished), (fresh(), Decision::Aborted)] {
        assert_eq!(store.fence(id, Duration::from_millis(1)).await.unwrap(), expected);
        assert_eq!(DB::count(&pool, setting).await.unwrap(), before);
    }
    DB::execute(&mut owner, "COMMIT").await.unwrap();
    assert_eq!(store.fence(held, Duration::ZERO).await.unwrap(), Decision::Committed);
    assert_eq!(DB::count(&pool, setting).await.unwrap(), before);
}

#[tokio::test]
async fn postgres_a_prepared_transaction_is_unfinished_until_it_is_ended() {
    let test = "postgres_a_prepared_transaction_is_unfinished_until_it_is_ended";
    let settings = [("max_prepared_transactions", "4")];
    let Some(server) = Postgres::own(test, &settings) else { return };
    let url = server.create_database("prepared").unwrap();
    let pool: Pool<sqlx::Postgres> = Pool::connect(&url).await.unwrap();
    sendmail_sqlx::migrate(&pool).await.unwrap();
    ends_later(&pool, "BEGIN", "PREPARE TRANSACTION 'x'", "COMMIT PREPARED 'x'").await;
}

#[tokio::test]
async fn mariadb_a_prepared_transaction_is_unfinished_until_it_is_ended() {
    let test = "mariadb_a_prepared_transaction_is_unfinished_until_it_is_ended";
    let Some(pool) = pool_of::<MySql>(test, None, 4).await else { return };
    ends_later(&pool, "XA START 'x'", "XA END 'x'; XA PREPARE 'x'", "XA COMMIT 'x'").await;
}

async fn ends_later<DB: Fenced>(
    pool: &Pool<DB>,
    begin: &'static str,
    prepare: &'static str,
    commit: &'static str,
) {
    let store = store(pool).await;
    let (id, mut owner) = (fresh(), pool.acquire().await.unwrap());
    DB::execute(&mut owner, begin).await.unwrap();
    DB::execute(&mut owner, insert::<DB>(id, &queue())).await.unwrap();
    DB::execute(&mut owner, prepare).await.unwrap();
    assert_eq!(store.fence(id, Duration::from_millis(100)).await.unwrap(), Decision::Unfinished);
    DB::execute(&mut owner, commit).await.unwrap();
    assert_eq!(store.fence(id, Duration::ZERO).await.unwrap(), Decision::Committed);
}

// Proves: D-undecidable
#[tokio::test]
async fn a_read_only_mariadb_is_refused_though_its_superuser_could_write() {
    let test = "a_read_only_mariadb_is_refused_though_its_superuser_could_write";
    let Some(server) = MariaDb::own(test, &[]) else { return };
    let pool: Pool<MySql> = Pool::connect(&server.create_database("shop").unwrap()).await.unwrap();
    sendmail_sqlx::migrate(&pool).await.unwrap();
    let store = store(&pool).await;
    let id = fresh();
    server.query("shop", "SET GLOBAL read_only = 1").unwrap();
    for error in [
        store.fence(id, Duration::ZERO).await.unwrap_err(),
        store.visible(&[id]).await.unwrap_err(),
        SqlDecisionStore::connect(pool.clone(), Arc::new(SystemClock), queue()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.to_string().contains("primary"), "{error}");
    }
    let count = "SELECT COUNT(*) FROM sendmail_marker";
    assert_eq!(MySql::count(&pool, count).await.unwrap(), 0, "no tombstone on a replica");
    server.query("shop", "SET GLOBAL read_only = 0").unwrap();
    assert_eq!(store.fence(id, Duration::ZERO).await.unwrap(), Decision::Aborted);
}

// Proves: D-undecidable
#[tokio::test]
async fn a_read_only_postgres_is_refused() {
    let test = "a_read_only_postgres_is_refused";
    let read_only = "SET default_transaction_read_only = on";
    let Some(pool) = pool_of::<sqlx::Postgres>(test, None, 1).await else { return };
    let store = store(&pool).await;
    // The pool's only connection.
    run(&pool, read_only).await;
    for error in [
        store.fence(fresh(), Duration::ZERO).await.unwrap_err(),
        store.visible(&[fresh()]).await.unwrap_err(),
        SqlDecisionStore::connect(pool.clone(), Arc::new(SystemClock), queue()).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    }
}

#[tokio::test]
async fn a_table_without_transactions_is_refused_by_each_fence() {
    let test = "a_table_without_transactions_is_refused_by_each_fence";
    let Some(pool) = pool_of::<MySql>(test, None, 2).await else { return };
    let store = store(&pool).await;
    run(&pool, "ALTER TABLE sendmail_marker ENGINE = Aria").await;
    let error = store.fence(fresh(), Duration::ZERO).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(SqlDecisionStore::connect(pool, Arc::new(SystemClock), queue()).await.is_err());
}

// Proves: D-relaxed
#[tokio::test]
async fn relaxed_settings_of_servers_are_found() {
    let test = "relaxed_settings_of_servers_are_found";
    let relaxed = [("synchronous_commit", "off"), ("fsync", "off"), ("full_page_writes", "off")];
    if let Some(server) = Postgres::own(test, &relaxed) {
        let url = server.create_database("shop").unwrap();
        found::<sqlx::Postgres>(&url, 3).await;
    }
    if let Some(server) = MariaDb::own(test, &[("innodb-flush-log-at-trx-commit", "2")]) {
        found::<MySql>(&server.create_database("shop").unwrap(), 1).await;
    }
    if let Some(pool) = pool_of::<sqlx::Postgres>(test, None, 2).await {
        store(&pool).await.require_durable().unwrap();
    }
    if let Some(pool) = pool_of::<MySql>(test, None, 2).await {
        store(&pool).await.require_durable().unwrap();
    }
}

async fn found<DB: Fenced>(url: &str, count: usize) {
    let pool: Pool<DB> = Pool::connect(url).await.unwrap();
    sendmail_sqlx::migrate(&pool).await.unwrap();
    let store = store(&pool).await;
    assert_eq!(store.warnings().len(), count, "{:?}", store.warnings());
    assert_eq!(store.require_durable().unwrap_err().kind(), ErrorKind::Unsupported);
}
