//! The moments of a producer at which each operation fails in each way: writing, preparing, deciding,
//! publishing.

use sendmail_core::ErrorKind;

use super::scene::{
    ALL, BAD, CHANGES, FULL, Failed, NEEDS_ROOM, REFUSED, Scene, TRANSACTION, fail_each,
};
use crate::disk::{Op, faults};
use crate::queue::Queue;

// Proves: F-write-full, F-write-eio, F-write-access, I17
#[test]
fn a_message_that_cannot_be_written_is_an_error_and_can_be_aborted() {
    for trouble in ALL {
        let write = |scene: &Scene| scene.queue.write(&scene.message(0));
        let failed = fail_each(trouble, Scene::empty, write, |scene, Failed { result, .. }| {
            trouble.is_told(&result.unwrap_err());
            assert_eq!(scene.queue.layout.tmp.names().unwrap().count(), 0, "the file is given up");
            scene.abort();
            scene.never_sent();
        });
        for operation in [Op::Make, Op::Write] {
            assert!(failed.contains(&operation), "{operation:?} did not fail");
        }
    }
}

/// Its content is made durable when it is staged or published, before anybody can see it.
// Proves: F-write-full, F-write-eio, F-write-access, I17
#[test]
fn a_message_that_cannot_be_synced_is_given_up_and_its_sync_not_tried_again() {
    for trouble in ALL {
        for error in trouble.errors {
            let scene = Scene::written(1);
            faults::fail_after(0, *error);
            trouble.is_told(&scene.queue.publish(&scene.ids).unwrap_err());
            assert_eq!(faults::stop(), Some(Op::Sync));
            assert_eq!(scene.queue.layout.tmp.names().unwrap().count(), 0, "it is given up");
            for act in [Queue::publish, Queue::stage] {
                assert!(act(&scene.queue, &scene.ids).is_err());
            }
            scene.abort();
            scene.never_sent();
        }
    }
}

/// Many are not held open: what is written beyond that is synced at once.
// Proves: I15
#[test]
fn no_more_files_are_held_open_than_are_allowed() {
    let mut scene = Scene::written(128);
    let (_, operations) = faults::listed(|| scene.queue.write(&scene.message(128)).unwrap());
    assert!(operations.contains(&Op::Sync), "{operations:?}");
    assert_eq!(scene.queue.open.count(), 128);
    scene.ids.push(scene.message(128).id);
    scene.queue.stage(&scene.ids).unwrap();
    assert_eq!(scene.queue.open.count(), 0);
}

/// What cannot even be cleaned up is cleaned up by others, and never sent.
// Proves: F-write-full, F-write-eio, F-write-access
#[test]
fn a_message_that_is_written_in_part_on_a_disk_that_stays_bad_is_never_sent() {
    for trouble in ALL {
        for error in trouble.errors {
            let scene = Scene::empty();
            faults::fail_all(&[Op::Write, Op::Unlink], *error);
            trouble.is_told(&scene.queue.write(&scene.message(0)).unwrap_err());
            faults::stop();
            assert_eq!(scene.queue.layout.tmp.names().unwrap().count(), 1);
            scene.never_sent();
        }
    }
}

/// What could not be synced cannot be published later either, though the disk is well again.
// Proves: F-write-full, F-write-eio, F-write-access, I17
#[test]
fn a_message_that_can_be_neither_synced_nor_removed_is_never_sent() {
    for trouble in ALL {
        for (error, act) in trouble.errors.iter().zip([Queue::publish, Queue::stage].iter().cycle())
        {
            let scene = Scene::written(2);
            let (other, ids) = scene.ids.split_at(1);
            // The directory of staged messages is there then, and its name durable.
            scene.queue.stage(other).unwrap();
            faults::fail_all(&[Op::Sync, Op::Unlink], *error);
            trouble.is_told(&act(&scene.queue, ids).unwrap_err());
            faults::stop();
            assert_eq!(scene.undecided(), 2);
            for again in [Queue::publish, Queue::stage] {
                assert!(again(&scene.queue, ids).is_err());
            }
            scene.never_sent();
        }
    }
}

// Proves: F-prepare-full, F-prepare-eio, F-prepare-access, I17
#[test]
fn what_cannot_be_prepared_votes_no_and_leaves_nothing() {
    for trouble in ALL {
        let prepare = |scene: &Scene| scene.prepare();
        let written = || Scene::written(2);
        let failed = fail_each(trouble, written, prepare, |scene, Failed { result, .. }| {
            trouble.is_told(&result.unwrap_err());
            scene.abort();
            let error = scene.queue.decide(TRANSACTION).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Aborted, "nobody decides it any more");
            scene.never_sent();
        });
        let syncs = failed.iter().filter(|operation| **operation == Op::Sync).count();
        assert!(syncs / trouble.errors.len() >= 3, "staged, manifest, and its directory: {syncs}");
    }
}

/// Nor does it do anything else than to mark a file that is open and to sync it.
// Proves: F-decide-full
#[test]
fn a_decision_of_several_messages_needs_no_room() {
    let scene = Scene::prepared();
    faults::fail_all(NEEDS_ROOM, FULL.errors[0]);
    let (decided, operations) = faults::listed(|| scene.queue.decide(TRANSACTION));
    faults::stop();
    decided.unwrap();
    assert_eq!(operations, [Op::Mode, Op::Sync]);
    scene.queue.publish(&scene.ids).unwrap();
    scene.all_sent_by(&scene.other());
}

