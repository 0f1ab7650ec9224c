//! What happens to some messages: small histories.

use std::time::Duration;

use sendmail_core::{
    AmbiguousPolicy, DeliveryOptions, ErrorKind, Priority, QueueId, Release, Settlement, Step,
    TransactionId,
};

use super::history::{LATER, Life, Process};
use super::ledger::{Note, Told, event};
use super::probe;
use crate::disk::{Op, sync, write_at};
use crate::name::MessageName;

/// Longer than anything is kept.
const LONG: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// A history with its name.
pub(crate) struct Script {
    pub(crate) name: &'static str,
    /// Whether it begins with a queue that is not there yet.
    pub(crate) from_nothing: bool,
    run: fn(&mut Life, Process),
}

impl Script {
    /// Lives it, in the queue that `life` is about.
    pub(crate) fn run(&self, life: &mut Life, first: Process) {
        (self.run)(life, first);
    }
}

const fn script(name: &'static str, run: fn(&mut Life, Process)) -> Script {
    Script { name, from_nothing: false, run }
}

/// All histories.
pub(crate) const SCRIPTS: [Script; 20] = [
    Script { name: "open", from_nothing: true, run: open },
    script("one message", one),
    script("several messages", several),
    script("rolled back", rolled_back),
    script("database", database),
    script("two publish", two_publish),
    script("dying decision", dying_decision),
    script("fence", fence),
    script("damaged", damaged),
    script("outcomes", outcomes),
    script("lanes and later", lanes_and_later),
    script("policies", policies),
    script("takeover", takeover),
    script("dying settlement", dying_settlement),
    script("forgotten manifest", forgotten_manifest),
    script("forgotten journal", forgotten_journal),
    script("new segment", new_segment),
    script("operator", operator),
    script("freeze", freeze),
    script("long after", long_after),
];

/// A queue is made, and used at once.
fn open(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x", "never@x"]);
    let _ = life.work(&queue);
    let (transaction, ids) = life.propose(&queue, &[&["a@x"], &["b@x"]]);
    if queue.decide(transaction).is_ok() {
        life.told(&ids, Told::Committed);
    }
}

/// Enqueued, claimed, delivered; and the next one.
fn one(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x"]);
    let _ = life.work(&queue);
    life.send(&queue, &["a@x", "b@x"]);
    let _ = life.work(&queue);
    let _ = life.work(&queue);
}

/// One transaction, several messages, no database.
fn several(life: &mut Life, queue: Process) {
    life.send_all(&queue, &[&["a@x"], &["never@x"]], true);
    let _ = life.work(&queue);
}

/// Transactions that abort, before and after they are prepared.
fn rolled_back(life: &mut Life, queue: Process) {
    life.send_all(&queue, &[&["a@x"], &["b@x"]], false);
    life.send_with_database(&queue, &["a@x"], false);
    let other = life.start();
    let _ = life.recover(&other);
    let _ = life.sweep(&other);
}

/// A database decides, and another process publishes.
fn database(life: &mut Life, queue: Process) {
    let id = life.send_with_database(&queue, &["a@x"], true);
    let _ = life.finish(&queue, id);
    life.send_with_database(&queue, &["a@x"], true);
    let other = life.start();
    let _ = life.recover(&other);
    let _ = life.work(&other);
}

/// Two publish the same message; the first dies before it has synced that.
fn two_publish(life: &mut Life, queue: Process) {
    // It dies at its first sync or its second: that of a new folder comes before the rename into it.
    let all = [(false, false, 0), (true, false, 0), (false, true, 0), (false, true, 1)];
    for (delivered, is_later, syncs) in all {
        let later = sendmail_core::Clock::now(&life.clock).saturating_add(LATER);
        let not_before = is_later.then_some(later);
        let id = life.send_later_with_database(&queue, &["a@x"], true, not_before);
        if !life.is_visible(id) {
            continue;
        }
        let first = life.start();
        probe::die_at(Op::Sync, syncs);
        let _ = first.publish(&[id]);
        probe::live_on();
        life.kill(first);
        let third = life.start();
        if delivered {
            let _ = life.work(&third);
        }
        let _ = life.finish(&queue, id);
        let _ = life.work(&third);
    }
}

