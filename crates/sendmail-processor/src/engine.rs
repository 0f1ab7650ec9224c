//! The loop: claims, starts attempts, waits, and stops in order.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use sendmail_core::{Claimed, Clock, Error, ErrorKind, MailEvent, MailEventKind, QueueId, Result};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::RunSummary;
use crate::attempt::{self, Finished, Job};
use crate::caught::caught;
use crate::context::Context;
use crate::relay::News;
use crate::rounds::{Rounds, SOMETIME, SOON};

/// How many messages a single pass remembers as tried; more trouble than that ends the pass.
const MAX_TRIED: usize = 100_000;

/// How long it waits to be woken before it waits anew.
const UNTIL_WOKEN: Duration = Duration::from_secs(3600);

/// How long it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Until all that is due was tried once.
    Once,
    /// Until it is stopped.
    Forever,
}

/// Whether somebody wants it to stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stop {
    /// Nobody does.
    No,
    /// In order: what is on the wire is finished, the rest given back.
    InOrder,
    /// At once.
    AtOnce,
}

/// One run.
pub(crate) struct Engine {
    context: Arc<Context>,
    mode: Mode,
    stop: watch::Receiver<Stop>,
    summary: RunSummary,
    /// Claimed, and waiting for a free place.
    ready: VecDeque<Job>,
    /// Those on which a task works. A message that comes back while its last attempt is still being
    /// told waits here, so that sinks hear its events in order.
    running: HashSet<QueueId>,
    tasks: JoinSet<Finished>,
    recoveries: Rounds,
    /// The store said that there may be work, and nothing was claimed since.
    woken: bool,
    /// A single pass tries each message once: those that were left for later, and those of them that
    /// came back and are kept until the pass ends.
    tried: HashSet<QueueId>,
    parked: Vec<Job>,
    /// The last claim brought nothing.
    dry: bool,
    /// The queue cannot be claimed from, which ends a single pass; or it can record nothing more in this
    /// process, which ends every run: whoever supervises it starts it anew, and what it has claimed is
    /// taken over.
    broken: Option<Error>,
    store_failures: u32,
    relay_pause_timer: Timer,
    store_pause_timer: Timer,
    poll_timer: Timer,
    sweep_timer: Timer,
}

impl Engine {
    pub(crate) fn new(context: Arc<Context>, mode: Mode, stop: watch::Receiver<Stop>) -> Self {
        // A pause that an earlier run began is over: this one begins with a trial.
        context.relay().try_again();
        Self {
            recoveries: Rounds::new(Arc::clone(&context)),
            context,
            mode,
            stop,
            summary: RunSummary::default(),
            ready: VecDeque::new(),
            running: HashSet::new(),
            tasks: JoinSet::new(),
            woken: false,
            tried: HashSet::new(),
            parked: Vec::new(),
            dry: false,
            broken: None,
            store_failures: 0,
            relay_pause_timer: Timer::default(),
            store_pause_timer: Timer::default(),
            poll_timer: Timer::default(),
            sweep_timer: Timer::default(),
        }
    }

    /// Runs until it is done or stopped.
    pub(crate) async fn run(mut self) -> Result<RunSummary> {
        let mut stop = self.stop.clone();
        let work = async {
            self.prepare().await;
            while !self.is_over() {
                self.hear_of_relay().await;
                self.fill().await;
                self.start();
                // Only an empty answer means that nothing is due: while there is room, ask again.
                if self.room() == 0 {
                    self.wait().await;
                }
            }
            self.finish().await
        };
        tokio::select! {
            // At once: everything that runs is dropped, as if the process had died.
            () = until(&mut stop, Stop::AtOnce) => {
                Err(Error::new(
                    ErrorKind::Cancelled,
                    "run the queue",
                    "it was aborted; what was claimed is free when its process ends",
                ))
            }
            done = work => done,
        }
    }

    /// Before the first claim: what others left undone.
    async fn prepare(&mut self) {
        match self.mode {
            Mode::Once => {
                let failed = self.recoveries.run_all().await;
                failed.into_iter().for_each(|why| self.summary.because(why));
            }
            // Whoever cannot be reached keeps no mail from being claimed.
            Mode::Forever => self.recoveries.start_all(),
        }
        self.sweep().await;
    }

    fn is_over(&self) -> bool {
        if *self.stop.borrow() >= Stop::InOrder || self.broken.is_some() {
            return true;
        }
        let idle = self.ready.is_empty() && self.tasks.is_empty();
        let relay_is_paused = self.context.relay().allowed() == 0;
        self.mode == Mode::Once
            && (relay_is_paused
                || self.store_pause_timer.is_set()
                || self.parked.len() >= self.context.config.max_in_flight
                || self.tried.len() >= MAX_TRIED
                || self.dry && idle)
    }

