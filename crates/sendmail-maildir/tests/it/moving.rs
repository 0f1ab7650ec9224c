//! Files that move under the reader: they grow while they are read, or vanish between the scan and the
//! opening.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use sendmail_core::{MailEventKind, QueueStore};
use sendmail_maildir::MaildirStore;

use crate::harness::files;
use crate::support::{Queue, claim_all, deliver, queue};

// Proves: B-growing
#[tokio::test]
async fn a_file_that_grows_while_it_is_read_is_damaged_and_stops_nobody() {
    let place = Queue::new();
    let mut options = place.options();
    options.max_message_len = 1 << 20;
    let store = MaildirStore::open(place.path(), options).await.unwrap();
    queue(&store, &["grows@example.net"]).await;
    let growing = files(&place.path().join("new")).remove(0);
    queue(&store, &["still@example.net"]).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (started, begun) = std::sync::mpsc::channel();
    let writer = {
        let stop = stop.clone();
        std::thread::spawn(move || {
            let mut file = std::fs::OpenOptions::new().append(true).open(&growing).unwrap();
            while !stop.load(Ordering::Relaxed) {
                file.write_all(b"one more line\r\n").unwrap();
                let _ = started.send(());
            }
        })
    };
    begun.recv().unwrap();
    let claims = claim_all(&store).await;
    stop.store(true, Ordering::Relaxed);
    writer.join().unwrap();
    assert_eq!(claims.len(), 1, "what grows is not whole");
    for claim in claims {
        assert_eq!(deliver(&store, claim).await.0, ["still@example.net"]);
    }
    assert!(claim_all(&store).await.is_empty());
}

// Proves: B-growing
#[tokio::test]
async fn a_message_with_bytes_too_many_is_damaged_and_says_both_numbers() {
    let place = Queue::new();
    let store = place.open().await;
    queue(&store, &["a@example.net"]).await;
    let file = files(&place.path().join("new")).remove(0);
    let mut content = std::fs::read(&file).unwrap();
    content.extend_from_slice(b"more\r\n");
    std::fs::write(&file, content).unwrap();
    let claimed = store.claim(16).await.unwrap();
    assert!(claimed.claims.is_empty());
    assert_eq!(claimed.events[0].kind, MailEventKind::Damaged);
    let detail = claimed.events[0].detail.as_deref().unwrap();
    assert!(detail.contains("should have"), "{detail}");
}

// Proves: B-growing
#[tokio::test]
async fn what_vanishes_between_scan_and_open_is_passed_over_in_silence() {
    let place = Queue::new();
    let store = place.open().await;
    for _ in 0..20 {
        queue(&store, &["a@example.net"]).await;
    }
    place.put("new/zope", "X-Zope-From: a@b\nX-Zope-To: c@d\n\nbody\n");
    // The first claim has the names of all of them in hand.
    let first = store.claim(1).await.unwrap();
    assert_eq!(first.claims.len(), 1);
    for file in files(&place.path().join("new")) {
        std::fs::remove_file(file).unwrap();
    }
    let claimed = store.claim(100).await.unwrap();
    assert!(claimed.claims.is_empty() && claimed.events.is_empty(), "{claimed:?}");
    assert_eq!(QueueStore::sweep(&store).await.unwrap().set_aside, [""; 0]);
    queue(&store, &["later@example.net"]).await;
    assert_eq!(claim_all(&store).await.len(), 1, "and nothing is stuck");
}
