//! When each recovery runs: beside the queue, one run of each at a time, and none waiting for another.

use std::future::{Future as _, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tokio::task::JoinSet;
use tracing::warn;

use crate::Recovery;
use crate::caught::caught;
use crate::context::Context;
use crate::engine::Timer;

/// When a wake-up of the store brought nothing to claim, somebody has staged something.
pub(crate) const SOON: Duration = Duration::from_millis(5);
/// When a wake-up brought a message: something may have been staged as well, and mail that no
/// transaction holds back must not pay for a look with each message.
pub(crate) const SOMETIME: Duration = Duration::from_millis(100);
/// How often a recovery may be hurried for nothing before it is hurried least: each time doubles what is
/// waited. What makes it calm again and again is mail that no transaction holds back.
const MOST_CALM: u32 = 4;
/// No recovery runs again faster than this, whatever it says.
const SHORTEST: Duration = Duration::from_millis(1);

/// The recoveries of one run of the processor.
pub(crate) struct Rounds {
    context: Arc<Context>,
    slots: Vec<Slot>,
    running: JoinSet<(usize, Option<Duration>)>,
}

/// One recovery's next run.
#[derive(Default)]
struct Slot {
    timer: Timer,
    /// How long the timer was set for. It only ever gets shorter before a run, so that being hurried
    /// again and again postpones nothing.
    wait: Duration,
    running: bool,
    /// Somebody was in a hurry while it ran, and what it looks at may have come too late for that run.
    hurried: Option<Duration>,
    /// Whether the next run, or the present one, was brought forward.
    early: bool,
    /// How many runs in a row were brought forward for nothing.
    calm: u32,
}

impl Rounds {
    pub(crate) fn new(context: Arc<Context>) -> Self {
        let slots = context.recoveries.iter().map(|_| Slot::default()).collect();
        Self { context, slots, running: JoinSet::new() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Starts every recovery.
    pub(crate) fn start_all(&mut self) {
        (0..self.slots.len()).for_each(|index| self.start(index));
    }

    /// Runs every recovery once and to its end, all at once; returns what could not be done.
    pub(crate) async fn run_all(&mut self) -> Vec<String> {
        let mut running = JoinSet::new();
        for recovery in &self.context.recoveries {
            let (context, recovery) = (Arc::clone(&self.context), Arc::clone(recovery));
            running.spawn(async move { run(&context, recovery.as_ref()).await.err() });
        }
        running.join_all().await.into_iter().flatten().collect()
    }

    /// Brings the next run of each forward: to the end of `wait`, if it would be later.
    pub(crate) fn hurry(&mut self, wait: Duration) {
        for slot in &mut self.slots {
            if slot.running {
                slot.hurried = Some(slot.hurried.map_or(wait, |before| before.min(wait)));
            } else if let wait = slot.calmed(wait)
                && wait < slot.wait
            {
                slot.early = true;
                slot.set(&self.context, wait);
            }
        }
    }

    /// Waits for the next thing that is to be done about recoveries, and does it. May be dropped and
    /// called again.
    pub(crate) async fn step(&mut self) {
        tokio::select! {
            Some(done) = self.running.join_next() => self.note(done),
            index = due(&mut self.slots) => self.start(index),
        }
    }

    /// Stops those that run, as the death of the process would.
    pub(crate) async fn shutdown(&mut self) {
        self.running.shutdown().await;
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "there is a slot for each recovery, both lists keep their length, and indices come from them"
    )]
    fn start(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        (slot.running, slot.hurried) = (true, None);
        slot.timer.clear();
        let context = Arc::clone(&self.context);
        let recovery = Arc::clone(&self.context.recoveries[index]);
        self.running
            .spawn(async move { (index, run(&context, recovery.as_ref()).await.unwrap_or(None)) });
    }

    #[expect(
        clippy::indexing_slicing,
        reason = "there is a slot for each recovery, both lists keep their length, and indices come from them"
    )]
    fn note(&mut self, done: Result<(usize, Option<Duration>), tokio::task::JoinError>) {
        // Panics are caught, and tasks are aborted only together with all of this.
        let Ok((index, again)) = done else { return };
        let slot = &mut self.slots[index];
        slot.running = false;
        // It wants to run again if it has found something.
        slot.calm = match (again, std::mem::take(&mut slot.early)) {
            (None, true) => (slot.calm + 1).min(MOST_CALM),
            _ => 0,
        };
        let wait = again.unwrap_or(self.context.config.recovery_interval).max(SHORTEST);
        let hurried = slot.hurried.take().map(|hurried| slot.calmed(hurried));
        slot.early = hurried.is_some_and(|hurried| hurried < wait);
        slot.set(&self.context, hurried.map_or(wait, |hurried| hurried.min(wait)));
    }
}

impl Slot {
    /// How long it waits when it is in such a hurry.
    fn calmed(&self, wait: Duration) -> Duration {
        wait.saturating_mul(1 << self.calm)
    }

    fn set(&mut self, context: &Context, wait: Duration) {
        self.wait = wait;
        self.timer.set(&context.clock, wait);
    }
}

/// The first recovery whose time has come; never, if none has one.
async fn due(slots: &mut [Slot]) -> usize {
    poll_fn(|task| {
        for (index, slot) in slots.iter_mut().enumerate() {
            let elapsed = pin!(slot.timer.elapsed());
            if elapsed.poll(task).is_ready() {
                return Poll::Ready(index);
            }
        }
        Poll::Pending
    })
    .await
}

/// Runs one recovery and tells what came of it: when it wants to run again, or what it could not do.
async fn run(context: &Context, recovery: &dyn Recovery) -> Result<Option<Duration>, String> {
    match caught(recovery.recover()).await {
        Ok(Ok(recovered)) => {
            context.tell(&recovered.events).await;
            Ok(recovered.again)
        }
        Ok(Err(error)) => {
            warn!(recovery = recovery.name(), %error, "a recovery could not be finished");
            Err(error.to_string())
        }
        Err(_) => {
            warn!(recovery = recovery.name(), "a recovery panicked");
            Err(format!("{} panicked", recovery.name()))
        }
    }
}
