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
}

#[derive(Debug, Clone, Copy)]
struct Planned {
    left: u32,
    fault: Fault,
}

thread_local! {
    static PLANNED: RefCell<Vec<Planned>> = const { RefCell::new(Vec::new()) };
    static REACHED: RefCell<Vec<Op>> = const { RefCell::new(Vec::new()) };
    static COUNTED: RefCell<Option<Vec<Op>>> = const { RefCell::new(None) };
    /// Files whose sync failed.
    static UNSYNCED: RefCell<Vec<File>> = const { RefCell::new(Vec::new()) };
    static SYNCED_AGAIN: Cell<Option<&'static Location<'static>>> = const { Cell::new(None) };
    static RECORDER: RefCell<Option<Recorder>> = const { RefCell::new(None) };
}

const ENOSPC: i32 = 28;

/// How many operations of each kind this thread does in `act`.
pub(crate) fn count<T>(act: impl FnOnce() -> T) -> (T, impl Fn(Op) -> usize) {
    COUNTED.set(Some(Vec::new()));
    let done = act();
    let all = COUNTED.take().unwrap_or_default();
    (done, move |wanted| all.iter().filter(|op| **op == wanted).count())
}

/// Lets the operation after `count` others fail with this error of the system.
pub(crate) fn fail_after(count: u32, error: i32) {
    plan(&[(count, Fault::Errno(error))]);
}

/// Lets several operations fail: each after that many others, all counted from now.
pub(crate) fn plan(faults: &[(u32, Fault)]) {
    stop();
    PLANNED
        .set(faults.iter().map(|(left, fault)| Planned { left: *left, fault: *fault }).collect());
}

/// Lets no more operation fail. Returns which was the last that was to.
pub(crate) fn stop() -> Option<Op> {
    UNSYNCED.take();
    SYNCED_AGAIN.take();
    PLANNED.take();
    REACHED.take().pop()
}

/// All operations so far that were to fail.
pub(crate) fn reached() -> Vec<Op> {
    REACHED.with_borrow(Clone::clone)
}

/// Where a file was synced again whose sync had failed, if that happened.
pub(crate) fn synced_again() -> Option<String> {
    SYNCED_AGAIN.get().map(ToString::to_string)
}

/// Forgets whose sync has failed: the process that saw it is dead.
pub(crate) fn forget_unsynced() {
    UNSYNCED.take();
}

/// Whether this operation is to fail.
pub(crate) fn fault(operation: Op) -> io::Result<()> {
    COUNTED.with_borrow_mut(|counted| counted.iter_mut().for_each(|all| all.push(operation)));
    match due(operation) {
        None | Some(Fault::ShortWrite) => Ok(()),
        Some(Fault::Errno(error)) => Err(io::Error::from_raw_os_error(error)),
    }
}

/// The same for an operation on an open file: none is synced after its sync has failed.
#[track_caller]
pub(crate) fn fault_of(operation: Op, file: &File) -> io::Result<()> {
    let result = fault(operation);
    let again = UNSYNCED.with_borrow(|files| files.iter().any(|other| inode(other) == inode(file)));
    if again {
        SYNCED_AGAIN.set(Some(Location::caller()));
    }
    if result.is_err() && operation == Op::Sync {
        // Held open, so that no other file gets its number.
        UNSYNCED.with_borrow_mut(|files| files.extend(file.try_clone()));
    }
    result
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
        let found = planned.iter().position(|planned| planned.left == 0);
        for planned in planned.iter_mut() {
            planned.left = planned.left.saturating_sub(1);
        }
        found.map(|at| {
            REACHED.with_borrow_mut(|reached| reached.push(operation));
            planned.swap_remove(at).fault
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
