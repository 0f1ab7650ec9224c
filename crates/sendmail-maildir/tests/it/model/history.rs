//! What the processes of a history do, and what the ledger writes down of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sendmail_core::{
    AdminOutcome, AmbiguousPolicy, Attempted, Claim, Clock as _, DeliveryOptions, Discard,
    Envelope, EventLog, Loaded, Message, NewMessage, Outcome, QueueAdmin, QueueId, QueueStore,
    RecipientResult, Release, Reply, ResourceId, Settlement, Step, Timestamp, TransactionId,
    Verdict,
};
use sendmail_testkit::ManualClock;

use super::deeds::{Deed, What};
use super::worlds::{Process, World};

pub(super) const PROCESSES: usize = 3;

/// What became of a message's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Open,
    Committed,
    RolledBack,
}

/// What the ledger knows of a message.
#[derive(Debug)]
pub(super) struct Account {
    pub(super) fate: Fate,
    /// How many copies the relay took, by recipient.
    pub(super) copies: BTreeMap<String, u32>,
    /// How often it was left open whether a copy was taken.
    pub(super) doubts: BTreeMap<String, u32>,
    /// An operator asked for its removal.
    pub(super) removed: bool,
}

/// A claim as its worker holds it.
pub(super) struct Attempt {
    claim: Claim,
    loaded: Loaded,
    /// Whom the relay took it for, once it was handed over.
    taken: Option<u8>,
}

/// A process with what it has in memory.
pub(super) struct Running {
    pub(super) process: Process,
    written: Vec<QueueId>,
    proposed: Vec<(TransactionId, Vec<QueueId>)>,
    decided: Vec<(TransactionId, Vec<QueueId>)>,
    pub(super) attempts: Vec<Attempt>,
}

pub(super) struct History<'a, W: World> {
    pub(super) world: &'a W,
    pub(super) clock: ManualClock,
    pub(super) admin: Arc<dyn QueueAdmin>,
    pub(super) log: Arc<dyn EventLog>,
    own: ResourceId,
    pub(super) running: Vec<Running>,
    pub(super) accounts: BTreeMap<QueueId, Account>,
    /// Messages that a database decides.
    pub(super) staged: Vec<QueueId>,
    minted: u128,
}

pub(super) type Checked = Result<(), TestCaseError>;

impl<'a, W: World> History<'a, W> {
    pub(super) async fn new(world: &'a W, clock: ManualClock) -> Self {
        let mut running = Vec::new();
        for _ in 0..PROCESSES {
            running.push(Running::new(world.process().await));
        }
        let own = running[0].process.store.resource_id().clone();
        let (admin, log) = world.observer().await;
        let (accounts, staged) = (BTreeMap::new(), Vec::new());
        Self { world, clock, admin, log, own, running, accounts, staged, minted: 0 }
    }

    fn message(&mut self, pick: u8, resource: &str) -> NewMessage {
        self.minted += 1;
        let id = QueueId::from_bytes((self.minted << 64 | 0x7000_8000 << 32).to_be_bytes());
        let names = ["a@x", "b@x", "c@x"];
        let to = &names[..1 + usize::from(pick) % 3];
        let mut options = DeliveryOptions::default();
        options.ambiguous = match pick / 3 % 8 {
            0 => AmbiguousPolicy::Hold,
            1 => AmbiguousPolicy::Drop,
            _ => AmbiguousPolicy::Retry,
        };
        if (pick / 24).is_multiple_of(4) {
            options.tenant = Some("acme".parse().unwrap());
        }
        let zero = || to.iter().map(|name| ((*name).to_owned(), 0)).collect();
        let account = Account { fate: Fate::Open, copies: zero(), doubts: zero(), removed: false };
        self.accounts.insert(id, account);
        let raw = format!("Message-ID: <{}@test>\nDate: d\n\nbody\n", self.minted);
        NewMessage {
            id,
            envelope: Envelope::parse("from@x", to).unwrap().with_options(options),
            message: Message::from_raw(raw.as_bytes(), Timestamp::EPOCH, "test").unwrap(),
            resource: resource.parse().unwrap(),
        }
    }

    fn fate(&mut self, ids: &[QueueId], fate: Fate) {
        for id in ids {
            self.accounts.get_mut(id).unwrap().fate = fate;
        }
    }

    async fn write(&mut self, deed: Deed, count: u8, resource: &str) -> Vec<QueueId> {
        let mut ids = Vec::new();
        for n in 0..count {
            let new = self.message(deed.pick.wrapping_add(n * 7), resource);
            self.running[deed.process].process.store.write(&new).await.unwrap();
            ids.push(new.id);
        }
        ids
    }

