//! A database in trouble: a clear message, the mail is kept, and nothing is sent that should not be. When
//! the trouble is over, all goes on.

use std::sync::Arc;
use std::time::Duration;

use sendmail_clock::SystemClock;
use sendmail_core::{Clock as _, Decision, DecisionStore, Error, ErrorKind, QueueId, Timestamp};
use sendmail_sqlx::SqlDecisionStore;
use sendmail_testkit::ManualClock;
use sendmail_tests::mounted::Mounted;
use sendmail_tests::orders::Orders as _;
use sendmail_tests::servers::{Engine as _, MariaDb, MariaDbEngine, Postgres, PostgresEngine};
use sendmail_txn::{Finding, Recovery, RecoveryReport, Ruling};
use sqlx::pool::PoolOptions;
use sqlx::{MySql, Sqlite};

use crate::world::{Whole, World, connect, on_each_database, store_id, told};

on_each_database! {
    a_table_that_is_gone => table_gone_postgres, table_gone_mariadb, table_gone_sqlite;
    a_table_that_was_dropped_and_made_anew => table_anew_postgres, table_anew_mariadb, table_anew_sqlite;
    another_database_at_the_same_address => wrong_address_postgres, wrong_address_mariadb, wrong_address_sqlite;
    another_database_in_the_configuration => wrong_database_postgres, wrong_database_mariadb, wrong_database_sqlite;
    a_million_old_tombstones => million_postgres, million_mariadb, million_sqlite;
}

/// Order 1 is committed and 2 is rolled back, by a process that is dead.
async fn two<DB: Whole>(world: &World<DB>) {
    let process = world.process().await;
    process.commit(1).await;
    process.roll_back(2).await;
}

const KEPT: (&str, &str) = ("no answer", "kept");

/// Nobody can tell, and both are kept; the errors.
async fn both_are_kept<DB: Whole>(world: &World<DB>, recovery: &Recovery) -> Vec<Error> {
    let report = recovery.run().await.unwrap();
    assert_eq!(told(&report), [KEPT, KEPT], "{report:?}");
    world.deliver().await;
    assert_eq!(world.copies(2), [0, 0]);
    assert_eq!((world.undecided().await.len(), world.discarded().await.len()), (2, 0));
    errors(report)
}

fn errors(report: RecoveryReport) -> Vec<Error> {
    let error = |finding| if let Finding::NoAnswer(error) = finding { Some(error) } else { None };
    report.messages.into_iter().filter_map(|message| error(message.finding)).collect()
}

fn says(error: &Error, kind: ErrorKind, words: &str) {
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(words), "{error}");
}

/// The trouble is over: each gets what its transaction came to, once.
async fn all_is_well<DB: Whole>(world: &World<DB>) {
    for _ in 0..2 {
        world.settle().await;
        assert_eq!(world.copies(2), [1, 0]);
    }
    assert_eq!(world.discarded().await.len(), 1);
}

async fn a_table_that_is_gone<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    two(&world).await;
    let (recovery, process) = (world.recovery().await, world.process().await);
    world.run("ALTER TABLE sendmail_marker RENAME TO elsewhere").await;
    for error in both_are_kept(&world, &recovery).await {
        says(&error, ErrorKind::NotFound, "sendmail_marker");
    }
    let mut tx = world.pool.begin_with(DB::BEGIN).await.unwrap();
    let error = process.attach(&mut tx, 3).await.unwrap_err();
    says(&error, ErrorKind::NotFound, "sendmail_sqlx::migrate(&pool)");
    tx.rollback().await.unwrap();
    let store = world.store().await;
    let queue = store_id(&store);
    let clock = Arc::new(SystemClock);
    let error = SqlDecisionStore::connect(world.pool.clone(), clock, queue).await.unwrap_err();
    says(&error, ErrorKind::NotFound, "migrate");
    world.run("ALTER TABLE elsewhere RENAME TO sendmail_marker").await;
    all_is_well(&world).await;
}

