//! Messages whose transaction is not decided yet, by who decides it.

use std::collections::BTreeMap;
use std::time::Duration;

use sendmail_core::{QueueStore, ResourceId};

use crate::exit::Result;
use crate::setup::Setup;

/// What is in doubt because one has not decided it.
#[derive(Debug)]
pub(crate) struct InDoubt {
    /// Who decides.
    pub(crate) resource: ResourceId,
    pub(crate) count: u64,
    /// How long the oldest has been waiting.
    pub(crate) oldest: Duration,
}

/// What is in doubt in a queue: staged, or left behind by a process that is dead. What a live process is
/// still writing is not.
pub(crate) async fn in_doubt(store: &dyn QueueStore) -> Result<Vec<InDoubt>> {
    let now = Setup::now();
    let mut found: BTreeMap<ResourceId, (u64, Duration)> = BTreeMap::new();
    let undecided = store.undecided().await?;
    for message in undecided.iter().filter(|message| message.staged || !message.owner_alive) {
        let (count, oldest) = found.entry(message.resource.clone()).or_default();
        *count += 1;
        *oldest = now.saturating_since(message.since).max(*oldest);
    }
    let each = |(resource, (count, oldest))| InDoubt { resource, count, oldest };
    Ok(found.into_iter().map(each).collect())
}
