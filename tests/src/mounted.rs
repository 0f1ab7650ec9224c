//! File systems of a test's own: in memory, or in an image that is mounted by a loop device.
//!
//! Each is unmounted when it is dropped; its loop device goes with the mount, its image and its mount
//! point with the temporary files that they are. Where mounting is not allowed, a test skips itself by
//! name.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::fs::FallocateFlags;
use tempfile::{NamedTempFile, TempDir};

use crate::Result;
use crate::programs::{needs, skip};

/// A kind of file system that lives in an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// ext4, with a journal, and without blocks that only root gets.
    Ext4,
    /// XFS, which can clone files.
    Xfs,
    /// btrfs, with one copy of its metadata.
    Btrfs,
}

impl Kind {
    /// Every one of them.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// About the smallest image that its tools agree to.
    fn least(self) -> u64 {
        match self {
            Self::Ext4 => 64 << 20,
            Self::Xfs => 300 << 20,
            Self::Btrfs => 128 << 20,
        }
    }

    fn maker(self) -> (&'static str, &'static [&'static str]) {
        match self {
            Self::Ext4 => ("mkfs.ext4", &["-q", "-m", "0"]),
            Self::Xfs => ("mkfs.xfs", &["-q"]),
            Self::Btrfs => ("mkfs.btrfs", &["-q", "-m", "single"]),
        }
    }
}

/// A file system of its own.
#[derive(Debug)]
pub struct Mounted {
    directory: TempDir,
    /// What `mount` is told, before the directory.
    words: Vec<OsString>,
    is_mounted: bool,
    _image: Option<NamedTempFile>,
}

impl Mounted {
    /// A file system in memory. Nothing means that `test` has said that it is skipped.
    ///
    /// # Errors
    ///
    /// A directory cannot be made.
    pub fn in_memory(test: &str, options: &str) -> Result<Option<Self>> {
        Self::first(test, ["-t", "tmpfs", "-o", options, "tmpfs"].map(Into::into).to_vec(), None)
    }

    /// A small one in an image. Nothing means that `test` has said that it is skipped.
    ///
    /// # Errors
    ///
    /// The image cannot be made.
    pub fn small(test: &str, kind: Kind) -> Result<Option<Self>> {
        Self::of_size(test, kind, kind.least())
    }

    /// One in a sparse image of this many bytes. Nothing means that `test` has said that it is skipped.
    ///
    /// # Errors
    ///
    /// The image cannot be made.
    pub fn of_size(test: &str, kind: Kind, bytes: u64) -> Result<Option<Self>> {
        let image = NamedTempFile::new()?;
        let Some(()) = Self::make_image(test, kind, image.path(), bytes)? else { return Ok(None) };
        let words = vec!["-o".into(), "loop".into(), image.path().into()];
        Self::first(test, words, Some(image))
    }

    /// Mounts an image that is there already. Nothing means that `test` has said that it is skipped.
    ///
    /// # Errors
    ///
    /// A directory cannot be made.
    pub fn image(test: &str, image: &Path) -> Result<Option<Self>> {
        Self::first(test, vec!["-o".into(), "loop".into(), image.into()], None)
    }

    /// Makes a sparse image with a small file system in it. Nothing means that `test` has said that it is
    /// skipped.
    ///
    /// # Errors
    ///
    /// The image cannot be made.
    pub fn make_small_image(test: &str, kind: Kind, image: &Path) -> Result<Option<()>> {
        Self::make_image(test, kind, image, kind.least())
    }

    fn make_image(test: &str, kind: Kind, image: &Path, bytes: u64) -> Result<Option<()>> {
        let (program, words) = kind.maker();
        let Some(program) = needs(test, program) else { return Ok(None) };
        File::options().create(true).truncate(false).write(true).open(image)?.set_len(bytes)?;
        let output = Command::new(program).args(words).arg(image).output()?;
        if output.status.success() {
            return Ok(Some(()));
        }
        Err(format!("{kind:?}: {}", String::from_utf8_lossy(&output.stderr)).into())
    }

