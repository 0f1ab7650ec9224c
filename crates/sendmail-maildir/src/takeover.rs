//! Taking over from workers that died.
//!
//! Whoever gets a dead worker's lock reads its newest journal segment, writes what follows from it
//! into its own, syncs, and only then moves the files. Killed half-way, the next one reads the same
//! and comes to the same conclusions.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io;

use sendmail_core::{AmbiguousPolicy, MailEvent, MailEventKind, QueueId, Reply};

use crate::disk::sync_data;
use crate::journal::record::{Effect, Record};
use crate::journal::segment::{Header, Records, START, doubt, seal, seal_doubtful};
use crate::journal::{Sequence, room_for, segment_name, sequences};
use crate::name::{MessageName, OwnerId, parse_owner};
use crate::owner::{self, Takeover};
use crate::queue::{Queue, lock};
use crate::reading::{Content, Misfit};

/// What a dead worker's journal says about one of its claims.
#[derive(Debug, Default, Clone)]
struct Fate {
    claimed: bool,
    begun: bool,
    handed_over: bool,
    settled: Option<Effect>,
}

/// A conclusion about one message, and what is to be told.
#[derive(Debug, Clone)]
pub(crate) struct Conclusion {
    name: MessageName,
    /// Whether the log tells that the message was queued.
    told: bool,
    effect: Effect,
    events: Vec<MailEvent>,
    /// How much room the events may take in the journal.
    room: u64,
}

impl Queue {
    /// Takes over from every worker that is dead and has left something. The events are kept.
    ///
    /// # Errors
    ///
    /// The first trouble that was met. What it concerns stays for the next time, and keeps nobody from
    /// the rest.
    pub(crate) fn take_over_from_the_dead(&self) -> io::Result<()> {
        let mut result = Ok(());
        for name in self.layout.claimed.names()? {
            let bytes = name?.bytes;
            let worker = std::str::from_utf8(&bytes).ok().and_then(parse_owner);
            let Some(worker) = worker.filter(|worker| *worker != self.owner.id) else { continue };
            let taken = || -> io::Result<()> {
                if let Some(takeover) = Takeover::begin(&self.layout.owners, worker)? {
                    self.take_over(worker)?;
                    takeover.finish(&self.layout.owners, worker)?;
                }
                Ok(())
            };
            if let Err(error) = taken() {
                let why = format!("it cannot be taken over from its dead worker: {error}");
                self.set_aside(&self.layout.claimed, &bytes, &why);
                result = result.and(Err(error));
            }
        }
        result
    }

    fn take_over(&self, worker: OwnerId) -> io::Result<()> {
        let name = owner::name(worker);
        let Some(dir) = self.layout.claimed.open_dir(&name)? else { return Ok(()) };
        let (fates, same_boot) = self.read_journal(worker)?;
        // What is concluded from its records may not be more durable than they are.
        self.seal_journal(worker)?;
        let mut result = Ok(());
        let mut left = false;
        let mut conclusions = Vec::new();
        for file in dir.names()? {
            let file = file?.bytes;
            let Some(message) = MessageName::decode(&file) else { continue };
            if let Some(conclusion) = lock(&self.concluded).get(&(worker, file.clone())) {
                conclusions.push(conclusion.clone());
                continue;
            }
            let fate = fates.get(&message.id).cloned().unwrap_or_default();
            match self.read_message(&dir, &file, message) {
                Ok(content) => {
                    if let Err(error) = self.forget_names_before_claim(&dir, &file, message) {
                        // It may be sent twice as it is; the others need not wait for it.
                        result = result.and(Err(error));
                        continue;
                    }
                    conclusions.push(self.conclude(message, &content, fate, same_boot));
                }
                Err(Misfit::Gone) => {}
                Err(Misfit::Damaged(why)) => {
                    result = result.and(self.put_with_failed(&dir, &file, &why));
                }
                Err(Misfit::Trouble(error)) => result = result.and(Err(error)),
                Err(Misfit::Unreadable(why)) => {
                    self.tell_unreadable(&dir, &file, &why);
                    left = true;
                }
                Err(Misfit::Stays(why)) => {
                    self.set_aside(&dir, &file, &why);
                    left = true;
                }
            }
        }
        self.write_down(&conclusions)?;
        for mut conclusion in conclusions {
            self.keep_events(std::mem::take(&mut conclusion.events));
            let act = || self.carry_out(&dir, conclusion.name, conclusion.told, &conclusion.effect);
            let (id, key) = (conclusion.name.id, (worker, conclusion.name.encode()));
            match self.with_reserve(act) {
                Ok(moved) => {
                    lock(&self.concluded).remove(&key);
                    let late = moved.map(|moved| self.honour_late_wish(id, &moved));
                    self.keep_events(late.unwrap_or_default());
                }
                Err(error) => {
                    // It was told, and is not told again when it is tried again.
                    lock(&self.concluded).insert(key, conclusion);
                    result = result.and(Err(error));
                }
            }
        }
        result?;
        if !left {
            match self.layout.claimed.remove_dir(&name) {
                Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => {
                    return Err(error);
                }
                _ => {}
            }
        }
        self.wake.signal();
        Ok(())
    }

