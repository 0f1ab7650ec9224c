//! The one place where files are touched: directories by handle, and the few operations the queue
//! is built from.
//!
//! Every path is a single name below a directory that was opened once, without following links, so
//! that nobody can swap a directory of the queue for a link while it is in use.
//!
//! In tests each operation first asks whether it is to fail (`fault`), and tells what it did (`tell!`),
//! so that the disks that a power cut may leave can be built from it. In other builds there is neither.

use std::collections::HashMap;
use std::ffi::{CString, OsStr};
use std::fs::{File, Permissions};
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

pub(crate) use rustix::fs::Stat;
use rustix::fs::{self as sys, AtFlags, FileType, Mode, OFlags, RenameFlags, StatxFlags};

const FILE_MODE: Mode = Mode::RUSR.union(Mode::WUSR);
const DIR_MODE: Mode = Mode::RWXU;

/// Tells a test what was done to the disk; in other builds there is nothing of it.
macro_rules! tell {
    ($($told:tt)*) => {
        #[cfg(test)]
        crate::power::probe::$($told)*;
    };
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct Dir {
    fd: OwnedFd,
    path: PathBuf,
    /// Directories in it whose names are known to be durable, held open: another directory of that name
    /// gets another inode as long as they are.
    durable: Mutex<HashMap<String, OwnedFd>>,
}

/// How many directories are known to be durable before they are forgotten and synced once more.
const MOST_KNOWN: usize = 32;

/// What a name in a directory leads to, as far as the directory itself tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink,
    /// A FIFO, a socket or a device.
    Special,
    /// The file system does not tell without a closer look.
    Unknown,
}

/// One name of a directory.
#[derive(Debug, Clone)]
pub(crate) struct Name {
    pub(crate) bytes: Vec<u8>,
    pub(crate) kind: Kind,
}

