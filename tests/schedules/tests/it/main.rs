//! Scenes of the Maildir queue in which threads share memory, under many schedules.
//!
//! Each scene runs under schedules chosen at random, and under such as change hands at few, well-spread
//! points (PCT), which find what needs just these. A schedule that fails is printed, and can be replayed
//! with `shuttle::replay`. `SENDMAIL_SCHEDULES` multiplies how many there are.
//!
//! Each scene has a control: the same threads with one mistake, which must be found.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use sendmail_maildir_scheduled::schedules;
use shuttle::scheduler::{PctScheduler, RandomScheduler, Scheduler};
use shuttle::{Config, Runner};

/// Among how many changes of hands PCT chooses the places.
const DEPTH: usize = 3;

/// Explores `scene` under `count` schedules of each kind.
fn explore(count: usize, scene: fn()) {
    let times: usize =
        std::env::var("SENDMAIL_SCHEDULES").map_or(1, |text| text.parse().unwrap_or(1));
    let count = count * times;
    run(RandomScheduler::new(count), scene);
    run(PctScheduler::new(DEPTH, count), scene);
}

/// Whether one of `count` schedules of each kind makes `scene` fail.
fn finds(count: usize, scene: fn()) -> bool {
    let fails = |act: &dyn Fn()| catch_unwind(AssertUnwindSafe(act)).is_err();
    fails(&|| run(RandomScheduler::new(count), scene))
        || fails(&|| run(PctScheduler::new(DEPTH, count), scene))
}

fn run(scheduler: impl Scheduler + 'static, scene: fn()) {
    let mut config = Config::new();
    // The queue's frames are larger than the explorer's usual stack.
    config.stack_size = 1 << 20;
    Runner::new(scheduler, config).run(scene);
}

/// Where files cost no disk, if there is such a place: there is no crash in these scenes.
fn in_memory() {
    let shared = PathBuf::from("/dev/shm");
    schedules::in_directory(if shared.is_dir() { shared } else { std::env::temp_dir() });
}

// Proves: I3
#[test]
fn a_record_whose_sync_returned_is_durable_whoever_synced() {
    in_memory();
    explore(500, || schedules::journal_syncs(false));
}

#[test]
fn a_worker_that_trusts_an_append_alone_is_found() {
    in_memory();
    assert!(finds(1000, || schedules::journal_syncs(true)));
}

// Proves: I3
#[test]
fn a_journal_that_turns_over_or_ends_while_others_sync_loses_nothing() {
    in_memory();
    explore(200, || schedules::journal_turns_over(false));
}

#[test]
fn a_segment_that_is_sealed_too_early_is_found() {
    in_memory();
    assert!(finds(200, || schedules::journal_turns_over(true)));
}

// Proves: I7
#[test]
fn no_message_is_claimed_by_two_threads_or_two_workers() {
    in_memory();
    explore(150, || schedules::claims(false));
}

#[test]
fn a_second_claim_of_a_message_is_found() {
    in_memory();
    assert!(finds(150, || schedules::claims(true)));
}

// Proves: I3, I10
#[test]
fn an_operators_wish_and_a_workers_release_leave_the_message_in_one_place() {
    in_memory();
    explore(150, || schedules::wish_meets_release(false));
}

#[test]
fn an_operators_retry_that_meets_a_settlement_is_honoured() {
    in_memory();
    explore(150, || schedules::retry_meets_settlement(false));
}

#[test]
fn a_retry_that_nobody_looks_for_late_is_found() {
    in_memory();
    assert!(finds(400, || schedules::retry_meets_settlement(true)));
}

// Proves: Q-policy
#[test]
fn an_operators_retry_frees_no_message_that_is_held_meanwhile() {
    in_memory();
    explore(150, schedules::retry_meets_hold);
}

#[test]
fn a_wish_that_nobody_looks_for_late_is_found() {
    in_memory();
    assert!(finds(400, || schedules::wish_meets_release(true)));
}
