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

use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;

use sendmail_core::{Decision, Error, ErrorKind, QueueId, Result, TransactionId};
use sha2::{Digest as _, Sha256};

use crate::disk::Dir;
use crate::name::{MessageName, OwnerId, parse_owner};
use crate::owner;
use crate::queue::{Queue, gone, lock, uncertain};

const VERSION_LINE: &str = "version 1";
const DECIDED: u32 = 0o700;
/// The longest manifest that is read: some hundred thousand messages.
const MAX_MANIFEST: u64 = 16 << 20;

/// What this process proposed.
#[derive(Debug)]
pub(crate) struct Proposal {
    /// Held open: deciding opens nothing.
    file: File,
    /// After a failed sync nothing is known about it any more, and nothing is done to it.
    uncertain: bool,
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
}

impl Queue {
    /// The directory of transactions that this queue decides.
    pub(crate) fn own_staged(&self) -> io::Result<Dir> {
        self.layout.staged.make_dir(self.layout.resource.as_str())
    }

    pub(crate) fn propose(&self, transaction: TransactionId, ids: &[QueueId]) -> Result<()> {
        let operation = "propose the transaction";
        let propose = || -> io::Result<Option<QueueId>> {
            let dir = self.own_staged()?;
            let name = manifest_name(transaction, self.owner.id);
            let own = |id: &QueueId| lock(&self.written).contains_key(id);
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
            lock(&self.proposals).insert(transaction, Proposal { file, uncertain: false });
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
        let mut proposals = lock(&self.proposals);
        let Some(proposal) = proposals.get_mut(&transaction) else {
            let message = "it was not proposed, or was withdrawn";
            return Err(
                Error::new(ErrorKind::Aborted, operation, message).with("transaction", transaction)
            );
        };
        if proposal.uncertain {
            let before = io::Error::other("the decision could not be synced before");
            return Err(uncertain(operation, before).with("transaction", transaction));
        }
        if let Err(error) = proposal.file.set_permissions(Permissions::from_mode(DECIDED)) {
            return Err(Error::new(ErrorKind::Aborted, operation, error.to_string())
                .with_source(error)
                .with("transaction", transaction));
        }
        // The whole inode: `fdatasync` would leave the permissions behind.
        if let Err(error) = proposal.file.sync_all() {
            proposal.uncertain = true;
            return Err(uncertain(operation, error).with("transaction", transaction));
        }
        Ok(())
    }

    pub(crate) fn retract(&self, transaction: TransactionId) -> Result<()> {
        let retract = || -> io::Result<()> {
            let dir = self.own_staged()?;
            let name = manifest_name(transaction, self.owner.id);
            match dir.stat(&name) {
                Ok(stat) if stat.st_mode & 0o100 == 0 => gone(dir.unlink(&name)).map(drop),
                _ => Ok(()),
            }
        };
        lock(&self.proposals).remove(&transaction);
        retract().map_err(|error| {
            Error::io("retract the transaction", error).with("transaction", transaction)
        })
    }

    pub(crate) fn visible(&self, ids: &[QueueId]) -> Result<Vec<QueueId>> {
        let manifests = self.manifests().map_err(|error| Error::io("read the decisions", error))?;
        let decided = |id: &&QueueId| {
            manifests.iter().any(|manifest| manifest.decided && manifest.ids.contains(id))
        };
        Ok(ids.iter().filter(decided).copied().collect())
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
                Ok(file) => file.sync_all()?,
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
            return Ok(Decision::Committed);
        }
        if owner::is_alive(&self.layout.owners, manifest.owner)? {
            return Ok(Decision::Unfinished);
        }
        // It may have decided as its last deed, after it was looked at.
        let name = manifest_name(manifest.transaction, manifest.owner);
        let stat = self.own_staged()?.stat(&name);
        Ok(match stat {
            Ok(stat) if stat.st_mode & 0o100 != 0 => Decision::Committed,
            _ => Decision::Aborted,
        })
    }

    /// Who wrote an undecided message of a transaction that this queue decides.
    fn writer_of(&self, id: QueueId) -> io::Result<Option<OwnerId>> {
        for (dir, in_tmp) in [(&self.layout.tmp, true), (&self.own_staged()?, false)] {
            for name in dir.names()? {
                let bytes = name?.bytes;
                let Some(name) = MessageName::decode(&bytes).filter(|name| name.id == id) else {
                    continue;
                };
                let head = || crate::pending::read_head(dir, &bytes);
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
                    self.shorten(&dir, &manifest, &rest)?;
                }
            }
            Ok(())
        };
        forget().map_err(|error| Error::io("forget the decisions", error))
    }

    /// Replaces a decided manifest by one that names fewer messages.
    fn shorten(&self, dir: &Dir, manifest: &Manifest, rest: &[QueueId]) -> io::Result<()> {
        let temporary = format!(".new-{}", self.owner.id).into_bytes();
        gone(dir.unlink(&temporary))?;
        let own = |id: &QueueId| manifest.own.contains(id);
        dir.write_synced(&temporary, &[&encode(manifest.transaction, rest, own)])?;
        let file = dir.open_file(&temporary, true)?;
        file.set_permissions(Permissions::from_mode(DECIDED))?;
        file.sync_all()?;
        dir.rename(&temporary, dir, &manifest_name(manifest.transaction, manifest.owner))?;
        dir.sync()
    }

    /// All manifests that can be read. One that cannot was never synced: it is undecided, and names
    /// nothing.
    pub(crate) fn manifests(&self) -> io::Result<Vec<Manifest>> {
        let dir = self.own_staged()?;
        let mut manifests = Vec::new();
        for name in dir.names()? {
            let bytes = name?.bytes;
            let Some((transaction, owner)) = parse_manifest_name(&bytes) else { continue };
            let read = || -> io::Result<(Named, u32)> {
                // The permissions first: what they say was true of the content that is read then.
                let mode = dir.stat(&bytes)?.st_mode;
                let content = dir.read(&bytes, MAX_MANIFEST)?;
                Ok((decode(&content, transaction).unwrap_or_default(), mode))
            };
            match read() {
                Ok((Named { ids, own }, mode)) => {
                    let decided = mode & 0o100 != 0;
                    manifests.push(Manifest { transaction, owner, ids, own, decided });
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
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

    #[test]
    fn names_are_told_apart() {
        let (transaction, owner) = (TransactionId::from_bytes([1; 16]), Uuid::from_bytes([2; 16]));
        let name = manifest_name(transaction, owner);
        assert_eq!(parse_manifest_name(&name), Some((transaction, owner)));
        assert!(!is_fence(&name) && is_fence(&fence_name(QueueId::from_bytes([3; 16]))));
        assert_eq!(MessageName::decode(&name), None);
    }
}
