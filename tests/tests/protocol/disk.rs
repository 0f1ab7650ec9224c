//! The queue's disk: where a file is, and where it may be after a power cut.
//!
//! What is assumed of a file system is no more than ext4, XFS and btrfs were seen to keep:
//!
//! * the content of a file is certain only after a sync of that file;
//! * a rename is there whole or not at all, and what is done to one file takes effect in that order;
//!   different files have nothing to do with each other;
//! * a rename is certain only after a sync of the directory that it leads *to*. A sync of the directory
//!   that it comes from counts for nothing.
//!
//! The weak disk promises less: after a sync of the directory that a rename leads to, the old name may
//! still come back beside the new one, until the directory that it comes from is synced too. The torn disk
//! promises nothing of a rename that is not synced, and is there to show that the model would notice.

/// The directories, each a bit, so that a set of names is a number.
pub(crate) const TMP: u8 = 1;
/// `.staged/<resource>/`.
pub(crate) const STAGED: u8 = 2;
/// `new/`, and everything that a worker does from there.
pub(crate) const NEW: u8 = 4;
/// `.discarded/`.
pub(crate) const DISCARDED: u8 = 8;
/// Where a file is that nobody has decided about.
pub(crate) const UNDECIDED: u8 = TMP | STAGED;

/// How much a file system promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Disk {
    /// As measured.
    Measured,
    /// An old name may come back beside the new one.
    Weak,
    /// A rename that is not synced may leave no name at all.
    Torn,
}

/// Whether a file's bytes are what was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Content {
    /// For now; a power cut may take some of it.
    Unsynced,
    /// For good.
    Whole,
    /// Not any more.
    Torn,
}

/// One message's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct File {
    /// The names that it has now.
    names: u8,
    /// The names that it may have after a power cut: one bit for each possible set of names.
    after_cut: u16,
    /// The name that it had before the last rename, while nobody has synced its directory.
    left: u8,
    pub(crate) content: Content,
}

impl File {
    /// No file.
    pub(crate) const NONE: Self = Self { names: 0, after_cut: 1, left: 0, content: Content::Whole };

    /// Written into `tmp/`, nothing synced.
    pub(crate) fn written() -> Self {
        Self { names: TMP, after_cut: 1 | bit(TMP), left: 0, content: Content::Unsynced }
    }

    /// Whether it has a name in one of `directories`.
    pub(crate) fn is_in(self, directories: u8) -> bool {
        self.names & directories != 0
    }

    /// Syncs the file itself.
    pub(crate) fn sync(&mut self) {
        if self.names != 0 && self.content == Content::Unsynced {
            self.content = Content::Whole;
        }
    }

    /// Renames it, with all names that it has in `from`; `false` if it has none.
    pub(crate) fn rename(&mut self, from: u8, to: u8, disk: Disk) -> bool {
        let moved = self.names & from;
        if moved != 0 {
            self.names = self.names & !from | to;
            self.after_cut |= bit(self.names) | u16::from(disk == Disk::Torn);
            self.left = moved;
        }
        moved != 0
    }

    /// What a sync of `directory` does to it.
    pub(crate) fn sync_directory(&mut self, directory: u8, disk: Disk) {
        let beside = bit(self.names | self.left);
        if self.names & directory != 0 {
            self.after_cut = bit(self.names);
            if disk == Disk::Weak {
                self.after_cut |= beside;
            }
        } else if self.left & directory != 0 {
            self.left &= !directory;
            if self.after_cut & !(bit(self.names) | beside) == 0 {
                self.after_cut = bit(self.names) | bit(self.names | self.left);
            }
        }
        if disk != Disk::Weak && self.after_cut == bit(self.names) {
            self.left = 0;
        }
    }

    /// A worker claims it, which syncs, is done with it, and removes it. If a power cut brings it back
    /// where it was claimed, the journal tells what became of it.
    pub(crate) fn take_out(&mut self) {
        self.names &= !NEW;
        self.after_cut = bit(self.names);
        self.left = 0;
        if self.names == 0 {
            *self = Self::NONE;
        }
    }

    /// Removes it, as somebody would who thinks it is junk.
    pub(crate) fn unlink(&mut self) {
        *self = Self::NONE;
    }

    /// All that a power cut may leave of it.
    pub(crate) fn cuts(self) -> impl Iterator<Item = Self> {
        let names = (0..16_u8).filter(move |names| self.after_cut & bit(*names) != 0);
        names.flat_map(move |names| {
            let contents: &[Content] = match (names, self.content) {
                (0, _) => &[Content::Whole],
                (_, Content::Unsynced) => &[Content::Whole, Content::Torn],
                (_, Content::Whole) => &[Content::Whole],
                (_, Content::Torn) => &[Content::Torn],
            };
            contents.iter().map(move |content| Self {
                names,
                after_cut: bit(names),
                left: 0,
                content: *content,
            })
        })
    }
}

fn bit(names: u8) -> u16 {
    1 << names
}

#[cfg(test)]
mod tests {
    use super::{DISCARDED, Disk, File, NEW, STAGED, TMP};

    /// A file that was synced, renamed to `.staged/`, and from there to `new/`; after each rename the
    /// directories in `synced` were synced.
    fn moved(disk: Disk, synced: [&[u8]; 2]) -> File {
        let mut file = File::written();
        file.sync();
        for ((from, to), synced) in [(TMP, STAGED), (STAGED, NEW)].into_iter().zip(synced) {
            assert!(file.rename(from, to, disk));
            synced.iter().for_each(|directory| file.sync_directory(*directory, disk));
        }
        file
    }

    fn check(file: File, names: &[u8]) {
        assert_eq!(file.cuts().map(|file| file.names).collect::<Vec<_>>(), names);
    }

    #[test]
    fn only_the_directory_that_a_rename_leads_to_makes_it_certain() {
        check(moved(Disk::Measured, [&[], &[]]), &[0, TMP, STAGED, NEW]);
        check(moved(Disk::Measured, [&[STAGED], &[]]), &[STAGED, NEW]);
        check(moved(Disk::Measured, [&[STAGED], &[STAGED]]), &[STAGED, NEW]);
        check(moved(Disk::Measured, [&[STAGED], &[NEW]]), &[NEW]);
        check(moved(Disk::Torn, [&[STAGED], &[]]), &[0, STAGED, NEW]);
    }

    #[test]
    fn on_the_weak_disk_the_old_name_may_be_there_too() {
        check(moved(Disk::Weak, [&[STAGED], &[]]), &[STAGED, TMP | STAGED, NEW]);
        check(moved(Disk::Weak, [&[STAGED], &[NEW]]), &[NEW, STAGED | NEW]);
        check(moved(Disk::Weak, [&[STAGED], &[NEW, STAGED]]), &[NEW]);
        check(moved(Disk::Weak, [&[STAGED], &[STAGED, NEW]]), &[NEW]);
    }

    #[test]
    fn content_that_is_not_synced_may_be_torn() {
        assert_eq!(File::written().cuts().count(), 3, "gone, whole or torn");
        let mut gone = moved(Disk::Measured, [&[], &[]]);
        assert!(!gone.rename(TMP | STAGED, DISCARDED, Disk::Measured), "it is somewhere else");
        gone.take_out();
        assert_eq!(gone, File::NONE);
    }
}
