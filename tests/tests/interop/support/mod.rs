//! What the tests share: the binary, queues, servers and outside programs.

mod binary;
mod daemon;
pub(crate) mod demand;
pub(crate) mod dovecot;
mod messages;
pub(crate) mod postfix;
mod queue;
mod shop;
mod sink;

use std::future::Future;
use std::time::Duration;

pub(crate) use binary::{Done, binary, finish};
pub(crate) use daemon::Daemon;
pub(crate) use messages::{mail, subjects};
pub(crate) use queue::{Queue, files_in};
pub(crate) use shop::{Shop, die};
pub(crate) use sink::Sink;

/// How long anything may take that a test waits for; more means that it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// How long a test waits before it looks again at what no signal tells of.
pub(crate) const GLANCE: Duration = Duration::from_millis(25);

/// Looks until there is what the test waits for.
pub(crate) async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut look: impl FnMut() -> F,
) -> T {
    let watch = async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(GLANCE).await;
        }
    };
    match tokio::time::timeout(PATIENCE, watch).await {
        Ok(found) => found,
        Err(_) => panic!("waited in vain for {what}"),
    }
}
