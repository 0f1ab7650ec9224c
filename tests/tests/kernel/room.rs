//! File systems that get full under load: no space, no inodes, no quota.
//!
//! What is handed over then is refused, and what was acknowledged stays; the processors go on with what
//! is reserved for them, or wait. When there is room again all goes on by itself.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sendmail_tests::mounted::{Kind, Mounted};
use sendmail_tests::programs::needs;
use sendmail_tests::relay::Pace;

use crate::load::Load;
use crate::support::{Scene, refused, tell, this_test};

/// There is always something in flight, and something deferred.
const PACE: Pace = Pace {
    command: Duration::from_micros(500),
    dot: (Duration::ZERO, Duration::from_millis(8)),
    deferred_percent: 4,
};

/// How many transactions are waited for.
const COUNT: usize = 30;

/// `EX_CANTCREAT`.
const NO_ROOM: i32 = 73;

/// What there is too little of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Of {
    Space,
    Inodes,
    /// What a group of btrfs's quota may use: the file system itself has room and says so.
    Quota,
}

/// Whether a processor comes to the end of its work without any room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Drains {
    /// It does, with its reserve.
    Always,
    /// It may have to wait: there, whatever is changed takes new blocks or new inodes.
    Perhaps,
}

async fn check(disk: Mounted, of: Of, drains: Drains) {
    let folder = place(&disk, of);
    let logs = tempfile::tempdir().unwrap();
    let mut scene = Scene::with_pace(&folder, PACE).await;
    let load = Load::start(&mut scene, logs.path(), fastrand::u64(..));
    load.until_committed(COUNT).await;
    // Less than is reserved: nothing new, and the rest goes out. A quota is not seen from afar, and what
    // btrfs calls free is not always to be had.
    if of == Of::Inodes || drains == Drains::Always {
        take(&disk, &folder, of, Left::TooLittle);
        refused(&scene.queue, NO_ROOM, "disk is nearly full").await;
        load.until_more_refused(COUNT).await;
        scene.until_drained().await;
        give_back(&disk, &folder, of);
        load.until_more_committed(COUNT).await;
    }
    take(&disk, &folder, of, Left::Nothing);
    load.until_more_refused(COUNT).await;
    refused(&scene.queue, NO_ROOM, "").await;
    if drains == Drains::Always {
        scene.until_drained().await;
    }
    load.until_more_refused(COUNT).await;
    give_back(&disk, &folder, of);
    load.until_more_committed(COUNT).await;
    load.drain(&mut scene).await;
    let copies = scene.relay.copies().len();
    let end = scene.end().await;
    assert!(end.is_ok(), "{}", end.unwrap_err());
    tell(&format!("{}: {copies} copies, 0 broken", this_test()));
}

/// How much is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// Less than what is reserved for the processor.
    TooLittle,
    Nothing,
}

/// Where the queue is to be.
fn place(disk: &Mounted, of: Of) -> PathBuf {
    if of != Of::Quota {
        return disk.path().to_owned();
    }
    let folder = disk.path().join("limited");
    btrfs(&["subvolume", "create"], &folder);
    btrfs(&["quota", "enable"], disk.path());
    folder
}

fn take(disk: &Mounted, folder: &Path, of: Of, left: Left) {
    match (of, left) {
        (Of::Space, Left::TooLittle) => disk.fill(8 << 20).unwrap(),
        (Of::Space, Left::Nothing) => disk.fill(0).unwrap(),
        (Of::Inodes, Left::TooLittle) => disk.use_up_inodes(500).unwrap(),
        (Of::Inodes, Left::Nothing) => disk.use_up_inodes(0).unwrap(),
        // Less than the queue has already.
        (Of::Quota, _) => limit(disk, folder, "1m"),
    }
}

fn give_back(disk: &Mounted, folder: &Path, of: Of) {
    match of {
        Of::Quota => limit(disk, folder, "none"),
        _ => disk.make_room().unwrap(),
    }
}

/// Sets what it may use. Whoever says so by the folder itself needs some of its quota for that.
fn limit(disk: &Mounted, folder: &Path, bytes: &str) {
    let group = format!("0/{}", id_of(folder));
    btrfs(&["qgroup", "limit", bytes, &group], disk.path());
}

/// The number of a subvolume.
fn id_of(folder: &Path) -> String {
    let output = Command::new("btrfs").args(["inspect-internal", "rootid"]).arg(folder).output();
    String::from_utf8(output.unwrap().stdout).unwrap().trim().to_owned()
}

fn btrfs(words: &[&str], folder: &Path) {
    let output = Command::new("btrfs").args(words).arg(folder).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}

// Proves: I2, I3, F-write-full, F-prepare-full, F-claim-full, F-record-full, F-unlink-full
#[tokio::test(flavor = "multi_thread")]
async fn a_tmpfs_without_space_loses_nothing() {
    let Some(disk) = Mounted::in_memory(&this_test(), "size=64m").unwrap() else { return };
    check(disk, Of::Space, Drains::Always).await;
}

// Proves: I2, I3, F-write-full, F-prepare-full
#[tokio::test(flavor = "multi_thread")]
async fn a_tmpfs_without_inodes_loses_nothing() {
    let options = "size=64m,nr_inodes=3000";
    let Some(disk) = Mounted::in_memory(&this_test(), options).unwrap() else { return };
    check(disk, Of::Inodes, Drains::Perhaps).await;
}

// Proves: I2, I3, F-write-full, F-prepare-full, F-claim-full, F-record-full, F-unlink-full
#[tokio::test(flavor = "multi_thread")]
async fn an_ext4_without_space_loses_nothing() {
    let Some(disk) = Mounted::small(&this_test(), Kind::Ext4).unwrap() else { return };
    check(disk, Of::Space, Drains::Always).await;
}

// Proves: I2, I3, F-write-full, F-prepare-full, F-claim-full, F-record-full, F-unlink-full
#[tokio::test(flavor = "multi_thread")]
async fn an_xfs_without_space_loses_nothing() {
    let Some(disk) = Mounted::small(&this_test(), Kind::Xfs).unwrap() else { return };
    check(disk, Of::Space, Drains::Always).await;
}

// Proves: I2, I3, F-write-full, F-prepare-full
#[tokio::test(flavor = "multi_thread")]
async fn a_btrfs_without_space_loses_nothing() {
    let Some(disk) = Mounted::small(&this_test(), Kind::Btrfs).unwrap() else { return };
    check(disk, Of::Space, Drains::Perhaps).await;
}

// Proves: I2, I3, I19, F-write-full, F-prepare-full, F-decide-full
#[tokio::test(flavor = "multi_thread")]
async fn a_btrfs_without_quota_loses_nothing() {
    let test = this_test();
    if needs(&test, "btrfs").is_none() {
        return;
    }
    let Some(disk) = Mounted::small(&test, Kind::Btrfs).unwrap() else { return };
    check(disk, Of::Quota, Drains::Perhaps).await;
}
