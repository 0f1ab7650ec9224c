//! The directories of a queue: made where they are missing, checked, and held open.

use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;

use sendmail_core::{Error, ErrorKind, ResourceId, Result};

use crate::disk::Dir;
use crate::name::OwnerId;

/// Says what the queue is called and in which version its directories are laid out.
const IDENTITY: &str = ".queue";
const IDENTITY_VERSION: &str = "version 1";

/// All directories of one queue.
#[derive(Debug)]
pub(crate) struct Layout {
    pub(crate) root: Dir,
    pub(crate) tmp: Dir,
    pub(crate) new: Dir,
    pub(crate) cur: Dir,
    pub(crate) owners: Dir,
    pub(crate) staged: Dir,
    pub(crate) lanes: Dir,
    pub(crate) claimed: Dir,
    pub(crate) deferred: Dir,
    pub(crate) held: Dir,
    failed: Dir,
    pub(crate) failed_tmp: Dir,
    pub(crate) failed_new: Dir,
    pub(crate) failed_cur: Dir,
    pub(crate) discarded: Dir,
    pub(crate) journal: Dir,
    pub(crate) wishes: Dir,
    /// The name under which this queue decides transactions.
    pub(crate) resource: ResourceId,
    /// What an operator should know about where the queue is.
    pub(crate) warnings: Vec<String>,
    /// Whose files may be in the queue: ours and the queue directory's owner's.
    trusted: [u32; 2],
}

impl Layout {
    /// Opens the queue at `path` for `owner`. It is made if it is missing, and named after its maker.
    pub(crate) fn open(path: &Path, owner: OwnerId) -> Result<Self> {
        let trouble = |error: io::Error| {
            let error = match error.kind() {
                // Trying again does not help, as it may with other trouble.
                io::ErrorKind::Unsupported => {
                    Error::new(ErrorKind::Unsupported, "open the queue", error.to_string())
                }
                _ => Error::io("open the queue", error),
            };
            error.with("path", path.display())
        };
        check_umask(path)?;
        make_root(path).map_err(trouble)?;
        let root = Dir::open(path).map_err(trouble)?;
        let warnings = check_place(&root)?;
        Self::open_all(root, owner, warnings).map_err(trouble)
    }

    fn open_all(root: Dir, owner: OwnerId, warnings: Vec<String>) -> io::Result<Self> {
        let failed = root.open_or_make_dir(".failed")?;
        let mut layout = Self {
            tmp: root.open_or_make_dir("tmp")?,
            new: root.open_or_make_dir("new")?,
            cur: root.open_or_make_dir("cur")?,
            owners: root.open_or_make_dir(".owners")?,
            staged: root.open_or_make_dir(".staged")?,
            lanes: root.open_or_make_dir(".lanes")?,
            claimed: root.open_or_make_dir(".claimed")?,
            deferred: root.open_or_make_dir(".deferred")?,
            held: root.open_or_make_dir(".held")?,
            failed_tmp: failed.open_or_make_dir("tmp")?,
            failed_new: failed.open_or_make_dir("new")?,
            failed_cur: failed.open_or_make_dir("cur")?,
            failed,
            discarded: root.open_or_make_dir(".discarded")?,
            journal: root.open_or_make_dir(".journal")?,
            wishes: root.open_or_make_dir(".wishes")?,
            resource: identity(&root, owner)?,
            warnings,
            trusted: [rustix::process::geteuid().as_raw(), root.owner_and_mode()?.0],
            root,
        };
        layout.check_one_device()?;
        let open = layout.check_permissions()?;
        layout.warnings.extend(open);
        // Also what was there: whoever made it may have died before it was synced.
        layout.failed.sync()?;
        layout.root.sync()?;
        Ok(layout)
    }

    /// Every directory is the queue's owner's or ours, and nobody else's to write to: whoever may write
    /// to one of them can take mail out of it. Returns what an operator should know.
    fn check_permissions(&self) -> io::Result<Vec<String>> {
        let mut warnings = Vec::new();
        for dir in std::iter::once(&self.root).chain(self.all()) {
            let place = dir.path().display();
            let refuse = |why: String| Err(io::Error::new(io::ErrorKind::Unsupported, why));
            let (uid, mode) = dir.owner_and_mode()?;
            if !self.trusts(uid) {
                return refuse(format!(
                    "{place} belongs to user {uid}, who is not the queue's owner; find out who made \
                     it, and chown it"
                ));
            }
            if mode & 0o002 != 0 {
                return refuse(format!("everybody may write to {place}; chmod o-w it first"));
            }
            if mode & 0o020 != 0 {
                warnings.push(format!(
                    "its group may write to {place}, and so remove mail from the queue; chmod g-w it"
                ));
            }
        }
        Ok(warnings)
    }