impl Dir {
    /// Opens a directory that exists. Where the queue is, is for its operator to say, by a link if need be.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(Self {
            fd: sys::open(path, flags, Mode::empty())?,
            path: path.to_owned(),
            durable: Mutex::default(),
        })
    }

    /// Opens the directory `name`; nothing if there is none.
    pub(crate) fn open_dir(&self, name: &str) -> io::Result<Option<Self>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match sys::openat(&self.fd, name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Self { fd, path: self.path.join(name), durable: Mutex::default() })),
            Err(rustix::io::Errno::NOENT) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Opens the directory `name`, made with mode 0700 if it is missing; its name is durable on return.
    ///
    /// Also where it was there: whoever made it may have died before the sync, and then it would be gone
    /// after a crash of the machine, with all that was put into it since.
    pub(crate) fn make_dir(&self, name: &str) -> io::Result<Self> {
        let dir = self.open_or_make_dir(name)?;
        if !self.is_durable(name, &dir)? {
            self.sync()?;
            let kept = dir.fd.try_clone()?;
            let mut known = self.known();
            if known.len() >= MOST_KNOWN {
                known.clear();
            }
            known.insert(name.to_owned(), kept);
        }
        Ok(dir)
    }

    /// The same, without making the name durable.
    pub(crate) fn open_or_make_dir(&self, name: &str) -> io::Result<Self> {
        fault(Op::Make)?;
        loop {
            if let Some(dir) = self.open_dir(name)? {
                return Ok(dir);
            }
            match sys::mkdirat(&self.fd, name, DIR_MODE) {
                Ok(()) => {
                    tell!(made_dir(&self.fd, name));
                }
                Err(rustix::io::Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Whether `dir` is the directory of that name that is known to be durable. An empty one may have been
    /// removed, and another made in its place, by anybody.
    fn is_durable(&self, name: &str, dir: &Self) -> io::Result<bool> {
        match self.known().get(name) {
            Some(known) => Ok(place(&sys::fstat(known)?) == place(&sys::fstat(&dir.fd)?)),
            None => Ok(false),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, OwnedFd>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it is, for people.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Its names, streamed in the file system's order, without `.` and `..`.
    pub(crate) fn names(&self) -> io::Result<Names> {
        fault(Op::Look)?;
        Ok(Names { dir: sys::Dir::read_from(&self.fd)? })
    }

    /// Makes every entry of it durable.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn sync(&self) -> io::Result<()> {
        fault(Op::Sync)?;
        sys::fsync(&self.fd)?;
        still_there(&self.fd)?;
        tell!(synced_dir(&self.fd));
        Ok(())
    }

    /// Makes everything on its file system durable. Costly; for rare moments.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn sync_all(&self) -> io::Result<()> {
        fault(Op::Sync)?;
        sys::syncfs(&self.fd)?;
        still_there(&self.fd)?;
        tell!(synced_all());
        Ok(())
    }

    /// Makes a file that must not exist, with mode 0600.
    pub(crate) fn create(&self, name: &[u8]) -> io::Result<File> {
        fault(Op::Make)?;
        let flags =
            OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(sys::openat(&self.fd, OsStr::from_bytes(name), flags, FILE_MODE)?);
        tell!(created(&self.fd, name, &file));
        Ok(file)
    }

    /// Opens a regular file for reading, and for writing too if asked. Never blocks and never follows
    /// a link; what is no regular file is an error of kind `InvalidInput`.
    pub(crate) fn open_file(&self, name: &[u8], write: bool) -> io::Result<File> {
        fault(Op::Read)?;
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let flags = access | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file =
            File::from(sys::openat(&self.fd, OsStr::from_bytes(name), flags, Mode::empty())?);
        if file.metadata()?.is_file() {
            Ok(file)
        } else {
            Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
        }
    }

    /// The content of a regular file, at most `limit` bytes of it.
    pub(crate) fn read(&self, name: &[u8], limit: u64) -> io::Result<Vec<u8>> {
        let file = self.open_file(name, false)?;
        let length = file.metadata()?.len().min(limit);
        let mut content = Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 1);
        file.take(limit).read_to_end(&mut content)?;
        Ok(content)
    }

    /// Makes the file `name` with this content, synced. The directory is not synced. If anything
    /// fails the file is removed, and its sync is not tried again.
    #[cfg_attr(test, track_caller)]
    pub(crate) fn write_synced(&self, name: &[u8], parts: &[&[u8]]) -> io::Result<()> {
        let file = self.write_new(name, parts)?;
        sync(&file).inspect_err(|_| {
            // The error is what counts; a left-over is found by the next sweep.
            let _ = self.unlink(name);
        })
    }

    /// Makes the file `name` with this content; nothing of it is synced. If anything fails the file is
    /// removed.
    pub(crate) fn write_new(&self, name: &[u8], parts: &[&[u8]]) -> io::Result<File> {
        let result = self.write_file(name, parts);
        if result.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::AlreadyExists) {
            // As above.
            let _ = self.unlink(name);
        }
        result
    }

    /// Makes the file `name` with this content; nothing of it is synced.
    pub(crate) fn write_file(&self, name: &[u8], parts: &[&[u8]]) -> io::Result<File> {
        let file = self.create(name)?;
        let mut offset = 0;
        for part in parts {
            write_at(&file, part, offset)?;
            offset += part.len() as u64;
        }
        Ok(file)
    }

    /// Renames `from` in this directory to `to` in `target`, replacing what is there.
    pub(crate) fn rename(&self, from: &[u8], target: &Self, to: &[u8]) -> io::Result<()> {
        match self.rename_new(from, target, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let (old, new) = (OsStr::from_bytes(from), OsStr::from_bytes(to));
                sys::renameat(&self.fd, old, &target.fd, new)?;
                tell!(renamed(&self.fd, old, &target.fd, new));
                Ok(())
            }
            other => other,
        }
    }

    /// As [`Dir::rename`], but an error of kind `AlreadyExists` if `to` is another file.
    ///
    /// The old name is gone then, also where both were names of one file, for which a plain rename does
    /// nothing: btrfs may keep the old name beside the new one when it replays its log after a crash.
    pub(crate) fn rename_new(&self, from: &[u8], target: &Self, to: &[u8]) -> io::Result<()> {
        fault(Op::Rename)?;
        let (old, new) = (OsStr::from_bytes(from), OsStr::from_bytes(to));
        match sys::renameat_with(&self.fd, old, &target.fd, new, RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) if self.is_one_place(old, target, new)? => return Ok(()),
            Err(rustix::io::Errno::EXIST) if self.is_one_file(old, target, new)? => {
                sys::unlinkat(&self.fd, old, AtFlags::empty())?;
                tell!(unlinked(&self.fd, from));
                return Ok(());
            }
            other => other?,
        }
        tell!(renamed(&self.fd, old, &target.fd, new));
        Ok(())
    }

    /// Whether these are one name in one directory.
    fn is_one_place(&self, name: &OsStr, other: &Self, its: &OsStr) -> io::Result<bool> {
        Ok(name == its && place(&sys::fstat(&self.fd)?) == place(&sys::fstat(&other.fd)?))
    }

    /// Whether both lead to one file. Nobody gives a file of the queue another name while it is asked.
    fn is_one_file(&self, name: &OsStr, other: &Self, its: &OsStr) -> io::Result<bool> {
        let here = sys::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match sys::statat(&other.fd, its, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(there) => Ok(place(&here) == place(&there)),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives the file `from` the second name `to`; an error of kind `AlreadyExists` if it is taken.
    pub(crate) fn link(&self, from: &[u8], to: &[u8]) -> io::Result<()> {
        fault(Op::Make)?;
        let (from, to) = (OsStr::from_bytes(from), OsStr::from_bytes(to));
        sys::linkat(&self.fd, from, &self.fd, to, AtFlags::empty())?;
        tell!(linked(&self.fd, from, to));
        Ok(())
    }

    /// Removes a file.
    pub(crate) fn unlink(&self, name: &[u8]) -> io::Result<()> {
        fault(Op::Unlink)?;
        sys::unlinkat(&self.fd, OsStr::from_bytes(name), AtFlags::empty())?;
        tell!(unlinked(&self.fd, name));
        Ok(())
    }

    /// Removes a directory if it is empty.
    pub(crate) fn remove_dir(&self, name: &str) -> io::Result<()> {
        fault(Op::Unlink)?;
        sys::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)?;
        tell!(removed_dir(&self.fd, name));
        Ok(())
    }

    /// What `name` is, without following it.
    pub(crate) fn stat(&self, name: &[u8]) -> io::Result<Stat> {
        fault(Op::Look)?;
        Ok(sys::statat(&self.fd, OsStr::from_bytes(name), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Sets when `name` was last written: to what `stat` says, or to now.
    pub(crate) fn set_modified(&self, name: &[u8], stat: Option<&Stat>) -> io::Result<()> {
        let keep = sys::Timespec { tv_sec: 0, tv_nsec: sys::UTIME_OMIT };
        let now = sys::Timespec { tv_sec: 0, tv_nsec: sys::UTIME_NOW };
        let modified = stat.map_or(now, |stat| sys::Timespec {
            tv_sec: stat.st_mtime,
            tv_nsec: i64::try_from(stat.st_mtime_nsec).unwrap_or(0),
        });
        let times = sys::Timestamps { last_access: keep, last_modification: modified };
        let name = OsStr::from_bytes(name);
        Ok(sys::utimensat(&self.fd, name, &times, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Whether `name` exists, whatever it is.
    pub(crate) fn exists(&self, name: &[u8]) -> io::Result<bool> {
        match self.stat(name) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Who owns the directory, and what others may do to it.
    pub(crate) fn owner_and_mode(&self) -> io::Result<(u32, u32)> {
        let stat = sys::fstat(&self.fd)?;
        Ok((stat.st_uid, stat.st_mode))
    }

    /// Which device it is on.
    pub(crate) fn device(&self) -> io::Result<u64> {
        Ok(sys::fstat(&self.fd)?.st_dev)
    }

    /// The number of its mount, which no other mount ever gets; nothing before Linux 6.8.
    pub(crate) fn mount_id(&self) -> Option<u64> {
        // STATX_MNT_ID_UNIQUE, which has no name in the library yet.
        let wanted = StatxFlags::from_bits_retain(0x4000);
        let found = sys::statx(&self.fd, "", AtFlags::EMPTY_PATH, wanted).ok()?;
        (found.stx_mask & wanted.bits() != 0).then_some(found.stx_mnt_id)
    }

    /// Free space in bytes and free inodes; inodes are `None` where the file system makes them as
    /// needed.
    pub(crate) fn room(&self) -> io::Result<(u64, Option<u64>)> {
        let stat = sys::fstatvfs(&self.fd)?;
        let inodes = (stat.f_files > 0).then_some(stat.f_favail);
        Ok((stat.f_bavail.saturating_mul(stat.f_frsize), inodes))
    }

    /// The magic number of its file system.
    pub(crate) fn file_system(&self) -> io::Result<i64> {
        Ok(sys::fstatfs(self.fd.as_fd())?.f_type)
    }
}

/// The names of a directory, one after the other.
#[derive(Debug)]
pub(crate) struct Names {
    dir: sys::Dir,
}

impl Iterator for Names {
    type Item = io::Result<Name>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let entry = match self.dir.next()? {
                Ok(entry) => entry,
                Err(error) => return Some(Err(error.into())),
            };
            let name: CString = entry.file_name().to_owned();
            let bytes = name.into_bytes();
            if bytes != b"." && bytes != b".." {
                return Some(Ok(Name { bytes, kind: kind(entry.file_type()) }));
            }
        }
    }
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Symlink => Kind::Symlink,
        FileType::Unknown => Kind::Unknown,
        _ => Kind::Special,
    }
}

/// `file` is made to have room for `length` bytes, so that writing within them cannot fail for lack
/// of space. Where the file system cannot promise that, zeros are written.
pub(crate) fn allocate(file: &File, length: u64) -> io::Result<()> {
    fault(Op::Write)?;
    match sys::fallocate(file, sys::FallocateFlags::empty(), 0, length) {
        Err(rustix::io::Errno::OPNOTSUPP) => {
            let block = [0; 8192];
            let mut offset = 0;
            while offset < length {
                let part = (length - offset).min(block.len() as u64);
                let part_length = usize::try_from(part).unwrap_or(block.len());
                file.write_all_at(block.get(..part_length).unwrap_or(&block), offset)?;
                offset += part;
            }
        }
        other => other?,
    }
    tell!(resized(file, length));
    Ok(())
}

/// Makes a file this long.
pub(crate) fn set_length(file: &File, length: u64) -> io::Result<()> {
    fault(Op::Write)?;
    file.set_len(length)?;
    tell!(resized(file, length));
    Ok(())
}

/// Writes all of `bytes` at an offset.
pub(crate) fn write_at(file: &File, bytes: &[u8], offset: u64) -> io::Result<()> {
    #[cfg(test)]
    crate::power::probe::short_write(file, bytes, offset)?;
    fault(Op::Write)?;
    file.write_all_at(bytes, offset)?;
    tell!(wrote(file, bytes, offset));
    Ok(())
}

/// Makes a file's content durable, and its length.
#[cfg_attr(test, track_caller)]
pub(crate) fn sync_data(file: &File) -> io::Result<()> {
    fault_of(Op::Sync, file)?;
    file.sync_data()?;
    still_there(file)?;
    tell!(synced_data(file));
    Ok(())
}

/// Makes all of a file durable, its permissions included.
#[cfg_attr(test, track_caller)]
pub(crate) fn sync(file: &File) -> io::Result<()> {
    fault_of(Op::Sync, file)?;
    file.sync_all()?;
    still_there(file)?;
    tell!(synced_file(file));
    Ok(())
}

/// An error if the file system has shut itself down.
///
/// XFS syncs nothing and reports success if it shuts down between a change and its sync: the change is
/// gone from memory, and so there is nothing to wait for. Its `fstat` tells (`xfs_vn_getattr`).
fn still_there(file: impl AsFd) -> io::Result<()> {
    sys::fstat(file)?;
    Ok(())
}

/// Changes a file's permissions.
pub(crate) fn set_mode(file: &File, mode: u32) -> io::Result<()> {
    fault(Op::Mode)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    tell!(changed_mode(file, mode));
    Ok(())
}

/// Tries a few times to leave a mark for others that tells of a failed sync: nothing else tells them. If that
/// fails as well nothing is left to be done about it.
pub(crate) fn insist(mark: impl Fn() -> io::Result<()>) {
    let _ = (0..3).any(|_| mark().is_ok());
}

/// What tells one file from another.
fn place(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

/// Whether the file that `name` in `dir` leads to is `file`.
pub(crate) fn is_same(dir: &Dir, name: &[u8], file: &File) -> io::Result<bool> {
    is_name_of(dir, name, &sys::fstat(file)?)
}

/// Whether `name` in `dir` leads to the file that has this `stat`.
pub(crate) fn is_name_of(dir: &Dir, name: &[u8], stat: &Stat) -> io::Result<bool> {
    match dir.stat(name) {
        Ok(found) => Ok(place(&found) == place(stat)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A kind of operation, to let one of them fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Make,
    /// A look at a name or at the names of a directory.
    Look,
    /// Opening a file.
    Read,
    Write,
    Sync,
    Rename,
    Unlink,
    Mode,
}

#[cfg(test)]
pub(crate) use crate::power::probe as faults;
#[cfg(test)]
use crate::power::probe::{fault, fault_of};

/// Where an operation may be made to fail, in tests.
#[cfg(not(test))]
#[expect(clippy::unnecessary_wraps, reason = "it fails in tests")]
#[inline(always)]
fn fault(_operation: Op) -> io::Result<()> {
    crate::sync::point();
    Ok(())
}

/// The same for an operation on an open file.
#[cfg(not(test))]
#[inline(always)]
fn fault_of(operation: Op, _file: &File) -> io::Result<()> {
    fault(operation)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ext4 gives the number of a directory that is removed to the next one that is made.
    // Proves: I3
    #[test]
    fn another_directory_of_a_known_name_is_made_durable_too() {
        let folder = tempfile::tempdir().unwrap();
        let (root, path) = (Dir::open(folder.path()).unwrap(), folder.path().join("minute"));
        let syncs = || faults::count(|| root.make_dir("minute").unwrap()).1(Op::Sync);
        assert_eq!((syncs(), syncs()), (1, 0), "known from then on");
        // As this or another process does with a folder that has become empty.
        for make_anew in [|_: &Path| {}, |path: &Path| std::fs::create_dir(path).unwrap()] {
            std::fs::remove_dir(&path).unwrap();
            make_anew(&path);
            assert_eq!((syncs(), syncs()), (1, 0));
        }
    }

    #[test]
    fn only_so_many_directories_are_held_open() {
        let folder = tempfile::tempdir().unwrap();
        let root = Dir::open(folder.path()).unwrap();
        for number in 0..2 * MOST_KNOWN {
            root.make_dir(&number.to_string()).unwrap();
        }
        assert!(root.durable.lock().unwrap().len() <= MOST_KNOWN);
    }

    /// What btrfs may leave of a rename when it replays its log.
    #[test]
    fn a_rename_takes_the_old_name_away_though_both_lead_to_one_file() {
        let folder = tempfile::tempdir().unwrap();
        let root = Dir::open(folder.path()).unwrap();
        let (staged, new) = (root.make_dir("staged").unwrap(), root.make_dir("new").unwrap());
        staged.write_synced(b"a", &[b"mail"]).unwrap();
        std::fs::hard_link(folder.path().join("staged/a"), folder.path().join("new/a")).unwrap();
        staged.rename(b"a", &new, b"a").unwrap();
        assert!(!staged.exists(b"a").unwrap());
        assert_eq!(new.read(b"a", 9).unwrap(), b"mail");
        // Another file is replaced where that is wanted, and a name stays what it is.
        staged.write_synced(b"a", &[b"other"]).unwrap();
        let kind = staged.rename_new(b"a", &new, b"a").unwrap_err().kind();
        assert_eq!(kind, io::ErrorKind::AlreadyExists);
        staged.rename(b"a", &new, b"a").unwrap();
        new.rename(b"a", &new, b"a").unwrap();
        assert_eq!(new.read(b"a", 9).unwrap(), b"other");
    }
}
