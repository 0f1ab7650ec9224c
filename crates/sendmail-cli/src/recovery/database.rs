//! Recovery of what one configured database decides, which may come and go.
//!
//! As long as it cannot be asked its messages stay in doubt, and nothing else waits for it: a connect is
//! bounded in time, and tried again after pauses that grow.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    Clock, DecisionStore, Error, EventSink, QueueId, QueueStore, Result, Timestamp,
};
use sendmail_processor::Recovered;
use sendmail_txn::{Finding, Recovery, RecoveryReport};

use super::{Known, outcome};
use crate::databases::{Connected, Database};
use crate::output::Output;

/// The first pause after it could not be asked.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What all of a process's database recoveries share.
#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) store: Arc<dyn QueueStore>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sink: Arc<dyn EventSink>,
    pub(crate) known: Arc<Known>,
    pub(crate) output: Output,
    /// A single pass is told of trouble, and does not try again.
    pub(crate) once: bool,
}

/// Recovery of what one database decides.
pub(crate) struct DatabaseRecovery {
    database: Database,
    shared: Shared,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    joined: Option<Joined>,
    pauses: Pauses,
    /// What was told last: that it can be asked, or that it cannot.
    told: Option<bool>,
}

/// A database that could be asked when it was last looked at.
#[derive(Clone)]
struct Joined {
    decisions: Arc<dyn DecisionStore>,
    recovery: Arc<Recovery>,
}

/// When it may be tried again.
#[derive(Debug, Default)]
struct Pauses {
    last: Duration,
    until: Option<Timestamp>,
}

impl DatabaseRecovery {
    pub(crate) fn new(database: Database, shared: Shared) -> Self {
        Self { database, shared, state: Mutex::default() }
    }

    async fn joined(&self) -> Result<Joined> {
        if let Some(joined) = self.state().joined.clone() {
            return Ok(joined);
        }
        let connected = self.database.connect(self.shared.store.resource_id()).await?;
        Ok(self.join(connected))
    }

    /// It can be asked: takes it in, and says so if it could not before.
    fn join(&self, connected: Connected) -> Joined {
        let Shared { store, clock, sink, known, output, .. } = self.shared.clone();
        let Connected { decisions, warnings } = connected;
        let (name, resource) = (&self.database.name, decisions.resource_id().clone());
        known.learn(name, resource.clone());
        let recovery = Recovery::of(store, clock, decisions.clone()).with_sink(sink);
        let joined = Joined { decisions, recovery: Arc::new(recovery) };
        let mut state = self.state();
        state.joined = Some(joined.clone());
        match state.told.replace(true) {
            None => {
                for warning in warnings {
                    output.remark("warning", &format!("database {name}: {warning}"));
                }
            }
            Some(false) => {
                let text = format!("database {name} ({resource}) can be asked again");
                output.remark("info", &text);
            }
            Some(true) => {}
        }
        joined
    }

    /// It cannot be asked: says so if it could before, and tries again later.
    fn lose(&self, error: Error) -> Result<Recovered> {
        let Shared { clock, output, once, .. } = &self.shared;
        let mut state = self.state();
        state.joined = None;
        let pause = state.pauses.next(clock.now());
        if state.told.replace(false) != Some(false) {
            let text = format!(
                "database {}: {error}; its messages stay in doubt, and it is tried again",
                self.database.name
            );
            output.remark("warning", &text);
        }
        if *once {
            let Database { name, shown, .. } = &self.database;
            return Err(error.with("database", name).with("url", shown));
        }
        Ok(Recovered::default().again_after(Some(pause)))
    }

    /// Whether it can be asked at all, if there was trouble in a run.
    async fn probe(&self, joined: &Joined, report: &RecoveryReport) -> Result<()> {
        let unanswered =
            |message: &sendmail_txn::Recovered| matches!(message.finding, Finding::NoAnswer(_));
        if report.messages.iter().any(unanswered) || !report.trouble.is_empty() {
            // An id that nobody has: doubt about a single message is no trouble with the database.
            joined.decisions.visible(&[QueueId::mint(self.shared.clock.now())]).await?;
        }
        Ok(())
    }

    /// Its state is consistent at every point at which a panic could leave it.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl sendmail_processor::Recovery for DatabaseRecovery {
    fn name(&self) -> &str {
        "recover transactions of a database"
    }

    async fn recover(&self) -> Result<Recovered> {
        let left = self.state().pauses.left(self.shared.clock.now());
        if left.is_some() {
            return Ok(Recovered::default().again_after(left));
        }
        let joined = match self.joined().await {
            Ok(joined) => joined,
            Err(error) => return self.lose(error),
        };
        let report = joined.recovery.run().await?;
        if let Err(error) = self.probe(&joined, &report).await {
            return self.lose(error);
        }
        self.state().pauses = Pauses::default();
        outcome(report)
    }
}

impl Pauses {
    /// Begins a pause, twice as long as the last.
    fn next(&mut self, now: Timestamp) -> Duration {
        self.last = self.last.saturating_mul(2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.until = Some(now.saturating_add(self.last));
        self.last
    }

    /// What is left of the pause. A clock that went back ends it.
    fn left(&self, now: Timestamp) -> Option<Duration> {
        let left = self.until?.saturating_since(now);
        (!left.is_zero() && left <= self.last).then_some(left)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_minute_and_end() {
        let mut pauses = Pauses::default();
        let mut now = Timestamp::EPOCH;
        assert_eq!(pauses.left(now), None);
        for seconds in [1, 2, 4, 8, 16, 32, 60, 60] {
            let pause = Duration::from_secs(seconds);
            assert_eq!(pauses.next(now), pause);
            assert_eq!(pauses.left(now), Some(pause));
            now = now.saturating_add(pause);
            assert_eq!(pauses.left(now), None);
        }
        pauses.next(Timestamp::from_millis(1_000_000));
        assert_eq!(pauses.left(Timestamp::EPOCH), None, "the clock went back");
    }
}
