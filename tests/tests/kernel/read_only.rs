//! A file system that turns read-only under load.
//!
//! The kernel does not turn one read-only while somebody has a file open for writing, as a processor has its
//! journal. What happens all the same: ext4 does it by itself after an error (`remount,abort` says that there
//! was one), and does not turn back; a subvolume of btrfs is turned and turned back by its property. On XFS
//! and in memory the right to write to the directories is taken instead, which is EACCES and not EROFS. And
//! all are remounted while nobody works.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use rustix::process::Signal;
use sendmail_tests::mounted::{Kind, Mounted};
use sendmail_tests::programs::needs;

use crate::load::Load;
use crate::support::{Scene, refused, this_test};

/// How many transactions are waited for.
const COUNT: usize = 20;

/// How many messages wait.
const WAITING: usize = 5;

/// `EX_NOPERM`.
const NOT_ALLOWED: i32 = 77;

const READ_ONLY: &str = "Read-only file system";

/// What a processor tells when its health is red: it cannot claim, or waits to record what it has done.
const RED: [&str; 2] = ["the store is in trouble", "the outcome cannot be recorded yet"];

/// Under load, it turns and turns back: everybody goes on by himself.
async fn check(folder: &Path, through: &[OsString], why: &str, turn: impl Fn(bool)) {
    check_claims(&folder.join("idle"), through, &turn).await;
    let logs = tempfile::tempdir().unwrap();
    let mut scene = Scene::below(folder).await;
    scene.queue.through = through.to_vec();
    let load = Load::start(&mut scene, logs.path(), fastrand::u64(..));
    load.until_committed(COUNT).await;
    // So that there is something to claim.
    load.signal_processors(Signal::STOP);
    load.until_more_committed(COUNT).await;
    turn(true);
    load.signal_processors(Signal::CONT);
    load.until_more_refused(COUNT).await;
    refused(&scene.queue, NOT_ALLOWED, why).await;
    load.until_told(&RED).await;
    stands_still(&scene, &load).await;
    turn(false);
    load.until_more_committed(COUNT).await;
    load.drain(&mut scene).await;
    let end = scene.end().await;
    assert!(end.is_ok(), "{}", end.unwrap_err());
}

/// With nothing under way, it turns: nothing is claimed, and that is told. It turns back: what waits is
/// delivered.
async fn check_claims(folder: &Path, through: &[OsString], turn: impl Fn(bool)) {
    std::fs::create_dir(folder).unwrap();
    let logs = tempfile::tempdir().unwrap();
    let mut scene = Scene::below(folder).await;
    scene.queue.through = through.to_vec();
    let load = Load::without_producers(&mut scene, logs.path());
    scene.send("first").await;
    load.until(|| scene.relay.copies().len() == 1).await;
    scene.until_drained().await;
    load.signal_processors(Signal::STOP);
    for number in 0..WAITING {
        scene.send(&number.to_string()).await;
    }
    turn(true);
    load.signal_processors(Signal::CONT);
    load.until_told(&RED[..1]).await;
    assert_eq!(waiting(&scene), WAITING);
    turn(false);
    load.drain(&mut scene).await;
    assert_eq!(scene.relay.copies().len(), 1 + WAITING);
}

/// What is on the wire is finished, and nothing more is claimed, although much waits.
async fn stands_still(scene: &Scene, load: &Load) {
    let mut before = usize::MAX;
    while scene.relay.copies().len() != before {
        before = scene.relay.copies().len();
        load.until_more_refused(COUNT).await;
    }
    assert!(waiting(scene) > 0, "all was claimed");
}

/// How many messages nobody has claimed. Even `stats` cannot open a queue that it may not write to.
fn waiting(scene: &Scene) -> usize {
    std::fs::read_dir(scene.queue.path.join("new")).unwrap().count()
}

/// With nobody at work: whoever begins is refused, until it can be written to again.
async fn check_remounted(disk: Mounted) {
    let mut scene = Scene::below(disk.path()).await;
    scene.send("before").await;
    disk.remount("ro").unwrap();
    refused(&scene.queue, NOT_ALLOWED, READ_ONLY).await;
    let last = scene.processor("early");
    let once = scene.queue.run_once(&last).await.unwrap_err().to_string();
    assert!(once.contains(READ_ONLY), "{once}");
    disk.remount("rw").unwrap();
    scene.ledger.begins("early", 1);
    scene.queue.run_once(&last).await.unwrap();
    assert_eq!(scene.relay.copies().len(), 1);
}

