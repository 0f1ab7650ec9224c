//! A world in memory with queues and databases that fail, hang or panic at a chosen step, and that
//! note every call and every breach of their contracts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    Capabilities, Claim, Claimed, Clock, DataManager, Decision, DecisionLog, DecisionStore,
    Discard, Envelope, Error, ErrorKind, Loaded, MailEvent, MailEventKind, Message, NewMessage,
    Order, PrepareContext, QueueId, QueueStore, ResourceId, Result, SavepointMark, Settlement,
    Step, SweepReport, Timestamp, TransactionId, Undecided, Unsettled, Vote,
};

pub(crate) const NOW: Timestamp = Timestamp::from_millis(1_795_504_135_000);

/// A clock that stands still; a sleep ends at once.
pub(crate) struct StillClock;

#[async_trait]
impl Clock for StillClock {
    fn now(&self) -> Timestamp {
        NOW
    }
    async fn sleep(&self, _: Duration) {}
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(StillClock)
}

/// A message from `name` to one recipient.
pub(crate) fn mail(name: &str) -> (Envelope, Message) {
    let envelope = Envelope::parse(&format!("{name}@example.org"), ["to@example.net"]).unwrap();
    let raw = format!("Message-ID: <{name}@example.org>\n\nhello\n");
    (envelope, Message::from_raw(raw.as_bytes(), NOW, "example.org").unwrap())
}

/// What happens at the chosen step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// An error of this kind, before anything was done.
    Before(ErrorKind),
    /// Everything is done, and then an error of this kind.
    After(ErrorKind),
    /// The future never ends: the process is killed there.
    Hang,
    /// The code panics before anything was done.
    Panic,
}

#[derive(Default)]
struct Notes {
    calls: Vec<String>,
    breaches: Vec<String>,
    faults: Vec<(String, Fault)>,
    fault_at: Option<(usize, Fault)>,
}

/// What all parts of one test share.
#[derive(Clone, Default)]
pub(crate) struct World(Arc<Mutex<Notes>>);

impl World {
    /// Lets the step that is called `call` fail, once.
    pub(crate) fn fail(&self, call: &str, fault: Fault) {
        self.notes().faults.push((call.to_owned(), fault));
    }

    /// Lets the step with this number fail.
    pub(crate) fn fail_at(&self, number: usize, fault: Fault) {
        self.notes().fault_at = Some((number, fault));
    }

    pub(crate) fn heal(&self) {
        let mut notes = self.notes();
        notes.fault_at = None;
        notes.faults.clear();
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.notes().calls.clone()
    }

    /// Whether `first` was called, and `second` only after it or not at all.
    pub(crate) fn ordered(&self, first: &str, second: &str) -> bool {
        let calls = self.calls();
        let position = |wanted: &str| calls.iter().position(|call| call == wanted);
        position(first).is_some_and(|first| position(second).is_none_or(|second| first < second))
    }

    pub(crate) fn breaches(&self) -> Vec<String> {
        self.notes().breaches.clone()
    }

    pub(crate) fn breach(&self, what: String) {
        self.notes().breaches.push(what);
    }

    pub(crate) fn note(&self, call: String) {
        self.notes().calls.push(call);
    }

    /// Notes the step, does `work` if it is to be done, and answers as it is to be answered.
    pub(crate) async fn step<T>(
        &self,
        call: String,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let fault = self.next_fault(call);
        match fault {
            None => work(),
            Some(Fault::Before(kind)) => Err(injected(kind)),
            Some(Fault::After(kind)) => work().and_then(|_| Err(injected(kind))),
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Panic) => panic!("injected"),
        }
    }

    fn next_fault(&self, call: String) -> Option<Fault> {
        let mut notes = self.notes();
        let number = notes.calls.len();
        let named = notes.faults.iter().position(|(name, _)| *name == call);
        let named = named.map(|index| notes.faults.remove(index).1);
        notes.calls.push(call);
        named.or_else(|| notes.fault_at.filter(|(at, _)| *at == number).map(|(_, fault)| fault))
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.0.lock().unwrap()
    }
}

