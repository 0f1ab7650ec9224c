//! The moments of a worker at which each operation fails in each way: claiming, recording the outcome,
//! unlinking.

use sendmail_core::{MailEventKind, QueueId, Step};

use super::scene::{
    ALL, BAD, CHANGES, FULL, Failed, NEEDS_ROOM, REFUSED, Scene, claim, fail_each, hand_over,
    settle,
};
use crate::disk::{Op, faults};

/// A worker that has worked before, so that its journal has its blocks.
fn at_work() -> Scene {
    let scene = Scene::queued(3);
    scene.queue.worker().unwrap();
    scene
}

// Proves: F-claim-full, I12
#[test]
fn a_claim_for_which_there_is_no_room_is_tried_again() {
    for error in FULL.errors {
        for prepare in [at_work, || Scene::queued(3)] {
            let scene = prepare();
            faults::fail_all(NEEDS_ROOM, *error);
            for _ in 0..3 {
                FULL.is_told(&scene.queue.claim(8).unwrap_err());
            }
            faults::stop();
            assert!(scene.queue.take_set_aside().is_empty(), "no file is to blame");
            scene.all_sent_by(&scene.queue);
        }
    }
}

// Proves: F-claim-full, I12
#[test]
fn whatever_of_a_claim_finds_no_room_all_is_claimed_in_the_end() {
    let act = |scene: &Scene| scene.queue.claim(8);
    fail_each(
        &FULL,
        || Scene::queued(3),
        act,
        |scene, Failed { operation, result }| {
            match result {
                Ok(claimed) => {
                    for claim in claimed.claims {
                        hand_over(&scene.queue, &claim);
                        settle(&scene.queue, claim).unwrap();
                    }
                }
                Err(error) => assert_eq!(error.kind(), FULL.kind, "{operation:?}"),
            }
            assert!(scene.queue.take_set_aside().is_empty(), "{operation:?}");
            rest_is_sent(scene, operation);
        },
    );
}

/// What is left after an operation has failed is sent by this process, or, if a sync has failed, by the
/// next one; everything once.
fn rest_is_sent(scene: &Scene, operation: Op) {
    let next = scene.other();
    let queue = if operation == Op::Sync { &next } else { &scene.queue };
    if operation == Op::Sync {
        scene.die();
    }
    for claim in claim(queue) {
        hand_over(queue, &claim);
        settle(queue, claim).unwrap();
    }
    scene.told_once();
    assert_eq!(claim(queue).len(), 0);
}

/// One file that cannot be read, or not be moved, is told of once, in the log too; the others go on, and it
/// does when it can be read.
// Proves: F-claim-eio, I12
#[test]
fn a_file_that_cannot_be_claimed_is_set_aside_with_an_event_and_the_others_go_on() {
    for operation in [Op::Read, Op::Rename] {
        let scene = at_work();
        let mut told = Vec::new();
        let mut claims = Vec::new();
        for _ in 0..3 {
            // It is the only one that is left after the first time.
            faults::fail_at(operation, 0, BAD.errors[0]);
            let claimed = scene.queue.claim(8).unwrap();
            assert_eq!(faults::stop(), Some(operation));
            claims.extend(claimed.claims);
            told.extend(claimed.events);
        }
        assert_eq!(claims.len(), 2, "the others go on");
        let bad = *scene.ids.iter().find(|id| claims.iter().all(|claim| claim.id != **id)).unwrap();
        let damaged = |event: &&sendmail_core::MailEvent| event.kind == MailEventKind::Damaged;
        let heard: Vec<_> = told.iter().filter(damaged).collect();
        assert_eq!(heard.len(), 1, "told once: {told:?}");
        assert_eq!(heard[0].queue_id, Some(bad));
        assert!(scene.log().contains(heard[0]), "and the log knows");
        assert_eq!(scene.queue.take_set_aside().len(), 1);
        for claim in claims {
            hand_over(&scene.queue, &claim);
            settle(&scene.queue, claim).unwrap();
        }
        let claims = claim(&scene.queue);
        assert_eq!(claims.len(), 1, "it is well again");
        for claim in claims {
            hand_over(&scene.queue, &claim);
            settle(&scene.queue, claim).unwrap();
        }
        scene.told_once();
    }
}

/// After a sync that failed nothing is claimed by this process any more; the next one has it all.
// Proves: F-claim-eio, I17
#[test]
fn a_claim_that_cannot_be_synced_is_the_last_of_its_process() {
    for trouble in ALL {
        for error in trouble.errors {
            for after in 0..3 {
                let scene = at_work();
                faults::fail_at(Op::Sync, after, *error);
                let result = scene.queue.claim(8).map_err(|error| scene.queue.for_good(error));
                let again = faults::synced_again();
                assert_eq!((faults::stop(), again), (Some(Op::Sync), None));
                assert!(!result.unwrap_err().is_temporary());
                let more = scene.queue.claim(8).map_err(|error| scene.queue.for_good(error));
                assert!(!more.unwrap_err().is_temporary());
                scene.die();
                scene.all_sent_by(&scene.other());
            }
        }
    }
}

// Proves: F-claim-access, I12
#[test]
fn a_queue_that_may_not_be_changed_is_an_error_of_the_claim_and_of_no_message() {
    for error in REFUSED.errors {
        for prepare in [at_work, || Scene::queued(3)] {
            for kinds in [CHANGES, &[Op::Rename], &[Op::Look]] {
                let scene = prepare();
                faults::fail_all(kinds, *error);
                for _ in 0..3 {
                    REFUSED.is_told(&scene.queue.claim(8).unwrap_err());
                }
                faults::stop();
                assert!(scene.queue.take_set_aside().is_empty(), "no file is to blame");
                assert!(scene.log().is_empty());
                scene.all_sent_by(&scene.queue);
            }
        }
    }
}