    /// Finishes what is on the wire and gives back the rest.
    async fn finish(mut self) -> Result<RunSummary> {
        let why = if *self.stop.borrow() >= Stop::InOrder {
            "the processor was stopped".to_owned()
        } else {
            self.context.relay().trouble().unwrap_or("it was tried in this pass").to_owned()
        };
        self.give_back_ready(&why);
        for job in std::mem::take(&mut self.parked) {
            // They are counted already, as what they were left for.
            let context = Arc::clone(&self.context);
            self.tasks.spawn(async move {
                let done = attempt::give_back(&context, job, "").await;
                Finished { stopped: done.stopped, ..Finished::new(done.id) }
            });
        }
        while let Some(finished) = self.tasks.join_next().await {
            self.note(finished);
        }
        self.hear_of_relay().await;
        if self.summary.unreadable > 0 {
            // What the store has to tell about them comes with its next claim or sweep.
            self.sweep().await;
        }
        self.recoveries.shutdown().await;
        if caught(self.context.mailer.close()).await.is_err() {
            warn!("the mailer panicked when it was closed");
        }
        match self.broken {
            Some(error) => Err(error),
            None => Ok(self.summary),
        }
    }

    /// Acts on what attempts found out about the relay, and tells of it.
    async fn hear_of_relay(&mut self) {
        let news = self.context.relay().take_news();
        for news in news {
            match news {
                News::Pause(told) => {
                    self.relay_pause_timer.clear();
                    let why = self.context.relay().trouble().unwrap_or_default().to_owned();
                    self.give_back_ready(&why);
                    if let Some(why) = told {
                        announce(&self.context, MailEventKind::RelayPaused, &why).await;
                    }
                }
                News::Resumed => {
                    self.relay_pause_timer.clear();
                    announce(&self.context, MailEventKind::RelayResumed, "it answers again").await;
                }
            }
        }
    }

    /// Lets the pause begin, if the relay is paused; another run of the same processor may have found
    /// out.
    fn time_pause(&mut self) {
        let wait = self.context.relay().pause_length();
        if let Some(wait) = wait.filter(|_| !self.relay_pause_timer.is_set()) {
            self.relay_pause_timer.set(&self.context.clock, wait);
        }
    }

    /// Claims, if there is room for a batch that is worth it.
    async fn fill(&mut self) {
        let room = self.room();
        if room == 0 {
            return;
        }
        match self.context.store.claim(room).await {
            Ok(claimed) => self.take(claimed).await,
            Err(error) => self.store_is_in_trouble(error),
        }
    }

    /// Takes in what a claim brought. Events about messages that were not claimed are told here, the
    /// others with their message.
    async fn take(&mut self, claimed: Claimed) {
        self.recovered_store();
        self.dry = claimed.claims.is_empty();
        if std::mem::take(&mut self.woken) && self.dry {
            self.recoveries.hurry(SOON);
        }
        if self.dry {
            self.poll_timer.set(&self.context.clock, self.context.config.poll_interval);
        }
        let mut events = by_message(claimed.events);
        for claim in claimed.claims {
            let events = events.remove(&Some(claim.id)).unwrap_or_default();
            self.ready.push_back(Job { claim, events });
        }
        for events in events.into_values() {
            self.context.tell(&events).await;
        }
    }

    /// How many messages may be claimed now.
    fn room(&self) -> usize {
        let config = &self.context.config;
        if self.dry
            || self.is_over()
            || self.store_pause_timer.is_set()
            || self.context.unsettled.load(Ordering::SeqCst) > 0
        {
            return 0;
        }
        let in_flight = self.ready.len() + self.tasks.len() + self.parked.len();
        let allowed = self.context.relay().allowed();
        if allowed < usize::MAX {
            return allowed.saturating_sub(self.ready.len() + self.tasks.len());
        }
        let room = config.max_in_flight.saturating_sub(in_flight);
        // Small batches cost a look at the queue each; while enough is ready there is no hurry.
        let worth_it = room >= (config.max_in_flight / 4).max(1) || self.ready.is_empty();
        if worth_it { room } else { 0 }
    }

    /// Starts attempts while there are places; none while the store is in trouble.
    fn start(&mut self) {
        if self.store_pause_timer.is_set() {
            return;
        }
        let places = self.context.config.concurrency.min(self.context.relay().allowed());
        let mut waiting = VecDeque::new();
        while self.tasks.len() < places && self.context.unsettled.load(Ordering::SeqCst) == 0 {
            let Some(job) = self.ready.pop_front() else { break };
            let id = job.claim.id;
            if self.running.contains(&id) {
                // Its last attempt is not noted yet, nor told to the end.
                waiting.push_back(job);
            } else if self.tried.contains(&id) {
                self.parked.push(job);
            } else {
                self.running.insert(id);
                let context = Arc::clone(&self.context);
                self.tasks.spawn(async move {
                    caught(attempt::work(&context, job))
                        .await
                        .unwrap_or_else(|_| Finished::broken(id))
                });
            }
        }
        self.ready.append(&mut waiting);
    }

    fn give_back_ready(&mut self, why: &str) {
        for job in std::mem::take(&mut self.ready) {
            let context = Arc::clone(&self.context);
            let why = why.to_owned();
            self.tasks.spawn(async move { attempt::give_back(&context, job, &why).await });
        }
    }

