//! Has an SQLite database cleaned at once: there the product deletes rows once a minute, and nobody wants
//! to wait for that.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_clock::SystemClock;
use sendmail_core::{Clock, QueueStore, Timestamp};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::SqlDecisionStore;
use sendmail_txn::Recovery;
use sqlx::SqlitePool;

use crate::Result;

/// How often recovery looks for what was left behind, with a little to spare.
const BETWEEN_LOOKS_MS: i64 = 11 * 60 * 1000;
/// Enough to find everything, and to delete what waited since the time before.
const LOOKS: i64 = 3;

/// Lets recovery look for markers that nobody has had forgotten, as in a processor that lives for half an
/// hour.
///
/// # Errors
///
/// The queue or the database cannot be opened, or recovery had trouble.
pub(super) async fn clean(queue: &Path, url: &str) -> Result<()> {
    let store: Arc<dyn QueueStore> =
        Arc::new(MaildirStore::open(queue, MaildirOptions::default()).await?);
    let later = Arc::new(Later::default());
    let clock: Arc<dyn Clock> = later.clone();
    let pool = SqlitePool::connect(url).await?;
    let queue = store.resource_id().clone();
    let decisions = SqlDecisionStore::connect(pool, clock.clone(), queue).await?;
    let recovery = Recovery::new(store, clock).with_decision_store(Arc::new(decisions))?;
    for look in 1..=LOOKS {
        later.by_ms.store(look * BETWEEN_LOOKS_MS, Ordering::Relaxed);
        if let Some((resource, error)) = recovery.run().await?.trouble.into_iter().next() {
            return Err(format!("{resource}: {error}").into());
        }
    }
    Ok(())
}

/// A clock that can be put forward.
#[derive(Debug, Default)]
struct Later {
    by_ms: AtomicI64,
}

#[async_trait]
impl Clock for Later {
    fn now(&self) -> Timestamp {
        let by = u64::try_from(self.by_ms.load(Ordering::Relaxed)).unwrap_or_default();
        SystemClock.now().saturating_add(Duration::from_millis(by))
    }

    async fn sleep(&self, duration: Duration) {
        SystemClock.sleep(duration).await;
    }
}
