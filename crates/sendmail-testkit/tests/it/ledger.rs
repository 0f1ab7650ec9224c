//! The data manager suite on a small honest data manager, and on dishonest ones; the sink suite on a
//! small sink.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    DataManager, DecisionStore, EventSink, MailEvent, Order, PrepareContext, QueueId, Result,
    SavepointMark, Timestamp, Vote,
};
use sendmail_testkit::suite::data_manager::{self, DataManagerHarness};
use sendmail_testkit::suite::run_case;
use sendmail_testkit::suite::sink::EventSinkHarness;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    CommitsInPrepare,
    CommitsTwice,
    AbortsNothing,
    ForgetsSavepoints,
    MarksNothing,
    CommitsWhenDropped,
}

/// What is committed.
struct World {
    entries: Arc<Mutex<Vec<QueueId>>>,
    mistake: Mistake,
}

/// Enters ids into the world's list when it commits.
struct Ledger {
    entries: Arc<Mutex<Vec<QueueId>>>,
    mistake: Mistake,
    work: Vec<QueueId>,
    committed: bool,
}

impl Ledger {
    fn enter(&mut self) {
        if !self.committed || self.mistake == Mistake::CommitsTwice {
            self.entries.lock().unwrap().extend(&self.work);
        }
        self.committed = true;
    }
}

impl Drop for Ledger {
    fn drop(&mut self) {
        if self.mistake == Mistake::CommitsWhenDropped {
            self.enter();
        }
    }
}

#[async_trait]
impl DataManager for Ledger {
    fn name(&self) -> &str {
        "ledger"
    }

    fn order(&self) -> Order {
        Order::Normal
    }

    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>> {
        None
    }

    fn needs_decision(&self) -> bool {
        true
    }

    async fn savepoint(&mut self) -> Result<SavepointMark> {
        Ok(SavepointMark(self.work.len() as u64))
    }

    async fn rollback_to(&mut self, mark: SavepointMark) -> Result<()> {
        if self.mistake != Mistake::ForgetsSavepoints {
            self.work.truncate(usize::try_from(mark.0).unwrap());
        }
        Ok(())
    }

    async fn prepare(&mut self, context: &mut PrepareContext) -> Result<Vote> {
        if self.mistake == Mistake::CommitsInPrepare {
            self.enter();
        }
        if self.mistake != Mistake::MarksNothing {
            self.work.iter().for_each(|id| context.mark(*id));
        }
        Ok(if self.work.is_empty() { Vote::ReadOnly } else { Vote::Yes })
    }

    async fn commit(&mut self) -> Result<()> {
        self.enter();
        Ok(())
    }

    async fn abort(&mut self) {
        if self.mistake == Mistake::AbortsNothing {
            self.enter();
        } else if !self.committed {
            self.work.clear();
        }
    }
}

#[async_trait]
impl DataManagerHarness for World {
    async fn new() -> Self {
        Self { entries: Arc::default(), mistake: Mistake::None }
    }

    async fn manager(&self) -> Box<dyn DataManager> {
        let (entries, mistake) = (Arc::clone(&self.entries), self.mistake);
        Box::new(Ledger { entries, mistake, work: Vec::new(), committed: false })
    }

    async fn work(&self, manager: &mut dyn DataManager) {
        let manager: &mut dyn Any = manager;
        let ledger: &mut Ledger = manager.downcast_mut().unwrap();
        ledger.work.push(QueueId::mint(Timestamp::EPOCH));
    }

    async fn visible(&self) -> usize {
        self.entries.lock().unwrap().len()
    }

    async fn recover(&self) {}
}

sendmail_testkit::data_manager_suite!(World);

#[test]
fn the_suite_finds_each_mistake_in_the_case_that_names_it() {
    for (mistake, case) in [
        (Mistake::CommitsInPrepare, "work_is_invisible_before_the_commit"),
        (Mistake::CommitsTwice, "commit_is_repeatable"),
        (Mistake::AbortsNothing, "aborted_before_prepare_is_invisible"),
        (Mistake::ForgetsSavepoints, "a_savepoint_takes_its_work_with_it"),
        (Mistake::MarksNothing, "what_is_in_doubt_is_marked"),
        (Mistake::CommitsWhenDropped, "dropped_before_prepare_is_harmless"),
    ] {
        let failed = failures(mistake);
        assert!(failed.contains(&case), "{mistake:?} is not found by {case}: {failed:?}");
        assert!(failed.len() <= 5, "{mistake:?} fails more than it explains: {failed:?}");
    }
}

fn failures(mistake: Mistake) -> Vec<&'static str> {
    let cases = data_manager::cases::<World>();
    let fails = |case: &sendmail_testkit::suite::Case<World>| {
        let world = move || async move { World { mistake, ..World::new().await } };
        let run = || run_case(case.name, world, case.run, Duration::from_secs(5));
        catch_unwind(AssertUnwindSafe(run)).is_err()
    };
    cases.iter().filter(|case| fails(case)).map(|case| case.name).collect()
}

/// A sink that remembers.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<Vec<MailEvent>>>);

#[async_trait]
impl EventSink for Memory {
    async fn emit(&self, event: &MailEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

#[async_trait]
impl EventSinkHarness for Memory {
    async fn new() -> Self {
        Self::default()
    }

    fn sink(&self) -> Arc<dyn EventSink> {
        Arc::new(self.clone())
    }

    async fn heard(&self) -> Vec<MailEvent> {
        self.0.lock().unwrap().clone()
    }
}

mod sink {
    use super::Memory;

    sendmail_testkit::event_sink_suite!(Memory);
}