/// A decision that its maker could not sync, or did not live to; others see it and act upon it.
fn dying_decision(life: &mut Life, queue: Process) {
    for sync_is_seen_to_fail in [false, true] {
        let (transaction, ids) = life.propose(&queue, &[&["a@x"], &["b@x"]]);
        probe::die_at(Op::Sync, 0);
        if !sync_is_seen_to_fail {
            (1..=3).for_each(|mark| probe::die_at(Op::Mode, mark));
        }
        let _ = queue.decide(transaction);
        probe::live_on();
        let other = life.start();
        if other.visible(&ids).is_ok_and(|visible| visible == ids) {
            life.told(&ids, Told::Committed);
            // One of them is published and forgotten by itself.
            if other.publish(&ids[..1]).is_ok() {
                let _ = other.forget(&ids[..1]);
            }
        }
        let _ = life.work(&other);
    }
}

/// A queue that decides for another one is asked about a message that it does not know.
fn fence(life: &mut Life, queue: Process) {
    let id = QueueId::from_bytes([77; 16]);
    let other = life.start();
    if other.fence(id).is_ok_and(|decision| decision == sendmail_core::Decision::Aborted) {
        let proposed = queue.propose(TransactionId::from_bytes([7; 16]), &[id]);
        assert!(proposed.is_err(), "it was fenced");
    }
    life.send(&queue, &["a@x"]);
}

/// A file of the queue was overwritten by somebody.
fn damaged(life: &mut Life, queue: Process) {
    let id = life.send(&queue, &["a@x"]);
    life.send(&queue, &["b@x"]);
    let name = MessageName::new(id).encode();
    if let Ok(file) = queue.layout.new.open_file(&name, true) {
        life.note(Note::Spoiled(id));
        let _ = write_at(&file, b"rubbish", 40).and_then(|()| sync(&file));
    }
    let _ = life.work(&queue);
    let _ = life.work(&queue);
}

/// Accepted, deferred, refused, held: each recipient by itself.
fn outcomes(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x", "later@x", "never@x"]);
    life.send(&queue, &["a@x", "hold@x"]);
    let _ = life.work(&queue);
    life.clock.advance(LATER + Duration::from_secs(1));
    let _ = life.work(&queue);
    let _ = life.sweep(&queue);
    let _ = life.work(&queue);
}

/// Messages with a priority, a tenant, and a time before which they are not sent.
fn lanes_and_later(life: &mut Life, queue: Process) {
    let mut options = DeliveryOptions::default();
    options.priority = Priority::High;
    life.send_with(&queue, &["a@x"], options.clone());
    options.not_before = Some(sendmail_core::Clock::now(&life.clock).saturating_add(LATER));
    life.send_with(&queue, &["a@x"], options);
    let _ = life.work(&queue);
    life.clock.advance(LATER + Duration::from_secs(1));
    let _ = life.work(&queue);
    let _ = life.work(&queue);
}

/// Messages that are not to be sent twice.
fn policies(life: &mut Life, queue: Process) {
    for policy in [AmbiguousPolicy::Hold, AmbiguousPolicy::Drop] {
        let mut options = DeliveryOptions::default();
        options.ambiguous = policy;
        life.send_with(&queue, &["a@x"], options);
    }
    let _ = life.work(&queue);
}

