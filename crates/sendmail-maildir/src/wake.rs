//! Being told of new work: by a signal inside the process, by inotify between processes.
//!
//! Both only hint. Whoever waits also looks by itself now and then.

use std::fmt;
use std::sync::{Arc, OnceLock};

use notify::event::{CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;

use crate::layout::Layout;

/// Wakes whoever waits for work.
#[derive(Default)]
pub(crate) struct Wake {
    notify: Arc<Notify>,
    /// Made when somebody waits for the first time, so that producers watch nothing; `None` inside
    /// where the system has no watches to spare.
    watcher: OnceLock<Option<RecommendedWatcher>>,
}

impl Wake {
    /// Watches the places where other processes put messages.
    fn watch(&self, layout: &Layout) -> Option<RecommendedWatcher> {
        let signal = self.notify.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| brings_work(&event)) {
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
        watcher.ok()
    }

    /// Says that there is work.
    pub(crate) fn signal(&self) {
        self.notify.notify_one();
    }

    /// Returns when there may be work. A signal that nobody waited for is kept for the next who does.
    pub(crate) async fn wait(&self, layout: &Layout) {
        if self.watcher.get().is_none() {
            self.watcher.get_or_init(|| self.watch(layout));
            // What came before it was watched is to be looked for once more.
            return;
        }
        self.notify.notified().await;
    }
}

/// A message came. What went, among it what we claimed ourselves, is no news, and neither are names
/// with a dot, among them the locks that we take.
fn brings_work(event: &notify::Event) -> bool {
    let came = matches!(
        event.kind,
        EventKind::Create(CreateKind::File | CreateKind::Any)
            | EventKind::Modify(ModifyKind::Name(RenameMode::To))
    );
    let dotted = |path: &std::path::PathBuf| {
        path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."))
    };
    came && !event.paths.iter().all(dotted)
}

impl fmt::Debug for Wake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wake")
            .field("watches", &self.watcher.get().is_some_and(Option::is_some))
            .finish_non_exhaustive()
    }
}
