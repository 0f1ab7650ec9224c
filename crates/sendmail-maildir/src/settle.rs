//! Settling claims: the outcome goes into the journal first, and is carried out then.
//!
//! Invariant: what the relay answered is durable before the file is unlinked, replaced or moved. From
//! then on the journal says what is to become of the file, and carrying that out twice does no harm.

use std::io;
use std::time::Duration;

use sendmail_core::{
    Attempted, Claim, DeliveryOptions, Error, ErrorKind, MailEvent, MailEventKind, Outcome,
    Recipient, RecipientResult, Settlement, Unsettled, Verdict,
};

use crate::disk::Dir;
use crate::format::{self, Head};
use crate::held::Held;
use crate::journal::record::{Effect, Record};
use crate::name::{Due, MessageName};
use crate::queue::{Handle, Place, Queue, Worker, gone, lock, move_beside};
use crate::reading::{Content, Misfit};
use crate::wishes::Wish;

/// An outcome that is durable in the journal.
#[derive(Debug, Clone)]
pub(crate) struct Settled {
    effect: Effect,
    events: Vec<MailEvent>,
    /// Whether an operator's wish is in it.
    honoured: bool,
}

/// Where a message that stays went.
pub(crate) struct Moved<'a> {
    pub(crate) dir: Handle<'a>,
    pub(crate) name: MessageName,
    pub(crate) options: DeliveryOptions,
    /// It is with the held, from whom only a release takes it.
    pub(crate) held: bool,
}

impl Queue {
    pub(crate) fn settle(
        &self,
        claim: Claim,
        settlement: &Settlement,
    ) -> std::result::Result<Vec<MailEvent>, Unsettled> {
        let operation = "settle the message";
        let worker = match self.check_claim(&claim, operation) {
            Ok(worker) => worker,
            Err(error) => return Err(Unsettled { claim, error }),
        };
        let result = match settlement {
            Settlement::Release(_) => self.release_claim(&worker, &claim),
            Settlement::Attempted(attempted) => self.settle_attempt(&worker, &claim, attempted),
        };
        result.map_err(|error| Unsettled { error: error.with("queue id", claim.id), claim })
    }

    /// Puts a claimed message back as it was, or where an operator wants it.
    fn release_claim(&self, worker: &Worker, claim: &Claim) -> Result<Vec<MailEvent>, Error> {
        let operation = "release the message";
        let trouble = |error| Error::io(operation, error);
        let Settled { effect, mut events, honoured } = match self.settled_before(claim)? {
            Some(settled) => settled,
            None => self.plan_release(claim).map_err(trouble)?,
        };
        let held = lock(&self.claims).get(&claim.id).map(|held| (held.name, held.options.clone()));
        let Some((name, options)) = held else { return Err(crate::held::lost(operation, claim)) };
        let (file, back) = (name.encode(), MessageName { told: true, ..name });
        let mut moved = None;
        if effect.stay.is_empty() {
            gone(worker.dir.unlink(&file)).map_err(trouble)?;
        } else {
            let place = if effect.hold { Place::Held } else { Place::lane(&options) };
            let put = || self.move_to(&worker.dir, &file, &place, &back.encode());
            moved = self.with_reserve(put).map_err(trouble)?;
        }
        self.log(&events).map_err(trouble)?;
        self.clear_wish(claim.id, &worker.dir, honoured);
        self.drop_claim(worker, claim.id, Record::Released(claim.id));
        if let Some((dir, file)) = moved {
            let name = MessageName::decode(&file).unwrap_or(back);
            let moved = Moved { dir, name, options, held: effect.hold };
            events.extend(self.honour_late_wish(claim.id, &moved));
        }
        self.wake.signal();
        Ok(events)
    }

    /// What a release does. Kept in memory alone: if this process dies, it was none.
    fn plan_release(&self, claim: &Claim) -> io::Result<Settled> {
        let wish = self.wish(claim.id)?.filter(|wish| *wish != Wish::Retry);
        let mut claims = lock(&self.claims);
        let Some(held) = claims.get_mut(&claim.id) else {
            return Err(io::ErrorKind::NotFound.into());
        };
        let stay = if wish == Some(Wish::Remove) { Vec::new() } else { held.recipients.clone() };
        let effect = Effect {
            stay,
            failed: Vec::new(),
            hold: wish == Some(Wish::Hold),
            attempts: held.name.attempts,
            kills: held.name.kills,
            due: None,
        };
        let event =
            |wish: Wish| wish.event(self.now(), claim.id).about(claim.id, Some(&held.message_id));
        let events = wish.map(event).into_iter().collect();
        let settled = Settled { effect, events, honoured: wish.is_some() };
        held.settled = Some(settled.clone());
        Ok(settled)
    }

