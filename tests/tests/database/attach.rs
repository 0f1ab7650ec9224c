//! Attaching mail to transactions of PostgreSQL and MariaDB: what goes along, and with what.

use std::pin::pin;
use std::task::Poll;

use sendmail_core::{ErrorKind, QueueStore};
use sendmail_sqlx::{AttachExt, migrate, resource};
use sendmail_testkit::Operation;
use sqlx::Connection;

use crate::support::{ORDER, Shop, Tested, mail, on_each_server};

on_each_server! {
    // Proves: D-attach
    goes_with_its_transaction => attach_commits_postgres, attach_commits_mariadb;
    // Proves: D-attach
    goes_with_its_savepoint => attach_savepoint_postgres, attach_savepoint_mariadb;
    goes_with_a_raw_transaction => attach_raw_postgres, attach_raw_mariadb;
    is_not_sent_if_it_cannot_be_staged => attach_unstaged_postgres, attach_unstaged_mariadb;
    may_be_dropped_in_a_transaction => attach_dropped_postgres, attach_dropped_mariadb;
    may_be_dropped_in_autocommit => autocommit_dropped_postgres, autocommit_dropped_mariadb;
    many_may_migrate_at_once => migrate_at_once_postgres, migrate_at_once_mariadb;
    starting_waits_for_nobody => migrate_beside_postgres, migrate_beside_mariadb;
    databases_differ => identities_postgres, identities_mariadb;
}

async fn goes_with_its_transaction<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    let mut tx = shop.pool.begin().await.unwrap();
    DB::execute(&mut tx, ORDER).await.unwrap();
    shop.attach(&mut tx).await.unwrap();
    assert!(shop.markers().await.is_empty(), "seen before the commit");
    tx.commit().await.unwrap();
    let committed = shop.markers().await;
    assert_eq!(shop.undecided().await, [(committed[0], true)]);

    let mut tx = shop.pool.begin().await.unwrap();
    DB::execute(&mut tx, ORDER).await.unwrap();
    shop.attach(&mut tx).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!((shop.orders().await, shop.markers().await), (1, committed));
}

async fn goes_with_its_savepoint<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    // A nested transaction that commits, one that does not, and savepoints by hand.
    let mut outer = shop.pool.begin().await.unwrap();
    let mut inner = outer.begin().await.unwrap();
    shop.attach(&mut inner).await.unwrap();
    inner.commit().await.unwrap();
    let kept: Vec<_> = shop.undecided().await;
    let mut inner = outer.begin().await.unwrap();
    shop.attach(&mut inner).await.unwrap();
    inner.rollback().await.unwrap();
    DB::execute(&mut outer, "SAVEPOINT mine").await.unwrap();
    shop.attach(&mut outer).await.unwrap();
    DB::execute(&mut outer, "ROLLBACK TO SAVEPOINT mine").await.unwrap();
    DB::execute(&mut outer, ORDER).await.unwrap();
    outer.commit().await.unwrap();
    assert_eq!((shop.orders().await, shop.undecided().await.len()), (1, 3));
    assert_eq!(shop.markers().await, [kept[0].0]);

    // What was committed in a savepoint goes with the whole.
    let mut outer = shop.pool.begin().await.unwrap();
    let mut inner = outer.begin().await.unwrap();
    shop.attach(&mut inner).await.unwrap();
    inner.commit().await.unwrap();
    outer.rollback().await.unwrap();
    assert_eq!(shop.markers().await, [kept[0].0]);
}

/// The driver knows of none of these transactions.
async fn goes_with_a_raw_transaction<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    let mut connection = shop.pool.acquire().await.unwrap();
    DB::execute(&mut connection, "BEGIN").await.unwrap();
    shop.attach(&mut connection).await.unwrap();
    DB::execute(&mut connection, "COMMIT").await.unwrap();
    assert_eq!(shop.markers().await.len(), 1);
    DB::execute(&mut connection, "BEGIN").await.unwrap();
    shop.attach(&mut connection).await.unwrap();
    DB::execute(&mut connection, "ROLLBACK").await.unwrap();
    assert_eq!(shop.markers().await.len(), 1);
}

