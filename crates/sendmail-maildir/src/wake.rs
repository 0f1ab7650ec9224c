//! Being told of new work: by a signal inside the process, by inotify between processes.
//!
//! Both only hint. Whoever waits also looks by itself now and then.

use std::fmt;
use std::sync::Arc;

use notify::event::{CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::layout::Layout;

/// Wakes whoever waits for work.
pub(crate) struct Wake {
    notify: Arc<Notify>,
    /// Kept for as long as it is to watch; nothing where the system has no watches to spare.
    _watcher: Option<RecommendedWatcher>,
}

impl Wake {
    /// Watches the places where other processes put messages.
    pub(crate) fn watch(layout: &Layout) -> Self {
        let notify = Arc::new(Notify::new());
        let signal = notify.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| brings_work(event.kind)) {
                signal.notify_one();
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(layout.new.path(), RecursiveMode::NonRecursive)?;
            watcher.watch(layout.cur.path(), RecursiveMode::NonRecursive)?;
            watcher.watch(layout.staged.path(), RecursiveMode::Recursive)?;
            watcher.watch(layout.lanes.path(), RecursiveMode::Recursive)?;
            Ok(watcher)
        });
        Self { notify, _watcher: watcher.ok() }
    }

    /// Says that there is work.
    pub(crate) fn signal(&self) {
        self.notify.notify_one();
    }

    /// Returns when there may be work. A signal that nobody waited for is kept for the next who does.
    pub(crate) async fn wait(&self) {
        self.notify.notified().await;
    }
}

/// Something came; what went, among it what we claimed ourselves, is no news.
fn brings_work(kind: EventKind) -> bool {
    matches!(
        kind,
        EventKind::Create(CreateKind::File | CreateKind::Any)
            | EventKind::Modify(ModifyKind::Name(RenameMode::To))
    )
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake").field("watches", &self._watcher.is_some()).finish_non_exhaustive()
    }
}