/// What the table said is forgotten, so that its silence means nothing: with the new table the database is
/// another one, and an operator decides.
async fn a_table_that_was_dropped_and_made_anew<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    two(&world).await;
    let (recovery, process) = (world.recovery().await, world.process().await);
    world.run("DROP TABLE sendmail_marker").await;
    sendmail_sqlx::migrate(&world.pool).await.unwrap();
    for error in both_are_kept(&world, &recovery).await {
        says(&error, ErrorKind::InvalidInput, "not the database that is asked about");
    }
    assert_eq!(told(&world.recover().await), [("unknown resource", "kept"); 2]);
    let mut tx = world.pool.begin_with(DB::BEGIN).await.unwrap();
    let error = process.attach(&mut tx, 3).await.unwrap_err();
    says(&error, ErrorKind::InvalidInput, "another database");
    tx.rollback().await.unwrap();
    let ids = world.undecided().await;
    drop(process);
    let recovery = world.recovery().await;
    recovery.decide(&ids[..1], Ruling::Committed).await.unwrap();
    recovery.decide(&ids[1..], Ruling::Aborted).await.unwrap();
    all_is_well(&world).await;
    // A second migration changes nothing.
    let identity = sendmail_sqlx::resource(&world.pool).await.unwrap();
    sendmail_sqlx::migrate(&world.pool).await.unwrap();
    assert_eq!(sendmail_sqlx::resource(&world.pool).await.unwrap(), identity);
}

/// The address leads to another database now, which has the tables as well.
// Proves: D-undecidable
async fn another_database_at_the_same_address<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    two(&world).await;
    let (recovery, process) = (world.recovery().await, world.process().await);
    world.run("CREATE TABLE real_one AS SELECT resource FROM sendmail_database").await;
    let other = "db-0123456789abcdef0123456789abcdef";
    world.run(&format!("UPDATE sendmail_database SET resource = '{other}'")).await;
    for error in both_are_kept(&world, &recovery).await {
        says(&error, ErrorKind::InvalidInput, "not the database that is asked about");
    }
    let mut tx = world.pool.begin_with(DB::BEGIN).await.unwrap();
    let error = process.attach(&mut tx, 3).await.unwrap_err();
    says(&error, ErrorKind::InvalidInput, "another database");
    tx.rollback().await.unwrap();
    assert_eq!(world.count("SELECT COUNT(*) FROM sendmail_marker WHERE kind = 3").await, 0);
    world.run("UPDATE sendmail_database SET resource = (SELECT resource FROM real_one)").await;
    all_is_well(&world).await;
}

/// Somebody has configured another one: it is not asked, since no message names it.
async fn another_database_in_the_configuration<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    let Some(other) = World::<DB>::open(&format!("{test}_2")).await else { return };
    two(&world).await;
    let store = world.store().await;
    let decisions = other.decisions(&store).await;
    let recovery = world.recovery_of(store).with_decision_store(Arc::new(decisions)).unwrap();
    let report = recovery.run().await.unwrap();
    assert_eq!(told(&report), [("unknown resource", "kept"); 2]);
    world.deliver().await;
    assert_eq!(world.copies(2), [0, 0]);
    assert_eq!(other.count("SELECT COUNT(*) FROM sendmail_marker").await, 0);
    all_is_well(&world).await;
}

