//! A COMMIT that outlives the client who sent it, held up on the server: meanwhile nobody knows what will
//! become of the mail, and nobody touches it. And transactions that are forgotten, panic, or lose their
//! runtime.

use std::time::{Duration, Instant};

use sendmail_tests::servers::MariaDb;
use sqlx::{MySql, Postgres};

use crate::client::Client;
use crate::world::{Whole, World, on_each_database, told};

on_each_database! {
    forgotten_transactions_end_with_their_process => forgotten_postgres, forgotten_mariadb, forgotten_sqlite;
    a_panic_sends_nothing => panic_postgres, panic_mariadb, panic_sqlite;
    a_runtime_that_is_shut_down_loses_nothing => shutdown_postgres, shutdown_mariadb, shutdown_sqlite;
}

/// As often as it is asked, and by whomever.
async fn nobody_touches_it<DB: Whole>(world: &World<DB>) {
    for _ in 0..5 {
        assert_eq!(told(&world.recover().await), [("unfinished", "kept")]);
        world.deliver().await;
        assert_eq!(world.copies(1), [0]);
    }
    assert_eq!((world.undecided().await.len(), world.discarded().await.len()), (1, 0));
}

/// Mail and order agree, however often it is looked and delivered.
async fn they_agree<DB: Whole>(world: &World<DB>, last: u32) {
    for _ in 0..3 {
        world.settle().await;
        assert_eq!(world.copies(last), world.orders(last).await);
    }
}

