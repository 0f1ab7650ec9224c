//! Claiming what zope.sendmail and repoze.sendmail wrote, beside their own processors.

use std::io;

use crate::claim::Batch;
use crate::disk::{Dir, Stat};
use crate::foreign::{self, ForeignError};
use crate::held::Held;
use crate::name::MessageName;
use crate::queue::Queue;
use crate::reading::{Content, Misfit, decode_foreign, misfit, modified, read_limited};

/// How old zope.sendmail's lock must be before it counts as forgotten, in seconds: its own measure.
const ZOPE_LOCK_LIFETIME: i64 = 3 * 60 * 60;

impl Queue {
    /// Claims a file that zope.sendmail or repoze.sendmail wrote, by its own rules: whoever has made
    /// the link `.sending-NAME` may send it.
    pub(crate) fn claim_foreign(
        &self,
        dir: &Dir,
        file: &[u8],
        batch: &Batch,
    ) -> std::result::Result<(Held, Content), Misfit> {
        let stat = dir.stat(file).map_err(misfit)?;
        let version = version(file, &stat);
        if self.is_left_alone(&version) {
            return Err(Misfit::Gone);
        }
        self.check_owner(dir, file)?;
        let written = modified(&stat);
        let lock_name = [b".sending-", file].concat();
        let touched = self.lock_foreign(dir, file, &lock_name, &stat)?;
        let claim = || {
            let bytes = read_limited(dir, file, self.options.max_message_len)?;
            let name = MessageName { foreign: true, ..MessageName::new(foreign::id(file, &bytes)) };
            if self.is_taken(name.id, batch) {
                return Err(Misfit::Stays(
                    "another file with the same id is being sent".to_owned(),
                ));
            }
            let content = decode_foreign(&bytes, name, written).map_err(|error| match error {
                ForeignError::NoEnvelope => {
                    self.leave_alone(&version);
                    Misfit::Stays(error.to_string())
                }
                other => Misfit::Damaged(other.to_string()),
            })?;
            let worker = self.worker().map_err(Misfit::Trouble)?;
            self.take(dir, file, &worker.dir, &name.encode())?;
            if touched {
                // When it was written is when it was queued. If this fails its life begins anew.
                let _ = worker.dir.set_modified(&name.encode(), Some(&stat));
            }
            Ok((self.hold(name, &content), content))
        };
        let result = claim();
        if touched && result.is_err() {
            let _ = dir.set_modified(file, Some(&stat));
        }
        // With the file gone the lock locks nothing; with the file left it must not stay.
        let _ = dir.unlink(&lock_name);
        result
    }

    /// Takes zope.sendmail's lock on a file. Returns whether the file's time had to be changed for it.
    fn lock_foreign(
        &self,
        dir: &Dir,
        file: &[u8],
        lock_name: &[u8],
        stat: &Stat,
    ) -> std::result::Result<bool, Misfit> {
        match dir.stat(lock_name) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            // No program can make the lock, so none has it.
            Err(error) if error.kind() == io::ErrorKind::InvalidFilename => return Ok(false),
            Err(error) => return Err(misfit(error)),
            Ok(locked) if self.now().as_secs() - locked.st_mtime < ZOPE_LOCK_LIFETIME => {
                // Another program is sending it.
                return Err(Misfit::Gone);
            }
            // Forgotten by a process that died. Removing it loses nothing: it is a second name.
            Ok(_) => dir.unlink(lock_name).map_err(misfit)?,
        }
        // The lock is as old as the file that it is a name of, and one that is old counts as forgotten.
        let touch = self.now().as_secs() - stat.st_mtime > ZOPE_LOCK_LIFETIME / 3
            && dir.set_modified(file, None).is_ok();
        match self.with_reserve(|| dir.link(file, lock_name)) {
            Ok(()) => Ok(touch),
            Err(error) => Err(match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::AlreadyExists => Misfit::Gone,
                // Or a file system without links.
                _ => misfit(error),
            }),
        }
    }
}

/// A name for a file as it is now: once it is written to, it has another one.
fn version(file: &[u8], stat: &Stat) -> Vec<u8> {
    let (inode, size) = (stat.st_ino, stat.st_size);
    let written = format!("/{inode}/{size}/{}/{}", stat.st_mtime, stat.st_mtime_nsec);
    [file, written.as_bytes()].concat()
}
