//! Attacks on the queue through names and directories: nothing outside is read or written.

use std::path::Path;
use std::time::Duration;

use sendmail_core::{QueueStore, ResourceId, TransactionId, Verdict};
use sendmail_maildir::MaildirStore;

use crate::harness::files;
use crate::support::{Queue, attempt, mail, queue};

/// Every directory in which the queue keeps something.
const DIRECTORIES: [&str; 12] = [
    "tmp",
    "new",
    "cur",
    ".owners",
    ".staged",
    ".lanes",
    ".claimed",
    ".deferred",
    ".held",
    ".failed",
    ".discarded",
    ".wishes",
];

/// Takes messages through every state, as far as the queue lets it.
async fn live(store: &MaildirStore) -> Vec<String> {
    let mut subjects = Vec::new();
    for round in 0..3 {
        let mut new = mail(&["a@example.net"]);
        new.resource = QueueStore::resource_id(store).clone();
        if store.write(&new).await.is_ok() {
            let _ = store.stage(&[new.id]).await;
            let _ = store.publish(&[new.id]).await;
        }
        let Ok(claimed) = store.claim(16).await else { continue };
        for claim in claimed.claims {
            let Ok(loaded) = store.load(&claim).await else { continue };
            subjects.push(String::from_utf8_lossy(loaded.message.as_bytes()).into_owned());
            let verdict = [Verdict::Done, Verdict::Retry, Verdict::Fail][round];
            let verdicts = vec![verdict; loaded.envelope.recipients().len()];
            let settlement = attempt(&loaded, &verdicts, Duration::from_secs(60));
            let _ = store.settle(claim, settlement).await;
        }
        let _ = QueueStore::sweep(store).await;
    }
    subjects
}

// Proves: A-symlink
#[tokio::test]
async fn a_directory_that_becomes_a_link_while_the_queue_is_open_leads_nowhere() {
    for name in DIRECTORIES {
        let place = Queue::new();
        let outside = tempfile::tempdir().unwrap();
        let bait = "X-Zope-From: a@b\nX-Zope-To: c@d\nSubject: bait\n\nbody\n";
        std::fs::write(outside.path().join("bait"), bait).unwrap();
        let store = place.open().await;
        queue(&store, &["before@example.net"]).await;
        std::fs::rename(place.path().join(name), place.path().join("aside")).unwrap();
        std::os::unix::fs::symlink(outside.path(), place.path().join(name)).unwrap();
        let sent = live(&store).await;
        assert!(!sent.iter().any(|text| text.contains("bait")), "{name}: {sent:?}");
        assert_eq!(files(outside.path()), [outside.path().join("bait")], "{name}");
        assert_eq!(std::fs::read_to_string(outside.path().join("bait")).unwrap(), bait);
        let open_dirs = std::fs::read_dir(outside.path()).unwrap().count();
        assert_eq!(open_dirs, 1, "{name}: a directory was made outside");
    }
}

// Proves: A-traversal
#[tokio::test]
async fn nothing_that_a_user_names_becomes_a_path() {
    let beside = tempfile::tempdir().unwrap();
    let place = beside.path().join("queue");
    let options = Queue::new().options();
    let store = MaildirStore::open(&place, options).await.unwrap();
    let evil = ["../../../etc/cron.d/x", "..", "/etc/passwd", "a/../../b", ".journal", "%2e%2e%2f"];
    for name in evil {
        let mut new = mail(&["a@example.net"]);
        new.resource = QueueStore::resource_id(&store).clone();
        let raw = format!("Message-ID: <{name}@{name}>\nSubject: {name}\n\nbody\n");
        new.message =
            sendmail_core::Message::from_raw(raw.as_bytes(), sendmail_core::Timestamp::EPOCH, name)
                .unwrap();
        let mut options = new.envelope.options().clone();
        options.tenant = Some(name.parse().unwrap());
        new.envelope = new.envelope.with_options(options);
        store.write(&new).await.unwrap();
        store.stage(&[new.id]).await.unwrap();
        store.publish(&[new.id]).await.unwrap();
        for file in files(beside.path()) {
            let relative = file.strip_prefix(&place).expect("it is in the queue");
            assert_ours(relative);
        }
        assert!(name.parse::<TransactionId>().is_err(), "{name}");
        let resource = name.parse::<ResourceId>();
        assert!(resource.is_err(), "{name}");
    }
    let mut served = 0;
    for claim in crate::support::claim_all(&store).await {
        crate::support::deliver(&store, claim).await;
        served += 1;
    }
    assert_eq!(served, evil.len(), "they are data, and mail");
    files(beside.path()).iter().for_each(|file| assert_ours(file.strip_prefix(&place).unwrap()));
}

/// The characters of names that we mint ourselves.
fn assert_ours(path: &Path) {
    let name = path.to_str().unwrap();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-._/".contains(c);
    let minted = name.chars().all(plain) && !name.contains("..") && !name.contains("etc");
    assert!(minted, "{name}");
}
