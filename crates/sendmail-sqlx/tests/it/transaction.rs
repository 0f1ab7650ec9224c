//! Honest commits on SQLite: what `commit` tells is what the table holds.

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{
    Clock, DataManager, Decision, DecisionStore, ErrorKind, PrepareContext, Timestamp,
    TransactionId, Vote,
};
use sendmail_sqlx::{Commit, MailTransaction, SqlDataManager, SqlDecisionStore};
use sendmail_testkit::ManualClock;
use sendmail_testkit::suite::external::Owner;
use sqlx::sqlite::{SqliteJournalMode, SqlitePoolOptions};
use sqlx::{Connection, Sqlite, SqlitePool};

use crate::decision::{Application, fresh, poll_times, queue, store};
use crate::scene::{MODES, ORDER, Scene};

/// How many transactions have left their own marker.
async fn committed_markers(pool: &SqlitePool) -> i64 {
    let count = "SELECT COUNT(*) FROM sendmail_marker WHERE kind = 2";
    sqlx::query_scalar(count).fetch_one(pool).await.unwrap()
}

async fn order(tx: &mut MailTransaction<Sqlite>) {
    sqlx::raw_sql(ORDER).execute(&mut **tx).await.unwrap();
}

async fn quick(pool: &SqlitePool) -> SqlDecisionStore<Sqlite> {
    store(pool).await.lock_wait(Duration::from_millis(100))
}

// Proves: I19
#[tokio::test]
async fn what_is_told_is_what_the_table_holds() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let store = quick(&scene.pool).await;
        let mut tx = store.begin().await.unwrap();
        order(&mut tx).await;
        assert!(matches!(tx.commit().await.unwrap(), Commit::Committed));
        assert_eq!((scene.orders().await, committed_markers(&scene.pool).await), (1, 1));

        let mut tx =
            MailTransaction::begin_with(&scene.pool, &store, "BEGIN IMMEDIATE").await.unwrap();
        order(&mut tx).await;
        tx.rollback().await.unwrap();
        let mut tx = MailTransaction::begin(&scene.pool, &store).await.unwrap();
        order(&mut tx).await;
        drop(tx);
        assert_eq!((scene.orders().await, committed_markers(&scene.pool).await), (1, 1));
    }
}

#[tokio::test]
async fn a_commit_that_the_database_refuses_is_a_rollback_and_leaves_the_connection_usable() {
    let scene = Scene::new(SqliteJournalMode::Wal).await;
    let deferred =
        "CREATE TABLE lines (of INTEGER REFERENCES orders DEFERRABLE INITIALLY DEFERRED)";
    sqlx::raw_sql(deferred).execute(&scene.pool).await.unwrap();
    let one =
        SqlitePoolOptions::new().max_connections(1).connect_with(scene.options()).await.unwrap();
    let store = quick(&one).await;
    let mut tx = store.begin().await.unwrap();
    order(&mut tx).await;
    sqlx::raw_sql("INSERT INTO lines VALUES (99)").execute(&mut *tx).await.unwrap();
    let Commit::RolledBack(why) = tx.commit().await.unwrap() else { panic!("no such order") };
    assert!(why.to_string().contains("FOREIGN KEY"), "{why}");
    assert_eq!((scene.orders().await, committed_markers(&scene.pool).await), (0, 0));
    let mut tx = store.begin().await.unwrap();
    order(&mut tx).await;
    assert!(matches!(tx.commit().await.unwrap(), Commit::Committed));
    assert_eq!(scene.orders().await, 1);
}

#[tokio::test]
async fn a_transaction_that_was_ended_by_a_statement_is_told_as_such() {
    let scene = Scene::new(SqliteJournalMode::Wal).await;
    let store = quick(&scene.pool).await;
    for end in ["COMMIT", "ROLLBACK"] {
        let mut tx = store.begin().await.unwrap();
        sqlx::raw_sql(end).execute(&mut *tx).await.unwrap();
        assert_eq!(tx.commit().await.unwrap_err().kind(), ErrorKind::InvalidState, "{end}");
    }
    assert_eq!(committed_markers(&scene.pool).await, 0);
}

