//! What every part of a processor shares.

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sendmail_core::{Clock, EventSink, MailEvent, Mailer, QueueStore};
use tokio::sync::Notify;
use tracing::warn;

use crate::caught::caught;
use crate::plan::Sign;
use crate::relay::{Relay, Rules};
use crate::{ProcessorConfig, Recovery};

pub(crate) struct Context {
    pub(crate) store: Arc<dyn QueueStore>,
    pub(crate) mailer: Arc<dyn Mailer>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sinks: Vec<Arc<dyn EventSink>>,
    pub(crate) recoveries: Vec<Arc<dyn Recovery>>,
    pub(crate) config: ProcessorConfig,
    /// Locked for moments, never across an await.
    relay: Mutex<Relay>,
    /// Why the store cannot be worked with, if it cannot. Locked as `relay` is.
    store_trouble: Mutex<Option<String>>,
    /// Rung when there is news of the relay, or an outcome that could not be recorded.
    pub(crate) news: Notify,
    /// How many attempts have ended whose outcome could not be recorded yet.
    pub(crate) unsettled: AtomicUsize,
}

impl Context {
    pub(crate) fn new(
        store: Arc<dyn QueueStore>,
        mailer: Arc<dyn Mailer>,
        clock: Arc<dyn Clock>,
        config: ProcessorConfig,
    ) -> Self {
        Self {
            store,
            mailer,
            clock,
            sinks: Vec::new(),
            recoveries: Vec::new(),
            config,
            relay: Mutex::new(Relay::new()),
            store_trouble: Mutex::new(None),
            news: Notify::new(),
            unsettled: AtomicUsize::new(0),
        }
    }

    pub(crate) fn relay(&self) -> MutexGuard<'_, Relay> {
        self.relay.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes notice of what an attempt said about the relay; whether its refusals are not believed.
    pub(crate) fn notice(&self, epoch: u64, sign: &Sign) -> bool {
        let rules = Rules {
            pause: &self.config.relay_pause,
            max_refusals: self.config.max_refusals_in_a_row,
            luck: luck(),
        };
        let suspect = self.relay().notice(epoch, sign, rules);
        self.news.notify_one();
        suspect
    }

    pub(crate) fn set_store_trouble(&self, why: Option<String>) {
        *self.store_trouble.lock().unwrap_or_else(PoisonError::into_inner) = why;
    }

    pub(crate) fn store_trouble(&self) -> Option<String> {
        self.store_trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Tells every sink, one event after the other.
    pub(crate) async fn tell(&self, events: &[MailEvent]) {
        for event in events {
            for sink in &self.sinks {
                self.tell_one(sink.as_ref(), event).await;
            }
        }
    }

    /// A sink that panics or hangs loses this event, and nobody else anything.
    async fn tell_one(&self, sink: &dyn EventSink, event: &MailEvent) {
        tokio::select! {
            biased;
            heard = caught(sink.emit(event)) => {
                if heard.is_err() {
                    warn!(event = %event.id, kind = %event.kind, "an event sink panicked");
                }
            }
            () = self.clock.sleep(self.config.sink_timeout) => {
                warn!(event = %event.id, kind = %event.kind, "an event sink takes too long");
            }
        }
    }

    /// The wait after failure number `number` of the store.
    pub(crate) fn store_pause(&self, number: u32) -> Duration {
        self.config.store_pause.delay(number, luck())
    }
}

/// From -1 to 1: how much of its jitter a wait gets.
pub(crate) fn luck() -> f64 {
    fastrand::f64() * 2.0 - 1.0
}
