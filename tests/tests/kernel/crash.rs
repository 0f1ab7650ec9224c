//! The file system crashes in the middle of the work, and is mounted anew.
//!
//! There are two ways. The *shutdown ioctl* (ext4, XFS) ends a file system in an instant: what is in
//! memory and not on the device is gone, its log included. A *snapshot* (ext4, XFS, btrfs) is what the
//! device holds at an instant, while all processes are stopped in whatever they do: the image lies on an
//! XFS of its own, which clones it at once. Either is mounted anew, which replays its log.
//!
//! What neither shows: a device that forgets what it has in its own cache and was not told to flush.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use sendmail_tests::mounted::{Kind, Mounted};
use sendmail_tests::programs::needs;
use sendmail_tests::relay::Pace;

use crate::load::Load;
use crate::support::{Scene, is_long, tell, this_test};

/// How often each is done in a run of continuous integration, and in a long one.
const ROUNDS: (u64, u64) = (2, 50);

/// The relay is slow enough that there is always something in flight.
const PACE: Pace = Pace {
    command: Duration::from_micros(500),
    dot: (Duration::ZERO, Duration::from_millis(8)),
    deferred_percent: 4,
};

/// How it crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crash {
    /// By the shutdown ioctl.
    Shutdown,
    /// By going on with a snapshot.
    Snapshot,
}

/// Whether the machine is started anew then.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Machine {
    /// It is: it has another boot id.
    Restarted,
    /// It goes on, and only the file system is mounted anew.
    GoesOn,
}

async fn check(kind: Kind, crash: Crash, machine: Machine) {
    let test = this_test();
    let given = std::env::var("SENDMAIL_KERNEL_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    let rounds = if is_long() { ROUNDS.1 } else { ROUNDS.0 };
    let mut committed = 0;
    for round in 0..rounds {
        let seed = seed.wrapping_add(round);
        let once = match crash {
            Crash::Shutdown => by_shutdown(&test, kind, machine, seed).await,
            Crash::Snapshot => by_snapshot(&test, kind, seed).await,
        };
        let Some((count, end)) = once else { return };
        committed += count;
        assert!(end.is_ok(), "SENDMAIL_KERNEL_SEED={seed}: {}", end.unwrap_err());
    }
    tell(&format!("{test}: {rounds} crashes, {committed} transactions acknowledged, 0 broken"));
}

type Outcome = Option<(usize, Result<(), String>)>;

async fn by_shutdown(test: &str, kind: Kind, machine: Machine, seed: u64) -> Outcome {
    let xfs_io = needs(test, "xfs_io")?;
    let mut disk = Mounted::small(test, kind).unwrap()?;
    let logs = tempfile::tempdir().unwrap();
    let mut scene = Scene::with_pace(disk.path(), PACE).await;
    let load = work(&mut scene, logs.path(), seed).await;
    disk.shut_down(&xfs_io).unwrap();
    let count = load.committed();
    // They find out for themselves; nothing that is told from now on may be untrue.
    load.until_refused(2).await;
    load.kill(&mut scene).await;
    disk.unmount().unwrap();
    disk.mount().unwrap();
    if machine == Machine::Restarted {
        scene.queue.through = after_restart(logs.path());
    }
    Some((count, scene.end().await))
}

async fn by_snapshot(test: &str, kind: Kind, seed: u64) -> Outcome {
    let shelf = Mounted::of_size(test, Kind::Xfs, 2 << 30).unwrap()?;
    let (image, copy) = (shelf.path().join("image"), shelf.path().join("copy"));
    Mounted::make_small_image(test, kind, &image).unwrap()?;
    let mut disk = Mounted::image(test, &image).unwrap()?;
    let logs = tempfile::tempdir().unwrap();
    let mut scene = Scene::with_pace(disk.path(), PACE).await;
    let load = work(&mut scene, logs.path(), seed).await;
    load.freeze();
    let clone = Command::new("cp").arg("--reflink=always").arg(&image).arg(&copy).status();
    assert!(clone.unwrap().success());
    let count = load.committed();
    load.kill(&mut scene).await;
    disk.unmount().unwrap();
    let disk = Mounted::image(test, &copy).unwrap()?;
    scene.queue.path = disk.path().join("queue");
    scene.queue.through = after_restart(logs.path());
    let end = scene.end().await;
    drop(disk);
    Some((count, end))
}

/// Producers and processors that have been at work for a while.
async fn work(scene: &mut Scene, logs: &Path, seed: u64) -> Load {
    let mut random = fastrand::Rng::with_seed(seed);
    let load = Load::start(scene, logs, random.u64(..));
    load.until_committed(random.usize(10..60)).await;
    tokio::time::sleep(Duration::from_micros(random.u64(0..20_000))).await;
    load
}

/// Words that start a program as it would be after a restart of the machine: with another boot id, which
/// only it sees.
fn after_restart(folder: &Path) -> Vec<std::ffi::OsString> {
    let boot = folder.join("boot_id");
    std::fs::write(&boot, "5cc1f2a2-31de-4d7c-9ac5-7a2f3b8f6d10\n").unwrap();
    let script = "mount --bind \"$0\" /proc/sys/kernel/random/boot_id && exec \"$@\"";
    let mut words: Vec<_> = ["unshare", "--mount", "sh", "-c", script].map(Into::into).to_vec();
    words.push(boot.into());
    words
}

// Proves: I2, I3, I8
#[tokio::test(flavor = "multi_thread")]
async fn an_ext4_that_is_shut_down_keeps_what_was_acknowledged() {
    check(Kind::Ext4, Crash::Shutdown, Machine::Restarted).await;
}

// Proves: I2, I3, I8
#[tokio::test(flavor = "multi_thread")]
async fn an_xfs_that_is_shut_down_keeps_what_was_acknowledged() {
    check(Kind::Xfs, Crash::Shutdown, Machine::Restarted).await;
}

// Proves: I2, I3, I8
#[tokio::test(flavor = "multi_thread")]
async fn an_ext4_that_is_mounted_anew_keeps_what_was_acknowledged() {
    check(Kind::Ext4, Crash::Shutdown, Machine::GoesOn).await;
}

// Proves: I2, I3, I8
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_ext4_keeps_what_was_acknowledged() {
    check(Kind::Ext4, Crash::Snapshot, Machine::Restarted).await;
}

// Proves: I2, I3, I8
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_xfs_keeps_what_was_acknowledged() {
    check(Kind::Xfs, Crash::Snapshot, Machine::Restarted).await;
}

// Proves: I2, I3, I8
#[tokio::test(flavor = "multi_thread")]
async fn a_snapshot_of_btrfs_keeps_what_was_acknowledged() {
    check(Kind::Btrfs, Crash::Snapshot, Machine::Restarted).await;
}
