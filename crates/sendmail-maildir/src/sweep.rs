//! Housekeeping: what was decided is finished, what is left over is removed.
//!
//! Many may sweep at once, and be killed half-way: every step is safe to repeat.

use std::collections::HashSet;
use std::io;
use std::time::Duration;

use rustix::fs::FileType;
use sendmail_core::{Decision, Discard, Error, QueueId, Result, SweepReport};

use crate::disk::{Dir, Name};
use crate::journal::segment::Header;
use crate::journal::{segment_name, sequences};
use crate::manifest::{Manifest, is_fence, manifest_name};
use crate::name::{MessageName, OwnerId, parse_owner};
use crate::owner::{self, Takeover};
use crate::queue::{Queue, gone, lock};
use crate::scan::{due_folders, lanes};
use crate::sync::atomic::Ordering;
use crate::undecided::read_head;

/// How old a left-over must be that has no owner, before it is removed.
const LEFT_OVER: Duration = Duration::from_secs(36 * 60 * 60);
/// How long a decision is kept that nobody has said may be forgotten.
const DECIDED: Duration = Duration::from_secs(24 * 60 * 60);
/// How old zope.sendmail's lock on a file that is gone must be, before it is removed.
const ZOPE_LOCK: Duration = Duration::from_secs(3 * 60 * 60);

impl Queue {
    pub(crate) fn sweep(&self) -> Result<SweepReport> {
        let mut report = SweepReport::default();
        let trouble = |error| Error::io("sweep the queue", error);
        // What one step cannot do keeps nobody from the others.
        let mut result = self.take_over_from_the_dead().map_err(trouble);
        let mut steps = vec![Self::sweep_journal, Self::sweep_owners];
        match self.is_frozen() {
            // Nothing is decided, and nothing is removed that an operator may want to put back.
            Ok(true) => {}
            Ok(false) => {
                result = result.and(self.finish_transactions(&mut report));
                steps.extend([Self::sweep_tmp, Self::sweep_old]);
            }
            Err(error) => result = result.and(Err(error)),
        }
        for step in steps {
            match step(self) {
                Ok(removed) => report.removed += removed,
                Err(error) => result = result.and(Err(trouble(error))),
            }
        }
        result?;
        // Room is a matter of time; the next sweep tries again.
        let _ = self.make_reserve();
        if self.options.max_messages.is_some() {
            self.length.store(self.count_messages().map_err(trouble)?, Ordering::Relaxed);
        }
        report.events = self.take_events();
        report.set_aside = self.take_set_aside();
        Ok(report)
    }

    /// Publishes what this queue decided and did not publish, and discards what it never will.
    fn finish_transactions(&self, report: &mut SweepReport) -> Result<()> {
        let trouble = |error| Error::io("sweep the queue", error);
        let own = &self.layout.resource;
        // In this order: what is named by no manifest that is read afterwards is named by none.
        let undecided = self.undecided()?;
        let ours: HashSet<QueueId> =
            undecided.iter().filter(|entry| entry.resource == *own).map(|entry| entry.id).collect();
        let mut named = HashSet::new();
        let mut unreadable = HashSet::new();
        let mut result = Ok(());
        for manifest in self.manifests().map_err(trouble)? {
            named.extend(manifest.ids.iter().copied());
            if manifest.decided && !manifest.whole {
                // It was decided, and what it was about cannot be told: nothing of it is thrown away.
                let dir = self.own_staged().map_err(trouble)?;
                let name = manifest_name(manifest.transaction, manifest.owner);
                self.set_aside(
                    &dir,
                    &name,
                    "it is damaged; only an operator can say what it decided",
                );
                unreadable.insert(manifest.owner);
                continue;
            }
            result = result.and(self.finish_transaction(&manifest, &ours, report));
        }
        let orphans: Vec<QueueId> = undecided
            .iter()
            .filter(|entry| entry.resource == *own && !entry.owner_alive)
            .map(|entry| entry.id)
            .filter(|id| !named.contains(id))
            .collect();
        if !orphans.is_empty() && unreadable.is_empty() {
            // Nobody decided for them, and nobody can any more.
            self.discard_of_the_dead(&orphans)?;
            report.removed += orphans.len();
        }
        result
    }