/// Even if the application commits in spite of the error.
async fn is_not_sent_if_it_cannot_be_staged<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    let mut tx = shop.pool.begin().await.unwrap();
    DB::execute(&mut tx, ORDER).await.unwrap();
    shop.queue.fail_next(Operation::Stage, ErrorKind::Io);
    let error = shop.attach(&mut tx).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    tx.commit().await.unwrap();
    assert_eq!((shop.orders().await, shop.markers().await.len()), (1, 0));
    assert_eq!(shop.undecided().await, []);
}

/// The connection stays in step: the transaction goes on, and what was staged has its marker.
async fn may_be_dropped_in_a_transaction<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    for polls in 0.. {
        let orders = shop.orders().await;
        let mut tx = shop.pool.begin().await.unwrap();
        let ended = attach_and_drop(&shop, &mut tx, polls).await;
        DB::execute(&mut tx, ORDER).await.unwrap();
        shop.attach(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        assert_eq!(shop.orders().await, orders + 1, "after {polls} polls");
        let markers = shop.markers().await;
        for (id, staged) in shop.undecided().await {
            assert!(!staged || markers.contains(&id), "after {polls} polls");
        }
        if ended {
            break;
        }
    }
}

/// Nothing is left in autocommit, neither a row nor an open transaction. The refusal that nobody awaited,
/// the driver reports at the connection's next statement, which was not sent then.
async fn may_be_dropped_in_autocommit<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    let mut connection = shop.pool.acquire().await.unwrap();
    for polls in 0..20 {
        let orders = shop.orders().await;
        let ended = attach_and_drop(&shop, &mut connection, polls).await;
        let next = DB::execute(&mut connection, ORDER).await;
        assert!(next.is_ok() || !ended, "after {polls} polls: {next:?}");
        assert_eq!(shop.orders().await, orders + i64::from(next.is_ok()), "after {polls} polls");
        DB::execute(&mut connection, ORDER).await.unwrap();
        assert_eq!(shop.orders().await, orders + 1 + i64::from(next.is_ok()));
    }
    assert!(shop.markers().await.is_empty());
}

/// Polls an attach at most `polls` times, and drops it. Whether it ended.
async fn attach_and_drop<DB: Tested>(
    shop: &Shop<DB>,
    connection: &mut DB::Connection,
    polls: usize,
) -> bool {
    let delivery = shop.delivery().await;
    let (envelope, message) = mail();
    let mut future = pin!(delivery.attach(connection, envelope, message));
    for _ in 0..polls {
        let once = std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context)));
        if once.await.is_ready() {
            return true;
        }
        tokio::task::yield_now().await;
    }
    false
}

async fn many_may_migrate_at_once<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::empty(test).await else { return };
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let pool = shop.pool.clone();
        tasks.spawn(async move {
            migrate(&pool).await.unwrap();
            resource(&pool).await.unwrap()
        });
    }
    let identities = tasks.join_all().await;
    assert!(identities.iter().all(|identity| *identity == identities[0]), "{identities:?}");
    let delivery = shop.delivery().await;
    assert_eq!(*delivery.resource_id(), identities[0]);
    assert_ne!(delivery.resource_id(), shop.queue.resource_id());
}

/// While a transaction is open, with a mail in it, another process may start.
async fn starting_waits_for_nobody<DB: Tested>(test: &str) {
    let Some(shop) = Shop::<DB>::open(test).await else { return };
    let mut tx = shop.pool.begin().await.unwrap();
    shop.attach(&mut tx).await.unwrap();
    migrate(&shop.pool).await.unwrap();
    shop.delivery().await;
    tx.commit().await.unwrap();
    assert_eq!(shop.markers().await.len(), 1);
}

async fn databases_differ<DB: Tested>(test: &str) {
    let Some(one) = Shop::<DB>::open(test).await else { return };
    let Some(two) = Shop::<DB>::open(&format!("{test}_2")).await else { return };
    assert_ne!(resource(&one.pool).await.unwrap(), resource(&two.pool).await.unwrap());
}