fn injected(kind: ErrorKind) -> Error {
    Error::new(kind, "do as told", "injected")
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Place {
    Written,
    Staged,
    Published,
}

#[derive(Default)]
struct Queue {
    messages: BTreeMap<QueueId, (NewMessage, Place)>,
    proposals: BTreeMap<TransactionId, (Vec<QueueId>, bool)>,
    fenced: BTreeSet<QueueId>,
    owner_dead: bool,
}

impl Queue {
    fn decided(&self, id: QueueId) -> bool {
        self.proposals.values().any(|(ids, decided)| *decided && ids.contains(&id))
    }
}

/// A queue in memory.
#[derive(Clone)]
pub(crate) struct FakeQueue {
    resource: ResourceId,
    world: World,
    queue: Arc<Mutex<Queue>>,
    can_decide: bool,
}

impl FakeQueue {
    pub(crate) fn new(name: &str, world: &World) -> Self {
        Self {
            resource: name.parse().unwrap(),
            world: world.clone(),
            queue: Arc::default(),
            can_decide: true,
        }
    }

    /// One that cannot decide several messages, and cannot be asked.
    pub(crate) fn mute(name: &str, world: &World) -> Self {
        Self { can_decide: false, ..Self::new(name, world) }
    }

    pub(crate) fn shared(&self) -> Arc<dyn QueueStore> {
        Arc::new(self.clone())
    }

    /// From here on the process that wrote everything is dead.
    pub(crate) fn owner_dies(&self) {
        self.queue().owner_dead = true;
    }

    /// The senders' names of all messages in `place`, sorted.
    pub(crate) fn names(&self, place: Place) -> Vec<String> {
        let queue = self.queue();
        let in_place = queue.messages.values().filter(|(_, there)| *there == place);
        let mut names: Vec<String> = in_place
            .map(|(new, _)| new.envelope.reverse_path().local_part().unwrap().into())
            .collect();
        names.sort();
        names
    }

    pub(crate) fn ids(&self) -> Vec<QueueId> {
        self.queue().messages.keys().copied().collect()
    }

    pub(crate) fn proposals(&self) -> usize {
        self.queue().proposals.len()
    }

    /// Puts a message there, as if another process had.
    pub(crate) fn plant(&self, name: &str, resource: &str, place: Place) -> QueueId {
        let (envelope, message) = mail(name);
        let id = QueueId::mint(NOW);
        let resource = resource.parse().unwrap();
        self.queue().messages.insert(id, (NewMessage { id, envelope, message, resource }, place));
        id
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap()
    }

    fn call(&self, what: &str) -> String {
        format!("{} {what}", self.resource)
    }

    fn place(&self, id: QueueId, from: &[Place], to: Place) -> Result<()> {
        let mut queue = self.queue();
        match queue.messages.get_mut(&id) {
            Some((_, place)) if from.contains(place) => *place = to,
            Some((_, place)) if *place >= to => {}
            _ => return Err(Error::new(ErrorKind::NotFound, "move the message", "not there")),
        }
        Ok(())
    }
}

#[async_trait]
impl QueueStore for FakeQueue {
    fn resource_id(&self) -> &ResourceId {
        &self.resource
    }

    fn capabilities(&self) -> Capabilities {
        let mut capabilities = Capabilities::new();
        capabilities.max_message_len = 1000;
        capabilities
    }

    fn decision_log(&self) -> Option<Arc<dyn DecisionLog>> {
        self.can_decide.then(|| Arc::new(self.clone()) as Arc<dyn DecisionLog>)
    }

    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>> {
        self.can_decide.then(|| Arc::new(self.clone()) as Arc<dyn DecisionStore>)
    }

    async fn write(&self, new: &NewMessage) -> Result<()> {
        let work = || {
            self.queue().messages.entry(new.id).or_insert((new.clone(), Place::Written));
            Ok(())
        };
        self.world.step(self.call("write"), work).await
    }

    async fn stage(&self, ids: &[QueueId]) -> Result<()> {
        let work =
            || ids.iter().try_for_each(|id| self.place(*id, &[Place::Written], Place::Staged));
        self.world.step(self.call("stage"), work).await
    }

    async fn publish(&self, ids: &[QueueId]) -> Result<()> {
        let work = || {
            for id in ids {
                let queue = self.queue();
                let own = queue.messages.get(id).is_some_and(|(new, place)| {
                    *place == Place::Staged && new.resource == self.resource
                });
                if own && !queue.decided(*id) {
                    self.world.breach(format!("{} publishes what is not decided", self.resource));
                }
                drop(queue);
                self.place(*id, &[Place::Written, Place::Staged], Place::Published)?;
            }
            Ok(())
        };
        self.world.step(self.call("publish"), work).await
    }

    async fn discard(&self, ids: &[QueueId], why: Discard) -> Result<Vec<MailEvent>> {
        let work = || {
            let mut events = Vec::new();
            for id in ids {
                let mut queue = self.queue();
                let undecided =
                    queue.messages.get(id).is_some_and(|(_, place)| *place < Place::Published);
                if undecided {
                    queue.messages.remove(id);
                    if why == Discard::Fenced {
                        events.push(MailEvent::new(MailEventKind::Discarded, NOW).about(*id, None));
                    }
                }
            }
            Ok(events)
        };
        self.world.step(self.call("discard"), work).await
    }

    async fn undecided(&self) -> Result<Vec<Undecided>> {
        let queue = self.queue();
        let open = queue.messages.values().filter(|(_, place)| *place < Place::Published);
        let undecided = open.map(|(new, place)| Undecided {
            id: new.id,
            resource: new.resource.clone(),
            staged: *place == Place::Staged,
            since: NOW,
            owner_alive: !queue.owner_dead,
        });
        Ok(undecided.collect())
    }

    async fn known(&self, ids: &[QueueId]) -> Result<Vec<QueueId>> {
        let queue = self.queue();
        self.world.note(self.call("known"));
        let published = |id: &QueueId| {
            queue.messages.get(id).is_some_and(|(_, place)| *place == Place::Published)
        };
        Ok(ids.iter().copied().filter(published).collect())
    }

    async fn is_frozen(&self) -> Result<bool> {
        Ok(false)
    }

    async fn claim(&self, _: usize) -> Result<Claimed> {
        Ok(Claimed::default())
    }

    async fn load(&self, _: &Claim) -> Result<Loaded> {
        Err(injected(ErrorKind::LeaseLost))
    }

    async fn renew(&self, _: &Claim) -> Result<()> {
        Err(injected(ErrorKind::LeaseLost))
    }

    async fn record(&self, _: &Claim, _: Step) -> Result<()> {
        Err(injected(ErrorKind::LeaseLost))
    }

    async fn settle(
        &self,
        claim: Claim,
        _: Settlement,
    ) -> std::result::Result<Vec<MailEvent>, Unsettled> {
        Err(Unsettled { claim, error: injected(ErrorKind::LeaseLost) })
    }

    async fn announce(&self, _: &MailEvent) -> Result<()> {
        Ok(())
    }

    async fn wait_for_work(&self, _: Duration) {}

    async fn sweep(&self) -> Result<SweepReport> {
        Ok(SweepReport::default())
    }
}

#[async_trait]
impl DecisionStore for FakeQueue {
    fn resource_id(&self) -> &ResourceId {
        &self.resource
    }

    async fn visible(&self, ids: &[QueueId]) -> Result<Vec<QueueId>> {
        let work = || Ok(ids.iter().copied().filter(|id| self.queue().decided(*id)).collect());
        self.world.step(self.call("visible"), work).await
    }

    async fn fence(&self, id: QueueId, _: Duration) -> Result<Decision> {
        let work = || {
            let mut queue = self.queue();
            if queue.decided(id) {
                return Ok(Decision::Committed);
            }
            if !queue.owner_dead {
                return Ok(Decision::Unfinished);
            }
            queue.fenced.insert(id);
            Ok(Decision::Aborted)
        };
        self.world.step(self.call("fence"), work).await
    }

    async fn forget(&self, ids: &[QueueId]) -> Result<()> {
        let work = || {
            let mut queue = self.queue();
            for (proposed, decided) in queue.proposals.values_mut() {
                proposed.retain(|id| !(*decided && ids.contains(id)));
            }
            queue.proposals.retain(|_, (ids, _)| !ids.is_empty());
            Ok(())
        };
        self.world.step(self.call("forget"), work).await
    }

    async fn remembered(&self, _: Duration, _: usize) -> Result<Vec<QueueId>> {
        Ok(Vec::new())
    }

    async fn sweep(&self) -> Result<usize> {
        Ok(0)
    }
}

#[async_trait]
impl DecisionLog for FakeQueue {
    async fn propose(&self, transaction: TransactionId, ids: &[QueueId]) -> Result<()> {
        let work = || {
            self.queue().proposals.insert(transaction, (ids.to_vec(), false));
            Ok(())
        };
        self.world.step(self.call("propose"), work).await
    }

    async fn decide(&self, transaction: TransactionId) -> Result<()> {
        let work = || {
            let mut queue = self.queue();
            let fenced = queue.fenced.clone();
            match queue.proposals.get_mut(&transaction) {
                Some((ids, decided)) if !ids.iter().any(|id| fenced.contains(id)) => {
                    *decided = true;
                    Ok(())
                }
                _ => Err(injected(ErrorKind::Aborted)),
            }
        };
        self.world.step(self.call("decide"), work).await
    }

    async fn retract(&self, transaction: TransactionId) -> Result<()> {
        let work = || {
            let mut queue = self.queue();
            if let Some((ids, decided)) = queue.proposals.remove(&transaction)
                && (decided || ids.iter().any(|id| queue.messages.contains_key(id)))
            {
                self.world.breach(format!("{} retracts too early", self.resource));
            }
            Ok(())
        };
        self.world.step(self.call("retract"), work).await
    }
}

#[derive(Default)]
struct Markers {
    committed: BTreeSet<QueueId>,
    tombstones: BTreeSet<QueueId>,
    /// How many transactions committed.
    commits: usize,
    /// Whether everything in it is old.
    aged: bool,
}

/// A database in memory: markers and tombstones under one unique key.
#[derive(Clone)]
pub(crate) struct FakeDatabase {
    resource: ResourceId,
    world: World,
    markers: Arc<Mutex<Markers>>,
}

impl FakeDatabase {
    pub(crate) fn new(name: &str, world: &World) -> Self {
        Self { resource: name.parse().unwrap(), world: world.clone(), markers: Arc::default() }
    }

    pub(crate) fn shared(&self) -> Arc<dyn DecisionStore> {
        Arc::new(self.clone())
    }

    pub(crate) fn commits(&self) -> usize {
        self.markers().commits
    }

    /// Commits a marker, as if another process had.
    pub(crate) fn plant(&self, id: QueueId) {
        self.markers().committed.insert(id);
    }

    /// Lets all that was committed have been committed long ago.
    pub(crate) fn age(&self) {
        self.markers().aged = true;
    }

    pub(crate) fn remembers(&self, id: QueueId) -> bool {
        self.markers().committed.contains(&id)
    }

    /// A data manager for one transaction of it.
    pub(crate) fn manager(&self) -> Box<dyn DataManager> {
        Box::new(DatabaseManager { database: self.clone(), marks: Vec::new() })
    }

    fn markers(&self) -> MutexGuard<'_, Markers> {
        self.markers.lock().unwrap()
    }

    fn call(&self, what: &str) -> String {
        format!("{} {what}", self.resource)
    }
}

