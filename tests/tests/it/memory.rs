//! What a processor takes in memory: it grows neither with what a relay sends nor with the queue.

use std::path::Path;
use std::time::Duration;

use sendmail_tests::hostile::{self, Heap};
use sendmail_tests::many_files::{self, Outcome, Place};
use sendmail_tests::queue::Queue;

/// What the first attacks of each kind bring into memory for the first time is some hundreds. One line that
/// is read to its end takes more.
const MOST_GROWTH_KIB: i64 = 1024;
/// The most that a processor may take.
const MOST_KIB: u64 = 64 * 1024;

// Proves: A-endless, I3, I11, I12, I15
#[tokio::test(flavor = "multi_thread")]
async fn ten_seconds_of_a_hostile_relay_cost_no_memory_and_no_mail() {
    let folder = tempfile::tempdir().unwrap();
    let time = Duration::from_secs(10);
    let outcome = hostile::run(folder.path(), time, Heap::Tight).await.unwrap();
    assert!(outcome.wrong.is_empty(), "{outcome}");
    assert!(outcome.attacks >= 10 && outcome.sent > 0, "nothing was going on: {outcome}");
    assert!(outcome.growth_kib() < MOST_GROWTH_KIB, "{outcome}");
    assert!(outcome.peak_kib < MOST_KIB, "{outcome}");
}

const FEW: usize = 500;
const MANY: usize = 10_000;
/// Less than what a hundred bytes for each message would come to.
const NOISE_KIB: u64 = 900;

async fn measured(files: usize, place: Place) -> Outcome {
    let memory = Path::new("/dev/shm");
    let folder = if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() };
    let folder = folder.unwrap();
    let queue = Queue::new(folder.path().join("queue")).unwrap();
    many_files::fill(&queue.path, files, place).await.unwrap();
    many_files::measure(&queue, files, FEW / 2).await.unwrap()
}

// Proves: I15
#[tokio::test(flavor = "multi_thread")]
async fn twenty_times_the_queue_takes_no_more_memory() {
    let few = measured(FEW, Place::Queued).await;
    let many = measured(MANY, Place::Queued).await;
    assert!(many.delivered >= FEW / 2, "{many}");
    // Of a program that ended at once not all may have been seen, and all that end at once are alike.
    let (few_run, few_rest) = few.peaks_kib.split_last().unwrap();
    let few_rest = few_rest.iter().map(|(_, peak)| *peak).max().unwrap();
    for (what, peak) in &many.peaks_kib {
        let less = if *what == few_run.0 { few_run.1 } else { few_rest };
        assert!(*peak < less + NOISE_KIB, "{what} grows with the queue:\n{few}\n{many}");
        assert!(*peak < MOST_KIB, "{what}:\n{many}");
    }
}
