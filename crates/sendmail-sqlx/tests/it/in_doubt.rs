//! A commit whose database went away: what is told of it, and for how long it may be asked about.

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{Clock, DecisionStore, ErrorKind, Timestamp};
use sendmail_sqlx::{Commit, InDoubt, SqlDecisionStore};
use sendmail_testkit::ManualClock;
use sqlx::Sqlite;
use sqlx::sqlite::{SqliteJournalMode, SqlitePoolOptions};

use crate::decision::queue;
use crate::scene::{ORDER, Scene};

/// A COMMIT that a reader keeps waiting is given up, and the pool was closed meanwhile: nobody can be asked.
async fn in_doubt(scene: &Scene, clock: &ManualClock) -> InDoubt<Sqlite> {
    let options = scene.options().busy_timeout(Duration::from_secs(60));
    let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
    let impatient = scene.options().busy_timeout(Duration::ZERO);
    let impatient = SqlitePoolOptions::new().connect_with(impatient).await.unwrap();
    let store =
        SqlDecisionStore::connect(pool.clone(), Arc::new(clock.clone()), queue()).await.unwrap();
    let mut reader = scene.pool.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT * FROM orders").execute(&mut *reader).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    sqlx::raw_sql(ORDER).execute(&mut *tx).await.unwrap();
    let commit = tokio::spawn(tx.commit());
    // A COMMIT that waits for readers lets no new one in.
    while sqlx::raw_sql("SELECT * FROM orders").execute(&impatient).await.is_ok() {
        tokio::task::yield_now().await;
    }
    drop(pool.close());
    clock.advance(Duration::from_secs(60));
    for millis in [100, 400, 1600, 6400] {
        assert_eq!(clock.advance_to_next().await, Duration::from_millis(millis));
    }
    let told = commit.await.unwrap().unwrap();
    sqlx::raw_sql("ROLLBACK").execute(&mut *reader).await.unwrap();
    let Commit::Unknown(in_doubt) = told else { panic!("{told:?}") };
    in_doubt
}

#[tokio::test]
async fn one_that_is_in_doubt_may_be_asked_about_for_twelve_hours() {
    let scene = Scene::new(SqliteJournalMode::Delete).await;
    let clock = ManualClock::default();
    let began = clock.now();
    let in_doubt = in_doubt(&scene, &clock).await;
    let twelve_hours = 12 * 60 * 60 * 1000;
    for (after, answers) in
        [(0, true), (1, true), (twelve_hours, true), (twelve_hours + 1, false), (-1, false)]
    {
        clock.set(Timestamp::from_millis(began.as_millis() + after));
        let error = in_doubt.ask().await.unwrap_err();
        // Its pool is closed: whoever is asked cannot be reached.
        assert_eq!(error.kind() != ErrorKind::NotFound, answers, "after {after} ms: {error}");
    }
    clock.set(Timestamp::from_millis(began.as_millis() + 2 * twelve_hours));
    assert_eq!(in_doubt.ask().await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn one_that_is_in_doubt_says_where_and_since_when() {
    let scene = Scene::new(SqliteJournalMode::Delete).await;
    let clock = ManualClock::default();
    let since = format!("{:?}", clock.now());
    let in_doubt = in_doubt(&scene, &clock).await;
    let text = format!("{in_doubt:?}");
    let resource = SqlDecisionStore::connect(scene.pool.clone(), Arc::new(clock), queue());
    let resource = resource.await.unwrap().resource_id().to_string();
    for part in ["InDoubt", &resource, "marker", &since] {
        assert!(text.contains(part), "{text}");
    }
}

/// Two readers' worth of patience: one that never goes, and one that goes after three refusals.
#[tokio::test]
async fn a_commit_that_meets_readers_is_sent_again_forty_times() {
    for goes_after in [None, Some(3)] {
        let scene = Scene::new(SqliteJournalMode::Delete).await;
        let options = scene.options().busy_timeout(Duration::ZERO);
        let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
        let clock = ManualClock::default();
        let store =
            SqlDecisionStore::connect(pool, Arc::new(clock.clone()), queue()).await.unwrap();
        let mut reader = scene.pool.acquire().await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT * FROM orders").execute(&mut *reader).await.unwrap();
        let mut tx = store.begin().await.unwrap();
        sqlx::raw_sql(ORDER).execute(&mut *tx).await.unwrap();
        let mut commit = tokio::spawn(tx.commit());
        for pause in 0..goes_after.unwrap_or(40) {
            // The pause itself, and the time within which it must be done.
            tokio::select! {
                biased;
                () = clock.until_asleep(2) => {}
                told = &mut commit => panic!("it was given up after {pause} pauses: {told:?}"),
            }
            if goes_after == Some(pause + 1) {
                sqlx::raw_sql("ROLLBACK").execute(&mut *reader).await.unwrap();
            }
            assert_eq!(clock.advance_to_next().await, Duration::from_millis(50));
        }
        let told = commit.await.unwrap().unwrap();
        if goes_after.is_some() {
            assert!(matches!(told, Commit::Committed), "{told:?}");
        } else {
            let Commit::RolledBack(why) = told else { panic!("{told:?}") };
            assert_eq!(why.kind(), ErrorKind::Busy, "{why}");
            sqlx::raw_sql("ROLLBACK").execute(&mut *reader).await.unwrap();
        }
        assert_eq!(scene.orders().await, i64::from(goes_after.is_some()));
    }
}