    pub(super) async fn act(&mut self, deed: Deed) -> Checked {
        let Process { store, log, .. } = self.running[deed.process].process.clone();
        let own = self.own.to_string();
        match deed.what {
            What::Send => {
                let ids = self.write(deed, 1, &own).await;
                store.publish(&ids).await.unwrap();
                self.fate(&ids, Fate::Committed);
            }
            What::Write => {
                let ids = self.write(deed, 1, &own).await;
                self.running[deed.process].written.extend(ids);
            }
            What::Publish => {
                if let Some(id) = self.running[deed.process].written.pop() {
                    store.publish(&[id]).await.unwrap();
                    self.fate(&[id], Fate::Committed);
                }
            }
            What::Abort => {
                if let Some(id) = self.running[deed.process].written.pop() {
                    store.discard(&[id], Discard::Aborted).await.unwrap();
                    self.fate(&[id], Fate::RolledBack);
                }
            }
            What::Propose => {
                let ids = self.write(deed, 2 + deed.pick % 2, &own).await;
                store.stage(&ids).await.unwrap();
                let transaction = TransactionId::from_bytes(self.minted.to_be_bytes());
                log.propose(transaction, &ids).await.unwrap();
                self.running[deed.process].proposed.push((transaction, ids));
            }
            What::Decide => {
                if let Some((transaction, ids)) = self.running[deed.process].proposed.pop() {
                    log.decide(transaction).await.unwrap();
                    self.fate(&ids, Fate::Committed);
                    self.running[deed.process].decided.push((transaction, ids));
                }
            }
            What::PublishDecided => {
                if let Some((_, ids)) = self.running[deed.process].decided.pop() {
                    store.publish(&ids).await.unwrap();
                    log.forget(&ids).await.unwrap();
                }
            }
            What::Retract => {
                if let Some((transaction, ids)) = self.running[deed.process].proposed.pop() {
                    store.discard(&ids, Discard::Aborted).await.unwrap();
                    log.retract(transaction).await.unwrap();
                    self.fate(&ids, Fate::RolledBack);
                }
            }
            What::Stage => {
                let ids = self.write(deed, 1, "database").await;
                store.stage(&ids).await.unwrap();
                self.staged.extend(ids);
            }
            What::Resolve => {
                if let Some(id) = self.staged.pop() {
                    self.resolve(&store, id, deed.pick.is_multiple_of(2)).await;
                }
            }
            What::Claim => self.claim(deed).await?,
            What::HandOver => self.hand_over(deed).await?,
            What::Settle => self.settle(deed).await?,
            What::Release => {
                let attempts = &mut self.running[deed.process].attempts;
                if let Some(at) = attempts.iter().position(|attempt| attempt.taken.is_none()) {
                    let claim = attempts.remove(at).claim;
                    let back = Settlement::Release(Release::NotAttempted);
                    store.settle(claim, back).await.unwrap();
                }
            }
            What::Sweep => drop(store.sweep().await.unwrap()),
            What::Kill => {
                (self.running[deed.process].process.kill)();
                self.reopen(deed.process).await;
            }
            What::Close => self.reopen(deed.process).await,
            What::Advance => {
                let seconds = 40 * u64::from(deed.pick);
                self.clock.advance(Duration::from_secs(seconds));
            }
            What::StepClock => {
                let (year, now) = (365 * 24 * 3_600_000, self.clock.now().as_millis());
                let times = [0, now + 10 * year, 1_800_000_000_000];
                self.clock.set(Timestamp::from_millis(times[usize::from(deed.pick) % 3]));
            }
            What::Operate => self.operate(deed.pick).await,
            What::Freeze => {
                self.admin.set_frozen(deed.pick.is_multiple_of(4)).await.unwrap();
            }
            What::PutBack => self.put_back(deed.pick).await,
        }
        Ok(())
    }

    pub(super) async fn resolve(&mut self, store: &Arc<dyn QueueStore>, id: QueueId, commit: bool) {
        if commit {
            store.publish(&[id]).await.unwrap();
            self.fate(&[id], Fate::Committed);
        } else {
            let events = store.discard(&[id], Discard::Fenced).await.unwrap();
            assert_eq!(events.len(), 1);
            self.fate(&[id], Fate::RolledBack);
        }
    }

    /// A process ends, and another takes its place.
    pub(super) async fn reopen(&mut self, index: usize) {
        let fresh = Running::new(self.world.process().await);
        let old = std::mem::replace(&mut self.running[index], fresh);
        // What it did not decide nobody can decide any more.
        self.fate(&old.written, Fate::RolledBack);
        for (_, ids) in &old.proposed {
            self.fate(ids, Fate::RolledBack);
        }
        for attempt in old.attempts.iter().filter(|attempt| attempt.taken.is_some()) {
            let account = self.accounts.get_mut(&attempt.claim.id).unwrap();
            for recipient in attempt.loaded.envelope.recipients() {
                *account.doubts.get_mut(recipient.as_str()).unwrap() += 1;
            }
        }
        (old.process.kill)();
    }