    fn finish_transaction(
        &self,
        manifest: &Manifest,
        ours: &HashSet<QueueId>,
        report: &mut SweepReport,
    ) -> Result<()> {
        let trouble = |error| Error::io("sweep the queue", error);
        let ids: Vec<QueueId> =
            manifest.ids.iter().filter(|id| ours.contains(id)).copied().collect();
        let alive = owner::is_alive(&self.layout.owners, manifest.owner).map_err(trouble)?;
        match self.judge(manifest).map_err(trouble)? {
            // A living owner finishes by itself, unless it was left undone a while ago.
            Decision::Committed if ids.is_empty() && alive => {}
            Decision::Committed => {
                if !ids.is_empty() {
                    self.publish(&ids)?;
                    report.published += ids.len();
                }
                self.forget_own(manifest)?;
            }
            Decision::Aborted => {
                self.discard_of_the_dead(&ids)?;
                let dir = self.own_staged().map_err(trouble)?;
                let name = manifest_name(manifest.transaction, manifest.owner);
                gone(dir.unlink(&name)).map_err(trouble)?;
                report.removed += ids.len() + 1;
            }
            Decision::Unfinished => {}
        }
        Ok(())
    }

    /// As recovery does, whichever of the two comes first: what is whole is kept for some days and told.
    fn discard_of_the_dead(&self, ids: &[QueueId]) -> Result<()> {
        let events = self.discard(ids, Discard::Fenced)?;
        self.keep_events(events);
        Ok(())
    }

    /// Forgets those of an old decided manifest's messages that were this queue's own, for a process
    /// that died before it could: they are published. What another queue named this one for is for
    /// that one to forget.
    fn forget_own(&self, manifest: &Manifest) -> Result<()> {
        let trouble = |error| Error::io("sweep the queue", error);
        let dir = self.own_staged().map_err(trouble)?;
        let name = manifest_name(manifest.transaction, manifest.owner);
        if manifest.own.is_empty() || !self.is_older(&dir, &name, DECIDED).map_err(trouble)? {
            return Ok(());
        }
        if manifest.own.iter().any(|id| lock(&self.doubtful).contains(id)) {
            return Ok(());
        }
        // Somebody else may have published them and not synced it yet.
        self.layout.root.sync_all().map_err(trouble)?;
        self.forget(&manifest.own)
    }

