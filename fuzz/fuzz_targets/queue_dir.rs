//! A queue's directory in any state. The input is a list of files, with a line of `%%` between them:
//! a path, then the content. `ID` in a path stands for a queue id, and the content `=text` for a whole
//! queue file of that id with this text.
//!
//! Nothing panics and nothing stops the work; what is offered for sending is whole; and no whole queue
//! file is lost, wherever it lay (two are the same if their bytes are).
#![no_main]

use std::collections::BTreeSet;
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use sendmail_core::{Filter, QueueAdmin as _, QueueStore as _, Release, Settlement};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_current_thread().enable_all().max_blocking_threads(2).build().expect("a runtime")
});

const ID: [u8; 16] = [1, 0x9a, 3, 4, 5, 6, 0x77, 8, 0x89, 10, 11, 12, 13, 14, 15, 16];
const ID_TEXT: &[u8] = b"019a0304-0506-7708-890a-0b0c0d0e0f10";

fuzz_target!(|bytes: &[u8]| {
    let Some(files) = files(bytes) else { return };
    let root = tempfile::tempdir().expect("a temporary directory");
    let mut whole = BTreeSet::new();
    for (path, content) in files {
        let target = root.path().join(&path);
        let made = target.parent().is_some_and(|parent| fs::create_dir_all(parent).is_ok());
        if !made || target.exists() || fs::write(&target, &content).is_err() {
            continue;
        }
        if holds_committed(&path) && content.starts_with(b"X-Envelope-From: ") {
            whole.insert(content);
        }
    }
    RUNTIME.block_on(work(root.path()));
    let mut left = BTreeSet::new();
    collect(root.path(), &mut left);
    assert!(whole.is_subset(&left), "a queue file was lost");
});

async fn work(root: &Path) {
    let Ok(store) = MaildirStore::open(root, MaildirOptions::default()).await else { return };
    for _ in 0..3 {
        let Ok(claimed) = store.claim(10).await else { break };
        for claim in claimed.claims {
            if let Ok(loaded) = store.load(&claim).await {
                assert!(loaded.message.as_bytes().ends_with(b"\r\n"));
                assert!(!loaded.envelope.recipients().is_empty());
            }
            let _ = store.settle(claim, Settlement::Release(Release::NotAttempted)).await;
        }
        let _ = store.sweep().await;
    }
    let _ = store.undecided().await;
    let _ = store.statistics().await;
    let _ = store.list(&Filter::default(), &mut |_| ControlFlow::Continue(())).await;
    let _ = store.show(sendmail_core::QueueId::from_bytes(ID)).await;
}

/// Where a whole file is a message that was committed, under a name that says so or under another.
fn holds_committed(path: &Path) -> bool {
    let place = path.components().next().map(|first| first.as_os_str().as_bytes().to_vec());
    matches!(
        place.as_deref(),
        Some(b"new" | b"cur" | b".held" | b".deferred" | b".lanes" | b".failed")
    )
}

fn files(bytes: &[u8]) -> Option<Vec<(PathBuf, Vec<u8>)>> {
    let mut files = Vec::new();
    let mut rest = bytes;
    while files.len() < 8 && !rest.is_empty() {
        let end = rest.windows(4).position(|window| window == b"\n%%\n");
        let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after.get(4..).unwrap_or_default();
        let line = part.iter().position(|byte| *byte == b'\n').unwrap_or(part.len());
        let (path, content) = part.split_at(line);
        let path = replaced(path);
        let path = Path::new(std::ffi::OsStr::from_bytes(&path)).to_owned();
        // Only inside the directory, and nothing that no file system takes.
        let plain =
            |part: Component<'_>| matches!(part, Component::Normal(name) if name.len() < 256);
        if path.as_os_str().is_empty() || !path.components().all(plain) {
            return None;
        }
        let content = content.get(1..).unwrap_or_default();
        let content = match content.strip_prefix(b"=") {
            Some(text) => sendmail_maildir::fuzz::valid_file(ID, text)?,
            None => content.to_vec(),
        };
        files.push((path, content));
    }
    (!files.is_empty()).then_some(files)
}

fn replaced(path: &[u8]) -> Vec<u8> {
    let at = path.windows(2).position(|window| window == b"ID");
    let Some((before, after)) = at.and_then(|at| Some((path.get(..at)?, path.get(at + 2..)?)))
    else {
        return path.to_vec();
    };
    [before, ID_TEXT, after].concat()
}

fn collect(folder: &Path, found: &mut BTreeSet<Vec<u8>>) {
    for entry in fs::read_dir(folder).expect("it can be read").flatten() {
        let path = entry.path();
        match path.symlink_metadata() {
            Ok(facts) if facts.is_dir() => collect(&path, found),
            Ok(facts) if facts.is_file() => found.extend(fs::read(&path)),
            _ => {}
        }
    }
}