/// The outcome of a message that the relay has taken.
fn handed_over() -> (Scene, sendmail_core::Claim) {
    let scene = Scene::queued(1);
    let claim = claim(&scene.queue).remove(0);
    hand_over(&scene.queue, &claim);
    (scene, claim)
}

/// The claim is kept meanwhile, so that nobody else sends it.
// Proves: F-record-full, I7, I9
#[test]
fn an_outcome_for_which_there_is_no_room_is_recorded_when_there_is() {
    for error in FULL.errors {
        let (scene, mut claim) = handed_over();
        faults::fail_all(&[Op::Make, Op::Rename, Op::Write], *error);
        for _ in 0..3 {
            let unsettled = settle(&scene.queue, claim).unwrap_err();
            FULL.is_told(&unsettled.error);
            claim = unsettled.claim;
        }
        faults::stop();
        let other = scene.other();
        other.sweep().unwrap();
        assert_eq!(super::scene::claim(&other).len(), 0, "its claim is kept");
        assert!(scene.log().iter().all(|event| event.kind != MailEventKind::Sent));
        let told = settle(&scene.queue, claim).unwrap();
        assert_eq!(told.iter().map(|event| event.kind).collect::<Vec<_>>(), [MailEventKind::Sent]);
        scene.told_once();
        assert_eq!(super::scene::claim(&other).len(), 0, "gone");
    }
}

/// As above; and nothing more can be begun while it is so, so that nothing more is sent.
// Proves: F-record-eio, F-record-access
#[test]
fn while_outcomes_cannot_be_recorded_no_attempt_can_be_begun_either() {
    for trouble in [&BAD, &REFUSED] {
        for error in trouble.errors {
            let scene = Scene::queued(2);
            let mut claims = claim(&scene.queue);
            let waits = claims.remove(1);
            hand_over(&scene.queue, &claims[0]);
            faults::fail_all(CHANGES, *error);
            let unsettled = settle(&scene.queue, claims.remove(0)).unwrap_err();
            trouble.is_told(&unsettled.error);
            trouble.is_told(&scene.queue.record(&waits, Step::Begin).unwrap_err());
            trouble.is_told(&scene.queue.record(&waits, Step::Handover).unwrap_err());
            faults::stop();
            settle(&scene.queue, unsettled.claim).unwrap();
            hand_over(&scene.queue, &waits);
            settle(&scene.queue, waits).unwrap();
            scene.told_once();
        }
    }
}

/// What a sync that failed has kept of it nobody knows: the process must end, and the second copy is
/// announced.
// Proves: F-record-full, F-record-eio, F-record-access, I8, I17
#[test]
fn an_outcome_that_cannot_be_synced_is_the_last_that_its_process_records() {
    for trouble in ALL {
        for error in trouble.errors {
            let scene = Scene::queued(2);
            let claim = scene.queue.claim(1).unwrap().claims.remove(0);
            hand_over(&scene.queue, &claim);
            faults::fail_at(Op::Sync, 0, *error);
            let unsettled = settle(&scene.queue, claim).unwrap_err();
            for _ in 0..2 {
                let error = scene
                    .queue
                    .for_good(scene.queue.record(&unsettled.claim, Step::Begin).unwrap_err());
                assert!(!error.is_temporary());
            }
            assert_eq!(faults::synced_again(), None);
            assert_eq!(faults::stop(), Some(Op::Sync));
            assert!(scene.queue.claim(1).is_err(), "and nothing more is claimed");
            scene.die();
            let claimed = scene.other().claim(8).unwrap();
            let first = |id: Option<QueueId>| id == Some(unsettled.claim.id);
            let announced = claimed.events.iter().any(|event| {
                first(event.queue_id) && event.kind == MailEventKind::PossibleDuplicate
            });
            let again = claimed.claims.iter().any(|claim| first(Some(claim.id)));
            assert!(!again || announced, "a second copy of which nobody was told");
        }
    }
}

/// A full disk can still be emptied.
// Proves: F-unlink-full
#[test]
fn what_was_delivered_is_unlinked_on_a_full_disk() {
    for error in FULL.errors {
        let (scene, claim) = handed_over();
        faults::fail_all(NEEDS_ROOM, *error);
        let (told, operations) = faults::listed(|| settle(&scene.queue, claim));
        faults::stop();
        told.unwrap();
        assert!(operations.contains(&Op::Unlink));
        assert!(NEEDS_ROOM.iter().all(|operation| !operations.contains(operation)));
        scene.told_once();
        assert_eq!(super::scene::claim(&scene.other()).len(), 0);
    }
}

/// It stays claimed; whoever takes over finds in the journal that it is done.
// Proves: F-unlink-full, F-unlink-eio, F-unlink-access
#[test]
fn what_was_delivered_and_cannot_be_unlinked_is_not_sent_again() {
    for trouble in ALL {
        for error in trouble.errors {
            for dies in [false, true] {
                let (scene, mut claim) = handed_over();
                faults::fail_all(&[Op::Unlink], *error);
                for _ in 0..3 {
                    let unsettled = settle(&scene.queue, claim).unwrap_err();
                    trouble.is_told(&unsettled.error);
                    claim = unsettled.claim;
                }
                let other = scene.other();
                if dies {
                    scene.die();
                }
                for _ in 0..2 {
                    assert_eq!(super::scene::claim(&other).len(), 0, "sent again");
                }
                faults::stop();
                if !dies {
                    settle(&scene.queue, claim).unwrap();
                }
                other.sweep().unwrap();
                assert_eq!(super::scene::claim(&other).len(), 0);
                scene.told_once();
                assert_eq!(scene.claimed(), 0, "and gone in the end");
            }
        }
    }
}