/// Takes the right to write to every directory below it, or gives it back.
fn may_write(folder: &Path, may: bool) {
    let mode = if may { "0700" } else { "0500" };
    let words = ["-mindepth", "1", "-type", "d", "-exec", "chmod", mode, "{}", "+"];
    let output = Command::new("find").arg(folder).args(words).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

// Proves: I3, F-write-access, F-prepare-access, F-claim-access, F-record-access
#[tokio::test(flavor = "multi_thread")]
async fn a_btrfs_that_turns_read_only_under_load_is_waited_for() {
    let test = this_test();
    let Some(btrfs) = needs(&test, "btrfs") else { return };
    let Some(disk) = Mounted::small(&test, Kind::Btrfs).unwrap() else { return };
    let folder = disk.path().join("part");
    let create = Command::new(&btrfs).args(["subvolume", "create"]).arg(&folder).output().unwrap();
    assert!(create.status.success(), "{create:?}");
    let turn = |on: bool| {
        let mut command = Command::new(&btrfs);
        command.args(["property", "set"]).arg(&folder).args(["ro", &on.to_string()]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
    };
    check(&folder, &[], READ_ONLY, turn).await;
}

// Proves: I3, F-write-access, F-prepare-access, F-claim-access, F-record-access
#[tokio::test(flavor = "multi_thread")]
async fn an_xfs_that_may_not_be_written_to_is_waited_for() {
    let Some(disk) = Mounted::small(&this_test(), Kind::Xfs).unwrap() else { return };
    check_without_the_right(disk).await;
}

// Proves: I3, F-write-access, F-prepare-access, F-claim-access, F-record-access
#[tokio::test(flavor = "multi_thread")]
async fn a_tmpfs_that_may_not_be_written_to_is_waited_for() {
    let Some(disk) = Mounted::in_memory(&this_test(), "size=64m").unwrap() else { return };
    check_without_the_right(disk).await;
}

/// With programs that heed modes, though root's.
async fn check_without_the_right(disk: Mounted) {
    let Some(setpriv) = needs(&this_test(), "setpriv") else { return };
    let words = ["--bounding-set", "-dac_override,-dac_read_search"].map(Into::into);
    let through = [&[setpriv.into()], &words[..]].concat();
    check(disk.path(), &through, "Permission denied", |on| may_write(disk.path(), !on)).await;
}

/// ext4 stays read-only after an error, until it is mounted anew.
// Proves: I3, F-write-access
#[tokio::test(flavor = "multi_thread")]
async fn an_ext4_that_turns_read_only_under_load_keeps_what_was_acknowledged() {
    let Some(mut disk) = Mounted::small(&this_test(), Kind::Ext4).unwrap() else { return };
    let logs = tempfile::tempdir().unwrap();
    let mut scene = Scene::below(disk.path()).await;
    let load = Load::start(&mut scene, logs.path(), fastrand::u64(..));
    load.until_committed(COUNT).await;
    load.signal_processors(Signal::STOP);
    load.until_more_committed(COUNT).await;
    disk.remount("abort").unwrap();
    load.signal_processors(Signal::CONT);
    load.until_more_refused(COUNT).await;
    refused(&scene.queue, NOT_ALLOWED, READ_ONLY).await;
    load.until_told(&RED).await;
    stands_still(&scene, &load).await;
    load.kill(&mut scene).await;
    disk.unmount().unwrap();
    disk.mount().unwrap();
    let end = scene.end().await;
    assert!(end.is_ok(), "{}", end.unwrap_err());
}

// Proves: F-write-access
#[tokio::test(flavor = "multi_thread")]
async fn whoever_begins_on_a_file_system_that_is_read_only_says_so() {
    let test = this_test();
    for kind in Kind::ALL {
        let Some(disk) = Mounted::small(&test, kind).unwrap() else { return };
        check_remounted(disk).await;
    }
    let Some(disk) = Mounted::in_memory(&test, "size=64m").unwrap() else { return };
    check_remounted(disk).await;
}
