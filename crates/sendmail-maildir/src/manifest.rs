//! Deciding transactions that have several mails and no database.
//!
//! A proposal is a manifest: a file that names the messages, written and synced while the transaction
//! prepares. The decision is its execute permission: setting it needs no disk block, so that it cannot
//! fail for lack of room, and it is one change to one file, so that all the messages are decided or
//! none is. A manifest is removed when all its messages are published and that is durable.
//!
//! The answer "aborted" must be final. A message that no manifest names may be one whose transaction is
//! still being prepared by somebody else, so a fence is left with the answer: a proposal over a fenced
//! message fails, and nobody publishes it any more.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

use sendmail_core::{Decision, Error, ErrorKind, QueueId, Result, TransactionId};
use sha2::{Digest as _, Sha256};

use crate::disk::{Dir, insist, set_mode, sync};
use crate::name::{MessageName, OwnerId, parse_owner};
use crate::owner;
use crate::queue::{Queue, gone, is_bad, lock, uncertain};

const VERSION_LINE: &str = "version 1";
const DECIDED: u32 = 0o700;
/// Decided, and the sync of that failed: a sync of the same file proves nothing any more.
const DOUBTFUL: u32 = 0o710;
const DECIDED_BIT: u32 = 0o100;
const DOUBTFUL_BIT: u32 = 0o010;
/// The longest manifest that is read: some hundred thousand messages.
const MAX_MANIFEST: u64 = 16 << 20;

/// What this process proposed.
#[derive(Debug, Clone)]
pub(crate) enum Proposal {
    /// The manifest, held open: deciding opens nothing.
    Open(Arc<File>),
    /// The decision is durable.
    Decided,
    /// After an error of the disk nothing is known about it any more, and nothing is done to it.
    Uncertain,
}

/// A manifest as it is found in the directory.
#[derive(Debug)]
pub(crate) struct Manifest {
    pub(crate) transaction: TransactionId,
    pub(crate) owner: OwnerId,
    /// All messages that it decides.
    pub(crate) ids: Vec<QueueId>,
    /// Those of them that are in this queue; the others are in queues that name this one.
    pub(crate) own: Vec<QueueId>,
    pub(crate) decided: bool,
    /// Whether it proves itself whole; if not it names nothing.
    pub(crate) whole: bool,
    /// Whether the sync of the decision failed.
    doubtful: bool,
}

impl Queue {
    /// The directory of transactions that this queue decides.
    pub(crate) fn own_staged(&self) -> io::Result<Dir> {
        self.layout.staged.make_dir(self.layout.resource.as_str())
    }

    pub(crate) fn propose(&self, transaction: TransactionId, ids: &[QueueId]) -> Result<()> {
        let operation = "propose the transaction";
        if lock(&self.proposals).contains_key(&transaction) {
            // A call that was repeated because its first answer was lost.
            return Ok(());
        }
        let propose = || -> io::Result<Option<QueueId>> {
            let dir = self.own_staged()?;
            let name = manifest_name(transaction, self.owner.id);
            let own = |id: &QueueId| lock(&self.written).contains_key(id);
            // Of a call that failed half-way: nobody decides by it.
            gone(dir.unlink(&name))?;
            dir.write_synced(&name, &[&encode(transaction, ids, own)])?;
            dir.sync()?;
            // Manifest first, then the fences; who fences leaves the fence first, then looks for
            // manifests. So at least one of the two sees the other.
            for id in ids {
                if dir.exists(&fence_name(*id))? {
                    dir.unlink(&name)?;
                    return Ok(Some(*id));
                }
            }
            let file = dir.open_file(&name, true)?;
            lock(&self.proposals).insert(transaction, Proposal::Open(Arc::new(file)));
            Ok(None)
        };
        match propose() {
            Ok(None) => Ok(()),
            Ok(Some(id)) => Err(Error::new(
                ErrorKind::Aborted,
                operation,
                "it took so long that recovery has given it up; run the transaction again",
            )
            .with("queue id", id)),
            Err(error) => Err(Error::io(operation, error).with("transaction", transaction)),
        }
    }

