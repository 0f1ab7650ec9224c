//! Backups of only one of the two, clones, and queues that share a database: what each comes to, as the page
//! of guarantees says.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{DecisionStore, QueueAdmin, QueueStore};
use sendmail_txn::{Recovery, Ruling};

use crate::world::{Whole, World, on_each_database, told};

on_each_database! {
    the_database_is_restored => database_postgres, database_mariadb, database_sqlite;
    the_database_is_restored_under_a_frozen_queue => frozen_postgres, frozen_mariadb, frozen_sqlite;
    the_queue_is_restored => queue_postgres, queue_mariadb, queue_sqlite;
    the_queue_is_restored_before_the_markers_are_deleted => marked_postgres, marked_mariadb, marked_sqlite;
    two_hosts_share_a_database => two_hosts_postgres, two_hosts_mariadb, two_hosts_sqlite;
    the_database_is_cloned => cloned_postgres, cloned_mariadb, cloned_sqlite;
    a_queue_is_pointed_at_a_clone => pointed_postgres, pointed_mariadb, pointed_sqlite;
    an_operator_decides => decided_postgres, decided_mariadb, decided_sqlite;
}

/// Order 1 is in the backup, order 2 came after it; both mails are staged.
async fn restored<DB: Whole>(test: &str, frozen: bool) -> Option<World<DB>> {
    World::<DB>::can_back_up(test)?;
    let mut world = World::<DB>::open(test).await?;
    let process = world.process().await;
    process.commit(1).await;
    let backup = world.back_up().await;
    process.commit(2).await;
    drop(process);
    if frozen {
        assert!(world.store().await.set_frozen(true).await.unwrap());
    }
    world.restore(&backup).await;
    assert_eq!(world.orders(2).await, [1, 0]);
    Some(world)
}

/// The mail goes as its order: there is none of order 2 any more. It can be put back.
// Proves: D-restores
async fn the_database_is_restored<DB: Whole>(test: &str) {
    let Some(world) = restored::<DB>(test, false).await else { return };
    world.settle().await;
    assert_eq!(world.copies(2), [1, 0]);
    let discarded = world.discarded().await;
    assert_eq!(discarded.len(), 1);
    world.settle().await;
    assert_eq!(world.copies(2), [1, 0]);
    world.store().await.put_back(discarded[0]).await.unwrap();
    world.settle().await;
    assert_eq!((world.copies(2), world.discarded().await.len()), (vec![1, 1], 0));
}

// Proves: D-restores
async fn the_database_is_restored_under_a_frozen_queue<DB: Whole>(test: &str) {
    let Some(world) = restored::<DB>(test, true).await else { return };
    let ids = world.undecided().await;
    for _ in 0..2 {
        assert_eq!(told(&world.recover().await), [("frozen", "kept"); 2]);
        world.deliver().await;
        assert_eq!(world.copies(2), [0, 0]);
    }
    // A database that can be asked is not overruled.
    let recovery = world.recovery().await;
    let report = recovery.decide(&ids, Ruling::Committed).await.unwrap();
    assert_eq!(told(&report), [("committed", "published"), ("aborted", "kept")]);
    // One that is not asked, is.
    let recovery = world.recovery_of(world.store().await);
    let report = recovery.decide(&ids[1..], Ruling::Committed).await.unwrap();
    assert_eq!(told(&report), [("unknown resource", "published")]);
    world.deliver().await;
    assert_eq!(world.copies(2), [0, 0], "nothing is claimed");
    assert!(world.store().await.set_frozen(false).await.unwrap());
    world.settle().await;
    assert_eq!((world.copies(2), world.discarded().await.len()), (vec![1, 1], 0));
}

/// Order 1 is queued in the backup and 2 is staged; both are sent, and order 3 is committed and queued,
/// after it.
async fn queue_restored<DB: Whole>(world: &World<DB>) {
    let process = world.process().await;
    process.commit(1).await;
    process.store.publish(&world.undecided().await).await.unwrap();
    process.commit(2).await;
    drop(process);
    let backup = tempfile::tempdir().unwrap();
    copy(&world.queue, backup.path());
    world.settle().await;
    assert_eq!(world.copies(2), [1, 1]);
    // As time does.
    world.run("DELETE FROM sendmail_marker").await;
    let process = world.process().await;
    process.commit(3).await;
    drop(process);
    std::fs::remove_dir_all(&world.queue).unwrap();
    copy(backup.path(), &world.queue);
}

// Proves: D-restores
async fn the_queue_is_restored<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    queue_restored(&world).await;
    world.settle().await;
    // What was queued is sent again; what was staged is not, for its marker is deleted; what came later is
    // gone, and is missed.
    assert_eq!(world.copies(3), [2, 1, 0]);
    world.run(&DB::aged(15)).await;
    assert_eq!(told(&world.recover().await), [("missing", "kept")]);
}

/// The finisher was not that far yet: nobody can know that it was sent.
async fn the_queue_is_restored_before_the_markers_are_deleted<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    let process = world.process().await;
    process.commit(1).await;
    drop(process);
    let backup = tempfile::tempdir().unwrap();
    copy(&world.queue, backup.path());
    let finisher = world.store().await;
    finisher.publish(&world.undecided().await).await.unwrap();
    drop(finisher);
    world.deliver().await;
    std::fs::remove_dir_all(&world.queue).unwrap();
    copy(backup.path(), &world.queue);
    world.settle().await;
    assert_eq!(world.copies(1), [2]);
}