async fn a_million_old_tombstones<DB: Whole>(test: &str) {
    const MILLION: i64 = 1_000_000;
    let Some(world) = World::<DB>::open(test).await else { return };
    two(&world).await;
    let store = world.store().await;
    world.run(&DB::million_tombstones(store_id(&store).as_str())).await;
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_504_135_123)));
    let queue = store_id(&store);
    let decisions =
        SqlDecisionStore::connect(world.pool.clone(), clock.clone(), queue).await.unwrap();
    let ids = world.undecided().await;
    assert_eq!(decisions.visible(&ids).await.unwrap(), ids[..1]);
    let answers = [Decision::Committed, Decision::Aborted];
    for (id, expected) in ids.iter().zip(answers) {
        assert_eq!(decisions.fence(*id, Duration::ZERO).await.unwrap(), expected);
    }
    // In batches, so that nobody is kept waiting; and never what is young, or mail.
    let batch = if DB::ONE_WRITER { 1000 } else { 20_000 };
    let mut left = MILLION;
    for _ in 0..2 {
        clock.advance(Duration::from_secs(61));
        let removed = i64::try_from(decisions.sweep().await.unwrap()).unwrap();
        assert!((batch - 10..=batch).contains(&removed), "{removed}");
        left -= removed;
        let rows = world.count("SELECT COUNT(*) FROM sendmail_marker").await;
        assert_eq!(rows, left + 2);
    }
    all_is_well(&world).await;
    let young: QueueId = ids[1];
    assert_eq!(decisions.fence(young, Duration::ZERO).await.unwrap(), Decision::Aborted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_only_reads_postgres() {
    let test = "a_database_that_only_reads_postgres";
    let Some(server) = Postgres::shared(test) else { return };
    let Some(world) = World::<sqlx::Postgres>::open(test).await else { return };
    two(&world).await;
    let recovery = world.recovery().await;
    // What a session has, it keeps: they are to come again.
    let let_go = format!(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE datname = '{test}'"
    );
    let set = |what: &str| {
        server.query("postgres", &format!("ALTER DATABASE {test} {what}")).unwrap();
        server.query("postgres", &let_go).unwrap();
    };
    set("SET default_transaction_read_only = on");
    for error in both_are_kept(&world, &recovery).await {
        says(&error, ErrorKind::PermissionDenied, "read-only");
    }
    set("RESET default_transaction_read_only");
    all_is_well(&world).await;
}

/// For a user who may write there all the same, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_only_reads_mariadb() {
    let Some(server) = MariaDb::own("a_server_that_only_reads_mariadb", &[]) else { return };
    let url = server.create_database("shop").unwrap();
    let world = World::<MySql>::at(url, tempfile::tempdir().unwrap()).await;
    two(&world).await;
    let recovery = world.recovery().await;
    world.run("SET GLOBAL read_only = 1").await;
    for error in both_are_kept(&world, &recovery).await {
        says(&error, ErrorKind::PermissionDenied, "read-only");
    }
    assert_eq!(world.count("SELECT COUNT(*) FROM sendmail_marker WHERE kind = 3").await, 0);
    world.run("SET GLOBAL read_only = 0").await;
    all_is_well(&world).await;
}

/// There what is committed can be read, and is sent; what is not is kept.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_only_reads_sqlite() {
    let mut world = World::<Sqlite>::open("a_file_that_only_reads_sqlite").await.unwrap();
    two(&world).await;
    world.pool = PoolOptions::new().max_connections(1).connect(&world.url).await.unwrap();
    let recovery = world.recovery().await;
    world.run("PRAGMA query_only = ON").await;
    let report = recovery.run().await.unwrap();
    assert_eq!(told(&report), [("committed", "published"), KEPT]);
    says(&errors(report)[0], ErrorKind::PermissionDenied, "read-only");
    world.deliver().await;
    assert_eq!((world.copies(2), world.discarded().await.len()), (vec![1, 0], 0));
    world.run("PRAGMA query_only = OFF").await;
    all_is_well(&world).await;
    // A file that cannot be written to is not taken for a database that decides.
    let pool = connect::<Sqlite>(&world.url.replace("mode=rwc", "mode=ro")).await;
    let (clock, queue) = (Arc::new(SystemClock), store_id(&world.store().await));
    let error = SqlDecisionStore::connect(pool, clock, queue).await.unwrap_err();
    says(&error, ErrorKind::PermissionDenied, "read-only");
}

/// Fills the table of the markers with what is another queue's, until not a row more fits behind the last.
async fn fill<DB: Whole>(world: &World<DB>) {
    let mut connection = world.pool.acquire().await.unwrap();
    let mut rows = 2000_usize;
    while rows > 0 {
        let row = || format!("({}, 3, 'elsewhere')", DB::literal(QueueId::mint(SystemClock.now())));
        let values: Vec<String> = std::iter::repeat_with(row).take(rows).collect();
        let values = values.join(", ");
        let sql = format!("INSERT INTO sendmail_marker (id, kind, queue) VALUES {values}");
        if DB::execute(&mut connection, &sql).await.is_err() {
            rows /= 2;
        }
    }
}

