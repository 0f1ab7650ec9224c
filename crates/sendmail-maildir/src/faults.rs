//! Single operations on files that fail, and pairs of them.
//!
//! Each history is lived again and again; in the N-th run the N-th operation fails, for every N. The
//! process goes on as callers do: it repeats what may be repeated and takes errors at their word. In the
//! end it dies, another takes over, and the books are checked.
//!
//! What exactly is promised at which moment is in [`producer`] and [`worker`].

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use sendmail_core::{AdminOutcome, DeliveryOptions, Discard, QueueId};

use crate::disk::{Op, faults};
use crate::options::MaildirOptions;
use crate::power::cut::random;
use crate::power::history::{LATER, Life};
use crate::power::judge::settle_books;
use crate::power::probe::{self, Fault};
use crate::power::scripts::Script;
use crate::power::{Progress, chosen, is_long, place};
use crate::queue::Queue;

mod producer;
mod scene;
mod worker;

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

/// Every way in which an operation fails: EIO, ENOSPC, EDQUOT, EACCES, EROFS, EINTR, and half a write.
const FAULTS: [Fault; 7] = [
    Fault::Errno(EIO),
    Fault::Errno(ENOSPC),
    Fault::Errno(122),
    Fault::Errno(13),
    Fault::Errno(30),
    Fault::Errno(4),
    Fault::ShortWrite,
];

/// What came of one run.
struct Run {
    /// Which operations were made to fail.
    failed: Vec<Op>,
    wrong: Vec<String>,
}

/// Lives a history with these operations failing, each after that many others.
fn live(script: &Script, planned: &[(u32, Fault)]) -> Run {
    let directory = tempfile::tempdir_in(place()).unwrap();
    let mut life = Life::new(directory.path());
    let lived = catch_unwind(AssertUnwindSafe(|| {
        if script.from_nothing {
            probe::plan(planned);
        }
        let first = life.start();
        if !script.from_nothing {
            probe::plan(planned);
        }
        script.run(&mut life, first);
    }));
    let (failed, again) = (probe::reached(), probe::synced_again());
    probe::stop();
    let mut wrong: Vec<String> =
        again.into_iter().map(|at| format!("{at} syncs again what failed to sync")).collect();
    match lived.and_then(|()| catch_unwind(AssertUnwindSafe(|| settle_books(&mut life)))) {
        Ok(found) => wrong.extend(found),
        Err(why) => wrong.push(why.downcast_ref::<String>().cloned().unwrap_or_default()),
    }
    Run { failed, wrong }
}

/// How many operations a history has that may fail.
fn operations(script: &Script) -> u32 {
    const NEVER: u32 = u32::MAX;
    live(script, &[(NEVER, Fault::ShortWrite)]);
    NEVER - probe::left()
}

/// Lets every operation of every history fail; `ways` says how.
fn fail_each(ways: impl Fn(u32) -> Vec<Fault>) -> Vec<String> {
    let mut violations = Vec::new();
    println!("| history | operations N | runs | violations |\n|---|---|---|---|");
    for script in chosen() {
        let (mut runs, before) = (0, violations.len());
        let mut count = 0;
        let mut progress = Progress::of(format!("{}, one fault", script.name));
        loop {
            let mut reached = false;
            for fault in ways(count) {
                let Run { failed, wrong } = live(script, &[(count, fault)]);
                runs += 1;
                progress.tell(|| format!("operation {count}, {} violations", violations.len()));
                reached |= !failed.is_empty();
                let name = script.name;
                let told =
                    |what| format!("{name}, operation {count}, {failed:?} {fault:?}: {what}");
                let wrong: Vec<String> = wrong.iter().map(told).collect();
                progress.found(&wrong);
                violations.extend(wrong);
            }
            if !reached {
                break;
            }
            count += 1;
        }
        println!("| {} | {count} | {runs} | {} |", script.name, violations.len() - before);
    }
    violations
}