/// A worker is killed with a claim in its hands, and another takes over.
fn takeover(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x"]);
    life.send(&queue, &["later@x", "b@x"]);
    if let Ok(claimed) = queue.claim(8)
        && let Some(claim) = claimed.claims.first()
    {
        life.note(Note::Events(claimed.events.iter().map(event).collect()));
        if let Ok(loaded) = queue.load(claim)
            && queue.record(claim, Step::Begin).is_ok()
            && queue.record(claim, Step::Handover).is_ok()
        {
            // It dies before it can tell what became of it.
            life.attempt(claim.id, claim.attempt, loaded.envelope.recipients());
        }
    }
    life.kill(queue);
    let other = life.start();
    let _ = life.sweep(&other);
    let _ = life.work(&other);
    let _ = life.work(&other);
}

/// A worker is killed when it has written down what became of a message and not synced it.
fn dying_settlement(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x"]);
    if let Ok(claimed) = queue.claim(8) {
        life.note(Note::Events(claimed.events.iter().map(event).collect()));
        for claim in claimed.claims {
            let Ok(loaded) = queue.load(&claim) else { continue };
            let begun = queue.record(&claim, Step::Begin).is_ok();
            if begun && queue.record(&claim, Step::Handover).is_ok() {
                let settlement =
                    life.attempt(claim.id, claim.attempt, loaded.envelope.recipients());
                probe::die_at(Op::Sync, 0);
                // Nor can it say that the sync has failed, after what it has written down.
                (1..=3).for_each(|mark| probe::die_at(Op::Write, mark));
                let _ = queue.settle(claim, &settlement);
                probe::live_on();
            }
        }
    }
    life.kill(queue);
    let other = life.start();
    let _ = life.sweep(&other);
    let _ = life.work(&other);
}

/// A transaction is decided and published by processes that die, and forgotten a day later.
fn forgotten_manifest(life: &mut Life, queue: Process) {
    let (transaction, ids) = life.propose(&queue, &[&["a@x"], &["b@x"]]);
    match queue.decide(transaction) {
        Ok(()) => life.told(&ids, Told::Committed),
        Err(error) if error.kind() == ErrorKind::Uncertain => {}
        Err(_) => life.abort(&queue, &ids, Some(transaction)),
    }
    life.kill(queue);
    let other = life.start();
    // The decision is synced, what is published is not.
    probe::die_at(Op::Sync, 2);
    let _ = other.sweep();
    probe::live_on();
    life.kill(other);
    let last = life.start();
    life.clock.advance(LONG);
    let _ = life.sweep(&last);
    let _ = life.work(&last);
}

/// The journal of a dead worker is removed for its age.
fn forgotten_journal(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x"]);
    let _ = life.work(&queue);
    let newer = life.start();
    life.send(&newer, &["b@x"]);
    let _ = life.work(&newer);
    life.kill(queue);
    let last = life.start();
    let _ = life.sweep(&last);
    life.note(Note::HistoryEnds);
    life.clock.advance(LONG);
    let _ = life.sweep(&last);
    let _ = life.sweep(&last);
}

/// The journal goes on in a new segment, with a claim that is settled and one that is not: of that only
/// the journal knows that it must not be sent again.
fn new_segment(life: &mut Life, queue: Process) {
    let mut options = DeliveryOptions::default();
    options.ambiguous = AmbiguousPolicy::Drop;
    life.send_with(&queue, &["a@x"], options.clone());
    life.send_with(&queue, &["b@x"], options);
    let Ok(claimed) = queue.claim(8) else { return };
    life.note(Note::Events(claimed.events.iter().map(event).collect()));
    let mut attempts = Vec::new();
    for claim in claimed.claims {
        let Ok(loaded) = queue.load(&claim) else { continue };
        let begun = queue.record(&claim, Step::Begin).is_ok();
        let settlement = match begun && queue.record(&claim, Step::Handover).is_ok() {
            true => life.attempt(claim.id, claim.attempt, loaded.envelope.recipients()),
            false => Settlement::Release(Release::NotAttempted),
        };
        attempts.push((claim, settlement));
    }
    for (claim, settlement) in attempts {
        life.settle(&queue, claim, &settlement);
        if let Ok(worker) = queue.worker() {
            let room = crate::journal::SEGMENT_SIZE;
            if queue.reserve(&worker, room).is_ok() {
                worker.journal.unreserve(room);
            }
        }
    }
    life.send(&queue, &["c@x"]);
    let _ = life.work(&queue);
    queue.close();
}

