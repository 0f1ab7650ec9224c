//! Queues that zope.sendmail and repoze.sendmail have filled.

use std::time::Duration;

use sendmail_core::{Clock as _, MailEventKind, QueueStore as _, Timestamp, Verdict};

use crate::harness::files;
use crate::support::{Queue, attempt, claim_all, deliver};

const ZOPE: &str = "X-Zope-From: \"Shop, The\" <shop@example.org>\nX-Zope-To: \"Doe, J\" <a@example.net>, \
                    b@example.net\nMessage-ID: <z@zope>\nDate: d\n\nbody\n.\n";

#[tokio::test]
async fn a_message_of_zope_is_delivered_once_and_leaves_nothing() {
    let queue = Queue::new();
    let store = queue.open().await;
    queue.put("new/1234.5.host", ZOPE);
    queue.put("cur/1234.6.host:2,S", &ZOPE.replace("<z@zope>", "<y@zope>"));
    let mut got = Vec::new();
    for claim in claim_all(&store).await {
        let (to, bytes) = deliver(&store, claim).await;
        assert_eq!(to, ["a@example.net", "b@example.net"]);
        got.push(String::from_utf8(bytes).unwrap());
    }
    got.sort_unstable();
    assert_eq!(got.len(), 2);
    assert_eq!(got[1], "Message-ID: <z@zope>\r\nDate: d\r\n\r\nbody\r\n.\r\n");
    for place in ["new", "cur", "tmp"] {
        assert_eq!(files(&queue.path().join(place)), Vec::<std::path::PathBuf>::new());
    }
}

// Proves: B-file-names
#[tokio::test]
async fn what_zope_is_sending_is_left_to_it_until_its_lock_is_forgotten() {
    let queue = Queue::new();
    let store = queue.open().await;
    queue.put("new/1234.5.host", ZOPE);
    let (file, lock) =
        (queue.path().join("new/1234.5.host"), queue.path().join("new/.sending-1234.5.host"));
    std::fs::hard_link(&file, &lock).unwrap();
    let written = std::fs::metadata(&file).unwrap().modified().unwrap();
    let written = written.duration_since(std::time::UNIX_EPOCH).unwrap();
    let written = Timestamp::from_millis(i64::try_from(written.as_millis()).unwrap());
    queue.clock.set(written.saturating_add(Duration::from_secs(3600)));
    assert!(claim_all(&store).await.is_empty(), "zope.sendmail is sending it");
    assert!(file.exists() && lock.exists());
    queue.clock.set(written.saturating_add(Duration::from_secs(4 * 3600)));
    assert_eq!(claim_all(&store).await.len(), 1, "nobody sends for four hours");
    assert!(!file.exists() && !lock.exists());
}

/// zope.sendmail takes a lock for forgotten by the age of the file that it is a second name of: claiming
/// makes an old file look new, and the message is as old as before.
#[tokio::test]
async fn an_old_message_keeps_its_time() {
    let queue = Queue::new();
    let store = queue.open().await;
    for (name, content) in [("new/whole", ZOPE), ("new/letter", "Subject: s\n\nno envelope\n")] {
        queue.put(name, content);
        let file = std::fs::File::options().write(true).open(queue.path().join(name)).unwrap();
        file.set_modified(std::time::UNIX_EPOCH + Duration::from_millis(1_000_000_500)).unwrap();
    }
    queue.clock.set(Timestamp::from_millis(1_100_000_000));
    let claim = claim_all(&store).await.remove(0);
    let loaded = store.load(&claim).await.unwrap();
    assert_eq!(loaded.queued_at, Timestamp::from_millis(1_000_000_000));
    let claimed = files(&queue.path().join(".claimed")).remove(0);
    for file in [claimed, queue.path().join("new/letter")] {
        let modified = std::fs::metadata(file).unwrap().modified().unwrap();
        let since = modified.duration_since(std::time::UNIX_EPOCH).unwrap();
        assert_eq!(since, Duration::from_millis(1_000_000_500));
    }
    assert_eq!(files(&queue.path().join("new")).len(), 1, "no lock stays");
}

#[tokio::test]
async fn the_rest_of_a_foreign_message_becomes_one_of_ours() {
    let queue = Queue::new();
    let store = queue.open().await;
    queue.put("new/1234.5.host", ZOPE);
    let claim = claim_all(&store).await.remove(0);
    let id = claim.id;
    let loaded = store.load(&claim).await.unwrap();
    let settlement = attempt(&loaded, &[Verdict::Done, Verdict::Retry], Duration::from_secs(60));
    store.settle(claim, settlement).await.unwrap();
    queue.clock.advance(Duration::from_secs(61));
    let claim = claim_all(&store).await.remove(0);
    assert_eq!((claim.id, claim.attempt), (id, 2));
    let (to, bytes) = deliver(&store, claim).await;
    assert_eq!(to, ["b@example.net"]);
    assert_eq!(bytes, loaded.message.as_bytes());
}

#[tokio::test]
async fn a_foreign_message_survives_the_death_of_its_worker() {
    let queue = Queue::new();
    let store = queue.open().await;
    queue.put("new/1234.5.host", ZOPE);
    let first = claim_all(&store).await.remove(0);
    store.record(&first, sendmail_core::Step::Begin).await.unwrap();
    store.simulate_death();
    let other = queue.open().await;
    let second = claim_all(&other).await.remove(0);
    assert_eq!(first.id, second.id);
    deliver(&other, second).await;
    assert!(claim_all(&other).await.is_empty());
}

// Proves: B-damaged
#[tokio::test]
async fn what_cannot_be_understood_is_set_aside_as_damaged() {
    let queue = Queue::new();
    let store = queue.open().await;
    queue.put("new/1", "X-Zope-From: a@b\nX-Zope-To: evil@x\nX-Zope-To: real@x\n\nbody\n");
    queue.put("new/2", "X-Zope-From: a@b\nX-Zope-To: no address\n\nbody\n");
    let claimed = store.claim(16).await.unwrap();
    assert!(claimed.claims.is_empty());
    let kinds: Vec<_> = claimed.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [MailEventKind::Damaged, MailEventKind::Damaged]);
    assert_eq!(files(&queue.path().join(".failed/new")).len(), 2, "kept for people");
    assert!(files(&queue.path().join("new")).is_empty(), "locks included");
    let _ = queue.clock.now();
}

/// The rest is written, and cannot be moved yet.
#[tokio::test]
async fn the_outcome_of_a_foreign_message_may_be_settled_again() {
    let queue = Queue::new();
    let store = queue.open().await;
    queue.put("new/1234.5.host", ZOPE);
    let claim = claim_all(&store).await.remove(0);
    let loaded = store.load(&claim).await.unwrap();
    let settlement = attempt(&loaded, &[Verdict::Done, Verdict::Retry], Duration::from_secs(60));
    let due = queue.clock.now().as_secs() + 60;
    let in_the_way = queue.path().join(format!(".deferred/{:010}", due / 60));
    std::fs::write(&in_the_way, "").unwrap();
    let claim = store.settle(claim, settlement.clone()).await.unwrap_err().claim;
    assert_eq!(files(&queue.path().join(".claimed")).len(), 1, "one file at each moment");
    std::fs::remove_file(&in_the_way).unwrap();
    store.settle(claim, settlement).await.unwrap();
    queue.clock.advance(Duration::from_secs(61));
    let claim = claim_all(&store).await.remove(0);
    assert_eq!(deliver(&store, claim).await.0, ["b@example.net"]);
}
