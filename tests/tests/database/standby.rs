//! A real standby of PostgreSQL: it decides nothing until it is promoted.

use std::sync::Arc;
use std::time::{Duration, Instant};

use sendmail_clock::SystemClock;
use sendmail_core::{Decision, DecisionStore, ErrorKind, QueueId};
use sendmail_sqlx::SqlDecisionStore;
use sendmail_tests::servers::Postgres;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};

use crate::fence::{Fenced, fresh, queue, run, store};

#[tokio::test]
async fn a_standby_decides_nothing_until_it_is_promoted() {
    let test = "a_standby_decides_nothing_until_it_is_promoted";
    let Some(mut primary) = Postgres::own(test, &[]) else { return };
    let url = primary.create_database("shop").unwrap();
    let pool = PgPoolOptions::new().max_connections(1).connect(&url).await.unwrap();
    sendmail_sqlx::migrate(&pool).await.unwrap();
    let moved = store(&pool).await;
    let (copied, streamed, unknown) = (fresh(), fresh(), fresh());
    run(&pool, marker(copied)).await;
    let standby = primary.standby().unwrap();
    run(&pool, marker(streamed)).await;
    until_it_has(&standby, "2\n");

    let there = PgPoolOptions::new().connect(&standby.url("shop")).await.unwrap();
    let connect = || SqlDecisionStore::connect(there.clone(), Arc::new(SystemClock), queue());
    let error = connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
    assert!(error.to_string().contains("connect to the primary"), "{error}");

    // The address moves to the standby before it is promoted. Whoever has asked the primary asks it now.
    let options: PgConnectOptions = standby.url("shop").parse().unwrap();
    pool.set_connect_options(options);
    primary.kill().unwrap();
    for error in [
        moved.visible(&[copied]).await.unwrap_err(),
        moved.fence(copied, Duration::ZERO).await.unwrap_err(),
        moved.fence(unknown, Duration::ZERO).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
        assert!(error.is_temporary(), "{error}");
    }

    assert_eq!(standby.query("shop", "SELECT pg_promote()").unwrap(), "t\n");
    for store in [moved, connect().await.unwrap()] {
        assert_eq!(store.visible(&[copied, unknown]).await.unwrap(), [copied]);
        for (id, expected) in [
            (copied, Decision::Committed),
            (streamed, Decision::Committed),
            (unknown, Decision::Aborted),
        ] {
            assert_eq!(store.fence(id, Duration::ZERO).await.unwrap(), expected);
        }
    }
}

/// A marker that is committed at once. Tests are few, and end.
fn marker(id: QueueId) -> &'static str {
    let (key, queue) = (sqlx::Postgres::key(id), queue());
    format!("INSERT INTO sendmail_marker (id, kind, queue) VALUES ({key}, 1, '{queue}')").leak()
}

/// Asks until so many markers have arrived.
fn until_it_has(standby: &Postgres, count: &str) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while standby.query("shop", "SELECT COUNT(*) FROM sendmail_marker").unwrap() != count {
        assert!(Instant::now() < deadline, "the standby does not follow");
    }
}