/// Whatever the disk says, the caller is not told more than is true: refused before it was done, it is
/// undecided; in doubt, it is kept.
// Proves: F-decide-full, F-decide-eio, F-decide-access, I4, I17, I19
#[test]
fn a_decision_of_several_that_fails_is_undecided_or_uncertain_and_kept() {
    for trouble in ALL {
        let decide = |scene: &Scene| scene.queue.decide(TRANSACTION);
        let failed =
            fail_each(trouble, Scene::prepared, decide, |scene, Failed { operation, result }| {
                let kind = result.unwrap_err().kind();
                if operation == Op::Mode && trouble.kind != BAD.kind {
                    assert_eq!(kind, ErrorKind::Aborted);
                    scene.abort();
                    return scene.never_sent();
                }
                assert_eq!(kind, ErrorKind::Uncertain, "{operation:?}");
                let again = scene.queue.decide(TRANSACTION).unwrap_err();
                assert_eq!(again.kind(), ErrorKind::Uncertain, "a second sync would say nothing");
                assert_eq!(scene.undecided(), 2, "kept");
                scene.die();
                let other = scene.other();
                other.sweep().unwrap();
                match operation {
                    Op::Sync => scene.all_sent_by(&other),
                    _ => scene.never_sent(),
                }
            });
        assert_eq!(failed.len(), 2 * trouble.errors.len(), "{failed:?}");
    }
}

/// To publish a message that is alone in its transaction is to decide it.
// Proves: F-decide-full, F-decide-eio, F-decide-access, I4, I17, I19
#[test]
fn a_decision_of_one_that_fails_is_undecided_or_uncertain_and_kept() {
    for trouble in ALL {
        let publish = |scene: &Scene| scene.queue.publish(&scene.ids);
        let written = || Scene::written(1);
        let failed = fail_each(trouble, written, publish, |scene, Failed { operation, result }| {
            let error = result.unwrap_err();
            // Its content comes first; nobody has seen it by then.
            if operation == Op::Sync && scene.undecided() == 0 && scene.is_empty() {
                trouble.is_told(&error);
                scene.abort();
                return scene.never_sent();
            }
            if operation == Op::Rename && trouble.kind != BAD.kind {
                trouble.is_told(&error);
                assert_eq!(scene.undecided(), 1);
                scene.abort();
                return scene.never_sent();
            }
            assert_eq!(error.kind(), ErrorKind::Uncertain, "{operation:?}");
            let again = scene.queue.publish(&scene.ids).unwrap_err();
            assert_eq!(again.kind(), ErrorKind::Uncertain, "a second sync would say nothing");
            match operation {
                Op::Sync => scene.all_sent_by(&scene.other()),
                _ => assert_eq!(scene.undecided(), 1, "kept"),
            }
        });
        assert_eq!(failed[..3], [Op::Sync, Op::Rename, Op::Sync]);
    }
}

/// An error that is over is over.
// Proves: F-decide-full
#[test]
fn a_decision_of_one_for_which_there_is_no_room_can_be_made_later() {
    for error in FULL.errors {
        let scene = Scene::written(1);
        faults::fail_all(NEEDS_ROOM, *error);
        FULL.is_told(&scene.queue.publish(&scene.ids).unwrap_err());
        faults::stop();
        scene.queue.publish(&scene.ids).unwrap();
        scene.all_sent_by(&scene.other());
    }
}

// Proves: F-publish-full, F-publish-eio, F-publish-access
#[test]
fn what_is_decided_and_cannot_be_published_is_published_by_the_next_sweep() {
    for trouble in ALL {
        let publish = |scene: &Scene| scene.queue.publish(&scene.ids);
        let failed =
            fail_each(trouble, Scene::decided, publish, |scene, Failed { operation, result }| {
                let error = result.unwrap_err();
                if operation == Op::Sync {
                    // This process can say nothing more of it; others need not believe its sync.
                    assert_eq!(error.kind(), ErrorKind::Uncertain);
                    scene.other().sweep().unwrap();
                } else {
                    trouble.is_told(&error);
                    assert!(scene.queue.sweep().unwrap().published > 0);
                }
                scene.all_sent_by(&scene.other());
            });
        for operation in [Op::Make, Op::Rename, Op::Sync] {
            assert!(failed.contains(&operation), "{operation:?} did not fail");
        }
    }
}

/// It is tried again and again, without harm, and done when the disk is well again.
// Proves: F-publish-full, F-publish-eio, F-publish-access
#[test]
fn what_is_decided_is_published_when_the_disk_is_well_again() {
    for (trouble, kinds) in [(&FULL, NEEDS_ROOM), (&BAD, &[Op::Rename]), (&REFUSED, CHANGES)] {
        for error in trouble.errors {
            let scene = Scene::decided();
            faults::fail_all(kinds, *error);
            trouble.is_told(&scene.queue.publish(&scene.ids).unwrap_err());
            for _ in 0..3 {
                trouble.is_told(&scene.queue.sweep().unwrap_err());
            }
            faults::stop();
            assert_eq!(scene.undecided(), 2, "kept");
            assert_eq!(scene.queue.sweep().unwrap().published, 2);
            scene.all_sent_by(&scene.other());
        }
    }
}