/// Waits until `sql` counts `count`.
async fn until<DB: Whole>(world: &World<DB>, count: i64, sql: &str) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while world.count(sql).await != count {
        assert!(Instant::now() < deadline, "it never came to this: {sql}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const COMMITS_ON_POSTGRES: &str = "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database() \
     AND wait_event = 'advisory' AND query = 'COMMIT'";

/// A commit on PostgreSQL that waits for a lock in a deferred trigger, and its client is dead.
async fn held_on_postgres(
    test: &str,
) -> Option<(World<Postgres>, sqlx::pool::PoolConnection<Postgres>)> {
    let world = World::<Postgres>::open(test).await?;
    world
        .run(
            "CREATE FUNCTION hold() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN PERFORM pg_advisory_xact_lock(1); RETURN NULL; END $$; \
             CREATE CONSTRAINT TRIGGER held AFTER INSERT ON orders DEFERRABLE INITIALLY DEFERRED \
             FOR EACH ROW EXECUTE FUNCTION hold()",
        )
        .await;
    let mut holder = world.pool.acquire().await.unwrap();
    run(&mut holder, "SELECT pg_advisory_lock(1)").await;
    let mut client = Client::start(&world.url, &world.queue, "commit");
    client.says("attached").await;
    client.go_on().await;
    until(&world, 1, COMMITS_ON_POSTGRES).await;
    nobody_touches_it(&world).await;
    client.kill().await;
    nobody_touches_it(&world).await;
    assert_eq!(world.count(COMMITS_ON_POSTGRES).await, 1, "it outlives its client");
    Some((world, holder))
}

async fn run<DB: Whole>(connection: &mut sqlx::pool::PoolConnection<DB>, sql: &str) {
    DB::execute(connection, sql).await.unwrap();
}

// Proves: D-outlives
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_outlives_its_client_sends_once_postgres() {
    let test = "a_commit_that_outlives_its_client_sends_once_postgres";
    let Some((world, mut holder)) = held_on_postgres(test).await else { return };
    run(&mut holder, "SELECT pg_advisory_unlock(1)").await;
    they_agree(&world, 1).await;
    assert_eq!(world.copies(1), [1]);
}

// Proves: D-outlives
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_backend_is_terminated_never_sends_postgres() {
    let test = "a_commit_whose_backend_is_terminated_never_sends_postgres";
    let Some((world, mut holder)) = held_on_postgres(test).await else { return };
    let terminate = COMMITS_ON_POSTGRES.replace("COUNT(*)", "pg_terminate_backend(pid)");
    world.run(&terminate).await;
    they_agree(&world, 1).await;
    assert_eq!((world.copies(1), world.discarded().await.len()), (vec![0], 1));
    run(&mut holder, "SELECT pg_advisory_unlock(1)").await;
    they_agree(&world, 1).await;
    assert_eq!(world.copies(1), [0]);
}

/// The commit waits for a replica that never comes: it is in the binary log, and not in the tables.
// Proves: D-outlives
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_outlives_its_client_sends_once_mariadb() {
    let test = "a_commit_that_outlives_its_client_sends_once_mariadb";
    let waits = [
        ("log-bin", "binlog"),
        ("rpl-semi-sync-master-timeout", "3600000"),
        ("rpl-semi-sync-master-wait-point", "AFTER_SYNC"),
    ];
    let Some(server) = MariaDb::own(test, &waits) else { return };
    let url = server.create_database("shop").unwrap();
    let world = World::<MySql>::at(url, tempfile::tempdir().unwrap()).await;
    let mut client = Client::start(&world.url, &world.queue, "commit");
    client.says("attached").await;
    world.run("SET GLOBAL rpl_semi_sync_master_enabled = 1").await;
    client.go_on().await;
    let held = "SELECT COUNT(*) FROM information_schema.processlist \
         WHERE info = 'COMMIT' AND state LIKE 'Waiting for semi-sync%'";
    until(&world, 1, held).await;
    nobody_touches_it(&world).await;
    client.kill().await;
    nobody_touches_it(&world).await;
    assert_eq!(world.count(held).await, 1, "it outlives its client");
    world.run("SET GLOBAL rpl_semi_sync_master_enabled = 0").await;
    they_agree(&world, 1).await;
    assert_eq!(world.copies(1), [1]);
}

const COMMITS_ON_MARIADB: &str = "SELECT COUNT(*) FROM information_schema.processlist \
     WHERE info = 'COMMIT' AND state = 'Waiting for backup lock'";

/// A commit on MariaDB that waits for a backup, and a connection that makes it.
async fn held_on_mariadb(
    test: &str,
) -> Option<(MariaDb, World<MySql>, sqlx::pool::PoolConnection<MySql>, Client)> {
    let server = MariaDb::own(test, &[])?;
    let url = server.create_database("shop").unwrap();
    let world = World::<MySql>::at(url, tempfile::tempdir().unwrap()).await;
    let mut client = Client::start(&world.url, &world.queue, "commit");
    client.says("attached").await;
    let mut holder = world.pool.acquire().await.unwrap();
    for stage in ["START", "FLUSH", "BLOCK_DDL", "BLOCK_COMMIT"] {
        run(&mut holder, &format!("BACKUP STAGE {stage}")).await;
    }
    client.go_on().await;
    until(&world, 1, COMMITS_ON_MARIADB).await;
    nobody_touches_it(&world).await;
    Some((server, world, holder, client))
}

// Proves: D-outlives
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_connection_is_killed_never_sends_mariadb() {
    let test = "a_commit_whose_connection_is_killed_never_sends_mariadb";
    let Some((_server, world, mut holder, client)) = held_on_mariadb(test).await else { return };
    let id = world.count(&COMMITS_ON_MARIADB.replace("COUNT(*)", "CAST(id AS SIGNED)")).await;
    world.run(&format!("KILL {id}")).await;
    client.kill().await;
    run(&mut holder, "BACKUP STAGE END").await;
    they_agree(&world, 1).await;
    assert_eq!((world.copies(1), world.discarded().await.len()), (vec![0], 1));
}

/// This wait looks now and then whether its client lives, and rolls back: that is the truth then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_the_server_gives_up_never_sends_mariadb() {
    let test = "a_commit_that_the_server_gives_up_never_sends_mariadb";
    let Some((_server, world, mut holder, client)) = held_on_mariadb(test).await else { return };
    client.kill().await;
    until(&world, 0, COMMITS_ON_MARIADB).await;
    run(&mut holder, "BACKUP STAGE END").await;
    they_agree(&world, 1).await;
    assert_eq!((world.copies(1), world.discarded().await.len()), (vec![0], 1));
}

/// The connection of a forgotten transaction stays open as long as its process, and so does the question.
// Proves: D-forgotten
async fn forgotten_transactions_end_with_their_process<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    let mut client = Client::start(&world.url, &world.queue, "forget");
    client.says("done").await;
    for _ in 0..3 {
        world.recover().await;
        world.deliver().await;
        assert_eq!(world.copies(2), [0, 1]);
        assert_eq!(world.undecided().await.len(), 1, "in doubt as long as it is open");
    }
    client.end().await;
    they_agree(&world, 2).await;
    assert_eq!((world.copies(2), world.discarded().await.len()), (vec![0, 1], 1));
}

// Proves: D-forgotten
async fn a_panic_sends_nothing<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    let mut client = Client::start(&world.url, &world.queue, "panic");
    client.says("done").await;
    world.recover().await;
    world.deliver().await;
    assert_eq!(world.copies(2), [0, 1]);
    client.kill().await;
    they_agree(&world, 2).await;
    assert_eq!((world.copies(2), world.discarded().await.len()), (vec![0, 1], 1));
}

// Proves: D-forgotten
async fn a_runtime_that_is_shut_down_loses_nothing<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    let mut client = Client::start(&world.url, &world.queue, "shutdown");
    client.says("done").await;
    world.recover().await;
    world.deliver().await;
    client.kill().await;
    // Whether the commit that ran just then came through, only the database knows.
    they_agree(&world, 3).await;
    assert_eq!(world.copies(2), [0, 1]);
}