    fn first(
        test: &str,
        words: Vec<OsString>,
        image: Option<NamedTempFile>,
    ) -> Result<Option<Self>> {
        if !rustix::process::geteuid().is_root() {
            skip(test, "only root can mount a file system");
            return Ok(None);
        }
        let directory = tempfile::tempdir()?;
        let mut mounted = Self { directory, words, is_mounted: false, _image: image };
        if let Err(error) = mounted.mount() {
            skip(test, &format!("mounting is not allowed here: {error}"));
            return Ok(None);
        }
        Ok(Some(mounted))
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Mounts it, if it is not.
    ///
    /// # Errors
    ///
    /// The kernel does not want it.
    pub fn mount(&mut self) -> Result<()> {
        if !self.is_mounted {
            run(Command::new("mount").args(&self.words).arg(self.path()))?;
            self.is_mounted = true;
        }
        Ok(())
    }

    /// Unmounts it. What is in an image stays.
    ///
    /// # Errors
    ///
    /// Somebody uses it still.
    pub fn unmount(&mut self) -> Result<()> {
        if self.is_mounted {
            run(Command::new("umount").arg(self.path()))?;
            self.is_mounted = false;
            self.wait_until_gone()?;
        }
        Ok(())
    }

    /// Waits until the loop device is free. A process in a mount namespace that was made while this was
    /// mounted keeps it for as long as it lives, and whoever mounted the image once more meanwhile would
    /// have the same file system still, or two of them in one image.
    fn wait_until_gone(&self) -> Result<()> {
        let Some(image) = self.words.last().filter(|image| Path::new(image).is_file()) else {
            return Ok(());
        };
        for _ in 0..1000 {
            let output = Command::new("losetup").arg("-j").arg(image).output()?;
            if output.stdout.is_empty() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Err("its loop device stays in use".into())
    }

    /// Mounts it anew with other options: `ro`, `rw`, `abort`.
    ///
    /// # Errors
    ///
    /// The kernel does not want it.
    pub fn remount(&self, options: &str) -> Result<()> {
        let options = format!("remount,{options}");
        run(Command::new("mount").args(["-o", &options]).arg(self.path()))
    }

    /// Shuts the file system down in the middle of everything, as a crash does: what is in memory and not
    /// on the device is gone, its log included, and nothing works any more until it is mounted anew.
    /// ext4 and XFS can do that. `xfs_io` is the program of that name.
    ///
    /// # Errors
    ///
    /// It cannot be shut down.
    pub fn shut_down(&self, xfs_io: &Path) -> Result<()> {
        run(Command::new(xfs_io).args(["-x", "-c", "shutdown"]).arg(self.path()))
    }

    /// Takes all space, then gives `left` bytes back.
    ///
    /// # Errors
    ///
    /// The file that takes it cannot be made.
    pub fn fill(&self, left: u64) -> Result<()> {
        let file = File::create(self.filler())?;
        let mut size: u64 = 1 << 30;
        while size >= 512 {
            let end = file.metadata()?.len();
            if rustix::fs::fallocate(&file, FallocateFlags::empty(), end, size).is_err() {
                size /= 2;
            }
        }
        let length = file.metadata()?.len();
        file.set_len(length - left.min(length))?;
        // What was preallocated for others is taken as well, and small files need not an extent.
        if left == 0 {
            file.sync_all()?;
        }
        Ok(())
    }

    /// Makes files until there is no inode for another, then removes `left` of them.
    ///
    /// # Errors
    ///
    /// Their folder cannot be made.
    pub fn use_up_inodes(&self, left: usize) -> Result<()> {
        let folder = self.inodes();
        std::fs::create_dir(&folder)?;
        let made: Vec<PathBuf> = (0..)
            .map(|number: u32| folder.join(number.to_string()))
            .take_while(|path| std::fs::write(path, "").is_ok())
            .collect();
        Ok(made.iter().take(left).try_for_each(std::fs::remove_file)?)
    }

    /// Gives back all space and inodes that were taken.
    ///
    /// # Errors
    ///
    /// They cannot be given back.
    pub fn make_room(&self) -> Result<()> {
        let is_gone = |result: io::Result<()>| match result {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        };
        is_gone(std::fs::remove_file(self.filler()))?;
        is_gone(std::fs::remove_dir_all(self.inodes()))?;
        // btrfs has it only when its transaction has ended, which may take half a minute.
        Ok(rustix::fs::syncfs(File::open(self.path())?)?)
    }

    /// Whether there is a file system of its own where it is mounted, and not what is below it.
    ///
    /// # Errors
    ///
    /// It cannot be looked at.
    pub fn is_there(&self) -> Result<bool> {
        let above = self.path().parent().unwrap_or(self.path());
        Ok(std::fs::metadata(self.path())?.dev() != std::fs::metadata(above)?.dev())
    }

    fn filler(&self) -> PathBuf {
        self.path().join("filler")
    }

    fn inodes(&self) -> PathBuf {
        self.path().join("inodes")
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.unmount().is_err() {
            let lazily = run(Command::new("umount").arg("--lazy").arg(self.path()));
            assert!(
                lazily.is_ok() || std::thread::panicking(),
                "it cannot be unmounted: {lazily:?}"
            );
        }
    }
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(format!("{}: {}", command.get_program().display(), said.trim()).into())
}
