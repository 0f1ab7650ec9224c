//! Transaction recovery, as the processor runs it: what the queue decides itself, and beside it what each
//! configured database decides.

mod database;
mod known;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use sendmail_core::{Error, ErrorKind, QueueStore, ResourceId, Result};
use sendmail_processor::Recovered;
use sendmail_txn::{Action, Finding, Recovery, RecoveryReport};

use crate::commands::FROZEN;
use crate::output::Output;
pub(crate) use database::{DatabaseRecovery, Shared};
pub(crate) use known::Known;

/// Recovery of what the queue decides itself. It also tells, once each time, that the queue is frozen, and
/// that messages wait for a database that is not configured.
pub(crate) struct QueueRecovery {
    store: Arc<dyn QueueStore>,
    recovery: Recovery,
    known: Arc<Known>,
    output: Output,
    frozen: AtomicBool,
    told: Mutex<BTreeSet<ResourceId>>,
}

impl QueueRecovery {
    pub(crate) fn new(shared: &Shared) -> Self {
        let Shared { store, clock, sink, known, output, .. } = shared.clone();
        let recovery = Recovery::new(store.clone(), clock).with_sink(sink);
        let (frozen, told) = (AtomicBool::new(false), Mutex::default());
        Self { store, recovery, known, output, frozen, told }
    }

    async fn tell_frozen(&self) {
        // Where it cannot be found out, nothing is new.
        let Ok(frozen) = self.store.is_frozen().await else { return };
        match (self.frozen.swap(frozen, Ordering::Relaxed), frozen) {
            (false, true) => self.output.remark("frozen", FROZEN),
            (true, false) => {
                self.output.remark("info", "the queue is not frozen any more: it goes on");
            }
            _ => {}
        }
    }

    fn tell_unknown(&self, report: &RecoveryReport) {
        let unknown = report
            .messages
            .iter()
            .filter(|message| matches!(message.finding, Finding::UnknownResource))
            .filter_map(|message| message.resource.as_ref());
        for resource in unknown {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            if self.known.is_foreign(resource) && told.insert(resource.clone()) {
                self.output.remark("warning", &self.known.hint(resource));
            }
        }
    }
}

#[async_trait]
impl sendmail_processor::Recovery for QueueRecovery {
    fn name(&self) -> &str {
        "recover transactions"
    }

    async fn recover(&self) -> Result<Recovered> {
        self.tell_frozen().await;
        let report = self.recovery.run().await?;
        self.tell_unknown(&report);
        outcome(report)
    }
}

/// What a run amounted to for the processor; its events went to the sinks that the recovery was given.
fn outcome(report: RecoveryReport) -> Result<Recovered> {
    let again = report.again;
    let failed = report.messages.into_iter().find_map(|message| match message {
        message if matches!(message.finding, Finding::Missing) => Some(missing(&message)),
        message => match message.action {
            Action::Failed(error) => Some(error),
            _ => None,
        },
    });
    let failed = failed.or(report.trouble.into_iter().next().map(|(_, error)| error));
    failed.map_or(Ok(Recovered::default().again_after(again)), Err)
}

/// The alarm that a committed message is gone.
fn missing(message: &sendmail_txn::Recovered) -> Error {
    let text = "a committed message is neither in the queue nor in its history; see `list --state \
                discarded`, and whether the queue was restored from a backup";
    Error::new(ErrorKind::NotFound, "recover transactions", text).with("queue id", message.id)
}
