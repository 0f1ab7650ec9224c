//! [`MemoryStore`] as one who decides transactions.

use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    Decision, DecisionLog, DecisionStore, Error, ErrorKind, QueueId, ResourceId, Result,
    TransactionId,
};

use super::state::{Proposal, State};
use super::{MemoryStore, Operation, misuse};

#[async_trait]
impl DecisionStore for MemoryStore {
    fn resource_id(&self) -> &ResourceId {
        &self.process.shared.resource
    }

    async fn visible(&self, ids: &[QueueId]) -> Result<Vec<QueueId>> {
        let state = self.live("look which messages are committed")?;
        Ok(ids.iter().copied().filter(|id| state.committed.contains(id)).collect())
    }

    async fn fence(&self, id: QueueId, _timeout: Duration) -> Result<Decision> {
        let mut state = self.live("fence the message")?;
        Ok(state.fence(id))
    }

    async fn forget(&self, ids: &[QueueId]) -> Result<()> {
        let mut state = self.live("forget decisions")?;
        for id in ids {
            if state.items.get(id).is_some_and(|item| item.is_undecided()) {
                return Err(
                    misuse("forget decisions", "the message is not published").with("queue id", id)
                );
            }
            state.committed.remove(id);
        }
        Ok(())
    }

    /// None: the queue's own sweep finds out what may be forgotten.
    async fn remembered(&self, _age: Duration, _limit: usize) -> Result<Vec<QueueId>> {
        self.live("look for left decisions").map(|_| Vec::new())
    }

    async fn sweep(&self) -> Result<usize> {
        self.live("sweep the decisions").map(|_| 0)
    }
}

#[async_trait]
impl DecisionLog for MemoryStore {
    async fn propose(&self, transaction: TransactionId, ids: &[QueueId]) -> Result<()> {
        let operation = Operation::Propose.verb();
        let mut state = self.live(operation)?;
        state.fault(Operation::Propose)?;
        if ids.is_empty() {
            return Err(misuse(operation, "there is nothing to decide"));
        }
        if ids.iter().any(|id| state.aborted.contains(id)) {
            return Err(aborted(operation, transaction));
        }
        if let Some(earlier) = state.proposals.get(&transaction) {
            let same = earlier.ids == ids;
            return if same { Ok(()) } else { Err(misuse(operation, "it is proposed already")) };
        }
        let owner = self.process.number;
        state.proposals.insert(transaction, Proposal { ids: ids.to_vec(), owner, decided: false });
        Ok(())
    }

    async fn decide(&self, transaction: TransactionId) -> Result<()> {
        let operation = Operation::Decide.verb();
        let mut state = self.live(operation)?;
        state.fault(Operation::Decide)?;
        let Some(proposal) = state.proposals.get_mut(&transaction) else {
            return Err(aborted(operation, transaction));
        };
        if !proposal.decided {
            proposal.decided = true;
            let ids = proposal.ids.clone();
            state.committed.extend(ids);
        }
        Ok(())
    }

    async fn retract(&self, transaction: TransactionId) -> Result<()> {
        let operation = "retract the proposal";
        let mut state = self.live(operation)?;
        match state.proposals.get(&transaction) {
            Some(proposal) if proposal.decided => Err(misuse(operation, "it is decided")),
            Some(proposal) => {
                let ids = proposal.ids.clone();
                state.proposals.remove(&transaction);
                state.aborted.extend(ids);
                Ok(())
            }
            None => Ok(()),
        }
    }
}

impl State {
    /// What became of `id`; after `Aborted` it can never be committed here.
    fn fence(&mut self, id: QueueId) -> Decision {
        if self.committed.contains(&id) {
            return Decision::Committed;
        }
        let owner = match self.proposed(id) {
            Some(proposal) => Some(proposal.owner),
            None => self
                .items
                .get(&id)
                .filter(|item| item.is_undecided() && item.new.resource == self.resource)
                .map(|item| item.owner),
        };
        if owner.is_some_and(|owner| self.alive.contains(&owner)) && !self.aborted.contains(&id) {
            return Decision::Unfinished;
        }
        self.abort_with(id);
        Decision::Aborted
    }

    /// Fences `id` off, and with it all that was proposed together with it.
    fn abort_with(&mut self, id: QueueId) {
        self.aborted.insert(id);
        let aborted = &mut self.aborted;
        self.proposals.retain(|_, proposal| {
            let stays = proposal.decided || !proposal.ids.contains(&id);
            if !stays {
                aborted.extend(proposal.ids.iter().copied());
            }
            stays
        });
    }
}

fn aborted(operation: &'static str, transaction: TransactionId) -> Error {
    Error::new(ErrorKind::Aborted, operation, "the transaction was fenced off or never proposed")
        .with("transaction", transaction)
}
