//! `check` of the configured databases: whether each can be asked, how safe its commits are, and whether
//! committed mail is missing.

use std::time::Duration;

use sendmail_core::{DecisionStore, QueueId, QueueStore, ResourceId};
use serde_json::json;

use crate::databases::{Connected, Database, connect_all};
use crate::exit::{Failure, NO_INPUT, Result};
use crate::output::Output;
use crate::setup::Setup;

/// How long ago a message must have been committed before it is missed.
const MISSED_AFTER: Duration = Duration::from_secs(10 * 60);
/// How many that a database remembers are looked for.
const MOST: usize = 1000;

/// What was found at a database that can be asked.
struct Found {
    resource: ResourceId,
    warnings: Vec<String>,
    missing: Vec<QueueId>,
}

pub(super) async fn check(setup: &Setup, output: Output) -> Result<()> {
    let databases = Database::all(setup)?;
    if databases.is_empty() {
        return Ok(());
    }
    let store = setup.store().await?;
    let mut failed = None;
    for (database, connected) in connect_all(databases, QueueStore::resource_id(&store)).await {
        let found = match connected {
            Ok(connected) => look(&store, connected).await,
            Err(error) => Err(error),
        };
        let failure = report(output, &database, found)?;
        failed = failed.or(failure);
    }
    failed.map_or(Ok(()), Err)
}

async fn look(store: &dyn QueueStore, connected: Connected) -> sendmail_core::Result<Found> {
    let Connected { decisions, warnings } = connected;
    let missing = missing(store, decisions.as_ref()).await?;
    Ok(Found { resource: decisions.resource_id().clone(), warnings, missing })
}

/// What the database knows to be committed, and neither the queue nor its history.
async fn missing(
    store: &dyn QueueStore,
    decisions: &dyn DecisionStore,
) -> sendmail_core::Result<Vec<QueueId>> {
    let mut left = decisions.remembered(MISSED_AFTER, MOST).await?;
    // In this order: what leaves the undecided afterwards is found among the published.
    let undecided = store.undecided().await?;
    left.retain(|id| !undecided.iter().any(|message| message.id == *id));
    let known = store.known(&left).await?;
    left.retain(|id| !known.contains(id));
    Ok(left)
}

/// Prints what was found; returns why it is not right.
fn report(
    output: Output,
    database: &Database,
    found: sendmail_core::Result<Found>,
) -> Result<Option<Failure>> {
    let Database { name, shown, .. } = database;
    let (found, failure) = match found {
        Ok(found) if found.missing.is_empty() => (Some(found), None),
        Ok(found) => {
            let ids: Vec<String> = found.missing.iter().map(ToString::to_string).collect();
            let text = format!(
                "ALARM: {} committed messages are missing; `recover` says more: {}",
                ids.len(),
                ids.join(", ")
            );
            (Some(found), Some(Failure::new(NO_INPUT, text)))
        }
        Err(error) => (None, Some(Failure::from(error))),
    };
    let resource = found.as_ref().map(|found| found.resource.as_str());
    let text = match (&failure, resource) {
        (Some(failure), _) => format!("{shown}: {failure}"),
        (None, resource) => {
            format!("{shown}: can be asked; it is {}", resource.unwrap_or_default())
        }
    };
    let warnings = found.as_ref().map(|found| found.warnings.as_slice()).unwrap_or_default();
    output.line(
        || format!("database {name}: {}{text}", if failure.is_some() { "NOT OK: " } else { "" }),
        || {
            json!({
                "check": "database",
                "name": name.to_string(),
                "ok": failure.is_none(),
                "resource": resource,
                "warnings": warnings,
                "text": text,
            })
        },
    )?;
    for warning in warnings {
        output.remark("warning", &format!("database {name}: {warning}"));
    }
    Ok(failure.map(|failure| Failure::new(failure.code, format!("database {name}: {failure}"))))
}