    fn settle_attempt(
        &self,
        worker: &Worker,
        claim: &Claim,
        attempted: &Attempted,
    ) -> Result<Vec<MailEvent>, Error> {
        let operation = "settle the message";
        let trouble = |error| Error::io(operation, error);
        let Settled { effect, mut events, honoured } = match self.settled_before(claim)? {
            Some(settled) => settled,
            None => self.record_outcome(worker, claim, attempted)?,
        };
        let name = lock(&self.claims).get(&claim.id).map(|held| held.name);
        let name = name.ok_or_else(|| crate::held::lost(operation, claim))?;
        let act = || self.carry_out(&worker.dir, name, true, &effect);
        let moved = self.with_reserve(act).map_err(trouble)?;
        self.clear_wish(claim.id, &worker.dir, honoured);
        self.drop_claim(worker, claim.id, Record::Finished(claim.id));
        if let Some(moved) = moved {
            events.extend(self.honour_late_wish(claim.id, &moved));
        }
        Ok(events)
    }

    /// The outcome, if an earlier call recorded it and could not carry it out.
    fn settled_before(&self, claim: &Claim) -> Result<Option<Settled>, Error> {
        let claims = lock(&self.claims);
        let held = claims.get(&claim.id);
        held.map(|held| held.settled.clone())
            .ok_or_else(|| crate::held::lost("settle the message", claim))
    }

    /// Makes the outcome durable.
    fn record_outcome(
        &self,
        worker: &Worker,
        claim: &Claim,
        attempted: &Attempted,
    ) -> Result<Settled, Error> {
        let operation = "settle the message";
        let trouble = |error| Error::io(operation, error);
        let stays =
            |result: &RecipientResult| matches!(result.verdict, Verdict::Retry | Verdict::Hold);
        let wish = match attempted.results.iter().any(stays) {
            true => self.wish(claim.id).map_err(trouble)?,
            false => None,
        };
        let settled = {
            let claims = lock(&self.claims);
            let held = claims.get(&claim.id).ok_or_else(|| crate::held::lost(operation, claim))?;
            let answers = attempted.results.iter().map(|result| &result.recipient);
            if !answers.eq(held.recipients.iter()) {
                return Err(Error::new(
                    ErrorKind::InvalidInput,
                    operation,
                    "the results are not one for each recipient that was loaded, in that order",
                ));
            }
            outcome(held, attempted, wish, self.now())
        };
        let mut records: Vec<Record> =
            settled.events.iter().map(|event| Record::Event(Box::new(event.clone()))).collect();
        records.push(Record::Settled(claim.id, settled.effect.clone()));
        let mark = worker.journal.append(&records).map_err(trouble)?;
        worker.journal.sync(&mark).map_err(trouble)?;
        if let Some(held) = lock(&self.claims).get_mut(&claim.id) {
            held.settled = Some(settled.clone());
        }
        Ok(settled)
    }

    /// Does with a claimed file what the journal says. May be repeated, by whoever takes over. Returns
    /// where the file went, if it stays in the queue.
    ///
    /// `told` says whether the log tells that the message was queued.
    pub(crate) fn carry_out(
        &self,
        dir: &Dir,
        name: MessageName,
        told: bool,
        effect: &Effect,
    ) -> io::Result<Option<Moved<'_>>> {
        let file = name.encode();
        let mut settled = MessageName {
            attempts: effect.attempts,
            kills: effect.kills,
            told,
            ..name.published()
        };
        if effect.stay.is_empty() && effect.failed.is_empty() {
            return gone(dir.unlink(&file)).map(|_| None);
        }
        let content = match self.read_message(dir, &file, name) {
            Ok(content) => content,
            // Carried out before.
            Err(Misfit::Gone) => return Ok(None),
            // Whoever is still to be served can only be served by people now.
            Err(Misfit::Damaged(why)) => {
                return self.put_with_failed(dir, &file, &why).map(|()| None);
            }
            Err(Misfit::Trouble(error)) => return Err(error),
            Err(Misfit::Stays(why) | Misfit::Unreadable(why)) => return Err(io::Error::other(why)),
        };
        settled.foreign = content.foreign;
        let recipients = content.loaded.envelope.recipients();
        if effect.stay.is_empty() && recipients == effect.failed {
            // Not synced: if the crash of the machine undoes it, the journal has it done again.
            let failed = &self.layout.failed_new;
            let put = move_beside(dir, &file, failed, &settled.encode()).map(drop);
            return gone(put).map(|_| None);
        }
        if !effect.failed.is_empty() {
            self.keep_failed(&content, settled, &effect.failed)?;
        }
        if effect.stay.is_empty() {
            return gone(dir.unlink(&file)).map(|_| None);
        }
        if recipients != effect.stay {
            // Under the same name, so that there is one file at each moment.
            let temporary = self.write_for(&content, settled, &effect.stay)?;
            self.layout.tmp.rename(&temporary, dir, &file)?;
            settled.foreign = false;
        }
        let options = content.loaded.envelope.options().clone();
        let (place, target) = match (effect.hold, effect.due) {
            (true, _) => (Place::Held, settled),
            (false, Some(due)) => (Place::due(due), settled.due(due)),
            (false, None) => (Place::lane(&options), settled),
        };
        let moved = self.move_to(dir, &file, &place, &target.encode())?;
        Ok(moved.map(|(dir, file)| {
            let name = MessageName::decode(&file).unwrap_or(target);
            Moved { dir, name, options, held: effect.hold }
        }))
    }

    /// Keeps a copy for recipients who were given up.
    fn keep_failed(
        &self,
        content: &Content,
        name: MessageName,
        to: &[Recipient],
    ) -> io::Result<()> {
        let name = MessageName { foreign: false, ..name };
        let temporary = self.write_for(content, name, to)?;
        let (failed, file) = (&self.layout.failed_new, name.encode());
        // Its own copy of an earlier try is replaced, and never that of another message of this id.
        let own = self.read_message(failed, &file, name).is_ok_and(|kept| {
            kept.loaded.envelope.recipients() == to && kept.loaded.message == content.loaded.message
        });
        if own {
            self.layout.tmp.rename(&temporary, failed, &file)?;
        } else {
            move_beside(&self.layout.tmp, &temporary, failed, &file)?;
        }
        failed.sync()
    }

    /// Writes the message for these recipients into `tmp/`, synced, and returns its name there.
    fn write_for(
        &self,
        content: &Content,
        name: MessageName,
        to: &[Recipient],
    ) -> io::Result<Vec<u8>> {
        let envelope = content.loaded.envelope.with_recipients(to.iter().cloned());
        let head = Head {
            id: name.id,
            resource: self.layout.resource.clone(),
            queued_at: content.loaded.queued_at,
            envelope: envelope.map_err(io::Error::other)?,
        };
        // Never taken for a message on its way into the queue: it has no name of that form.
        let temporary = format!(".rest-{}-{}", self.owner.id, name.id).into_bytes();
        gone(self.layout.tmp.unlink(&temporary))?;
        let message = &content.loaded.message;
        let parts: [&[u8]; 2] = [&format::encode_head(&head, message), message.as_bytes()];
        self.layout.tmp.write_synced(&temporary, &parts)?;
        Ok(temporary)
    }
}

