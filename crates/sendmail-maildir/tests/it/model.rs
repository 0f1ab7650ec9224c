//! Random histories of several processes on one queue, checked against a ledger.
//!
//! A history is a list of steps of up to three processes: they write, decide, claim, hand over, settle,
//! sweep and die; an operator and the clock interfere. The ledger knows what was committed, and counts
//! every copy that the imagined relay took. At the end everything that can be delivered is delivered,
//! and the ledger must balance. The same histories run on the reference store, so that a mistake in the
//! ledger shows as well.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use sendmail_core::{
    AdminOutcome, AmbiguousPolicy, Attempted, Claim, Clock as _, DecisionLog, DeliveryOptions,
    Discard, EntryState, Envelope, EventLog, Filter, Loaded, MailEvent, MailEventKind, Message,
    NewMessage, Outcome, QueueAdmin, QueueId, QueueStore, RecipientResult, Release, Reply,
    ResourceId, Settlement, Step, Timestamp, TransactionId, Verdict,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_testkit::{ManualClock, MemoryStore};

use crate::harness::files;

const PROCESSES: usize = 3;

/// One step of a history: who does what, with a number that says which and how.
#[derive(Debug, Clone, Copy)]
struct Deed {
    process: usize,
    what: What,
    pick: u8,
}

#[derive(Debug, Clone, Copy)]
enum What {
    /// Writes and publishes one message.
    Send,
    /// Writes one message, and publishes or discards it later.
    Write,
    Publish,
    Abort,
    /// Writes, stages and proposes several messages.
    Propose,
    Decide,
    PublishDecided,
    Retract,
    /// Writes and stages a message whose fate a database decides.
    Stage,
    /// Somebody learns what the database decided.
    Resolve,
    Claim,
    HandOver,
    Settle,
    Release,
    Sweep,
    Kill,
    Close,
    Advance,
    StepClock,
    Operate,
    /// An operator freezes the queue, or thaws it.
    Freeze,
    /// An operator puts a discarded message back.
    PutBack,
}

fn any_deed() -> impl Strategy<Value = Deed> {
    let what = prop_oneof![
        3 => Just(What::Send),
        1 => Just(What::Write),
        1 => Just(What::Publish),
        1 => Just(What::Abort),
        1 => Just(What::Propose),
        1 => Just(What::Decide),
        1 => Just(What::PublishDecided),
        1 => Just(What::Retract),
        1 => Just(What::Stage),
        1 => Just(What::Resolve),
        4 => Just(What::Claim),
        5 => Just(What::HandOver),
        5 => Just(What::Settle),
        1 => Just(What::Release),
        2 => Just(What::Sweep),
        2 => Just(What::Kill),
        1 => Just(What::Close),
        2 => Just(What::Advance),
        1 => Just(What::StepClock),
        2 => Just(What::Operate),
        1 => Just(What::Freeze),
        1 => Just(What::PutBack),
    ];
    (0..PROCESSES, what, any::<u8>()).prop_map(|(process, what, pick)| Deed { process, what, pick })
}

/// A process: its store by the traits, and how it dies.
#[derive(Clone)]
struct Process {
    store: Arc<dyn QueueStore>,
    log: Arc<dyn DecisionLog>,
    kill: Arc<dyn Fn() + Send + Sync>,
}

/// A queue of one kind.
trait World {
    fn process(&self) -> impl Future<Output = Process>;
    fn observer(&self) -> impl Future<Output = (Arc<dyn QueueAdmin>, Arc<dyn EventLog>)>;
    /// What is left in places where nothing may be left.
    fn left_over(&self) -> Vec<PathBuf>;
}

struct OnDisk {
    directory: tempfile::TempDir,
    clock: ManualClock,
}

impl OnDisk {
    async fn open(&self) -> MaildirStore {
        let mut options = MaildirOptions::default().with_clock(Arc::new(self.clock.clone()));
        // The books are checked against all of the history, and the clock jumps.
        options.history = Duration::from_secs(1 << 40);
        MaildirStore::open(self.directory.path(), options).await.unwrap()
    }
}

impl World for OnDisk {
    async fn process(&self) -> Process {
        let store = self.open().await;
        let doomed = store.clone();
        Process {
            log: Arc::new(store.clone()),
            store: Arc::new(store),
            kill: Arc::new(move || doomed.simulate_death()),
        }
    }

    async fn observer(&self) -> (Arc<dyn QueueAdmin>, Arc<dyn EventLog>) {
        let store = self.open().await;
        (Arc::new(store.clone()), Arc::new(store))
    }