#[async_trait]
impl DecisionStore for FakeDatabase {
    fn resource_id(&self) -> &ResourceId {
        &self.resource
    }

    async fn visible(&self, ids: &[QueueId]) -> Result<Vec<QueueId>> {
        let work = || Ok(ids.iter().copied().filter(|id| self.remembers(*id)).collect());
        self.world.step(self.call("visible"), work).await
    }

    async fn fence(&self, id: QueueId, _: Duration) -> Result<Decision> {
        let work = || {
            let mut markers = self.markers();
            if markers.committed.contains(&id) {
                return Ok(Decision::Committed);
            }
            markers.tombstones.insert(id);
            Ok(Decision::Aborted)
        };
        self.world.step(self.call("fence"), work).await
    }

    async fn forget(&self, ids: &[QueueId]) -> Result<()> {
        let work = || {
            self.markers().committed.retain(|id| !ids.contains(id));
            Ok(())
        };
        self.world.step(self.call("forget"), work).await
    }

    async fn remembered(&self, _: Duration, limit: usize) -> Result<Vec<QueueId>> {
        if !self.markers().aged {
            return Ok(Vec::new());
        }
        let work = || Ok(self.markers().committed.iter().copied().take(limit).collect());
        self.world.step(self.call("remembered"), work).await
    }