    /// What follows from the journal for one message.
    fn conclude(
        &self,
        name: MessageName,
        content: &Content,
        mut fate: Fate,
        same_boot: bool,
    ) -> Conclusion {
        match fate.settled.take() {
            // An outcome counts the attempt that the file, as it was claimed, has still before it.
            Some(effect) if effect.attempts > name.attempts => {
                return Conclusion { name, told: true, effect, events: Vec::new(), room: 0 };
            }
            // It is that of an earlier claim; this one's record was never written.
            Some(_) => fate = Fate::default(),
            None => {}
        }
        let begun = fate.begun || fate.handed_over;
        let envelope = &content.loaded.envelope;
        if !same_boot && envelope.options().ambiguous == AmbiguousPolicy::Retry {
            // Handovers were not synced: each of its claims may have been sent.
            fate.begun = true;
            fate.handed_over = true;
        }
        let message_id = content.loaded.message.message_id();
        let all = envelope.recipients().to_vec();
        let mut effect = Effect {
            stay: all.clone(),
            failed: Vec::new(),
            hold: false,
            attempts: name.attempts.saturating_add(u32::from(fate.begun || begun)),
            // Only what was seen to begin: a machine that crashes has other reasons.
            kills: name.kills.saturating_add(u32::from(begun)),
            due: None,
        };
        let mut events = Vec::new();
        let mut tell = |event: MailEvent| events.push(event.about(name.id, Some(message_id)));
        let lost = Reply::local(451, "4.3.2", "the worker died after the message was handed over");
        if fate.handed_over {
            for recipient in &all {
                let event = MailEvent::new(MailEventKind::PossibleDuplicate, self.now());
                tell(event.in_attempt(effect.attempts, recipient, &lost));
            }
        }
        match envelope.options().ambiguous {
            AmbiguousPolicy::Hold if fate.handed_over => {
                effect.hold = true;
                tell(self.held("it may have been sent, and its policy is not to send it again"));
            }
            AmbiguousPolicy::Drop if fate.handed_over => {
                effect.stay.clear();
                effect.failed.clone_from(&all);
                for recipient in &all {
                    let event = MailEvent::new(MailEventKind::Failed, self.now());
                    let why = "it may have been sent, and its policy is to give it up then";
                    tell(event.in_attempt(effect.attempts, recipient, &lost).with_detail(why));
                }
            }
            _ if begun && effect.kills >= self.options.max_kills => {
                effect.hold = true;
                let why = format!("{} workers died in an attempt at it", effect.kills);
                tell(self.held(&why));
            }
            _ => {}
        }
        // It was told before this claim, or together with the record of it.
        let told = name.told || fate.claimed;
        Conclusion { name, told, effect, events, room: room_for(&all, message_id) }
    }

    fn held(&self, why: &str) -> MailEvent {
        MailEvent::new(MailEventKind::Held, self.now()).with_detail(why)
    }

    /// Makes conclusions durable in this worker's own journal.
    fn write_down(&self, conclusions: &[Conclusion]) -> io::Result<()> {
        if conclusions.iter().all(|conclusion| conclusion.events.is_empty()) {
            return Ok(());
        }
        let worker = self.worker()?;
        let room = conclusions.iter().map(|conclusion| conclusion.room).sum();
        self.reserve(&worker, room)?;
        let records: Vec<Record> = conclusions
            .iter()
            .flat_map(|conclusion| &conclusion.events)
            .map(|event| Record::Event(Box::new(event.clone())))
            .collect();
        let mark = worker.journal.append(&records);
        worker.journal.unreserve(room);
        worker.journal.sync(&mark?)
    }

    /// What the worker's newest segment says of each claim, and whether it was begun under the
    /// present boot of the machine and the present mount of its file system.
    fn read_journal(&self, worker: OwnerId) -> io::Result<(HashMap<QueueId, Fate>, bool)> {
        let mut fates: HashMap<QueueId, Fate> = HashMap::new();
        let Some((file, header)) = self.newest_segment(worker)? else {
            // It died before it could begin a journal, and so before it could begin an attempt; or
            // the machine did, and then its claims were not synced and nothing was handed over.
            return Ok((fates, true));
        };
        let mut records = Records::new(&file, START, None)?;
        while let Some((record, _)) = records.next_record()? {
            match record {
                Record::Claimed(id) => {
                    fates.insert(id, Fate { claimed: true, ..Fate::default() });
                }
                Record::Begun(id) => fates.entry(id).or_default().begun = true,
                Record::HandedOver(id) => fates.entry(id).or_default().handed_over = true,
                Record::Settled(id, effect) => fates.entry(id).or_default().settled = Some(effect),
                Record::Released(id) | Record::Finished(id) => {
                    // A file that is still there was claimed and its record lost, or came back with
                    // the crash of the machine: what was settled is carried out again.
                    if let Some(fate) = fates.get_mut(&id)
                        && fate.settled.is_none()
                    {
                        *fate = Fate { claimed: true, ..Fate::default() };
                    }
                }
                Record::Event(_) => {}
            }
        }
        // Records that were not synced may be missing as after a crash of the machine.
        Ok((fates, owner::is_same_boot(header.boot, self.boot) && !header.doubtful))
    }

