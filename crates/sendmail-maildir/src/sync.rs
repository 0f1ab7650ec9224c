//! The locks and atomics of this crate: the standard library's; in the build for the schedule explorer
//! (`tests/schedules`), the explorer's, which decides at each of them who goes on.

#[cfg(not(shuttle))]
pub(crate) use std::sync::{Condvar, Mutex, MutexGuard, atomic};

#[cfg(shuttle)]
pub(crate) use shuttle::sync::{Condvar, Mutex, MutexGuard, atomic};

/// An operation on the disk, at which another thread's may come first.
#[cfg(not(any(shuttle, test)))]
#[inline(always)]
pub(crate) fn point() {}

#[cfg(shuttle)]
pub(crate) fn point() {
    // Each use of one of its own is where the explorer may choose another thread.
    atomic::AtomicBool::new(false).load(atomic::Ordering::SeqCst);
}