    /// A rename moves a message only within one file system.
    fn check_one_device(&self) -> io::Result<()> {
        let device = self.root.device()?;
        for dir in self.all() {
            if dir.device()? != device {
                let place = dir.path().display();
                return Err(io::Error::other(format!(
                    "the queue spans two file systems: {place} is on another one than the rest"
                )));
            }
        }
        Ok(())
    }

    /// Every directory but the root.
    fn all(&self) -> [&Dir; 16] {
        [
            &self.tmp,
            &self.new,
            &self.cur,
            &self.staged,
            &self.lanes,
            &self.claimed,
            &self.deferred,
            &self.held,
            &self.failed,
            &self.failed_tmp,
            &self.failed_new,
            &self.failed_cur,
            &self.discarded,
            &self.journal,
            &self.owners,
            &self.wishes,
        ]
    }

    /// Whether files of this user may be in the queue.
    pub(crate) fn trusts(&self, uid: u32) -> bool {
        self.trusted.contains(&uid)
    }
}

/// Makes the queue's directory and those above it that are missing, and makes their names durable.
fn make_root(path: &Path) -> io::Result<()> {
    let missing: Vec<&Path> = path.ancestors().take_while(|path| !path.exists()).collect();
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
    let sync_parent = |made: &Path| {
        let parent = made.parent().filter(|parent| !parent.as_os_str().is_empty());
        Dir::open(parent.unwrap_or(Path::new(".")))?.sync()
    };
    for made in &missing {
        sync_parent(made)?;
    }
    if missing.is_empty() {
        // Whoever made it may have died before it was synced. A parent that is not ours to open was
        // not made by us.
        match sync_parent(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {}
            other => other?,
        }
    }
    Ok(())
}

/// Refuses places where a queue loses mail or anybody may write; warns of those that forget.
fn check_place(root: &Dir) -> Result<Vec<String>> {
    const NETWORK: [(i64, &str); 6] = [
        (0x6969, "NFS"),
        (0xff53_4d42, "CIFS"),
        (0xfe53_4d42, "SMB"),
        (0x517b, "SMB"),
        (0x0102_1997, "9p"),
        (0x6b41_4653, "AFS"),
    ];
    const TMPFS: i64 = 0x0102_1994;
    let place = || root.path().display();
    let refuse = |message: String| {
        Err(Error::new(ErrorKind::Unsupported, "open the queue", message).with("path", place()))
    };
    let (uid, mode) = root.owner_and_mode().map_err(|error| Error::io("open the queue", error))?;
    let we = rustix::process::geteuid();
    // Root may look after another's queue; whose files are taken there, `trusts` says.
    if uid != we.as_raw() && !we.is_root() {
        return refuse(format!(
            "the queue directory belongs to user {uid}, and this is user {}; run as its owner, or \
             chown it",
            we.as_raw()
        ));
    }
    if mode & 0o002 != 0 {
        return refuse("everybody may write to the queue directory; chmod o-w it first".to_owned());
    }
    let magic = root.file_system().map_err(|error| Error::io("open the queue", error))?;
    if let Some((_, name)) = NETWORK.iter().find(|(number, _)| *number == magic) {
        return refuse(format!("a queue needs a local disk, and this is {name}"));
    }
    let mut warnings = Vec::new();
    if magic == TMPFS {
        warnings.push(format!("{} is in memory (tmpfs): a restart loses all mail in it", place()));
    }
    if is_volatile_overlay(root.path()) {
        warnings.push(format!("{} is on a volatile overlay, which syncs nothing", place()));
    }
    Ok(warnings)
}

/// A umask may take rights from others, but not from the owner: what is made then could not be read again.
fn check_umask(path: &Path) -> Result<()> {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    let umask = umask.and_then(|text| u32::from_str_radix(text.trim(), 8).ok()).unwrap_or(0);
    if umask & 0o700 == 0 {
        return Ok(());
    }
    let why = format!("the umask {umask:04o} takes rights from the owner; set it to 0077");
    Err(Error::new(ErrorKind::Unsupported, "open the queue", why).with("path", path.display()))
}