/// With no room for a row, and then, after `make_room`, with some.
async fn has_no_room<DB: Whole>(world: &World<DB>, make_room: impl Future<Output = ()>) {
    two(world).await;
    let (recovery, process) = (world.recovery().await, world.process().await);
    fill(world).await;
    let report = recovery.run().await.unwrap();
    // What is committed can be read. For a tombstone there may be room between others.
    let found = told(&report);
    assert_eq!(found[0], ("committed", "published"), "{report:?}");
    assert!(found[1] == KEPT || found[1] == ("aborted", "discarded"), "{report:?}");
    assert_eq!(world.undecided().await.len() + world.discarded().await.len(), 1);
    let mut connection = world.pool.acquire().await.unwrap();
    DB::execute(&mut connection, DB::BEGIN).await.unwrap();
    let error = process.attach(&mut connection, 3).await.unwrap_err();
    says(&error, ErrorKind::Full, "no room left");
    // SQLite has rolled it back already.
    let rolled_back = DB::execute(&mut connection, "ROLLBACK").await;
    assert!(rolled_back.is_ok() || DB::ONE_WRITER);
    drop((connection, process));
    world.deliver().await;
    assert_eq!(world.copies(3), [1, 0, 0]);
    make_room.await;
    all_is_well(world).await;
    let process = world.process().await;
    process.commit(3).await;
    world.settle().await;
    assert_eq!(world.copies(3), [1, 0, 1]);
}

// Proves: D-undecidable
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_sqlite() {
    let mut world = World::<Sqlite>::open("a_full_disk_sqlite").await.unwrap();
    world.pool = PoolOptions::new().max_connections(1).connect(&world.url).await.unwrap();
    world.run("PRAGMA max_page_count = 40").await;
    has_no_room(&world, world.run("PRAGMA max_page_count = 1000000")).await;
}

// Proves: D-undecidable
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_postgres() {
    let test = "a_full_disk_postgres";
    let Some(server) = Postgres::own(test, &[]) else { return };
    let Some(disk) = small_disk(test, PostgresEngine::USER) else { return };
    let url = server.create_database("shop").unwrap();
    let world = World::<sqlx::Postgres>::at(url, tempfile::tempdir().unwrap()).await;
    world.run(&format!("CREATE TABLESPACE small LOCATION '{}'", disk.path().display())).await;
    for what in ["TABLE sendmail_marker", "INDEX sendmail_marker_pkey"] {
        world.run(&format!("ALTER {what} SET TABLESPACE small")).await;
    }
    has_no_room(&world, async { grow(&disk) }).await;
}

/// The server gives up when it cannot write a page: nobody can be asked until it has room and is started.
// Proves: D-undecidable
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_mariadb() {
    let test = "a_full_disk_mariadb";
    let Some(mut server) = MariaDb::own(test, &[]) else { return };
    let Some(disk) = small_disk(test, MariaDbEngine::USER) else { return };
    let url = server.create_database("shop").unwrap();
    let pool = connect::<MySql>(&url).await;
    let sql = include_str!("../../../crates/sendmail-sqlx/migrations/mysql.sql");
    let there = format!("ENGINE = InnoDB DATA DIRECTORY = '{}'", disk.path().display());
    let mut connection = pool.acquire().await.unwrap();
    MySql::execute(&mut connection, &sql.replace("ENGINE = InnoDB", &there)).await.unwrap();
    let world = World::<MySql>::at(url, tempfile::tempdir().unwrap()).await;
    two(&world).await;
    let recovery = world.recovery().await;
    fill(&world).await;
    let found = told(&recovery.run().await.unwrap());
    assert!(found[0] == KEPT || found[0] == ("committed", "published"), "{found:?}");
    assert!(found[1] == KEPT || found[1] == ("aborted", "discarded"), "{found:?}");
    world.deliver().await;
    assert_eq!(world.copies(2)[1], 0);
    grow(&disk);
    server.restart().unwrap();
    all_is_well(&world).await;
}

/// A file system of two megabytes that one user may write to, who may come to it. Nothing where `test` is
/// skipped, because mounting is not allowed.
fn small_disk(test: &str, user: &str) -> Option<Mounted> {
    Mounted::in_memory(test, &format!("size=2m,mode=0700,uid={user}")).unwrap()
}

fn grow(disk: &Mounted) {
    disk.remount("size=64m").unwrap();
}
