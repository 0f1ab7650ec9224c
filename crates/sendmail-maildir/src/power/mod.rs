//! Disks that fail and forget.
//!
//! The store works on real files in a directory in memory, and everything that it does to them is
//! recorded ([`record`]). From the recording all disks are built that a power cut after any number of
//! operations may leave ([`cut`]); each is made anew ([`image`]), opened by another process under
//! another boot of the machine, recovered, delivered, and compared with what was promised until then
//! ([`judge`], [`ledger`]). What is lived is in [`history`] and [`scripts`]. How it is run and what it has found is in
//! `docs/disk.md`.

pub(crate) mod cut;
pub(crate) mod history;
pub(crate) mod image;
pub(crate) mod judge;
pub(crate) mod ledger;
pub(crate) mod mutations;
pub(crate) mod order;
pub(crate) mod probe;
pub(crate) mod record;
pub(crate) mod scripts;
pub(crate) mod search;
mod tests;

use std::path::PathBuf;

/// Whether everything is to be looked at, which takes hours, and not what every run can afford.
pub(crate) fn is_long() -> bool {
    std::env::var_os("SENDMAIL_DISK_LONG").is_some_and(|value| value == "1")
}

/// Memory, where there is some: what is tested is what is made of what was synced and what was not, and
/// real syncs take their time.
pub(crate) fn place() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}
