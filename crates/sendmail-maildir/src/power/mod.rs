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
use std::time::{Duration, Instant};

use self::scripts::{SCRIPTS, Script};

/// Whether everything is to be looked at, which takes hours, and not what every run can afford.
pub(crate) fn is_long() -> bool {
    std::env::var_os("SENDMAIL_DISK_LONG").is_some_and(|value| value == "1")
}

/// The histories that this run is about: all, or, with `SENDMAIL_DISK_PART=K/N`, every N-th from the K-th on,
/// so that a long run can be done in parts that add up.
pub(crate) fn chosen() -> impl Iterator<Item = &'static Script> {
    let part = std::env::var("SENDMAIL_DISK_PART").unwrap_or_else(|_| "1/1".to_owned());
    let numbers = part.split_once('/').and_then(|(k, n)| Some((k.parse().ok()?, n.parse().ok()?)));
    let (part, parts): (usize, usize) =
        numbers.filter(|(k, n)| (1..=*n).contains(k)).expect("SENDMAIL_DISK_PART is K/N");
    SCRIPTS.iter().skip(part - 1).step_by(parts)
}

/// How far a long run is, told about once a minute, so that one that is cut off has told what it covered.
pub(crate) struct Progress {
    what: String,
    told: Instant,
}

impl Progress {
    const PAUSE: Duration = Duration::from_secs(60);

    pub(crate) fn of(what: String) -> Self {
        Self { what, told: Instant::now() }
    }

    /// Tells what is wrong at once: a long run may not come to its end.
    pub(crate) fn found(&self, wrong: &[String]) {
        wrong.iter().for_each(|what| println!("VIOLATION ({}): {what}", self.what));
    }

    pub(crate) fn tell(&mut self, how_far: impl FnOnce() -> String) {
        if self.told.elapsed() >= Self::PAUSE {
            self.told = Instant::now();
            println!("({}: {})", self.what, how_far());
        }
    }
}

/// Memory, where there is some: what is tested is what is made of what was synced and what was not, and
/// real syncs take their time.
pub(crate) fn place() -> PathBuf {
    let memory = PathBuf::from("/dev/shm");
    if memory.is_dir() { memory } else { std::env::temp_dir() }
}
