//! Who lives: each process that works on a queue holds a lock on a file of its own.
//!
//! The lock is the kernel's (`flock`), so it is free the moment the process dies, however it dies, and
//! is kept while the process is only stopped.

use std::fs::{File, TryLockError};
use std::io;
use std::sync::{Mutex, PoisonError};

use uuid::Uuid;

use crate::disk::{Dir, is_same, write_at};
use crate::name::OwnerId;

/// This process's own file, locked.
#[derive(Debug)]
pub(crate) struct Owner {
    pub(crate) id: OwnerId,
    lock: Mutex<Option<File>>,
}

impl Owner {
    /// Makes and locks the file `id` in `dir`.
    ///
    /// It gets its name only when it is locked, so that nobody ever sees it unlocked while we live.
    pub(crate) fn begin(dir: &Dir, id: OwnerId) -> io::Result<Self> {
        let temporary = format!(".new-{id}").into_bytes();
        let file = dir.create(&temporary)?;
        // For people only: a full disk has no room for it, and the processor must start all the same.
        let _ = write_at(&file, format!("pid {}\n", std::process::id()).as_bytes(), 0);
        file.try_lock()?;
        dir.rename_new(&temporary, dir, name(id).as_bytes())?;
        Ok(Self { id, lock: Mutex::new(Some(file)) })
    }

    /// Whether the lock was not given up.
    pub(crate) fn is_held(&self) -> bool {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Gives the lock up, as death would.
    pub(crate) fn release(&self) {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// The file name of an owner.
pub(crate) fn name(id: OwnerId) -> String {
    id.to_string()
}

/// Whether the process with this id lives. While somebody takes over from it, the answer is yes.
pub(crate) fn is_alive(dir: &Dir, id: OwnerId) -> io::Result<bool> {
    let file = match dir.open_file(name(id).as_bytes(), false) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    // A shared lock: two that ask do not take each other for the owner.
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// The lock of a dead process, held while its work is taken over.
#[derive(Debug)]
pub(crate) struct Takeover {
    file: File,
}

impl Takeover {
    /// Takes the lock of a dead process; nothing if it lives or somebody else has it.
    pub(crate) fn begin(dir: &Dir, id: OwnerId) -> io::Result<Option<Self>> {
        let name = name(id);
        let file = match dir.open_file(name.as_bytes(), true) {
            Ok(file) => file,
            // After a crash of the machine the file may be gone and its work still there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                match dir.create(name.as_bytes()) {
                    Ok(file) => file,
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
                    Err(error) => return Err(error),
                }
            }
            Err(error) => return Err(error),
        };
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Ok(None),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        // Whoever had it before us may have finished and removed it: then this lock is worth nothing.
        Ok(is_same(dir, name.as_bytes(), &file)?.then_some(Self { file }))
    }

    /// Removes the dead process's file: nothing of it is left.
    pub(crate) fn finish(self, dir: &Dir, id: OwnerId) -> io::Result<()> {
        let removed = dir.unlink(name(id).as_bytes());
        drop(self.file);
        removed
    }
}

/// The present boot of the machine; a value of its own where the system does not tell.
pub(crate) fn boot_id() -> Uuid {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    Uuid::try_parse(text.trim()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_living_are_told_from_the_dead() {
        let temp = tempfile::tempdir().unwrap();
        let dir = Dir::open(temp.path()).unwrap();
        let (id, other) = (Uuid::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        let owner = Owner::begin(&dir, id).unwrap();
        assert!(is_alive(&dir, id).unwrap());
        assert!(!is_alive(&dir, other).unwrap());
        assert!(Takeover::begin(&dir, id).unwrap().is_none());
        owner.release();
        assert!(!is_alive(&dir, id).unwrap());
        let takeover = Takeover::begin(&dir, id).unwrap().unwrap();
        assert!(Takeover::begin(&dir, id).unwrap().is_none(), "two took over");
        takeover.finish(&dir, id).unwrap();
        assert!(Takeover::begin(&dir, other).unwrap().is_some(), "its file may be gone");
    }
}