// Proves: D-attach
#[tokio::test]
async fn nested_transactions_are_sqlx_s_own_and_a_forgotten_one_commits_nothing() {
    let scene = Scene::new(SqliteJournalMode::Wal).await;
    let store = quick(&scene.pool).await;
    let mut tx = store.begin().await.unwrap();
    order(&mut tx).await;
    for keep in [true, false] {
        let mut nested = (*tx).begin().await.unwrap();
        sqlx::raw_sql(ORDER).execute(&mut *nested).await.unwrap();
        if keep {
            nested.commit().await.unwrap();
        }
    }
    assert!(matches!(tx.commit().await.unwrap(), Commit::Committed));
    assert_eq!(scene.orders().await, 2);

    for commits in [true, false] {
        let mut tx = store.begin().await.unwrap();
        std::mem::forget((*tx).begin().await.unwrap());
        order(&mut tx).await;
        if commits {
            assert!(matches!(tx.commit().await.unwrap(), Commit::RolledBack(_)));
        }
    }
    assert_eq!(scene.orders().await, 2);
}

#[tokio::test]
async fn a_nested_transaction_that_was_just_dropped_keeps_nothing_from_committing() {
    let scene = Scene::new(SqliteJournalMode::Wal).await;
    let store = quick(&scene.pool).await;
    for count in 1..=50 {
        let mut tx = store.begin().await.unwrap();
        order(&mut tx).await;
        drop((*tx).begin().await.unwrap());
        let told = tx.commit().await.unwrap();
        assert!(matches!(told, Commit::Committed), "{count}: {told:?}");
    }
}

// Proves: I19
#[tokio::test]
async fn a_commit_that_is_dropped_at_any_poll_is_whole() {
    for mode in MODES {
        let scene = Scene::new(mode).await;
        let store = quick(&scene.pool).await;
        let mut expected = 0;
        for polls in 0.. {
            let mut tx = store.begin().await.unwrap();
            order(&mut tx).await;
            let told = poll_times(polls, tx.commit()).await;
            // The transaction holds the write lock until it has ended, one way or the other.
            Box::new(Application::begin(&scene.pool, &queue()).await).rollback().await;
            expected += i64::from(polls > 0);
            assert_eq!(scene.orders().await, expected, "{polls} polls");
            assert_eq!(committed_markers(&scene.pool).await, expected, "{polls} polls");
            if let Some(told) = told {
                assert!(matches!(told.unwrap(), Commit::Committed));
                break;
            }
        }
        assert!(expected > 1, "it was never dropped half-way");
    }
}

#[tokio::test]
async fn a_beginning_that_is_dropped_at_any_poll_leaves_nothing_open() {
    let scene = Scene::new(SqliteJournalMode::Delete).await;
    let one =
        SqlitePoolOptions::new().max_connections(1).connect_with(scene.options()).await.unwrap();
    let store = quick(&one).await;
    for polls in 0.. {
        let begun = poll_times(polls, MailTransaction::begin_with(&one, &store, "BEGIN IMMEDIATE"));
        let begun = begun.await;
        let done = begun.is_some();
        drop(begun);
        let mut tx = store.begin().await.unwrap();
        order(&mut tx).await;
        assert!(matches!(tx.commit().await.unwrap(), Commit::Committed));
        if done {
            assert!(polls > 1);
            break;
        }
    }
}

#[tokio::test]
async fn a_commit_that_meets_readers_is_repeated_and_then_rolled_back() {
    let scene = Scene::new(SqliteJournalMode::Delete).await;
    let options = scene.options().busy_timeout(Duration::ZERO);
    let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
    let store = quick(&pool).await;
    let read = async || {
        let mut reader = scene.pool.acquire().await.unwrap();
        sqlx::raw_sql("BEGIN; SELECT * FROM orders").execute(&mut *reader).await.unwrap();
        reader
    };
    let mut tx = store.begin().await.unwrap();
    order(&mut tx).await;
    let mut reader = read().await;
    let Commit::RolledBack(why) = tx.commit().await.unwrap() else { panic!("a reader is there") };
    assert_eq!(why.kind(), ErrorKind::Busy, "{why}");
    sqlx::raw_sql("ROLLBACK").execute(&mut *reader).await.unwrap();
    assert_eq!(scene.orders().await, 0);

    let mut tx = store.begin().await.unwrap();
    order(&mut tx).await;
    let mut reader = read().await;
    let commit = tokio::spawn(tx.commit());
    tokio::task::yield_now().await;
    sqlx::raw_sql("ROLLBACK").execute(&mut *reader).await.unwrap();
    assert!(matches!(commit.await.unwrap().unwrap(), Commit::Committed));
    assert_eq!(scene.orders().await, 1);
}