    /// Removes files in `tmp/` whose writer is dead and that were never whole, and old left-overs.
    fn sweep_tmp(&self) -> io::Result<usize> {
        let mut removed = 0;
        for name in self.layout.tmp.names()? {
            let Name { bytes, .. } = name?;
            let owned = MessageName::decode(&bytes).and_then(|name| name.owner);
            let partial = match owned {
                Some(owner) => {
                    !owner::is_alive(&self.layout.owners, owner)?
                        && read_head(&self.layout.tmp, &bytes).is_none()
                }
                None => match rest_owner(&bytes) {
                    Some(owner) => !owner::is_alive(&self.layout.owners, owner)?,
                    None => self.is_older(&self.layout.tmp, &bytes, LEFT_OVER)?,
                },
            };
            if partial && !gone(self.layout.tmp.unlink(&bytes))? {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Removes what was kept for some time: discarded messages, fences, wishes, forgotten locks.
    fn sweep_old(&self) -> io::Result<usize> {
        let keep = self.options.keep_discarded;
        let mut removed = self.remove_old(&self.layout.discarded, keep, |_| true)?;
        removed += self.remove_old(&self.own_staged()?, keep, is_fence)?;
        removed += self.remove_old(&self.layout.wishes, keep, |_| true)?;
        // Files that were being made when their maker died.
        let half_made = |name: &[u8]| name.starts_with(b".new-") || name.starts_with(b".queue.");
        let staged = self.own_staged()?;
        for dir in [&self.layout.root, &self.layout.owners, &self.layout.journal, &staged] {
            removed += self.remove_old(dir, LEFT_OVER, half_made)?;
        }
        for dir in [&self.layout.journal, &staged] {
            removed += self.remove_half_made_of_the_dead(dir)?;
        }
        for dir in [&self.layout.new, &self.layout.cur] {
            for name in dir.names()? {
                let bytes = name?.bytes;
                // zope.sendmail's lock on a file that was sent: it died before it could remove it.
                if let Some(file) = bytes.strip_prefix(b".sending-")
                    && !dir.exists(file)?
                    && self.is_older(dir, &bytes, ZOPE_LOCK)?
                    && !gone(dir.unlink(&bytes))?
                {
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Removes at once what names its maker, who held the lock when he began it and is dead.
    fn remove_half_made_of_the_dead(&self, dir: &Dir) -> io::Result<usize> {
        let mut removed = 0;
        for name in dir.names()? {
            let bytes = name?.bytes;
            if let Some(owner) = owner_after(".new-", &bytes)
                && !owner::is_alive(&self.layout.owners, owner)?
                && !gone(dir.unlink(&bytes))?
            {
                removed += 1;
            }
        }
        Ok(removed)
    }

    fn remove_old(
        &self,
        dir: &Dir,
        age: Duration,
        is_meant: fn(&[u8]) -> bool,
    ) -> io::Result<usize> {
        let mut removed = 0;
        for name in dir.names()? {
            let bytes = name?.bytes;
            if is_meant(&bytes) && self.is_older(dir, &bytes, age)? && !gone(dir.unlink(&bytes))? {
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Whether a file's last change, its renames included, is longer ago than `age`. A directory is
    /// no left-over: mail readers make some in each of ours.
    fn is_older(&self, dir: &Dir, name: &[u8], age: Duration) -> io::Result<bool> {
        match dir.stat(name) {
            Ok(stat) if FileType::from_raw_mode(stat.st_mode) == FileType::Directory => Ok(false),
            Ok(stat) => {
                let age = i64::try_from(age.as_secs()).unwrap_or(i64::MAX);
                Ok(self.now().as_secs().saturating_sub(stat.st_ctime) > age)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Seals the segments of the dead, and removes those that are sealed and older than history. The
    /// newest stays, so that numbers only grow.
    fn sweep_journal(&self) -> io::Result<usize> {
        let journal = &self.layout.journal;
        let all = sequences(journal)?;
        let mut removed = 0;
        for sequence in &all {
            let name = segment_name(*sequence);
            let header = match journal.open_file(&name, false) {
                Ok(file) => Header::read(&file)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let Some(header) = header else { continue };
            let working = self.layout.claimed.exists(owner::name(header.worker).as_bytes())?;
            if !header.sealed && !working && !owner::is_alive(&self.layout.owners, header.worker)? {
                self.seal_journal(header.worker)?;
            } else if header.sealed
                && Some(sequence) != all.last()
                && !working
                && self.is_older(journal, &name, self.options.history)?
            {
                // What the segment knows of the files that went must not be asked again.
                self.layout.claimed.sync()?;
                if !gone(journal.unlink(&name))? {
                    removed += 1;
                }
            }
        }
        Ok(removed)
    }

    /// Removes the files of dead owners of whom nothing is left.
    fn sweep_owners(&self) -> io::Result<usize> {
        let owners = &self.layout.owners;
        let busy: HashSet<_> = lock(&self.written).keys().copied().collect();
        let mut removed = 0;
        for name in owners.names()? {
            let bytes = name?.bytes;
            let id = std::str::from_utf8(&bytes).ok().and_then(parse_owner);
            let Some(id) = id.filter(|id| *id != self.owner.id) else { continue };
            if self.layout.claimed.exists(&bytes)?
                || !busy.is_empty() && owner::is_alive(owners, id)?
            {
                continue;
            }
            // A missing file says the same as an unlocked one: its owner is dead.
            if let Some(takeover) = Takeover::begin(owners, id)? {
                takeover.finish(owners, id)?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// How many messages wait or are claimed. Streams names; opens nothing.
    pub(crate) fn count_messages(&self) -> io::Result<u64> {
        let mut count = 0;
        let mut add = |dir: &Dir| -> io::Result<()> {
            for name in dir.names()? {
                count += u64::from(!name?.bytes.starts_with(b"."));
            }
            Ok(())
        };
        let layout = &self.layout;
        for dir in [&layout.new, &layout.cur, &layout.held] {
            add(dir)?;
        }
        for (parent, names) in
            [(&layout.lanes, lanes(layout)?), (&layout.deferred, due_folders(layout)?)]
        {
            for name in names {
                parent.open_dir(&name)?.map_or(Ok(()), |dir| add(&dir))?;
            }
        }
        Ok(count)
    }
}

/// Whose rest of a message this is, on its way from one file to another.
fn rest_owner(name: &[u8]) -> Option<OwnerId> {
    owner_after(".rest-", name)
}

/// The owner whose name stands behind `prefix`.
fn owner_after(prefix: &str, name: &[u8]) -> Option<OwnerId> {
    let text = std::str::from_utf8(name).ok()?.strip_prefix(prefix)?;
    parse_owner(text.get(..36)?)
}
