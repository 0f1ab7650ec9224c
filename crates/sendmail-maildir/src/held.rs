//! The claims that this process holds: reading them, recording steps, and checking that they still are.

use std::sync::Arc;

use sendmail_core::{
    AmbiguousPolicy, Claim, ClaimToken, DeliveryOptions, Error, ErrorKind, Loaded, MessageId,
    QueueId, Recipient, Result, Step,
};

use crate::journal::record::Record;
use crate::name::MessageName;
use crate::queue::{Queue, Worker, lock};
use crate::reading::Misfit;

/// A message that this process has claimed.
#[derive(Debug)]
pub(crate) struct Held {
    pub(crate) token: ClaimToken,
    /// Under which name it is in the worker's directory.
    pub(crate) name: MessageName,
    /// What is kept free for it in the journal.
    pub(crate) room: u64,
    pub(crate) recipients: Vec<Recipient>,
    pub(crate) message_id: MessageId,
    pub(crate) options: DeliveryOptions,
    /// The outcome, once it is durable in the journal and could not be carried out yet.
    pub(crate) settled: Option<crate::settle::Settled>,
    pub(crate) loaded: Option<Loaded>,
}

impl Queue {
    pub(crate) fn load(&self, claim: &Claim) -> Result<Loaded> {
        let operation = "load the message";
        let worker = self.check_claim(claim, operation)?;
        let name = {
            let mut claims = lock(&self.claims);
            let held = claims.get_mut(&claim.id).ok_or_else(|| lost(operation, claim))?;
            if let Some(loaded) = held.loaded.take() {
                return Ok(loaded);
            }
            held.name
        };
        match self.read_message(&worker.dir, &name.encode(), name) {
            Ok(content) => Ok(content.loaded),
            Err(Misfit::Gone) => Err(lost(operation, claim)),
            Err(Misfit::Trouble(error)) => {
                Err(Error::io(operation, error).with("queue id", claim.id))
            }
            Err(Misfit::Stays(why) | Misfit::Unreadable(why)) => {
                Err(Error::new(ErrorKind::Io, operation, why).with("queue id", claim.id))
            }
            Err(Misfit::Damaged(why)) => {
                let moved = self.put_with_failed(&worker.dir, &name.encode(), &why);
                moved.map_err(|error| Error::io(operation, error).with("queue id", claim.id))?;
                self.drop_claim(&worker, claim.id, Record::Finished(claim.id));
                Err(Error::new(ErrorKind::Damaged, operation, why).with("queue id", claim.id))
            }
        }
    }

    pub(crate) fn record(&self, claim: &Claim, step: Step) -> Result<()> {
        let operation = "record a step of the attempt";
        let worker = self.check_claim(claim, operation)?;
        let policy = lock(&self.claims).get(&claim.id).map(|held| held.options.ambiguous);
        let record = match step {
            Step::Begin => Record::Begun(claim.id),
            Step::Handover => Record::HandedOver(claim.id),
        };
        let durable = step == Step::Handover && policy != Some(AmbiguousPolicy::Retry);
        let write = || {
            let mark = worker.journal.append(std::slice::from_ref(&record))?;
            if durable { worker.journal.sync(&mark) } else { Ok(()) }
        };
        write().map_err(|error| Error::io(operation, error).with("queue id", claim.id))
    }

    /// Whether the claim is still this process's: its token, and the file in its place.
    pub(crate) fn check_claim(
        &self,
        claim: &Claim,
        operation: &'static str,
    ) -> Result<Arc<Worker>> {
        let (name, is_settled) = {
            let claims = lock(&self.claims);
            let held = claims.get(&claim.id).filter(|held| held.token == claim.token);
            let held = held.ok_or_else(|| lost(operation, claim))?;
            (held.name.encode(), held.settled.is_some())
        };
        let worker = self.worker_if_any().ok_or_else(|| lost(operation, claim))?;
        match worker.dir.exists(&name) {
            Ok(true) => Ok(worker),
            // The outcome is known, and was carried out in part by an earlier call.
            Ok(false) if is_settled && self.owner.is_held() => Ok(worker),
            Ok(false) => {
                self.drop_claim(&worker, claim.id, Record::Released(claim.id));
                Err(lost(operation, claim))
            }
            Err(error) => Err(Error::io(operation, error).with("queue id", claim.id)),
        }
    }

    /// Ends a claim whose file is where it belongs. The record only spares whoever takes over a look.
    pub(crate) fn drop_claim(&self, worker: &Worker, id: QueueId, record: Record) {
        let _ = worker.journal.append(&[record]);
        if let Some(held) = lock(&self.claims).remove(&id) {
            worker.journal.unreserve(held.room);
        }
    }
}

pub(crate) fn lost(operation: &'static str, claim: &Claim) -> Error {
    Error::new(ErrorKind::LeaseLost, operation, "somebody else has the message, or it is settled")
        .with("queue id", claim.id)
}