#[tokio::test]
async fn a_commit_that_was_given_up_and_succeeds_is_told_as_committed_though_the_clock_went_back() {
    let scene = Scene::new(SqliteJournalMode::Delete).await;
    let options = scene.options().busy_timeout(Duration::from_secs(60));
    let pool = SqlitePoolOptions::new().max_connections(2).connect_with(options).await.unwrap();
    let impatient = scene.options().busy_timeout(Duration::ZERO);
    let impatient = SqlitePoolOptions::new().connect_with(impatient).await.unwrap();
    let clock = ManualClock::default();
    let store = SqlDecisionStore::connect(pool, Arc::new(clock.clone()), queue()).await.unwrap();
    let mut reader = scene.pool.acquire().await.unwrap();
    sqlx::raw_sql("BEGIN; SELECT * FROM orders").execute(&mut *reader).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    order(&mut tx).await;
    let began = clock.now();
    let commit = tokio::spawn(tx.commit());
    // A COMMIT that waits for readers lets no new one in.
    while sqlx::raw_sql("SELECT * FROM orders").execute(&impatient).await.is_ok() {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_secs(60));
    clock.until_asleep(1).await;
    clock.set(Timestamp::from_millis(began.as_millis() - 1000));
    sqlx::raw_sql("ROLLBACK").execute(&mut *reader).await.unwrap();
    let told = commit.await.unwrap().unwrap();
    assert!(matches!(told, Commit::Committed), "{told:?}");
    assert_eq!(scene.orders().await, 1);
}

#[tokio::test]
async fn a_database_that_was_replaced_commits_nothing() {
    let scene = Scene::new(SqliteJournalMode::Wal).await;
    let store = quick(&scene.pool).await;
    let rename = "UPDATE sendmail_database SET resource = 'db-00000000000000000000000000000000'";
    sqlx::raw_sql(rename).execute(&scene.pool).await.unwrap();
    let mut tx = store.begin().await.unwrap();
    order(&mut tx).await;
    assert!(matches!(tx.commit().await.unwrap(), Commit::RolledBack(_)));
    assert_eq!(scene.orders().await, 0);
}

#[tokio::test]
async fn a_data_manager_leaves_a_marker_for_each_message_and_decides() {
    let scene = Scene::new(SqliteJournalMode::Wal).await;
    let store = quick(&scene.pool).await;
    for commits in [true, false] {
        let before = scene.orders().await;
        let mut manager = SqlDataManager::new(store.begin().await.unwrap());
        let decides = manager.decision_store().unwrap().resource_id().clone();
        assert_eq!(&decides, store.resource_id());
        let work = async |manager: &mut SqlDataManager<Sqlite>| {
            let connection = manager.connection().unwrap();
            sqlx::raw_sql(ORDER).execute(connection).await.unwrap();
        };
        work(&mut manager).await;
        let mark = manager.savepoint().await.unwrap();
        let inner = manager.savepoint().await.unwrap();
        work(&mut manager).await;
        manager.rollback_to(inner).await.unwrap();
        manager.rollback_to(mark).await.unwrap();
        manager.rollback_to(mark).await.unwrap();

        let (mails, transaction) = ([fresh(), fresh()], TransactionId::mint(Timestamp::EPOCH));
        let mut context = PrepareContext::new(transaction, Some(decides));
        mails.iter().for_each(|mail| context.mark(*mail));
        assert_eq!(manager.prepare(&mut context).await.unwrap(), Vote::Yes);
        if commits {
            let dropped = poll_times(1, manager.commit()).await;
            assert!(dropped.is_none_or(|done| done.is_ok()));
            for _ in 0..2 {
                manager.commit().await.unwrap();
            }
            manager.abort().await;
        } else {
            manager.abort().await;
            manager.abort().await;
            assert_eq!(manager.commit().await.unwrap_err().kind(), ErrorKind::Aborted);
        }
        assert_eq!(scene.orders().await - before, i64::from(commits));
        let expected = if commits { Decision::Committed } else { Decision::Aborted };
        for (_, answer) in store.fence_all(&mails, Duration::ZERO).await {
            assert_eq!(answer.unwrap(), expected);
        }
    }
}
