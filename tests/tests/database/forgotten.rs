//! Markers that somebody who died has left behind: they are cleaned up when the mail is known, and are an
//! alarm when it is not.

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{DecisionStore, QueueStore, Timestamp};
use sendmail_sqlx::SqlDecisionStore;
use sendmail_testkit::ManualClock;
use sendmail_txn::Recovery;

use crate::support::on_each_server;
use crate::world::{Whole, World, on_each_database, store_id, told};

on_each_database! {
    a_marker_that_was_left_is_cleaned_up => left_marker_postgres, left_marker_mariadb, left_marker_sqlite;
    a_committed_mail_whose_file_is_gone_is_an_alarm => gone_postgres, gone_mariadb, gone_sqlite;
    a_discarded_mail_whose_marker_came_back_is_an_alarm => came_back_postgres, came_back_mariadb, came_back_sqlite;
}

on_each_server! {
    cleaning_up_waits_for_no_transaction => cleaning_postgres, cleaning_mariadb;
}

/// Somebody who looks for the first time, when everything that is there is a quarter of an hour old.
async fn later<DB: Whole>(world: &World<DB>) -> Recovery {
    world.run(&DB::aged(15)).await;
    let store = world.store().await;
    let clock = Arc::new(ManualClock::new(Timestamp::from_millis(1_795_504_135_123)));
    let decisions = SqlDecisionStore::connect(world.pool.clone(), clock.clone(), store_id(&store))
        .await
        .unwrap();
    // In SQLite rows are deleted once a minute.
    clock.advance(Duration::from_secs(61));
    world.recovery_of(store).with_decision_store(Arc::new(decisions)).unwrap()
}

/// The finisher dies after it has published the mail, before it deletes the marker.
// Proves: D-markers
async fn a_marker_that_was_left_is_cleaned_up<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    let process = world.process().await;
    for number in 1..=3 {
        process.commit(number).await;
    }
    drop(process);
    let ids = world.undecided().await;
    // One is delivered, one waits, one is claimed by somebody who dies.
    let finisher = world.store().await;
    finisher.publish(&ids[..1]).await.unwrap();
    world.deliver().await;
    finisher.publish(&ids[1..]).await.unwrap();
    let worker = world.store().await;
    assert_eq!(worker.claim(1).await.unwrap().claims.len(), 1);
    drop((finisher, worker));
    assert_eq!(world.markers().await, 3);

    let young = world.recover().await;
    assert_eq!((young.forgotten, world.markers().await), (0, 3), "their process may be at it");
    let report = later(&world).await.run().await.unwrap();
    assert_eq!((report.forgotten, told(&report)), (3, vec![]));
    assert_eq!(world.markers().await, 0);
    world.settle().await;
    world.settle().await;
    assert_eq!(world.copies(3), [1, 1, 1]);
}

/// Neither for those that are open, nor they for it.
async fn cleaning_up_waits_for_no_transaction<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    let process = world.process().await;
    for number in 1..=9 {
        process.commit(number).await;
    }
    let ids = world.undecided().await;
    let open = process.order(10).await;
    let finisher = world.store().await;
    finisher.publish(&ids).await.unwrap();
    let decisions = world.decisions(&finisher).await;
    decisions.forget(&ids).await.unwrap();
    assert_eq!(decisions.sweep().await.unwrap(), ids.len());
    assert_eq!(world.markers().await, 0);
    open.commit().await.unwrap();
    world.settle().await;
    assert_eq!(world.copies(10), [1; 10]);
}

async fn a_committed_mail_whose_file_is_gone_is_an_alarm<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    let process = world.process().await;
    process.commit(1).await;
    let ids = world.undecided().await;
    process.commit(2).await;
    drop(process);
    remove_files(&world, &ids[0].to_string());
    assert_eq!(world.undecided().await.len(), 1);
    for _ in 0..2 {
        let report = later(&world).await.run().await.unwrap();
        assert!(told(&report).contains(&("missing", "kept")), "{report:?}");
        assert_eq!(report.messages.iter().filter(|message| message.id == ids[0]).count(), 1);
        assert_eq!(world.markers().await, 1, "it stays remembered, the other is done");
    }
    world.settle().await;
    assert_eq!(world.copies(2), [0, 1]);
}

/// It was discarded, and then the database came back that knows it.
async fn a_discarded_mail_whose_marker_came_back_is_an_alarm<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    let process = world.process().await;
    process.commit(1).await;
    drop(process);
    world.run("CREATE TABLE aside AS SELECT * FROM sendmail_marker").await;
    world.run("DELETE FROM sendmail_marker").await;
    world.settle().await;
    assert_eq!((world.copies(1), world.discarded().await.len()), (vec![0], 1));
    world.run("DELETE FROM sendmail_marker").await;
    world.run("INSERT INTO sendmail_marker SELECT * FROM aside").await;
    let report = later(&world).await.run().await.unwrap();
    assert_eq!(told(&report), [("missing", "kept")]);
    assert_eq!(world.markers().await, 1);
    let id = world.discarded().await[0];
    sendmail_core::QueueAdmin::put_back(&world.store().await, id).await.unwrap();
    world.deliver().await;
    let report = later(&world).await.run().await.unwrap();
    assert_eq!((report.forgotten, told(&report)), (1, vec![]));
    assert_eq!((world.copies(1), world.markers().await), (vec![1], 0));
}

/// Removes the file of a message, wherever in the queue it is.
fn remove_files<DB: Whole>(world: &World<DB>, id: &str) {
    let mut folders = vec![world.queue.clone()];
    let mut removed = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else if entry.file_name().to_string_lossy().contains(id) {
                std::fs::remove_file(entry.path()).unwrap();
                removed += 1;
            }
        }
    }
    assert_eq!(removed, 1);
}
