//! `run`: the queue processor.

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{EntryState, EventSink, MailEvent, QueueAdmin, StateCount};
use sendmail_processor::{QueueProcessor, RunSummary};
use serde_json::json;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Run;
use crate::databases::Database;
use crate::exit::{Code, Failure, OK, Result, TEMPORARY};
use crate::in_doubt::in_doubt;
use crate::output::{Output, event_json, event_text, harmless};
use crate::recovery::{DatabaseRecovery, Known, QueueRecovery, Shared};
use crate::setup::Setup;

pub(crate) async fn run(setup: &Setup, output: Output, run: &Run) -> Result<Code> {
    let mailer = setup.mailer()?;
    let databases = Database::all(setup)?;
    let store = setup.store().await?;
    for warning in store.warnings() {
        output.remark("warning", warning);
    }
    let sink: Arc<dyn EventSink> = Arc::new(EventPrinter { output, quiet: run.quiet });
    let admin = store.clone();
    let shared = Shared {
        store: Arc::new(store),
        clock: Setup::clock(),
        sink: sink.clone(),
        known: Arc::new(Known::new(setup.config.databases.keys())),
        output,
        once: run.once,
    };
    let relay = mailer.relay().to_owned();
    let mut builder = QueueProcessor::builder(shared.store.clone(), mailer.clone(), Setup::clock())
        .config(setup.processor())
        .sink(sink)
        .recovery(Arc::new(QueueRecovery::new(&shared)));
    // Beside the queue's own and beside each other: whoever cannot be reached holds up nobody.
    for database in databases {
        builder = builder.recovery(Arc::new(DatabaseRecovery::new(database, shared.clone())));
    }
    let processor = builder.build()?;
    if !run.quiet && !run.once {
        output.remark("info", &format!("delivering to {relay}; stop with SIGTERM or Ctrl-C"));
    }
    let stop = stop_signals(output)?;
    let summary =
        if run.once { processor.run_once_until(stop).await? } else { processor.run(stop).await? };
    mailer.close().await;
    output.line(|| summary.to_string(), || summary_json(&summary))?;
    let waits = run.once && (tell_in_doubt(&shared).await? | is_kept_frozen(&admin).await?);
    Ok(if run.once && (waits || !summary.is_complete()) { TEMPORARY } else { OK })
}

/// Whether there is something that is not delivered because the queue is frozen.
async fn is_kept_frozen(store: &dyn QueueAdmin) -> Result<bool> {
    let statistics = store.statistics().await?;
    let waits = |count: &StateCount| {
        matches!(count.state, EntryState::Staged | EntryState::Queued) && count.count > 0
    };
    Ok(statistics.frozen && statistics.states.iter().any(waits))
}

/// Says what is still in doubt after a single pass; returns whether some of it waits for somebody who is
/// not configured.
async fn tell_in_doubt(shared: &Shared) -> Result<bool> {
    let Shared { store, known, output, .. } = shared;
    let mut waits = false;
    for doubt in in_doubt(store.as_ref()).await? {
        let own = doubt.resource == *store.resource_id();
        if !own && known.is_foreign(&doubt.resource) {
            waits = true;
            output.remark("warning", &known.hint(&doubt.resource));
        } else {
            let decides = known.named(&doubt.resource);
            output.remark("in_doubt", &format!("{} in doubt, decided by {decides}", doubt.count));
        }
    }
    Ok(waits)
}

/// Ready at the first SIGTERM or SIGINT; at the second the process exits at once, as if it were killed:
/// nothing is lost by that.
fn stop_signals(output: Output) -> Result<impl Future<Output = ()> + Send> {
    let listen = |kind| signal(kind).map_err(|error| Failure::system("listen for signals", &error));
    let (mut terminate, mut interrupt) =
        (listen(SignalKind::terminate())?, listen(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        output.remark("info", "stopping when what is on the wire is done; again to stop at once");
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            std::process::exit(i32::from(TEMPORARY.number()));
        });
    })
}

fn summary_json(summary: &RunSummary) -> serde_json::Value {
    json!({
        "messages": summary.messages,
        "delivered": summary.delivered,
        "failed": summary.failed,
        "expired": summary.expired,
        "deferred": summary.deferred,
        "held": summary.held,
        "not_tried": summary.left,
        "unreadable": summary.unreadable,
        "complete": summary.is_complete(),
        "reasons": summary.reasons,
    })
}

/// Prints a line for each event to standard error.
struct EventPrinter {
    output: Output,
    quiet: bool,
}

#[async_trait]
impl EventSink for EventPrinter {
    async fn emit(&self, event: &MailEvent) {
        if self.quiet {
            return;
        }
        let line = if self.output.is_json() {
            event_json(None, event).to_string()
        } else {
            event_text(event)
        };
        // A log that nobody reads any more must not stop the queue.
        let _ = std::io::Write::write_all(
            &mut std::io::stderr().lock(),
            format!("{}\n", harmless(&line)).as_bytes(),
        );
    }
}