fn is_volatile_overlay(path: &Path) -> bool {
    let Ok(path) = path.canonicalize() else { return false };
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let mount = mounts
        .lines()
        .filter_map(|line| {
            let mut words = line.split(' ').skip(1);
            Some((words.next()?, words.next()?, words.next()?))
        })
        .filter(|(point, ..)| path.starts_with(point))
        .max_by_key(|(point, ..)| point.len());
    mount.is_some_and(|(_, kind, options)| {
        kind == "overlay" && options.split(',').any(|option| option == "volatile")
    })
}

/// Reads the queue's name, or gives it one. Many may try at once.
fn identity(root: &Dir, owner: OwnerId) -> io::Result<ResourceId> {
    loop {
        match root.read(IDENTITY.as_bytes(), 1024) {
            Ok(content) => return parse_identity(&content),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let temporary = format!("{IDENTITY}.{owner}").into_bytes();
        let content = format!("{IDENTITY_VERSION}\nresource q-{}\n", owner.simple());
        root.write_synced(&temporary, &[content.as_bytes()])?;
        match root.rename_new(&temporary, root, IDENTITY.as_bytes()) {
            // The root is synced when all is there.
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                root.unlink(&temporary)?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn parse_identity(content: &[u8]) -> io::Result<ResourceId> {
    let text = String::from_utf8_lossy(content);
    let mut lines = text.lines();
    let version = lines.next();
    let resource = lines.next().and_then(|line| line.strip_prefix("resource "));
    match (version, resource.and_then(|name| name.parse().ok())) {
        (Some(IDENTITY_VERSION), Some(resource)) => Ok(resource),
        (Some(version), _) if version.starts_with("version ") && version != IDENTITY_VERSION => {
            Err(io::Error::new(
                io::ErrorKind::Unsupported,
                format!("the queue is laid out by a newer program ({version}); update this one"),
            ))
        }
        _ => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the file {IDENTITY} is damaged; restore it from a backup"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const OWNER: OwnerId = OwnerId::from_bytes([1; 16]);

    // Proves: A-symlink, I16
    #[test]
    fn a_queue_keeps_its_name_and_is_for_its_owner_alone() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("a/queue");
        let resource = Layout::open(&path, OWNER).unwrap().resource;
        assert_eq!(Layout::open(&path, OWNER).unwrap().resource, resource);
        for name in ["", "new", "tmp", ".journal", ".failed/new"] {
            let mode = std::fs::metadata(path.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{name}");
        }
    }

    // Proves: A-symlink
    #[test]
    fn a_queue_that_everybody_may_write_to_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::set_permissions(temp.path(), PermissionsExt::from_mode(0o777)).unwrap();
        let error = Layout::open(temp.path(), OWNER).unwrap_err();
        assert!(error.to_string().contains("everybody may write"), "{error}");
    }

    // Proves: A-symlink
    #[test]
    fn a_link_in_the_place_of_a_directory_is_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        for name in DIRECTORIES {
            let temp = tempfile::tempdir().unwrap();
            drop(Layout::open(temp.path(), OWNER).unwrap());
            std::fs::remove_dir_all(temp.path().join(name)).unwrap();
            std::os::unix::fs::symlink(outside.path(), temp.path().join(name)).unwrap();
            assert!(Layout::open(temp.path(), OWNER).is_err(), "{name}");
        }
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);
    }

    // Proves: A-symlink
    #[test]
    fn a_directory_that_others_may_write_to_is_refused_and_named() {
        for name in DIRECTORIES.into_iter().chain([".failed/new"]) {
            let temp = tempfile::tempdir().unwrap();
            drop(Layout::open(temp.path(), OWNER).unwrap());
            let path = temp.path().join(name);
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o722)).unwrap();
            let error = Layout::open(temp.path(), OWNER).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{name}");
            let told = error.to_string();
            assert!(told.contains("chmod o-w") && told.contains(name), "{name}: {told}");
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o720)).unwrap();
            let told = Layout::open(temp.path(), OWNER).unwrap().warnings.join("\n");
            assert!(told.contains("chmod g-w") && told.contains(name), "{name}: {told}");
        }
    }

    const DIRECTORIES: [&str; 13] = [
        "tmp",
        "new",
        "cur",
        ".owners",
        ".staged",
        ".lanes",
        ".claimed",
        ".deferred",
        ".held",
        ".failed",
        ".discarded",
        ".journal",
        ".wishes",
    ];

    // Proves: B-unknown-format
    #[test]
    fn a_newer_layout_is_left_alone() {
        let temp = tempfile::tempdir().unwrap();
        std::fs::write(temp.path().join(IDENTITY), "version 2\nresource q\n").unwrap();
        let error = Layout::open(temp.path(), OWNER).unwrap_err();
        assert!(error.to_string().contains("newer program"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