/// An operator holds, releases, removes, and leaves wishes about claimed messages.
fn operator(life: &mut Life, queue: Process) {
    use crate::wishes::Wish;
    use sendmail_core::AdminOutcome::Done;
    use sendmail_core::EntryState::{Deferred, Failed, Held, Queued};
    let other = life.start();
    let id = life.send(&queue, &["a@x"]);
    life.note(Note::Held(id, None));
    if let Ok(Done(told)) = other.act(id, Wish::Hold, &[Queued, Deferred]) {
        life.note(Note::Events(vec![event(&told)]));
        life.note(Note::Held(id, Some(true)));
    }
    let _ = life.work(&queue);
    life.note(Note::Held(id, None));
    if let Ok(Done(told)) = other.act(id, Wish::Retry, &[Held]) {
        life.note(Note::Events(vec![event(&told)]));
        life.note(Note::Held(id, Some(false)));
    }
    let _ = life.work(&queue);
    let gone = life.send(&queue, &["never@x"]);
    let _ = life.work(&queue);
    life.note(Note::Removed(gone));
    if let Ok(Done(told)) = other.act(gone, Wish::Remove, &[Queued, Deferred, Held, Failed]) {
        life.note(Note::Events(vec![event(&told)]));
    }
    // Claimed by one, wanted on hold by the other.
    let id = life.send(&queue, &["later@x"]);
    life.note(Note::Held(id, None));
    if let Ok(claimed) = queue.claim(1) {
        life.note(Note::Events(claimed.events.iter().map(event).collect()));
        if other.act(id, Wish::Hold, &[Queued, Deferred]).is_ok() {
            // Whoever ends the claim, alive or not, honours it.
            life.note(Note::Held(id, Some(true)));
        }
        for claim in claimed.claims {
            life.settle(&queue, claim, &Settlement::Release(Release::NotAttempted));
        }
    }
    // Thrown away as rolled back by mistake, and put back.
    let id = life.send_with_database(&queue, &["a@x"], false);
    let _ = life.recover(&other);
    life.note(Note::PuttingBack(id));
    if let Ok(Done(told)) = other.put_back(id) {
        life.note(Note::Events(vec![event(&told)]));
        life.note(Note::Told(vec![id], Told::Committed));
    }
    let _ = life.work(&queue);
}

/// An operator freezes the queue and thaws it.
fn freeze(life: &mut Life, queue: Process) {
    life.send(&queue, &["a@x"]);
    let other = life.start();
    for frozen in [true, false, true] {
        life.note(Note::Frozen(None));
        if other.set_frozen(frozen).is_ok() {
            life.note(Note::Frozen(Some(frozen)));
        }
        let _ = life.work(&queue);
        let _ = life.sweep(&queue);
    }
}

/// Everything that is removed for its age: manifests, journals, what the dead have left.
fn long_after(life: &mut Life, queue: Process) {
    let (transaction, ids) = life.propose(&queue, &[&["a@x"], &["b@x"]]);
    match queue.decide(transaction) {
        Ok(()) => life.told(&ids, Told::Committed),
        Err(error) if error.kind() == ErrorKind::Uncertain => {}
        Err(_) => life.abort(&queue, &ids, Some(transaction)),
    }
    life.kill(queue);
    // Published by one that dies before it has synced that.
    let other = life.start();
    let _ = life.sweep(&other);
    let _ = life.work(&other);
    other.close();
    drop(other);
    let last = life.start();
    life.send(&last, &["c@x"]);
    let _ = life.work(&last);
    life.note(Note::HistoryEnds);
    life.clock.advance(LONG);
    let _ = life.sweep(&last);
    let _ = last.known(&ids);
    let _ = life.work(&last);
    let _ = life.sweep(&last);
}