    async fn sweep(&self) -> Result<usize> {
        if !self.markers().aged {
            return Ok(0);
        }
        self.world.step(self.call("sweep"), || Ok(3)).await
    }
}

struct DatabaseManager {
    database: FakeDatabase,
    marks: Vec<QueueId>,
}

#[async_trait]
impl DataManager for DatabaseManager {
    fn name(&self) -> &str {
        self.database.resource.as_str()
    }

    fn order(&self) -> Order {
        Order::LastResource
    }

    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>> {
        Some(self.database.shared())
    }

    fn needs_decision(&self) -> bool {
        false
    }

    async fn savepoint(&mut self) -> Result<SavepointMark> {
        let work = || Ok(SavepointMark(0));
        self.database.world.step(self.database.call("savepoint"), work).await
    }

    async fn rollback_to(&mut self, _: SavepointMark) -> Result<()> {
        self.database.world.step(self.database.call("rollback"), || Ok(())).await
    }

    async fn prepare(&mut self, context: &mut PrepareContext) -> Result<Vote> {
        self.marks = context.marks().to_vec();
        self.database.world.step(self.database.call("prepare"), || Ok(Vote::Yes)).await
    }

    async fn commit(&mut self) -> Result<()> {
        let work = || {
            let mut markers = self.database.markers();
            if self.marks.iter().any(|id| markers.tombstones.contains(id)) {
                return Err(injected(ErrorKind::Aborted));
            }
            markers.committed.extend(&self.marks);
            markers.commits += 1;
            Ok(())
        };
        self.database.world.step(self.database.call("commit"), work).await
    }

    async fn abort(&mut self) {
        self.database.world.note(self.database.call("abort"));
    }
}