    pub(crate) fn decide(&self, transaction: TransactionId) -> Result<()> {
        let operation = "decide the transaction";
        let proposal = lock(&self.proposals).get(&transaction).cloned();
        let file = match proposal {
            Some(Proposal::Open(file)) => file,
            Some(Proposal::Decided) => return Ok(()),
            Some(Proposal::Uncertain) => {
                let before = io::Error::other("the decision failed before");
                return Err(uncertain(operation, before).with("transaction", transaction));
            }
            None => {
                let message = "it was not proposed, or was withdrawn";
                let error = Error::new(ErrorKind::Aborted, operation, message);
                return Err(error.with("transaction", transaction));
            }
        };
        let marked = match set_mode(&file, DECIDED) {
            Err(error) if is_undecided(&file) => {
                if is_bad(&error) {
                    // Others may find it marked all the same, and sync it before they act upon it.
                    lock(&self.proposals).insert(transaction, Proposal::Uncertain);
                    return Err(uncertain(operation, error).with("transaction", transaction));
                }
                // Refused before it was done: it is undecided, and stays so.
                lock(&self.proposals).remove(&transaction);
                return Err(Error::new(ErrorKind::Aborted, operation, error.to_string())
                    .with_source(error)
                    .with("transaction", transaction));
            }
            marked => marked,
        };
        // The whole inode: `fdatasync` would leave the permissions behind.
        if let Err(error) = marked.and_then(|()| sync(&file)) {
            lock(&self.proposals).insert(transaction, Proposal::Uncertain);
            // For others, who would sync it once more and believe that. They write it anew instead.
            insist(|| set_mode(&file, DOUBTFUL));
            return Err(uncertain(operation, error).with("transaction", transaction));
        }
        lock(&self.proposals).insert(transaction, Proposal::Decided);
        Ok(())
    }

    pub(crate) fn retract(&self, transaction: TransactionId) -> Result<()> {
        let retract = || -> io::Result<()> {
            let dir = self.own_staged()?;
            let name = manifest_name(transaction, self.owner.id);
            match dir.stat(&name) {
                Ok(stat) if stat.st_mode & DECIDED_BIT == 0 => gone(dir.unlink(&name)).map(drop),
                _ => Ok(()),
            }
        };
        lock(&self.proposals).remove(&transaction);
        retract().map_err(|error| {
            Error::io("retract the transaction", error).with("transaction", transaction)
        })
    }

    pub(crate) fn visible(&self, ids: &[QueueId]) -> Result<Vec<QueueId>> {
        let read = || -> io::Result<Vec<QueueId>> {
            let mut visible = HashSet::new();
            for manifest in self.manifests()?.iter().filter(|manifest| manifest.decided) {
                let before = visible.len();
                visible.extend(ids.iter().filter(|id| manifest.ids.contains(id)).copied());
                if visible.len() > before {
                    self.ensure_decided(manifest)?;
                }
            }
            Ok(ids.iter().filter(|id| visible.contains(id)).copied().collect())
        };
        read().map_err(|error| Error::io("read the decisions", error))
    }

