//! Recovery in an application that has no queue processor of its own which knows the database.

use std::pin::pin;
use std::time::Duration;

use futures_util::future::{join, join_all, select};
use sendmail_core::Result;
use tokio::sync::watch;

use super::report::RecoveryReport;
use super::{Parts, Recovery};

/// How long after a wake-up it is looked: what comes together is looked at together.
const SOON: Duration = Duration::from_millis(5);
/// How often it is looked when nobody wakes it.
const IDLE: Duration = Duration::from_secs(1);
/// After so many wake-ups for nothing in a row it waits longest after one: mail that no transaction holds
/// back must not pay for a look with each message.
const MOST_CALM: u32 = 5;
/// How long it waits to be woken before it waits anew.
const UNTIL_WOKEN: Duration = Duration::from_secs(3600);

impl Recovery {
    /// Recovers by its own pace, for as long as its future is polled: a commit is on its way some
    /// milliseconds after it happened, by whichever process, and an open transaction is asked about once a
    /// second at most. Each resource has a pace of its own, so that none waits for another. `report` hears
    /// of every run.
    ///
    /// For a service that holds its database's pool, beside a `sendmail-queue run` that does not know that
    /// database. It never returns: drop it, or race it against the end of the service. Give it a
    /// handle of the store of its own (a clone), so that it takes no wake-up from a processor in the
    /// same process.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: dropped anywhere, it is as harmless as the death of the process.
    pub async fn follow(&self, report: impl Fn(Result<RecoveryReport>) + Send + Sync) {
        let woken = watch::Sender::new(());
        let listen = async {
            loop {
                self.store.wait_for_work(UNTIL_WOKEN).await;
                woken.send_replace(());
            }
        };
        let mut paces: Vec<_> = self
            .resources
            .keys()
            .map(|resource| self.keep_up(Parts::One(resource), woken.subscribe(), &report))
            .collect();
        paces.push(self.keep_up(Parts::Unknown, woken.subscribe(), &report));
        let ((), _) = join(listen, join_all(paces)).await;
    }

    async fn keep_up(
        &self,
        parts: Parts<'_>,
        mut woken: watch::Receiver<()>,
        report: &(impl Fn(Result<RecoveryReport>) + Send + Sync),
    ) {
        let mut calm = 0;
        loop {
            woken.mark_unchanged();
            let told = self.look(parts).await;
            let again = told.as_ref().ok().and_then(|told| told.again);
            report(told);
            calm = if again.is_some() { 0 } else { calm };
            let pause = pin!(self.clock.sleep(again.unwrap_or(IDLE)));
            let wake = pin!(woken.changed());
            if let futures_util::future::Either::Right(_) = select(pause, wake).await {
                self.clock.sleep(SOON * 2u32.pow(calm)).await;
                calm = (calm + 1).min(MOST_CALM);
            }
        }
    }
}
