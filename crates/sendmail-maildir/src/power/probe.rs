//! What tests do to single operations on files, and what they hear of them.
//!
//! Everything here is of one thread: a test lets the N-th operation of its thread fail, and records
//! what its thread did to the disk, while other tests run beside it.

use std::cell::{Cell, RefCell};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::FileExt as _;
use std::panic::Location;

use rustix::fs::{self as sys, AtFlags};

use super::record::{Change, Recorder};
use crate::disk::Op;

/// How an operation is made to fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// With this error of the system, before it has done anything.
    Errno(i32),
    /// A write does half of its work, and then there is no more room. Other operations succeed.
    ShortWrite,
    /// It is never tried: its process dies there, and is seen to do so as far as a caller can.
    Death,
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    left: u32,
    fault: Fault,
    /// Whether only operations of one kind count.
    only: Option<Op>,
}

impl Planned {
    fn counts(&self, operation: Op) -> bool {
        self.only.is_none_or(|only| only == operation)
    }
}

thread_local! {
    static PLANNED: RefCell<Vec<Planned>> = const { RefCell::new(Vec::new()) };
    static REACHED: RefCell<Vec<Op>> = const { RefCell::new(Vec::new()) };
    static COUNTED: RefCell<Option<Vec<Op>>> = const { RefCell::new(None) };
    /// Kinds of operations of which each fails, and how.
    static TROUBLE: Cell<Option<(&'static [Op], i32)>> = const { Cell::new(None) };
    /// Files whose sync failed.
    static UNSYNCED: RefCell<Vec<File>> = const { RefCell::new(Vec::new()) };
    static LEFT: Cell<u32> = const { Cell::new(0) };
    static SYNCED_AGAIN: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

const ENOSPC: i32 = 28;
const ESRCH: i32 = 3;

/// Which operations this thread does in `act`, in their order.
pub(crate) fn listed<T>(act: impl FnOnce() -> T) -> (T, Vec<Op>) {
    COUNTED.set(Some(Vec::new()));
    let done = act();
    (done, COUNTED.take().unwrap_or_default())
}

/// How many operations of each kind this thread does in `act`.
pub(crate) fn count<T>(act: impl FnOnce() -> T) -> (T, impl Fn(Op) -> usize) {
    let (done, all) = listed(act);
    (done, move |wanted| all.iter().filter(|op| **op == wanted).count())
}

/// Lets the operation after `count` others fail with this error of the system.
pub(crate) fn fail_after(count: u32, error: i32) {
    plan(&[(count, Fault::Errno(error))]);
}

/// Lets several operations fail: each after that many others, all counted from now.
pub(crate) fn plan(faults: &[(u32, Fault)]) {
    stop();
    let planned = |(left, fault): &(u32, Fault)| Planned { left: *left, fault: *fault, only: None };
    PLANNED.set(faults.iter().map(planned).collect());
}

/// Lets the operation of this kind after that many others of its kind fail with this error of the system,
/// beside what is planned already.
pub(crate) fn fail_at(operation: Op, after: u32, error: i32) {
    let planned = Planned { left: after, fault: Fault::Errno(error), only: Some(operation) };
    PLANNED.with_borrow_mut(|all| all.push(planned));
}

/// Lets each operation of these kinds fail with this error of the system, until `stop`.
pub(crate) fn fail_all(kinds: &'static [Op], error: i32) {
    TROUBLE.set(Some((kinds, error)));
}

/// Lets this thread's process die at an operation of this kind, after that many others of its kind,
/// whatever else is planned: it fails, and so do all that the process would do about that.
pub(crate) fn die_at(operation: Op, after: u32) {
    let planned = Planned { left: after, fault: Fault::Death, only: Some(operation) };
    PLANNED.with_borrow_mut(|all| all.push(planned));
}

/// Takes back what [`die_at`] has planned and nothing has met.
pub(crate) fn live_on() {
    PLANNED.with_borrow_mut(|all| all.retain(|planned| planned.fault != Fault::Death));
}

/// Looks at the disk as nobody does who is tested: nothing fails, and nothing counts.
pub(crate) fn unseen<T>(look: impl FnOnce() -> T) -> T {
    let (planned, trouble, counted) = (PLANNED.take(), TROUBLE.take(), COUNTED.take());
    let seen = look();
    PLANNED.set(planned);
    TROUBLE.set(trouble);
    COUNTED.set(counted);
    seen
}

/// Lets no more operation fail. Returns which was the last that was to.
pub(crate) fn stop() -> Option<Op> {
    UNSYNCED.take();
    SYNCED_AGAIN.take();
    TROUBLE.take();
    let planned = PLANNED.take();
    let faults = planned.iter().filter(|planned| planned.fault != Fault::Death);
    let left = faults.map(|planned| planned.left).max();
    LEFT.set(left.unwrap_or(0));
    REACHED.take().pop()
}

/// All operations so far that were to fail.
pub(crate) fn reached() -> Vec<Op> {
    REACHED.with_borrow(Clone::clone)
}

/// After how many more operations the last of the planned faults comes that is left, when `stop` was
/// called.
pub(crate) fn left() -> u32 {
    LEFT.get()
}

/// Where a file was synced again whose sync had failed, if that happened.
pub(crate) fn synced_again() -> Option<String> {
    SYNCED_AGAIN.get().map(ToString::to_string)
}

/// Whether this operation is to fail.
pub(crate) fn fault(operation: Op) -> io::Result<()> {
    fault_or_death(operation).0
}

/// The same, and whether it stands for a death instead, so that the operation was never tried.
fn fault_or_death(operation: Op) -> (io::Result<()>, bool) {
    COUNTED.with_borrow_mut(|counted| counted.iter_mut().for_each(|all| all.push(operation)));
    if let Some((kinds, error)) = TROUBLE.get()
        && kinds.contains(&operation)
    {
        REACHED.with_borrow_mut(|reached| reached.push(operation));
        return (Err(io::Error::from_raw_os_error(error)), false);
    }
    match due(operation) {
        None | Some(Fault::ShortWrite) => (Ok(()), false),
        Some(Fault::Errno(error)) => (Err(io::Error::from_raw_os_error(error)), false),
        Some(Fault::Death) => (Err(io::Error::from_raw_os_error(ESRCH)), true),
    }
}

/// The same for an operation on an open file: none is synced after its sync has failed.
#[track_caller]
pub(crate) fn fault_of(operation: Op, file: &File) -> io::Result<()> {
    let (result, is_death) = fault_or_death(operation);
    let again = UNSYNCED.with_borrow(|files| files.iter().any(|other| inode(other) == inode(file)));
    if again {
        SYNCED_AGAIN.set(Some(Location::caller()));
    }
    if result.is_err() && operation == Op::Sync && !is_death && !is_dying() {
        // Held open, so that no other file gets its number.
        UNSYNCED.with_borrow_mut(|files| files.extend(file.try_clone()));
    }
    result
}

/// Whether a death is planned: who is about to die cannot say that a sync has failed.
fn is_dying() -> bool {
    PLANNED.with_borrow(|all| all.iter().any(|planned| planned.fault == Fault::Death))
}

/// Does half of a write and fails, if that is planned for this operation.
pub(crate) fn short_write(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    let planned = PLANNED.with_borrow(|planned| {
        planned.iter().any(|planned| planned.left == 0 && planned.fault == Fault::ShortWrite)
    });
    if !planned {
        return Ok(());
    }
    due(Op::Write);
    file.write_all_at(&bytes[..bytes.len() / 2], offset)?;
    Err(io::Error::from_raw_os_error(ENOSPC))
}

/// Counts an operation, and returns the fault that was planned for it.
fn due(operation: Op) -> Option<Fault> {
    PLANNED.with_borrow_mut(|planned| {
        let is_due = |planned: &Planned| planned.left == 0 && planned.counts(operation);
        let found = planned.iter().position(is_due);
        for (at, planned) in planned.iter_mut().enumerate() {
            if planned.counts(operation) && found != Some(at) {
                planned.left = planned.left.saturating_sub(1);
            }
        }
        found.map(|at| {
            let Planned { fault, .. } = planned.swap_remove(at);
            if fault != Fault::Death {
                REACHED.with_borrow_mut(|reached| reached.push(operation));
            }
            fault
        })
    })
}

/// Begins to record what this thread does to the disk.
pub(crate) fn record(recorder: Recorder) {
    RECORDER.set(Some(recorder));
}

/// Ends the recording and returns it.
pub(crate) fn recorded() -> Option<Recorder> {
    RECORDER.take()
}

/// Adds to the recording, if there is one.
pub(crate) fn with_recorder(act: impl FnOnce(&mut Recorder)) {
    RECORDER.with_borrow_mut(|recorder| {
        if let Some(recorder) = recorder {
            act(recorder);
        }
    });
}

fn inode(file: impl AsFd) -> Option<u64> {
    sys::fstat(file).ok().map(|stat| stat.st_ino)
}

fn inode_at(dir: impl AsFd, name: &[u8]) -> Option<u64> {
    let name = std::ffi::OsStr::from_bytes(name);
    sys::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW).ok().map(|stat| stat.st_ino)
}

pub(crate) fn made_dir(dir: impl AsFd, name: &str) {
    let name = name.as_bytes();
    with_recorder(|to| {
        if let (Some(parent), Some(child)) = (inode(&dir), inode_at(&dir, name)) {
            to.made(parent, name, child, true);
        }
    });
}

pub(crate) fn removed_dir(dir: impl AsFd, name: &str) {
    with_recorder(|to| {
        if let Some(parent) = inode(&dir) {
            to.removed(parent, name.as_bytes());
        }
    });
}

pub(crate) fn created(dir: impl AsFd, name: &[u8], file: &File) {
    with_recorder(|to| {
        if let (Some(parent), Some(child)) = (inode(&dir), inode(file)) {
            to.made(parent, name, child, false);
        }
    });
}

pub(crate) fn renamed(
    dir: impl AsFd,
    from: &std::ffi::OsStr,
    target: impl AsFd,
    to: &std::ffi::OsStr,
) {
    with_recorder(|recorder| {
        if let (Some(source), Some(target)) = (inode(&dir), inode(&target)) {
            recorder.renamed((source, from.as_bytes()), (target, to.as_bytes()));
        }
    });
}

pub(crate) fn linked(dir: impl AsFd, from: &std::ffi::OsStr, to: &std::ffi::OsStr) {
    with_recorder(|recorder| {
        if let Some(dir) = inode(&dir) {
            recorder.linked(dir, from.as_bytes(), to.as_bytes());
        }
    });
}

pub(crate) fn unlinked(dir: impl AsFd, name: &[u8]) {
    with_recorder(|to| {
        if let Some(dir) = inode(&dir) {
            to.removed(dir, name);
        }
    });
}

pub(crate) fn wrote(file: &File, bytes: &[u8], offset: u64) {
    with_recorder(|to| {
        to.changed(inode(file), |file| Change::Write { file, offset, bytes: bytes.to_vec() });
    });
}

pub(crate) fn resized(file: &File, length: u64) {
    with_recorder(|to| to.changed(inode(file), |file| Change::Resize { file, length }));
}

pub(crate) fn changed_mode(file: &File, mode: u32) {
    with_recorder(|to| to.changed(inode(file), |file| Change::Mode { file, mode }));
}

#[track_caller]
pub(crate) fn synced_data(file: &File) {
    let site = Location::caller();
    with_recorder(|to| to.synced(inode(file), site, |file| Change::SyncData { file }));
}

#[track_caller]
pub(crate) fn synced_file(file: &File) {
    let site = Location::caller();
    with_recorder(|to| to.synced(inode(file), site, |file| Change::SyncFile { file }));
}

#[track_caller]
pub(crate) fn synced_dir(dir: impl AsFd) {
    let site = Location::caller();
    with_recorder(|to| to.synced(inode(&dir), site, |dir| Change::SyncDir { dir }));
}

#[track_caller]
pub(crate) fn synced_all() {
    let site = Location::caller();
    with_recorder(|to| to.push(Change::SyncAll, Some(site)));
}
