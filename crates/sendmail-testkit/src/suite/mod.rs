//! Conformance suites: named cases for every sentence of the contracts in `sendmail-core`.
//!
//! A suite is a macro that makes one test per case, and a table of the same cases for whoever wants to
//! run them otherwise. Each case is also a plain function. A case fails by panicking, and says which
//! mistake it found.
//!
//! Suites run on any store through a [`QueueHarness`]. Time is a [`ManualClock`]: no case depends on
//! how fast the machine is.

pub mod admin;
pub mod data_manager;
pub mod decision;
pub mod external;
pub mod log;
pub mod sink;
pub mod store;
mod support;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{EventLog, QueueAdmin, QueueId, QueueStore};

use crate::ManualClock;

/// How the suites of a queue get at the store that they test.
///
/// This one opens a [`MemoryStore`](crate::MemoryStore):
///
/// ```
/// use std::sync::{Arc, Mutex};
///
/// use sendmail_core::{EventLog, QueueAdmin, QueueStore};
/// use sendmail_testkit::suite::QueueHarness;
/// use sendmail_testkit::{ManualClock, MemoryStore};
///
/// struct Memory {
///     clock: ManualClock,
///     observer: MemoryStore,
///     processes: Mutex<Vec<(Arc<dyn QueueStore>, MemoryStore)>>,
/// }
///
/// #[async_trait::async_trait]
/// impl QueueHarness for Memory {
///     async fn new() -> Self {
///         let clock = ManualClock::default();
///         let observer = MemoryStore::new(Arc::new(clock.clone()));
///         Self { clock, observer, processes: Mutex::default() }
///     }
///     async fn open(&self) -> Arc<dyn QueueStore> {
///         let process = self.observer.process();
///         let store: Arc<dyn QueueStore> = Arc::new(process.clone());
///         self.processes.lock().unwrap().push((Arc::clone(&store), process));
///         store
///     }
///     async fn kill(&self, store: Arc<dyn QueueStore>) {
///         let mut processes = self.processes.lock().unwrap();
///         let found = processes.iter().position(|(known, _)| Arc::ptr_eq(known, &store));
///         processes.remove(found.unwrap()).1.kill();
///     }
///     async fn admin(&self) -> Arc<dyn QueueAdmin> {
///         Arc::new(self.observer.clone())
///     }
///     async fn log(&self) -> Arc<dyn EventLog> {
///         Arc::new(self.observer.clone())
///     }
///     fn clock(&self) -> &ManualClock {
///         &self.clock
///     }
/// }
///
/// sendmail_testkit::queue_store_suite!(Memory);
/// sendmail_testkit::queue_admin_suite!(Memory);
/// sendmail_testkit::event_log_suite!(Memory);
/// ```
#[async_trait]
pub trait QueueHarness: Sized + Send + Sync + 'static {
    /// A new, empty queue in a place of its own.
    async fn new() -> Self;

    /// Opens the queue as one more process would: another worker, another owner of what it writes.
    async fn open(&self) -> Arc<dyn QueueStore>;

    /// Lets the process that has `store` open die without any orderly end: what it held is free, what
    /// it had in memory is gone. The case uses it no more.
    ///
    /// A store whose claims are leased needs not do anything about them: the case lets the lease pass.
    async fn kill(&self, store: Arc<dyn QueueStore>);

    /// The operator's side of the queue, as a process that claims nothing has it.
    async fn admin(&self) -> Arc<dyn QueueAdmin>;

    /// The history of the queue, as a process that only reads has it.
    async fn log(&self) -> Arc<dyn EventLog>;

    /// The clock that every process of this queue was given.
    fn clock(&self) -> &ManualClock;

    /// Damages the stored bytes of a published message. `false` if the harness cannot: the case about
    /// damaged entries is then skipped, and says so.
    async fn corrupt(&self, id: QueueId) -> bool {
        let _ = id;
        false
    }

    /// Lets a published message look as if a newer version of the store had written it. `false` if
    /// the harness cannot: the case is then skipped, and says so.
    async fn make_unsupported(&self, id: QueueId) -> bool {
        let _ = id;
        false
    }

    /// Lets the history forget its oldest events, at least the first and not the last. `false` if
    /// the harness cannot: the case is then skipped, and says so.
    async fn expire_history(&self) -> bool {
        false
    }
}

/// What a case is, once it was given its harness.
pub type Running<'a> = Pin<Box<dyn Future<Output = ()> + Send + 'a>>;

/// One case of a suite.
pub struct Case<H: 'static> {
    /// Its name, as the macro's test is called.
    pub name: &'static str,
    /// What it does: panics if the contract is not kept.
    pub run: for<'a> fn(&'a H) -> Running<'a>,
}

impl<H> fmt::Debug for Case<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Case").field("name", &self.name).finish_non_exhaustive()
    }
}

/// How long a case may take before it counts as hanging. Generous: it is a watchdog, not a measure.
pub const CASE_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs one case on a runtime of its own, with a harness of its own. `timeout` is its watchdog:
/// [`CASE_TIMEOUT`] for those that are expected to pass.
///
/// # Panics
///
/// If the case does, or if it hangs.
pub fn run_case<H, F>(
    name: &str,
    harness: impl FnOnce() -> F,
    run: for<'a> fn(&'a H) -> Running<'a>,
    timeout: Duration,
) where
    H: 'static,
    F: Future<Output = H>,
{
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    // It fails when the machine has no threads left, which no case can mend.
    let runtime = builder.worker_threads(2).enable_all().build().expect("a runtime");
    let done = runtime.block_on(async {
        let all = async {
            let harness = harness().await;
            run(&harness).await;
        };
        tokio::time::timeout(timeout, all).await
    });
    runtime.shutdown_background();
    assert!(done.is_ok(), "{name}: it hangs, or takes more than {timeout:?}");
}

/// One test per case: of a module of this one, by their names, on a harness.
#[doc(hidden)]
#[macro_export]
macro_rules! __suite_tests {
    ($harness:ty, $new:expr; $module:ident; [$($name:ident),* $(,)?]) => {
        $(
            #[test]
            fn $name() {
                $crate::suite::run_case::<$harness, _>(
                    ::core::stringify!($name),
                    $new,
                    |harness| ::std::boxed::Box::pin($crate::suite::$module::$name(harness)),
                    $crate::suite::CASE_TIMEOUT,
                );
            }
        )*
    };
}

/// A table of the cases of a suite.
#[doc(hidden)]
#[macro_export]
macro_rules! __suite_table {
    (; $module:ident; [$($name:ident),* $(,)?]) => {
        ::std::vec![
            $($crate::suite::Case {
                name: ::core::stringify!($name),
                run: |harness| ::std::boxed::Box::pin($crate::suite::$module::$name(harness)),
            }),*
        ]
    };
}

/// Says that a case could not be run.
#[expect(clippy::print_stderr, reason = "a case that is skipped says so")]
pub(crate) fn skipped(case: &str, why: &str) {
    eprintln!("{case}: skipped, {why}");
}