// Proves: D-restores
async fn two_hosts_share_a_database<DB: Whole>(test: &str) {
    let Some(here) = World::<DB>::open(test).await else { return };
    let there = here.beside().await;
    for (world, committed, rolled_back) in [(&here, 1, 2), (&there, 3, 4)] {
        let process = world.process().await;
        process.commit(committed).await;
        process.roll_back(rolled_back).await;
    }
    // Neither sees, judges or deletes what is the other's.
    let ids = there.undecided().await;
    let store = here.store().await;
    let decisions = here.decisions(&store).await;
    assert_eq!(decisions.visible(&ids).await.unwrap(), []);
    let error = decisions.fence(ids[0], Duration::ZERO).await.unwrap_err();
    assert!(error.message().contains("another queue"), "{error}");
    here.run(&DB::aged(60 * 48)).await;
    here.settle().await;
    decisions.forget(&ids).await.unwrap();
    decisions.sweep().await.unwrap();
    assert_eq!(here.copies(4), [1, 0, 0, 0]);
    let theirs = "SELECT COUNT(*) FROM sendmail_marker WHERE kind = 1";
    assert!(there.count(theirs).await >= 1);
    for _ in 0..2 {
        there.settle().await;
        here.settle().await;
        assert_eq!(there.copies(4), [0, 0, 1, 0]);
        assert_eq!(here.copies(4), [1, 0, 0, 0]);
    }
}

/// Staging gets a copy of production's database, and a queue of its own.
// Proves: D-restores
async fn the_database_is_cloned<DB: Whole>(test: &str) {
    if World::<DB>::can_back_up(test).is_none() {
        return;
    }
    let Some(original) = World::<DB>::open(test).await else { return };
    let process = original.process().await;
    process.commit(1).await;
    process.roll_back(2).await;
    drop(process);
    let Some(clone) = clone_of(test, &original).await else { return };
    let rows = "SELECT COUNT(*) FROM sendmail_marker";
    let process = clone.process().await;
    process.commit(3).await;
    process.roll_back(4).await;
    drop(process);
    clone.settle().await;
    clone.run(&DB::aged(15)).await;
    assert_eq!(told(&clone.recover().await), [], "what is the original's is nobody's here");
    assert_eq!(clone.copies(4), [0, 0, 1, 0]);
    assert!(clone.count(rows).await >= 1);
    original.settle().await;
    assert_eq!(original.copies(4), [1, 0, 0, 0]);
}

async fn clone_of<DB: Whole>(test: &str, original: &World<DB>) -> Option<World<DB>> {
    let folder = tempfile::tempdir().unwrap();
    let url = DB::create(test, &format!("{test}_clone"), folder.path())?;
    DB::load(&url, &original.back_up().await);
    Some(World::cloned(url, folder).await)
}

/// Which nobody should do: the clone knows nothing of what is committed in the original since. The mail is not
/// sent, and can be put back.
async fn a_queue_is_pointed_at_a_clone<DB: Whole>(test: &str) {
    if World::<DB>::can_back_up(test).is_none() {
        return;
    }
    let Some(original) = World::<DB>::open(test).await else { return };
    let Some(mut clone) = clone_of(test, &original).await else { return };
    clone.queue.clone_from(&original.queue);
    let process = original.process().await;
    process.commit(1).await;
    drop(process);
    clone.settle().await;
    original.settle().await;
    assert_eq!((clone.copies(1), original.copies(1)), (vec![0], vec![0]));
    let discarded = original.discarded().await;
    assert_eq!(discarded.len(), 1);
    original.store().await.put_back(discarded[0]).await.unwrap();
    original.settle().await;
    assert_eq!(original.copies(1), [1]);
}

/// The database is gone for good.
async fn an_operator_decides<DB: Whole>(test: &str) {
    let Some(world) = World::<DB>::open(test).await else { return };
    let process = world.process().await;
    process.commit(1).await;
    process.commit(2).await;
    let ids = world.undecided().await;
    let recovery = world.recovery_of(world.store().await);
    let decide = |recovery: &Arc<Recovery>, index: usize, ruling| {
        let (recovery, id) = (recovery.clone(), ids[index]);
        async move { recovery.decide(&[id], ruling).await.unwrap() }
    };
    let recovery = Arc::new(recovery);
    let report = decide(&recovery, 0, Ruling::Committed).await;
    assert_eq!(told(&report), [("in progress", "kept")], "its process lives");
    drop(process);
    let report = recovery.run().await.unwrap();
    assert_eq!(told(&report), [("unknown resource", "kept"); 2]);
    let report = decide(&recovery, 0, Ruling::Committed).await;
    assert_eq!(told(&report), [("unknown resource", "published")]);
    let report = decide(&recovery, 1, Ruling::Aborted).await;
    assert_eq!(told(&report), [("unknown resource", "discarded")]);
    let report = decide(&recovery, 1, Ruling::Committed).await;
    assert_eq!(told(&report), [("not undecided", "nothing")]);
    for _ in 0..2 {
        world.deliver().await;
        assert_eq!((world.copies(2), world.discarded().await), (vec![1, 0], vec![ids[1]]));
    }
    world.store().await.put_back(ids[1]).await.unwrap();
    world.deliver().await;
    assert_eq!(world.copies(2), [1, 1]);
}

/// Copies a directory with all that is in it.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    let mut command = std::process::Command::new("cp");
    assert!(command.arg("-a").arg(from.join(".")).arg(to).status().unwrap().success());
}