    fn newest_segment(&self, worker: OwnerId) -> io::Result<Option<(File, Header)>> {
        for sequence in sequences(&self.layout.journal)?.into_iter().rev() {
            if let Some(found) = self.segment_of(worker, sequence)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The segment of that number, if it is this worker's.
    fn segment_of(
        &self,
        worker: OwnerId,
        sequence: Sequence,
    ) -> io::Result<Option<(File, Header)>> {
        let file = match self.layout.journal.open_file(&segment_name(sequence), true) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let header = Header::read(&file)?.filter(|header| header.worker == worker);
        Ok(header.map(|header| (file, header)))
    }

    /// Seals what the dead worker could not: its records are durable and readable from here on.
    pub(crate) fn seal_journal(&self, worker: OwnerId) -> io::Result<()> {
        // One after the other: a worker may have left thousands.
        for sequence in sequences(&self.layout.journal)? {
            match self.segment_of(worker, sequence)? {
                Some((_, header)) if header.sealed => {}
                Some((file, header)) if header.doubtful => self.save_events(&file, header)?,
                Some((file, header)) => seal_segment(&file, header)?,
                None => {}
            }
        }
        Ok(())
    }

    /// Tells the events of a segment whose sync has failed, of which nobody knows whether they are on
    /// the disk: they are written anew. Killed half-way, the next one tells some of them once more.
    fn save_events(&self, file: &File, header: Header) -> io::Result<()> {
        let end = end_of_whole(file)?.max(header.watermark);
        let mut records = Records::new(file, header.watermark, Some(end))?;
        let mut events = Vec::new();
        while let Some((record, _)) = records.next_record()? {
            if let Record::Event(event) = record {
                events.push(*event);
            }
        }
        self.log(&events)?;
        seal_doubtful(file, header.watermark)
    }
}

/// Makes what is in a dead worker's segment durable, and ends it.
fn seal_segment(file: &File, header: Header) -> io::Result<()> {
    let end = end_of_whole(file)?.max(header.watermark);
    let sealed = sync_data(file).and_then(|()| seal(file, end));
    sealed.inspect_err(|_| doubt(file))
}

/// Where the records of a segment end, without the events of a settlement that a crash cut off before its
/// outcome: what they tell was never concluded, the message is tried again, and they are told then.
fn end_of_whole(file: &File) -> io::Result<u64> {
    let mut records = Records::new(file, START, None)?;
    let mut open = HashSet::new();
    let mut cut = None;
    let mut at = records.position();
    while let Some((record, _)) = records.next_record()? {
        match record {
            Record::Claimed(id) | Record::Begun(id) | Record::HandedOver(id) => {
                open.insert(id);
                cut = None;
            }
            Record::Settled(id, _) | Record::Released(id) | Record::Finished(id) => {
                open.remove(&id);
                cut = None;
            }
            // A settlement is appended in one piece, its outcome last.
            Record::Event(event)
                if event.recipient.is_some()
                    && event.queue_id.is_some_and(|id| open.contains(&id)) =>
            {
                cut.get_or_insert(at);
            }
            Record::Event(_) => cut = None,
        }
        at = records.position();
    }
    Ok(cut.unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use sendmail_core::Step;

    use super::*;
    use crate::counts::{open, write};

    /// What a sync that failed has lost of a journal may have happened.
    // Proves: I8, I17
    #[test]
    fn after_a_failed_sync_each_claim_may_have_been_sent() {
        for is_doubtful in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let first = open(folder.path());
            first.publish(&write(&first, 1)).unwrap();
            let claim = first.claim(1).unwrap().claims.remove(0);
            first.record(&claim, Step::Begin).unwrap();
            if is_doubtful {
                for number in sequences(&first.layout.journal).unwrap() {
                    doubt(&first.layout.journal.open_file(&segment_name(number), true).unwrap());
                }
            }
            first.owner.release();
            // Sealed by the first takeover, it is still doubtful for one that comes after its death.
            open(folder.path()).seal_journal(first.owner.id).unwrap();
            let events = open(folder.path()).claim(1).unwrap().events;
            let told = events.iter().any(|event| event.kind == MailEventKind::PossibleDuplicate);
            assert_eq!(told, is_doubtful, "{events:?}");
        }
    }
}
