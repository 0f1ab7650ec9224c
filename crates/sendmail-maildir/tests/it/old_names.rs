//! Both names of a rename, as btrfs may show them after a crash: the file is one, and is sent once.

use std::path::{Path, PathBuf};

use sendmail_core::{Discard, QueueStore as _};
use sendmail_maildir::MaildirStore;

use crate::support::{Queue, claim_all, deliver, mail, queue};

/// The only file below `folder`.
fn only(folder: &Path) -> PathBuf {
    let mut all: Vec<PathBuf> = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { all.push(path) }
        }
    }
    let [only] = all.as_slice() else { panic!("{all:?}") };
    only.clone()
}

/// Everything there is to deliver, by a new worker.
async fn deliver_all(queue: &Queue) -> usize {
    let worker = queue.open().await;
    worker.sweep().await.unwrap();
    let mut copies = 0;
    loop {
        let claims = claim_all(&worker).await;
        if claims.is_empty() {
            return copies;
        }
        for claim in claims {
            deliver(&worker, claim).await;
            copies += 1;
        }
    }
}

async fn staged(store: &MaildirStore, resource: &str) -> sendmail_core::NewMessage {
    let mut new = mail(&["a@x"]);
    new.resource = resource.parse().unwrap();
    store.write(&new).await.unwrap();
    new
}

// Proves: I8, I20
#[tokio::test]
async fn a_claimed_message_that_still_waits_is_sent_once() {
    let scene = Queue::new();
    let first = scene.open().await;
    queue(&first, &["a@x"]).await;
    let (old, kept) = (only(&scene.path().join("new")), scene.path().join("kept"));
    std::fs::hard_link(&old, &kept).unwrap();
    assert_eq!(claim_all(&first).await.len(), 1);
    std::fs::rename(&kept, &old).unwrap();
    // While the worker lives it is the worker's.
    assert!(claim_all(&scene.open().await).await.is_empty());
    first.simulate_death();
    assert_eq!(deliver_all(&scene).await, 1);
}

// Proves: I8, I20
#[tokio::test]
async fn a_published_message_that_still_is_staged_is_sent_once() {
    for is_claimed_first in [false, true] {
        let scene = Queue::new();
        let producer = scene.open().await;
        let new = staged(&producer, "database").await;
        let old = only(&scene.path().join("tmp"));
        producer.stage(&[new.id]).await.unwrap();
        let between = only(&scene.path().join(".staged"));
        let [kept, other] = ["kept", "other"].map(|name| scene.path().join(name));
        std::fs::hard_link(&between, &kept).unwrap();
        std::fs::hard_link(&between, &other).unwrap();
        producer.publish(&[new.id]).await.unwrap();
        std::fs::rename(&kept, &old).unwrap();
        std::fs::rename(&other, &between).unwrap();
        producer.simulate_death();
        let mut copies = 0;
        if is_claimed_first {
            copies += deliver_all(&scene).await;
        }
        let recovery = scene.open().await;
        recovery.publish(&[new.id]).await.unwrap();
        copies += deliver_all(&scene).await;
        assert_eq!(copies, 1, "claimed first: {is_claimed_first}");
        assert!(recovery.undecided().await.unwrap().is_empty());
    }
}

/// Links that a backup has made are not names of the queue.
// Proves: I3, I5
#[tokio::test]
async fn a_backup_by_links_makes_nothing_old() {
    let scene = Queue::new();
    let producer = scene.open().await;
    let new = staged(&producer, "database").await;
    producer.stage(&[new.id]).await.unwrap();
    std::fs::hard_link(only(&scene.path().join(".staged")), scene.path().join("backup")).unwrap();
    producer.simulate_death();
    let recovery = scene.open().await;
    assert_eq!(recovery.undecided().await.unwrap().len(), 1);
    recovery.publish(&[new.id]).await.unwrap();
    std::fs::hard_link(only(&scene.path().join("new")), scene.path().join("another")).unwrap();
    assert_eq!(deliver_all(&scene).await, 1);
}

// Proves: I2
#[tokio::test]
async fn a_discarded_message_is_discarded_under_both_names() {
    let scene = Queue::new();
    let producer = scene.open().await;
    let new = staged(&producer, "database").await;
    let (old, kept) = (only(&scene.path().join("tmp")), scene.path().join("kept"));
    std::fs::hard_link(&old, &kept).unwrap();
    producer.stage(&[new.id]).await.unwrap();
    std::fs::rename(&kept, &old).unwrap();
    producer.simulate_death();
    let recovery = scene.open().await;
    assert_eq!(recovery.discard(&[new.id], Discard::Fenced).await.unwrap().len(), 1);
    assert!(recovery.undecided().await.unwrap().is_empty());
    assert_eq!(deliver_all(&scene).await, 0);
}
