//! What was done to the disk, in order, with what was promised in between.

use std::collections::HashMap;
use std::io;
use std::panic::Location;
use std::path::Path;

use super::image::{Content, Image, Node, Place};
use super::ledger::Note;

/// Something that was done to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Change {
    /// A file or a directory was made.
    Make {
        at: Place,
        node: Node,
        is_dir: bool,
    },
    Rename {
        from: Place,
        to: Place,
        node: Node,
    },
    Link {
        to: Place,
        node: Node,
    },
    /// A file's name, or an empty directory, was removed.
    Remove {
        at: Place,
        node: Node,
    },
    Write {
        file: Node,
        offset: u64,
        bytes: Vec<u8>,
    },
    Resize {
        file: Node,
        length: u64,
    },
    Mode {
        file: Node,
        mode: u32,
    },
    SyncData {
        file: Node,
    },
    SyncFile {
        file: Node,
    },
    SyncDir {
        dir: Node,
    },
    SyncAll,
}

/// One entry of a recording.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// What was done, and for a sync where in the code.
    Did(Change, Option<&'static Location<'static>>),
    /// What somebody was told or did who relies on it.
    Noted(Note),
}

/// A recording: the disk as it was, and what came then.
#[derive(Debug)]
pub(crate) struct Recorder {
    pub(crate) base: Image,
    pub(crate) steps: Vec<Step>,
    /// The tree as it is now.
    now: Image,
    inodes: HashMap<u64, Node>,
    next: Node,
}

impl Recorder {
    /// Begins with what is below `path`, taken for durable.
    pub(crate) fn begin(path: &Path) -> io::Result<Self> {
        let (base, inodes) = Image::read(path)?;
        let next = inodes.len();
        Ok(Self { now: base.clone(), base, steps: Vec::new(), inodes, next })
    }

    pub(crate) fn push(&mut self, change: Change, site: Option<&'static Location<'static>>) {
        apply_name(&mut self.now, &change);
        self.steps.push(Step::Did(change, site));
    }

    pub(crate) fn note(&mut self, note: Note) {
        self.steps.push(Step::Noted(note));
    }

    /// A new file or directory, whose inode may be one that was used before.
    pub(crate) fn made(&mut self, parent: u64, name: &[u8], child: u64, is_dir: bool) {
        let Some(parent) = self.inodes.get(&parent).copied() else { return };
        let node = self.next;
        self.next += 1;
        self.inodes.insert(child, node);
        self.push(Change::Make { at: (parent, name.to_vec()), node, is_dir }, None);
    }

    pub(crate) fn renamed(&mut self, from: (u64, &[u8]), to: (u64, &[u8])) {
        let place = |(dir, name): (u64, &[u8])| Some((*self.inodes.get(&dir)?, name.to_vec()));
        if let (Some(from), Some(to)) = (place(from), place(to))
            && let Some(node) = self.now.names.get(&from).copied()
        {
            self.push(Change::Rename { from, to, node }, None);
        }
    }

    pub(crate) fn linked(&mut self, dir: u64, from: &[u8], to: &[u8]) {
        if let Some(dir) = self.inodes.get(&dir).copied()
            && let Some(node) = self.now.names.get(&(dir, from.to_vec())).copied()
        {
            self.push(Change::Link { to: (dir, to.to_vec()), node }, None);
        }
    }

    pub(crate) fn removed(&mut self, dir: u64, name: &[u8]) {
        if let Some(dir) = self.inodes.get(&dir).copied()
            && let Some(node) = self.now.names.get(&(dir, name.to_vec())).copied()
        {
            self.push(Change::Remove { at: (dir, name.to_vec()), node }, None);
        }
    }

    pub(crate) fn changed(&mut self, inode: Option<u64>, change: impl FnOnce(Node) -> Change) {
        if let Some(node) = inode.and_then(|inode| self.inodes.get(&inode).copied()) {
            self.push(change(node), None);
        }
    }

    pub(crate) fn synced(
        &mut self,
        inode: Option<u64>,
        site: &'static Location<'static>,
        change: impl FnOnce(Node) -> Change,
    ) {
        if let Some(node) = inode.and_then(|inode| self.inodes.get(&inode).copied()) {
            self.push(change(node), Some(site));
        }
    }
}

/// Does with the names of a tree what a change says. Contents are another matter.
pub(crate) fn apply_name(image: &mut Image, change: &Change) {
    match change {
        Change::Make { at, node, is_dir } => {
            image.names.insert(at.clone(), *node);
            if *is_dir {
                image.dirs.insert(*node);
            } else {
                image.files.insert(*node, Content::new());
            }
        }
        Change::Rename { from, to, node } => {
            image.names.remove(from);
            image.names.insert(to.clone(), *node);
        }
        Change::Link { to, node } => drop(image.names.insert(to.clone(), *node)),
        Change::Remove { at, .. } => drop(image.names.remove(at)),
        _ => {}
    }
}

/// Does with the content of a file what a change says.
pub(crate) fn apply_content(content: &mut Content, change: &Change) {
    match change {
        Change::Write { offset, bytes, .. } => content.write(*offset, bytes),
        Change::Resize { length, .. } => content.resize(*length),
        Change::Mode { mode, .. } => content.mode = *mode,
        _ => {}
    }
}