    fn left_over(&self) -> Vec<PathBuf> {
        let gone = ["tmp", "new", "cur", ".lanes", ".deferred", ".held", ".claimed", ".staged"];
        let mut left: Vec<PathBuf> =
            gone.iter().flat_map(|place| files(&self.directory.path().join(place))).collect();
        // Kept for some time: the answer that a message will never be sent, and decisions that nobody
        // has said may be forgotten.
        let decided =
            |path: &PathBuf| std::fs::metadata(path).unwrap().permissions().mode() & 0o100 != 0;
        left.retain(|path| path.extension().is_none_or(|it| it != "fence") && !decided(path));
        left
    }
}

struct InMemory(MemoryStore);

impl World for InMemory {
    async fn process(&self) -> Process {
        let store = self.0.process();
        let doomed = store.clone();
        Process {
            log: Arc::new(store.clone()),
            store: Arc::new(store),
            kill: Arc::new(move || doomed.kill()),
        }
    }

    async fn observer(&self) -> (Arc<dyn QueueAdmin>, Arc<dyn EventLog>) {
        (Arc::new(self.0.clone()), Arc::new(self.0.clone()))
    }

    fn left_over(&self) -> Vec<PathBuf> {
        Vec::new()
    }
}

/// What became of a message's transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Open,
    Committed,
    RolledBack,
}

/// What the ledger knows of a message.
#[derive(Debug)]
struct Account {
    fate: Fate,
    /// How many copies the relay took, by recipient.
    copies: BTreeMap<String, u32>,
    /// How often it was left open whether a copy was taken.
    doubts: BTreeMap<String, u32>,
    /// An operator asked for its removal.
    removed: bool,
}

/// A claim as its worker holds it.
struct Attempt {
    claim: Claim,
    loaded: Loaded,
    /// Whom the relay took it for, once it was handed over.
    taken: Option<u8>,
}

/// A process with what it has in memory.
struct Running {
    process: Process,
    written: Vec<QueueId>,
    proposed: Vec<(TransactionId, Vec<QueueId>)>,
    decided: Vec<(TransactionId, Vec<QueueId>)>,
    attempts: Vec<Attempt>,
}

struct History<'a, W: World> {
    world: &'a W,
    clock: ManualClock,
    admin: Arc<dyn QueueAdmin>,
    log: Arc<dyn EventLog>,
    own: ResourceId,
    running: Vec<Running>,
    accounts: BTreeMap<QueueId, Account>,
    /// Messages that a database decides.
    staged: Vec<QueueId>,
    minted: u128,
}

type Checked = Result<(), TestCaseError>;

impl<'a, W: World> History<'a, W> {
    async fn new(world: &'a W, clock: ManualClock) -> Self {
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

    async fn act(&mut self, deed: Deed) -> Checked {
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

    async fn resolve(&mut self, store: &Arc<dyn QueueStore>, id: QueueId, commit: bool) {
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
    async fn reopen(&mut self, index: usize) {
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

    async fn claim(&mut self, deed: Deed) -> Checked {
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
    async fn hand_over(&mut self, deed: Deed) -> Checked {
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

    async fn settle(&mut self, deed: Deed) -> Checked {
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
    async fn announced(&self) -> BTreeMap<(QueueId, String), u32> {
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
    fn check_copies(&self, announced: &BTreeMap<(QueueId, String), u32>) -> Checked {
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

    /// Everybody dies, or goes on; then all that can be delivered is delivered.
    async fn finish(&mut self, kill: bool) -> Checked {
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

impl Running {
    fn new(process: Process) -> Self {
        let (written, proposed, decided) = (Vec::new(), Vec::new(), Vec::new());
        Self { process, written, proposed, decided, attempts: Vec::new() }
    }
}

async fn check<W: World>(world: &W, clock: ManualClock, deeds: &[Deed], kill: bool) -> Checked {
    let mut history = History::new(world, clock).await;
    for deed in deeds {
        history.act(*deed).await?;
    }
    history.finish(kill).await
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A few seconds' worth of histories, unless `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(24),
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_maildir_keeps_the_books(deeds in prop::collection::vec(any_deed(), 1..70), kill: bool) {
        let clock = ManualClock::default();
        let world = OnDisk { directory: tempfile::tempdir().unwrap(), clock: clock.clone() };
        block_on(check(&world, clock, &deeds, kill))?;
    }

    #[test]
    fn the_reference_keeps_the_books(deeds in prop::collection::vec(any_deed(), 1..70), kill: bool) {
        let clock = ManualClock::default();
        let world = InMemory(MemoryStore::new(Arc::new(clock.clone())));
        block_on(check(&world, clock, &deeds, kill))?;
    }
}