// Proves: I1, I2, I3, I4, I5, I9, I10, I17
#[test]
fn any_operation_may_fail() {
    let violations = fail_each(|count| {
        if is_long() {
            return FAULTS.to_vec();
        }
        // In the short run each operation fails in one way, and its neighbours in the others.
        vec![FAULTS[usize::try_from(count).unwrap() % FAULTS.len()]]
    });
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

// Proves: I1, I2, I3, I9, I17
#[test]
fn any_two_operations_may_fail() {
    let mut seed = 0x5eed;
    println!("seed {seed:#x}\n| history | operations N | pairs | violations |\n|---|---|---|---|");
    let mut violations = Vec::new();
    for script in chosen() {
        let (count, before) = (operations(script), violations.len());
        let all =
            (0..count).flat_map(|first| (first + 1..count).map(move |second| (first, second)));
        let pairs: Vec<(u32, u32)> = if is_long() {
            all.collect()
        } else {
            let all: Vec<(u32, u32)> = all.collect();
            (0..PAIRS).map(|_| all[pick(&mut seed, all.len())]).collect()
        };
        let mut progress = Progress::of(format!("{}, two faults", script.name));
        for (done, (first, second)) in pairs.iter().enumerate() {
            progress.tell(|| {
                format!("{done} of {} pairs, {} violations", pairs.len(), violations.len())
            });
            let mut fault = || FAULTS[pick(&mut seed, FAULTS.len())];
            let planned = [(*first, fault()), (*second, fault())];
            let Run { failed, wrong } = live(script, &planned);
            let told = |what| format!("{}, {planned:?} {failed:?}: {what}", script.name);
            let wrong: Vec<String> = wrong.iter().map(told).collect();
            progress.found(&wrong);
            violations.extend(wrong);
        }
        let found = violations.len() - before;
        println!("| {} | {count} | {} | {found} |", script.name, pairs.len());
    }
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

/// After a failed sync the next operation most often is the mark that tells others of it.
// Proves: I17
#[test]
fn a_sync_and_the_mark_that_tells_of_it_may_fail() {
    let (bad, mut violations) = (Fault::Errno(EIO), Vec::new());
    for script in chosen() {
        if !["two publish", "dying decision", "dying settlement", "takeover"].contains(&script.name)
        {
            continue;
        }
        for first in 0..operations(script) {
            let Run { failed, wrong } = live(script, &[(first, bad), (first + 1, bad)]);
            let told = |what| format!("{}, operation {first}, {failed:?}: {what}", script.name);
            violations.extend(wrong.iter().map(told));
        }
    }
    assert!(violations.is_empty(), "{} violations:\n{}", violations.len(), violations.join("\n"));
}

/// How many pairs of each history fail in the short run.
const PAIRS: u32 = 20;

fn pick(seed: &mut u64, count: usize) -> usize {
    usize::try_from(random(seed) % count as u64).unwrap()
}

/// What is only in trouble once is delivered without anybody's help. After a failed sync the processor
/// stops instead, until somebody restarts it.
fn deliver_after_trouble(count: u32, error: i32) -> bool {
    let directory = tempfile::tempdir_in(place()).unwrap();
    let mut life = Life::new(directory.path());
    let queue = life.start();
    faults::fail_after(count, error);
    life.send(&queue, &["a@x", "later@x", "never@x"]);
    life.send_all(&queue, &[&["a@x"], &["never@x"]], true);
    let _ = life.work(&queue);
    life.clock.advance(LATER + Duration::from_secs(1));
    for _ in 0..3 {
        let _ = life.work(&queue);
        let _ = life.sweep(&queue);
    }
    let failed = faults::stop();
    for _ in 0..3 {
        life.clock.advance(LATER + Duration::from_secs(1));
        let _ = life.sweep(&queue);
        let _ = life.work(&queue);
    }
    let owed = life.ledger.accounts.values().filter(|account| account.is_owed());
    let done = owed.clone().all(|account| account.is_served());
    assert!(failed == Some(Op::Sync) || done, "{count}: wedged by {failed:?}: {:?}", life.ledger);
    drop(queue);
    let wrong = settle_books(&mut life);
    assert!(wrong.is_empty(), "{count}, {failed:?}: {wrong:?}");
    failed.is_some()
}

// Proves: I12
#[test]
fn trouble_that_is_over_keeps_nobody_from_delivering() {
    for error in [ENOSPC, EIO] {
        for count in 0.. {
            if !deliver_after_trouble(count, error) {
                break;
            }
        }
    }
}

#[test]
fn a_message_is_put_back_once_whatever_fails() {
    for count in 0.. {
        let directory = tempfile::tempdir_in(place()).unwrap();
        let mut life = Life::new(directory.path());
        let queue = life.start();
        let options = DeliveryOptions::default();
        let new = life.message(&queue, &["a@x"], options, Some("database"));
        let ids = [new.id];
        queue.write(&new).unwrap();
        queue.stage(&ids).unwrap();
        queue.discard(&ids, Discard::Fenced).unwrap();
        faults::fail_after(count, EIO);
        let first = queue.put_back(new.id);
        let failed = faults::stop();
        let other = life.start();
        // It is in the queue or it can still be put there.
        let again = other.put_back(new.id).unwrap();
        assert!(first.is_err() || again == AdminOutcome::Unchanged, "operation {count}");
        drop(queue);
        let claimed: Vec<QueueId> =
            other.claim(8).unwrap().claims.iter().map(|claim| claim.id).collect();
        assert_eq!(claimed, ids, "operation {count}, {failed:?}");
        if failed.is_none() {
            break;
        }
    }
}

#[test]
fn a_queue_that_is_said_to_be_frozen_is_frozen_whatever_fails() {
    for error in [ENOSPC, EIO] {
        for count in 0.. {
            let directory = tempfile::tempdir_in(place()).unwrap();
            let open = || Queue::open(directory.path(), MaildirOptions::default()).unwrap();
            let queue = open();
            faults::fail_after(count, error);
            let frozen = queue.set_frozen(true);
            let failed = faults::stop();
            assert!(frozen.is_err() || open().is_frozen().unwrap(), "operation {count}");
            queue.set_frozen(true).unwrap();
            assert!(open().is_frozen().unwrap() && open().claim(1).unwrap().claims.is_empty());
            faults::fail_after(count, error);
            let thawed = queue.set_frozen(false);
            faults::stop();
            assert!(thawed.is_err() || !open().is_frozen().unwrap(), "operation {count}");
            if failed.is_none() {
                break;
            }
        }
    }
}

/// Who cannot find out whether the queue is frozen neither claims nor decides.
#[test]
fn a_queue_of_which_nobody_knows_is_taken_for_frozen() {
    let directory = tempfile::tempdir_in(place()).unwrap();
    let queue = Queue::open(directory.path(), MaildirOptions::default()).unwrap();
    faults::fail_after(0, EIO);
    assert!(queue.is_frozen().is_err());
    faults::fail_after(0, EIO);
    assert!(queue.claim(1).is_err());
    assert_eq!(faults::stop(), Some(Op::Look));
}