    pub(super) async fn claim(&mut self, deed: Deed) -> Checked {
        let store = self.running[deed.process].process.store.clone();
        let claimed = store.claim(1 + usize::from(deed.pick) % 4).await.unwrap();
        prop_assert!(claimed.claims.is_empty() || !store.is_frozen().await.unwrap(), "frozen");
        for claim in claimed.claims {
            let held = self.running.iter().flat_map(|running| &running.attempts);
            prop_assert!(
                held.into_iter().all(|attempt| attempt.claim.id != claim.id),
                "{} is claimed twice",
                claim.id
            );
            prop_assert_eq!(self.accounts[&claim.id].fate, Fate::Committed, "of {}", claim.id);
            let loaded = store.load(&claim).await.unwrap();
            self.running[deed.process].attempts.push(Attempt { claim, loaded, taken: None });
        }
        Ok(())
    }

    /// Hands a message over; the relay takes it for those whose bit is set.
    pub(super) async fn hand_over(&mut self, deed: Deed) -> Checked {
        let running = &mut self.running[deed.process];
        let store = running.process.store.clone();
        let Some(attempt) = running.attempts.iter_mut().find(|a| a.taken.is_none()) else {
            return Ok(());
        };
        store.record(&attempt.claim, Step::Begin).await.unwrap();
        store.record(&attempt.claim, Step::Handover).await.unwrap();
        attempt.taken = Some(deed.pick);
        let account = self.accounts.get_mut(&attempt.claim.id).unwrap();
        for (bit, recipient) in attempt.loaded.envelope.recipients().iter().enumerate() {
            if deed.pick >> bit & 1 == 1 {
                *account.copies.get_mut(recipient.as_str()).unwrap() += 1;
            }
        }
        let announced = self.announced().await;
        self.check_copies(&announced)
    }

    pub(super) async fn settle(&mut self, deed: Deed) -> Checked {
        let running = &mut self.running[deed.process];
        let store = running.process.store.clone();
        let Some(at) = running.attempts.iter().position(|attempt| attempt.taken.is_some()) else {
            return Ok(());
        };
        let Attempt { claim, loaded, taken } = running.attempts.remove(at);
        let account = self.accounts.get_mut(&claim.id).unwrap();
        let lost = deed.pick & 0xc0 == 0xc0;
        let mut results = Vec::new();
        for (bit, recipient) in loaded.envelope.recipients().iter().enumerate() {
            let (outcome, verdict) = match (lost, taken.unwrap() >> bit & 1, deed.pick >> bit & 1) {
                (true, ..) => {
                    *account.doubts.get_mut(recipient.as_str()).unwrap() += 1;
                    (Outcome::Unknown(Reply::new(451, "lost")), Verdict::Retry)
                }
                (_, 1, _) => (Outcome::Accepted(Reply::new(250, "ok")), Verdict::Done),
                (_, _, 1) => (Outcome::Deferred(Reply::new(450, "later")), Verdict::Retry),
                _ => (Outcome::Refused(Reply::new(550, "no")), Verdict::Fail),
            };
            results.push(RecipientResult { recipient: recipient.clone(), outcome, verdict });
        }
        let retry_after = Duration::from_secs(u64::from(deed.pick >> 3 & 3) * 90);
        let settlement = Settlement::Attempted(Attempted { results, retry_after });
        let told = store.settle(claim, settlement).await.unwrap();
        prop_assert!(!told.is_empty());
        Ok(())
    }

    async fn operate(&mut self, pick: u8) {
        let ids: Vec<QueueId> = self.accounts.keys().copied().collect();
        let Some(id) = ids.get(usize::from(pick / 4) % ids.len().max(1)).copied() else { return };
        if self.accounts[&id].fate != Fate::Committed {
            return;
        }
        match pick % 8 {
            0..3 => drop(self.admin.hold(id).await.unwrap()),
            3 | 4 => drop(self.admin.release(id).await.unwrap()),
            5 | 6 => drop(self.admin.retry_now(id).await.unwrap()),
            _ => {
                // What is decided and not published cannot be removed yet.
                let Ok(outcome) = self.admin.remove(id).await else { return };
                if matches!(outcome, AdminOutcome::Done(_) | AdminOutcome::Claimed) {
                    self.accounts.get_mut(&id).unwrap().removed = true;
                }
            }
        }
    }

    /// From here on the operator's word counts.
    async fn put_back(&mut self, pick: u8) {
        let rolled_back = |(_, account): &(&QueueId, &Account)| account.fate == Fate::RolledBack;
        let ids: Vec<QueueId> =
            self.accounts.iter().filter(rolled_back).map(|(id, _)| *id).collect();
        let Some(id) = ids.get(usize::from(pick) % ids.len().max(1)).copied() else { return };
        if matches!(self.admin.put_back(id).await.unwrap(), AdminOutcome::Done(_)) {
            self.fate(&[id], Fate::Committed);
        }
    }
}

impl Running {
    fn new(process: Process) -> Self {
        let (written, proposed, decided) = (Vec::new(), Vec::new(), Vec::new());
        Self { process, written, proposed, decided, attempts: Vec::new() }
    }
}