/// What is to be done and what is to be told after an attempt.
fn outcome(
    held: &Held,
    attempted: &Attempted,
    wish: Option<Wish>,
    now: sendmail_core::Timestamp,
) -> Settled {
    let attempt = held.name.attempts.saturating_add(1);
    let chosen = |verdicts: &[Verdict]| -> Vec<Recipient> {
        let results = attempted.results.iter().filter(|result| verdicts.contains(&result.verdict));
        results.map(|result| result.recipient.clone()).collect()
    };
    let about = |event: MailEvent| event.about(held.name.id, Some(&held.message_id));
    let mut events: Vec<MailEvent> = attempted
        .results
        .iter()
        .flat_map(|result| {
            let kinds = event_kinds(result);
            kinds.iter().map(|kind| {
                let event = MailEvent::new(*kind, now);
                about(event.in_attempt(attempt, &result.recipient, result.outcome.reply()))
            })
        })
        .collect();
    let mut effect = Effect {
        stay: chosen(&[Verdict::Retry, Verdict::Hold]),
        failed: chosen(&[Verdict::Fail, Verdict::Expire]),
        hold: !chosen(&[Verdict::Hold]).is_empty(),
        attempts: attempt,
        kills: held.name.kills,
        due: due(now, attempted.retry_after),
    };
    if let Some(wish) = wish {
        match wish {
            Wish::Remove => effect.stay.clear(),
            Wish::Hold => effect.hold = true,
            Wish::Retry => effect.due = None,
        }
        if wish != Wish::Retry {
            events.push(about(wish.event(now, held.name.id)));
        }
    }
    Settled { effect, events, honoured: wish.is_some() }
}

/// What is told about one recipient. Who may have got the message and gets it again, or may get it
/// again once somebody decides so, is announced as such.
fn event_kinds(result: &RecipientResult) -> &'static [MailEventKind] {
    let unknown = matches!(result.outcome, Outcome::Unknown(_));
    match result.verdict {
        Verdict::Done => &[MailEventKind::Sent],
        Verdict::Retry if unknown => &[MailEventKind::PossibleDuplicate],
        Verdict::Retry => &[MailEventKind::Deferred],
        Verdict::Hold if unknown => &[MailEventKind::Held, MailEventKind::PossibleDuplicate],
        Verdict::Hold => &[MailEventKind::Held],
        Verdict::Fail if unknown => &[MailEventKind::PossibleDuplicate, MailEventKind::Failed],
        Verdict::Fail => &[MailEventKind::Failed],
        Verdict::Expire if unknown => &[MailEventKind::PossibleDuplicate, MailEventKind::Expired],
        Verdict::Expire => &[MailEventKind::Expired],
    }
}

fn due(now: sendmail_core::Timestamp, delay: Duration) -> Option<Due> {
    let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    (delay_ms > 0).then(|| Due { at: now.saturating_add(delay), delay_ms })
}
