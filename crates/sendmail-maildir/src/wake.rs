//! Being told of new work: by a signal inside the process, by inotify between processes.
//!
//! Both only hint. Whoever waits also looks by itself now and then. There may be several who wait, a
//! processor and a recovery: all hear, and none takes a wake-up from another.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use notify::event::{CreateKind, EventKind, ModifyKind, RenameMode};
use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::watch;

use crate::layout::Layout;

/// Wakes whoever waits for work.
pub(crate) struct Wake {
    /// Counts the signals.
    signals: watch::Sender<u64>,
    /// Made when somebody waits for the first time, so that producers watch nothing; `None` inside
    /// where the system has no watches to spare.
    watcher: OnceLock<Option<RecommendedWatcher>>,
}

impl Wake {
    /// Watches the places where other processes put messages.
    fn watch(&self, layout: &Layout) -> Option<RecommendedWatcher> {
        let signals = self.signals.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| brings_work(&event)) {
                send(&signals);
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
        send(&self.signals);
    }

    /// Returns when there may be work that `listener` has not heard of. A signal that came while it did
    /// not wait is kept for it.
    pub(crate) async fn wait(&self, listener: &Listener, layout: &Layout) {
        // What came before it was watched is to be looked for once more.
        self.watcher.get_or_init(|| self.watch(layout));
        let heard = listener.heard.load(Ordering::Relaxed);
        let mut signals = self.signals.subscribe();
        // The sender lives as long as `self`.
        if let Ok(signal) = signals.wait_for(|signal| *signal > heard).await {
            listener.heard.fetch_max(*signal, Ordering::Relaxed);
        }
    }
}

/// There is a signal from the beginning: everybody's first wait ends at once.
impl Default for Wake {
    fn default() -> Self {
        Self { signals: watch::Sender::new(1), watcher: OnceLock::new() }
    }
}

fn send(signals: &watch::Sender<u64>) {
    signals.send_modify(|count| *count += 1);
}

/// One who waits, and what it has heard.
#[derive(Debug, Default)]
pub(crate) struct Listener {
    heard: AtomicU64,
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
