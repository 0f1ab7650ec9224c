//! What a disk holds: directories, files and their names, in memory.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// A file or a directory, whatever it is called: an inode that is never used again.
pub(crate) type Node = usize;

/// The directory in which everything is.
pub(crate) const ROOT: Node = 0;

/// A name in a directory.
pub(crate) type Place = (Node, Vec<u8>);

/// The content of a file. Zeros at its end are not kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Content {
    bytes: Vec<u8>,
    length: u64,
    pub(crate) mode: u32,
}

impl Content {
    /// An empty file as the queue makes them.
    pub(crate) fn new() -> Self {
        Self { bytes: Vec::new(), length: 0, mode: 0o600 }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        let start = usize::try_from(offset).unwrap();
        let end = start + bytes.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
        self.length = self.length.max(end as u64);
        self.trim();
    }

    pub(crate) fn resize(&mut self, length: u64) {
        self.bytes.truncate(usize::try_from(length).unwrap());
        self.length = length;
        self.trim();
    }

    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    fn trim(&mut self) {
        let end = self.bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        self.bytes.truncate(end);
    }
}

/// A tree of files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Image {
    pub(crate) names: BTreeMap<Place, Node>,
    pub(crate) dirs: BTreeSet<Node>,
    pub(crate) files: BTreeMap<Node, Content>,
}

impl Image {
    /// What is below `path` now, and which inode is which node.
    pub(crate) fn read(path: &Path) -> io::Result<(Self, HashMap<u64, Node>)> {
        let mut image = Self { dirs: BTreeSet::from([ROOT]), ..Self::default() };
        let mut inodes = HashMap::from([(fs::metadata(path)?.ino(), ROOT)]);
        let mut waiting = vec![(path.to_owned(), ROOT)];
        while let Some((path, dir)) = waiting.pop() {
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                let metadata = entry.metadata()?;
                let known = inodes.len();
                let node = *inodes.entry(metadata.ino()).or_insert(known);
                image.names.insert((dir, entry.file_name().as_bytes().to_vec()), node);
                if metadata.is_dir() {
                    image.dirs.insert(node);
                    waiting.push((entry.path(), node));
                } else {
                    let mut content = Content::new();
                    content.write(0, &fs::read(entry.path())?);
                    content.resize(metadata.len());
                    content.mode = metadata.mode() & 0o7777;
                    image.files.insert(node, content);
                }
            }
        }
        Ok((image, inodes))
    }

    /// Everything by its path from the root; what no path leads to is not on the disk.
    fn paths(&self) -> BTreeMap<PathBuf, Node> {
        let mut children: BTreeMap<Node, Vec<(&[u8], Node)>> = BTreeMap::new();
        for ((dir, name), node) in &self.names {
            children.entry(*dir).or_default().push((name, *node));
        }
        let mut paths = BTreeMap::new();
        let mut waiting = vec![(PathBuf::new(), ROOT)];
        while let Some((path, dir)) = waiting.pop() {
            for (name, node) in children.get(&dir).into_iter().flatten() {
                let path = path.join(OsStr::from_bytes(name));
                if self.dirs.contains(node) {
                    waiting.push((path.clone(), *node));
                }
                paths.insert(path, *node);
            }
        }
        paths
    }

    /// Equal for trees that nobody can tell apart.
    pub(crate) fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        let mut numbers: HashMap<Node, usize> = HashMap::new();
        for (path, node) in self.paths() {
            path.hash(&mut hasher);
            let next = numbers.len();
            // Which names are of one file, not how it is numbered.
            numbers.entry(node).or_insert(next).hash(&mut hasher);
            self.files.get(&node).hash(&mut hasher);
        }
        hasher.finish()
    }

    /// Makes the tree at `root`, which must not exist.
    pub(crate) fn materialise(&self, root: &Path) -> io::Result<()> {
        let make_dir = |path: &Path| fs::DirBuilder::new().mode(0o700).create(path);
        make_dir(root)?;
        let mut made: HashMap<Node, PathBuf> = HashMap::new();
        // Parents come before what is in them.
        for (path, node) in self.paths() {
            let path = root.join(path);
            if let Some(first) = made.get(&node) {
                fs::hard_link(first, &path)?;
            } else if self.dirs.contains(&node) {
                make_dir(&path)?;
            } else {
                let content = &self.files[&node];
                let file = File::create_new(&path)?;
                file.write_all_at(&content.bytes, 0)?;
                file.set_len(content.length)?;
                file.set_permissions(Permissions::from_mode(content.mode))?;
                made.insert(node, path);
            }
        }
        Ok(())
    }

    /// The tree for people, a line each.
    pub(crate) fn describe(&self) -> String {
        let line = |(path, node): (PathBuf, Node)| match self.files.get(&node) {
            None => format!("  {}/\n", path.display()),
            Some(file) => format!(
                "  {} ({} of {} bytes, {:o})\n",
                path.display(),
                file.bytes.len(),
                file.length,
                file.mode
            ),
        };
        self.paths().into_iter().map(line).collect()
    }
}
