//! The end of a history: everything is delivered, and the ledger must balance.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::time::Duration;

use proptest::prelude::*;
use sendmail_core::{EntryState, Filter, MailEvent, MailEventKind, QueueId};

use super::deeds::{Deed, What};
use super::history::{Checked, Fate, History, PROCESSES};
use super::worlds::World;

impl<W: World> History<'_, W> {
    /// Everybody dies, or goes on; then all that can be delivered is delivered.
    pub(super) async fn finish(&mut self, kill: bool) -> Checked {
        for index in 0..PROCESSES {
            if kill {
                (self.running[index].process.kill)();
            }
            self.reopen(index).await;
        }
        self.admin.set_frozen(false).await.unwrap();
        let store = self.running[0].process.store.clone();
        for id in std::mem::take(&mut self.staged) {
            self.resolve(&store, id, true).await;
        }
        // The second finds what the first has made ready for it.
        store.sweep().await.unwrap();
        store.sweep().await.unwrap();
        let undecided = store.undecided().await.unwrap();
        prop_assert!(undecided.is_empty(), "still undecided: {undecided:?}");
        // A due time of a clock that has jumped is set anew first, and passes then.
        for _ in 0..2 {
            self.clock.advance(Duration::from_secs(1000));
            self.deliver_what_is_due().await?;
        }
        self.check_known().await?;
        self.balance().await
    }

    async fn deliver_what_is_due(&mut self) -> Checked {
        loop {
            for id in self.accounts.keys() {
                drop(self.admin.release(*id).await.unwrap());
            }
            self.claim(Deed { process: 0, what: What::Claim, pick: 3 }).await?;
            if self.running[0].attempts.is_empty() {
                return Ok(());
            }
            while !self.running[0].attempts.is_empty() {
                self.hand_over(Deed { process: 0, what: What::HandOver, pick: 7 }).await?;
                self.settle(Deed { process: 0, what: What::Settle, pick: 0 }).await?;
            }
        }
    }

    /// What was published is known as that, whatever became of it, and nothing else is.
    async fn check_known(&self) -> Checked {
        let ids: Vec<QueueId> = self.accounts.keys().copied().collect();
        let known = self.running[0].process.store.known(&ids).await.unwrap();
        for (id, account) in &self.accounts {
            prop_assert_eq!(known.contains(id), account.fate == Fate::Committed, "of {}", id);
        }
        Ok(())
    }

    async fn events(&self) -> Vec<MailEvent> {
        let (mut all, mut cursor) = (Vec::new(), None);
        loop {
            let page = self.log.read(cursor, 50).await.unwrap();
            let Some((last, _)) = page.events.last() else { return all };
            cursor = Some(last.clone());
            all.extend(page.events.into_iter().map(|(_, event)| event));
        }
    }

    /// How many times each possible second copy was announced.
    pub(super) async fn announced(&self) -> BTreeMap<(QueueId, String), u32> {
        let mut seen = BTreeSet::new();
        let mut announced = BTreeMap::new();
        for event in self.events().await {
            if event.kind == MailEventKind::PossibleDuplicate && seen.insert(*event.id.as_bytes()) {
                let recipient = event.recipient.unwrap().to_string();
                *announced.entry((event.queue_id.unwrap(), recipient)).or_default() += 1;
            }
        }
        announced
    }

    /// I8: a second copy was announced, and no more was announced than was in doubt.
    pub(super) fn check_copies(&self, announced: &BTreeMap<(QueueId, String), u32>) -> Checked {
        for (id, account) in &self.accounts {
            for (recipient, copies) in &account.copies {
                let told = announced.get(&(*id, recipient.clone())).copied().unwrap_or(0);
                prop_assert!(*copies <= 1 + told, "{copies} copies of {id}, {told} announced");
                let doubts = account.doubts[recipient];
                prop_assert!(told <= doubts, "{id}: {told} announced, {doubts} in doubt");
                prop_assert!(*copies == 0 || account.fate == Fate::Committed, "{id} was sent");
            }
        }
        Ok(())
    }

    async fn balance(&mut self) -> Checked {
        let mut failed = BTreeSet::new();
        let mut elsewhere = Vec::new();
        let mut visit = |entry: sendmail_core::Entry| {
            match entry.state {
                EntryState::Failed => {
                    failed.extend(entry.recipients.iter().map(|r| (entry.id, r.to_string())));
                }
                state => elsewhere.push((entry.id, state)),
            }
            ControlFlow::Continue(())
        };
        self.admin.list(&Filter::default(), &mut visit).await.unwrap();
        prop_assert!(elsewhere.is_empty(), "not delivered: {elsewhere:?}");
        let announced = self.announced().await;
        self.check_copies(&announced)?;
        let events = self.events().await;
        for (id, account) in &self.accounts {
            for (recipient, copies) in &account.copies {
                let kept = failed.contains(&(*id, recipient.clone()));
                let lost = account.fate == Fate::Committed && !account.removed;
                prop_assert!(!lost || *copies > 0 || kept, "{id} to {recipient} is lost");
            }
            let queued = events
                .iter()
                .filter(|event| event.kind == MailEventKind::Queued && event.queue_id == Some(*id));
            let queued = queued.count();
            prop_assert!(queued <= 1, "{id} was told as queued {queued} times");
            prop_assert!(
                queued == 1 || account.removed || account.fate != Fate::Committed,
                "nobody told that {id} was queued"
            );
        }
        let left = self.world.left_over();
        prop_assert!(left.is_empty(), "left over: {left:?}");
        Ok(())
    }
}
