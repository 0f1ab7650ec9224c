//! The processor as its users see it.

use std::fmt;
use std::future::Future;
use std::pin::pin;
use std::sync::Arc;

use sendmail_core::{Clock, Error, ErrorKind, EventSink, Mailer, QueueStore, Result};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::context::Context;
use crate::engine::{Engine, Mode, Stop};
use crate::{ProcessorConfig, Recovery, RunSummary};

/// Delivers what is in a queue. Clones are the same processor.
#[derive(Clone)]
pub struct QueueProcessor {
    context: Arc<Context>,
}

/// Puts a [`QueueProcessor`] together.
pub struct ProcessorBuilder {
    context: Context,
}

/// What a processor could not do, as it last knew.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Health {
    /// Why nothing is sent to the relay for a while, if it is so.
    pub relay_trouble: Option<String>,
    /// Why nothing can be claimed or recorded, if it is so.
    pub store_trouble: Option<String>,
}

impl QueueProcessor {
    /// A processor that takes from `store` what `mailer` is to send.
    pub fn builder(
        store: Arc<dyn QueueStore>,
        mailer: Arc<dyn Mailer>,
        clock: Arc<dyn Clock>,
    ) -> ProcessorBuilder {
        let context = Context::new(store, mailer, clock, ProcessorConfig::default());
        ProcessorBuilder { context }
    }

    /// Tries everything that is due, each message at most once, and returns what came of it.
    ///
    /// Recoveries and a sweep come first. When the relay or the store turns out to be in trouble, the
    /// pass ends: what was claimed is given back, and the summary says why.
    ///
    /// # Errors
    ///
    /// The queue could not be read. What was tried before is settled.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: dropping the future is as if the process had died, except that the store lives
    /// on. What was claimed stays claimed until the store's process ends.
    pub async fn run_once(&self) -> Result<RunSummary> {
        let (_nobody, stop) = watch::channel(Stop::No);
        Engine::new(Arc::clone(&self.context), Mode::Once, stop).run().await
    }

    /// As [`run_once`](Self::run_once), and stops in order before that when `stop` is ready.
    ///
    /// # Errors
    ///
    /// As [`run_once`](Self::run_once).
    ///
    /// # Cancel safety
    ///
    /// As [`run_once`](Self::run_once).
    pub async fn run_once_until(
        &self,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<RunSummary> {
        self.run_mode(Mode::Once, stop).await
    }

    /// Delivers until `stop` is ready, and then stops in order: claims nothing more, finishes what is
    /// on the wire, gives back the rest.
    ///
    /// # Errors
    ///
    /// None that are met on the way: a store or a relay in trouble is left alone for a while and tried
    /// again. [`health`](Self::health) tells. Only a store that can record nothing more in this process, as
    /// after an `fsync` that failed, ends the run with its error: end the process then and start another,
    /// which takes over.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe, but harmless: dropping the future stops at once, as if the process had died.
    /// What was claimed stays claimed until the store's process ends.
    pub async fn run(&self, stop: impl Future<Output = ()> + Send) -> Result<RunSummary> {
        self.run_mode(Mode::Forever, stop).await
    }

    async fn run_mode(
        &self,
        mode: Mode,
        stop: impl Future<Output = ()> + Send,
    ) -> Result<RunSummary> {
        let (wish, stopped) = watch::channel(Stop::No);
        let mut running = pin!(Engine::new(Arc::clone(&self.context), mode, stopped).run());
        tokio::select! {
            done = &mut running => return done,
            () = stop => {}
        }
        wish.send_replace(Stop::InOrder);
        running.await
    }

    /// Delivers in a task of its own, until it is told to stop.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[must_use = "only its handle can stop it"]
    pub fn spawn(&self) -> ProcessorHandle {
        let (wish, stopped) = watch::channel(Stop::No);
        let engine = Engine::new(Arc::clone(&self.context), Mode::Forever, stopped);
        ProcessorHandle { wish, task: tokio::spawn(engine.run()) }
    }

    /// What it cannot do at the moment.
    #[must_use]
    pub fn health(&self) -> Health {
        Health {
            relay_trouble: self.context.relay().trouble().map(str::to_owned),
            store_trouble: self.context.store_trouble(),
        }
    }
}

impl ProcessorBuilder {
    /// Sets how it works.
    #[must_use]
    pub fn config(mut self, config: ProcessorConfig) -> Self {
        self.context.config = config;
        self
    }

    /// Adds one who hears what becomes of messages.
    #[must_use]
    pub fn sink(mut self, sink: Arc<dyn EventSink>) -> Self {
        self.context.sinks.push(sink);
        self
    }

    /// Adds what else is to be done while it runs.
    #[must_use]
    pub fn recovery(mut self, recovery: Arc<dyn Recovery>) -> Self {
        self.context.recoveries.push(recovery);
        self
    }

    /// The processor.
    ///
    /// # Errors
    ///
    /// With such a configuration it cannot work.
    pub fn build(self) -> Result<QueueProcessor> {
        self.context.config.check()?;
        Ok(QueueProcessor { context: Arc::new(self.context) })
    }
}

impl fmt::Debug for QueueProcessor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueueProcessor")
            .field("relay", &self.context.mailer.relay())
            .field("config", &self.context.config)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ProcessorBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ProcessorBuilder")
            .field("config", &self.context.config)
            .finish_non_exhaustive()
    }
}

/// A processor that runs. Dropping the handle lets it run on.
#[derive(Debug)]
pub struct ProcessorHandle {
    wish: watch::Sender<Stop>,
    task: JoinHandle<Result<RunSummary>>,
}

impl ProcessorHandle {
    /// Stops it in order; when it is called again, at once.
    pub fn stop(&self) {
        self.wish.send_modify(|wish| {
            *wish = if *wish == Stop::No { Stop::InOrder } else { Stop::AtOnce };
        });
    }

    /// Stops it at once, as if its process had died: nothing is lost, but what was on the wire may be
    /// sent again. What it had claimed is free when the store's process ends.
    pub fn abort(&self) {
        self.wish.send_replace(Stop::AtOnce);
    }

    /// Returns when it has stopped, with what its run amounted to.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Cancelled`]: it was stopped at once. [`ErrorKind::InvalidState`]: it panicked.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: the handle is lost, and the processor runs on.
    pub async fn join(self) -> Result<RunSummary> {
        match self.task.await {
            Ok(done) => done,
            Err(error) => {
                Err(Error::new(ErrorKind::InvalidState, "run the queue", error.to_string())
                    .with_source(error))
            }
        }
    }
}