    /// Makes a decision durable before anybody acts upon it: whoever took it may have died, or failed,
    /// between marking the manifest and syncing the mark. Otherwise a crash could undo it when half of
    /// its messages are published.
    fn ensure_decided(&self, manifest: &Manifest) -> io::Result<()> {
        if matches!(lock(&self.proposals).get(&manifest.transaction), Some(Proposal::Decided)) {
            return Ok(());
        }
        let dir = self.own_staged()?;
        if manifest.doubtful {
            return self.write_decided(&dir, manifest, &manifest.ids);
        }
        match dir.open_file(&manifest_name(manifest.transaction, manifest.owner), false) {
            // As in `decide`: whoever comes next must not sync it once more and believe that.
            Ok(file) => sync(&file).inspect_err(|_| insist(|| set_mode(&file, DOUBTFUL))),
            // Forgotten since it was read: all is published.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn fence(&self, id: QueueId) -> Result<Decision> {
        let fence = || -> io::Result<Decision> {
            match self.look_up(id)? {
                Some(decision @ (Decision::Committed | Decision::Unfinished)) => {
                    return Ok(decision);
                }
                Some(Decision::Aborted) | None => {}
            }
            let dir = self.own_staged()?;
            match dir.create(&fence_name(id)) {
                Ok(file) => sync(&file)?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            dir.sync()?;
            Ok(self.look_up(id)?.unwrap_or(Decision::Aborted))
        };
        fence().map_err(|error| Error::io("fence the message", error).with("queue id", id))
    }

    /// What is known about a message without leaving a fence.
    fn look_up(&self, id: QueueId) -> io::Result<Option<Decision>> {
        let manifests = self.manifests()?;
        if let Some(manifest) = manifests.iter().find(|manifest| manifest.ids.contains(&id)) {
            return self.judge(manifest).map(Some);
        }
        // Our own queue's message, whose writer may be about to propose or to publish it.
        match self.writer_of(id)? {
            Some(writer) if owner::is_alive(&self.layout.owners, writer)? => {
                Ok(Some(Decision::Unfinished))
            }
            // Nobody but its writer publishes a message that no manifest names.
            Some(_) => Ok(Some(Decision::Aborted)),
            None => Ok(None),
        }
    }

    /// What a manifest means: a dead owner decides nothing any more.
    pub(crate) fn judge(&self, manifest: &Manifest) -> io::Result<Decision> {
        if manifest.decided {
            self.ensure_decided(manifest)?;
            return Ok(Decision::Committed);
        }
        if owner::is_alive(&self.layout.owners, manifest.owner)? {
            return Ok(Decision::Unfinished);
        }
        // It may have decided as its last deed, after it was looked at.
        let name = manifest_name(manifest.transaction, manifest.owner);
        match self.own_staged()?.stat(&name) {
            // Read anew when it is asked for the next time.
            Ok(stat) if stat.st_mode & DECIDED_BIT != 0 => Ok(Decision::Unfinished),
            Ok(_) => Ok(Decision::Aborted),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Decision::Unfinished),
            // Nothing may be thrown away for want of an answer.
            Err(error) => Err(error),
        }
    }

    /// Who wrote an undecided message of a transaction that this queue decides.
    fn writer_of(&self, id: QueueId) -> io::Result<Option<OwnerId>> {
        for (dir, in_tmp) in [(&self.layout.tmp, true), (&self.own_staged()?, false)] {
            for name in dir.names()? {
                let bytes = name?.bytes;
                let Some(name) = MessageName::decode(&bytes).filter(|name| name.id == id) else {
                    continue;
                };
                let head = || crate::undecided::read_head(dir, &bytes);
                if !in_tmp || head().is_none_or(|head| head.resource == self.layout.resource) {
                    return Ok(name.owner);
                }
            }
        }
        Ok(None)
    }

    pub(crate) fn forget(&self, ids: &[QueueId]) -> Result<()> {
        let forget = || -> io::Result<()> {
            let dir = self.own_staged()?;
            for manifest in self.manifests()? {
                if !manifest.decided || !manifest.ids.iter().any(|id| ids.contains(id)) {
                    continue;
                }
                let rest: Vec<QueueId> =
                    manifest.ids.iter().filter(|id| !ids.contains(id)).copied().collect();
                if rest.is_empty() {
                    gone(dir.unlink(&manifest_name(manifest.transaction, manifest.owner)))?;
                    lock(&self.proposals).remove(&manifest.transaction);
                } else {
                    self.write_decided(&dir, &manifest, &rest)?;
                }
            }
            Ok(())
        };
        forget().map_err(|error| Error::io("forget the decisions", error))
    }

    /// Replaces a decided manifest by one that names these of its messages.
    fn write_decided(&self, dir: &Dir, manifest: &Manifest, rest: &[QueueId]) -> io::Result<()> {
        // Two threads may write two of them at once.
        let temporary = format!(".new-{}-{}", self.owner.id, manifest.transaction).into_bytes();
        gone(dir.unlink(&temporary))?;
        let own = |id: &QueueId| manifest.own.contains(id);
        let file = dir.write_file(&temporary, &[&encode(manifest.transaction, rest, own)])?;
        set_mode(&file, DECIDED)?;
        sync(&file)?;
        dir.rename(&temporary, dir, &manifest_name(manifest.transaction, manifest.owner))?;
        // Whoever comes next writes it anew once more, and does not rely on its name.
        dir.sync().inspect_err(|_| insist(|| set_mode(&file, DOUBTFUL)))
    }

    /// All manifests that can be read. One that cannot was never synced: it is undecided, and names
    /// nothing.
    pub(crate) fn manifests(&self) -> io::Result<Vec<Manifest>> {
        let dir = self.own_staged()?;
        let mut manifests = Vec::new();
        for name in dir.names()? {
            let bytes = name?.bytes;
            let Some((transaction, owner)) = parse_manifest_name(&bytes) else { continue };
            let read = || -> io::Result<(Option<Named>, u32)> {
                // The permissions first: what they say was true of the content that is read then.
                let mode = dir.stat(&bytes)?.st_mode;
                let content = dir.read(&bytes, MAX_MANIFEST)?;
                Ok((decode(&content, transaction), mode))
            };
            match read() {
                Ok((named, mode)) => {
                    let whole = named.is_some();
                    let Named { ids, own } = named.unwrap_or_default();
                    let (decided, doubtful) = (mode & DECIDED_BIT != 0, mode & DOUBTFUL_BIT != 0);
                    manifests.push(Manifest {
                        transaction,
                        owner,
                        ids,
                        own,
                        decided,
                        whole,
                        doubtful,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        Ok(manifests)
    }
}

pub(crate) fn manifest_name(transaction: TransactionId, owner: OwnerId) -> Vec<u8> {
    format!("{transaction}.tx.o{owner}").into_bytes()
}

fn parse_manifest_name(name: &[u8]) -> Option<(TransactionId, OwnerId)> {
    let (transaction, owner) = std::str::from_utf8(name).ok()?.split_once(".tx.o")?;
    Some((transaction.parse().ok()?, parse_owner(owner)?))
}

pub(crate) fn fence_name(id: QueueId) -> Vec<u8> {
    format!("{id}.fence").into_bytes()
}

/// Whether this is the name of a fence.
pub(crate) fn is_fence(name: &[u8]) -> bool {
    let id = std::str::from_utf8(name).ok().and_then(|text| text.strip_suffix(".fence"));
    id.is_some_and(|id| id.parse::<QueueId>().is_ok())
}

fn encode(transaction: TransactionId, ids: &[QueueId], own: impl Fn(&QueueId) -> bool) -> Vec<u8> {
    let mut text = format!("{VERSION_LINE}\ntransaction {transaction}\n");
    for id in ids {
        let whose = if own(id) { "own" } else { "other" };
        text.push_str(&format!("{whose} {id}\n"));
    }
    let sum = checksum(&text);
    text.push_str(&format!("sha256 {sum}\n"));
    text.into_bytes()
}

/// The messages that a manifest names: all, and those of its own queue.
#[derive(Debug, Default, PartialEq, Eq)]
struct Named {
    ids: Vec<QueueId>,
    own: Vec<QueueId>,
}

/// What a manifest names; nothing if it does not prove itself whole.
fn decode(content: &[u8], transaction: TransactionId) -> Option<Named> {
    let text = std::str::from_utf8(content).ok()?;
    let (covered, sum) = text.split_at(text.rfind("sha256 ")?);
    let sum = sum.strip_prefix("sha256 ")?.strip_suffix('\n')?;
    let mut lines = covered.lines();
    let right = lines.next()? == VERSION_LINE
        && lines.next()? == format!("transaction {transaction}")
        && checksum(covered) == sum;
    right.then_some(())?;
    let mut named = Named::default();
    for line in lines {
        let (whose, id) = line.split_once(' ')?;
        let id = id.parse().ok()?;
        named.ids.push(id);
        match whose {
            "own" => named.own.push(id),
            "other" => {}
            _ => return None,
        }
    }
    Some(named)
}

fn checksum(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Reads bytes as a manifest and as names, for the fuzzers.
#[cfg(fuzzing)]
pub(crate) fn fuzz(bytes: &[u8]) {
    let _ = decode(bytes, TransactionId::from_bytes([0; 16]));
    let _ = (parse_manifest_name(bytes), is_fence(bytes));
}

/// Whether nobody can take it for decided. After an error, as beyond a quota, btrfs may have changed the
/// mode all the same, and others may have seen it and published.
fn is_undecided(file: &File) -> bool {
    file.metadata().is_ok_and(|data| data.mode() & DECIDED_BIT == 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::{Op, faults};
    use crate::options::MaildirOptions;
    use proptest::prelude::*;
    use sendmail_core::{Envelope, Message, NewMessage, Timestamp};
    use uuid::Uuid;

    proptest! {
        #[test]
        fn a_manifest_is_read_back_or_names_nothing(
            ids in prop::collection::vec(any::<[u8; 16]>(), 0..5), cut in 0usize..400
        ) {
            let transaction = TransactionId::from_bytes([1; 16]);
            let ids: Vec<_> = ids.into_iter().map(QueueId::from_bytes).collect();
            let is_own = |id: &QueueId| id.as_bytes()[0] < 128;
            let content = encode(transaction, &ids, is_own);
            let own = ids.iter().filter(|id| is_own(id)).copied().collect();
            prop_assert_eq!(decode(&content, transaction), Some(Named { ids, own }));
            prop_assert_eq!(decode(&content[..cut % content.len()], transaction), None);
            prop_assert_eq!(decode(&content, TransactionId::from_bytes([2; 16])), None);
        }
    }

    // Proves: I1, I6
    #[test]
    fn a_manifest_in_which_a_byte_was_changed_names_nothing() {
        let transaction = TransactionId::from_bytes([1; 16]);
        let ids = [QueueId::from_bytes([0x22; 16]), QueueId::from_bytes([0x33; 16])];
        let content = encode(transaction, &ids, |_| true);
        for at in 0..content.len() {
            let mut changed = content.clone();
            changed[at] ^= 1;
            assert_eq!(decode(&changed, transaction), None, "{at}");
        }
        let of_nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(checksum(""), of_nothing, "FIPS 180-4");
    }

    #[test]
    fn a_decision_that_is_durable_is_not_written_anew() {
        let temp = tempfile::tempdir().unwrap();
        let open = || Queue::open(temp.path(), MaildirOptions::default()).unwrap();
        let (queue, other) = (open(), open());
        let transaction = TransactionId::from_bytes([1; 16]);
        let ids = [QueueId::from_bytes([2; 16]), QueueId::from_bytes([3; 16])];
        queue.propose(transaction, &ids).unwrap();
        queue.decide(transaction).unwrap();
        let (told, operations) = faults::listed(|| other.visible(&ids).unwrap());
        assert_eq!(told, ids);
        assert!(!operations.contains(&Op::Rename) && operations.contains(&Op::Sync));
    }

    /// A living writer may be about to decide; of a message whose fate a database decides he never is.
    #[test]
    fn a_fence_waits_for_the_writer_of_a_message_that_this_queue_decides() {
        let temp = tempfile::tempdir().unwrap();
        let open = || Queue::open(temp.path(), MaildirOptions::default()).unwrap();
        let (queue, other) = (open(), open());
        let own = queue.layout.resource.clone();
        for (number, resource, decision) in
            [(1, own, Decision::Unfinished), (2, "database".parse().unwrap(), Decision::Aborted)]
        {
            let id = QueueId::from_bytes([number; 16]);
            let raw = format!("Message-ID: <{id}@test>\nDate: d\n\nbody\n");
            let message = Message::from_raw(raw.as_bytes(), Timestamp::EPOCH, "test").unwrap();
            let envelope = Envelope::parse("from@x", ["to@x"]).unwrap();
            queue.write(&NewMessage { id, envelope, message, resource }).unwrap();
            assert_eq!(other.fence(id).unwrap(), decision, "{number}");
        }
    }

    /// The mark can be seen, and is perhaps not on the disk: a second sync of that file would prove
    /// nothing.
    #[test]
    fn a_decision_whose_sync_failed_is_written_anew_before_anybody_acts_upon_it() {
        let temp = tempfile::tempdir().unwrap();
        let open = || Queue::open(temp.path(), MaildirOptions::default()).unwrap();
        let (queue, other) = (open(), open());
        let transaction = TransactionId::from_bytes([1; 16]);
        let ids = [QueueId::from_bytes([2; 16]), QueueId::from_bytes([3; 16])];
        queue.propose(transaction, &ids).unwrap();
        let manifest = |queue: &Queue| {
            let dir = queue.own_staged().unwrap();
            dir.stat(&manifest_name(transaction, queue.owner.id)).unwrap()
        };
        let before = manifest(&queue);
        // Held open, so that no other file gets its number.
        let name = manifest_name(transaction, queue.owner.id);
        let _held = queue.own_staged().unwrap().open_file(&name, false).unwrap();
        // The first operation marks it, the second syncs the mark.
        faults::fail_after(1, 5);
        let error = queue.decide(transaction).unwrap_err();
        assert_eq!(faults::stop(), Some(Op::Sync));
        assert_eq!(error.kind(), ErrorKind::Uncertain);
        assert_eq!(manifest(&queue).st_mode & 0o777, DOUBTFUL);
        // As long as it cannot be made durable nobody is told that it is committed.
        for count in 0.. {
            faults::fail_after(count, 5);
            let told = other.visible(&ids);
            let failed = faults::stop();
            if let Ok(told) = told {
                let after = manifest(&queue);
                assert_eq!((told.as_slice(), after.st_mode & 0o777), (&ids[..], DECIDED));
                assert_ne!(after.st_ino, before.st_ino, "another file");
            }
            if failed.is_none() {
                break;
            }
        }
        assert_eq!(queue.decide(transaction).unwrap_err().kind(), ErrorKind::Uncertain);
    }

    #[test]
    fn names_are_told_apart() {
        let (transaction, owner) = (TransactionId::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        let name = manifest_name(transaction, owner);
        assert_eq!(parse_manifest_name(&name), Some((transaction, owner)));
        assert!(!is_fence(&name) && is_fence(&fence_name(QueueId::from_bytes([3; 16]))));
        assert_eq!(MessageName::decode(&name), None);
    }
}