    /// Waits until there is something to do.
    async fn wait(&mut self) {
        if self.is_over() {
            return;
        }
        self.time_pause();
        let context = Arc::clone(&self.context);
        let may_claim = self.context.relay().allowed() > 0 && !self.store_pause_timer.is_set();
        let idle = self.dry && may_claim;
        let listens = self.mode == Mode::Forever && (idle || !self.recoveries.is_empty());
        tokio::select! {
            Some(finished) = self.tasks.join_next() => self.note(finished),
            () = self.recoveries.step(), if self.mode == Mode::Forever => {}
            () = context.news.notified() => {}
            () = until(&mut self.stop, Stop::InOrder) => {}
            () = self.relay_pause_timer.elapsed() => context.relay().try_again(),
            () = self.store_pause_timer.elapsed() => {}
            () = self.poll_timer.elapsed() => self.dry = self.mode == Mode::Once,
            () = self.sweep_timer.elapsed() => self.sweep().await,
            // The timers look after everything that nobody wakes it for.
            () = context.store.wait_for_work(UNTIL_WOKEN), if listens => {
                (self.dry, self.woken) = (false, true);
                self.recoveries.hurry(SOMETIME);
            }
        }
    }

    /// Notes what became of a message.
    fn note(&mut self, finished: std::result::Result<Finished, tokio::task::JoinError>) {
        match finished {
            Ok(finished) => {
                self.running.remove(&finished.id);
                if self.mode == Mode::Once && !finished.summary.is_complete() {
                    self.tried.insert(finished.id);
                }
                if let Some(why) = finished.store_trouble {
                    self.pause_store(why);
                }
                if let Some(error) = finished.stopped {
                    self.store_is_in_trouble(error);
                }
                self.summary.add(finished.summary);
            }
            // Panics are caught, and tasks are aborted only together with the engine.
            Err(error) => warn!(%error, "the work on a message ended without order"),
        }
    }

    fn store_is_in_trouble(&mut self, error: Error) {
        self.pause_store(error.to_string());
        if self.mode == Mode::Once || attempt::is_final(&error) {
            self.broken = Some(error);
        }
    }

    fn pause_store(&mut self, why: String) {
        warn!(why, "the store is in trouble");
        self.store_failures = self.store_failures.saturating_add(1);
        let wait = self.context.store_pause(self.store_failures);
        self.context.set_store_trouble(Some(why));
        self.store_pause_timer.set(&self.context.clock, wait);
    }

    fn recovered_store(&mut self) {
        if self.store_failures > 0 {
            self.store_failures = 0;
            self.context.set_store_trouble(None);
        }
    }

    /// Sweeps, between claims and never beside one, so that sinks hear in order of what it took over.
    async fn sweep(&mut self) {
        match self.context.store.sweep().await {
            Ok(report) => {
                for what in &report.set_aside {
                    warn!(what, "set aside");
                }
                self.dry &= report.published == 0;
                self.context.tell(&report.events).await;
            }
            Err(error) => warn!(%error, "the queue could not be swept"),
        }
        self.sweep_timer.set(&self.context.clock, self.context.config.sweep_interval);
    }
}

/// Makes an event about the relay durable, and tells it then.
async fn announce(context: &Context, kind: MailEventKind, why: &str) {
    let relay = context.mailer.relay();
    info!(relay, %kind, why, "news of the relay");
    let event = MailEvent::new(kind, context.clock.now());
    let event = event.with_detail(&format!("{relay}: {why}"));
    match context.store.announce(&event).await {
        Ok(()) => context.tell(&[event]).await,
        Err(error) => warn!(%error, %kind, "an event could not be recorded, and is not told"),
    }
}

/// Sorts events by message; those about none are under `None`. The order within each stays.
fn by_message(events: Vec<MailEvent>) -> BTreeMap<Option<QueueId>, Vec<MailEvent>> {
    let mut sorted: BTreeMap<_, Vec<MailEvent>> = BTreeMap::new();
    for event in events {
        sorted.entry(event.queue_id).or_default().push(event);
    }
    sorted
}

/// Returns when at least so much of a stop is wanted; never, if nobody can want it any more.
async fn until(stop: &mut watch::Receiver<Stop>, wanted: Stop) {
    if stop.wait_for(|now| *now >= wanted).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// A wait that goes on while other things happen.
#[derive(Default)]
pub(crate) struct Timer(Option<Pin<Box<dyn Future<Output = ()> + Send>>>);

impl Timer {
    pub(crate) fn set(&mut self, clock: &Arc<dyn Clock>, wait: Duration) {
        let clock = Arc::clone(clock);
        self.0 = Some(Box::pin(async move { clock.sleep(wait).await }));
    }

    pub(crate) fn clear(&mut self) {
        self.0 = None;
    }

    fn is_set(&self) -> bool {
        self.0.is_some()
    }

    /// Returns when the wait is over, and not at all if none was set. May be dropped and called again.
    pub(crate) async fn elapsed(&mut self) {
        match &mut self.0 {
            Some(wait) => wait.await,
            None => std::future::pending().await,
        }
        self.0 = None;
    }
}
