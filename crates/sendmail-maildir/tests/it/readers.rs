//! The queue is an ordinary Maildir: mail readers may open it, flag and move messages, and leave files
//! of their own.

use std::time::Duration;

use maildir::Maildir;
use sendmail_core::{QueueStore, Timestamp};

use crate::support::{Queue, claim_all, deliver, queue};

// Proves: B-file-names, I18
#[tokio::test]
async fn a_mail_reader_reads_moves_and_flags_and_nothing_is_lost() {
    let place = Queue::new();
    let store = place.open().await;
    for to in ["a@example.net", "b@example.net"] {
        queue(&store, &[to]).await;
    }
    let reader = Maildir::from(place.path().to_owned());
    let mut ids = Vec::new();
    for entry in reader.list_new() {
        let mut entry = entry.unwrap();
        assert_eq!(entry.parsed().unwrap().get_body().unwrap().trim(), "body");
        ids.push(entry.id().to_owned());
    }
    assert_eq!(ids.len(), 2);
    reader.move_new_to_cur_with_flags(&ids[0], "S").unwrap();
    std::fs::write(place.path().join("dovecot.index.log"), "x").unwrap();
    std::fs::create_dir(place.path().join(".Sent")).unwrap();
    let mut served = Vec::new();
    for claim in claim_all(&store).await {
        served.extend(deliver(&store, claim).await.0);
    }
    served.sort_unstable();
    assert_eq!(served, ["a@example.net", "b@example.net"]);
    assert!(place.path().join("dovecot.index.log").exists());
}

#[tokio::test]
async fn a_message_that_another_program_stores_is_no_queue_file() {
    let place = Queue::new();
    let store = place.open().await;
    let other = Maildir::from(place.path().to_owned());
    let id = other.store_new(b"Subject: somebody's own mail\r\n\r\nbody\r\n").unwrap();
    assert!(claim_all(&store).await.is_empty());
    assert!(other.find(&id).is_some() || other.list_new().count() == 1, "it stays where it is");
}

/// Dovecot makes a Maildir of every directory whose name begins with a dot, once somebody opens it.
#[tokio::test]
async fn the_folders_that_a_reader_makes_never_stop_the_sweep() {
    let place = Queue::new();
    let store = place.open().await;
    for folder in [".discarded", ".wishes", ".owners", ".journal", ".staged", ".claimed", "tmp"] {
        for made in ["new", "cur", "tmp"] {
            std::fs::create_dir(place.path().join(folder).join(made)).unwrap();
        }
        std::fs::write(place.path().join(folder).join("dovecot.index.log"), "x").unwrap();
    }
    let years = Duration::from_secs(3 * 365 * 86_400);
    let now = Timestamp::from_millis(Timestamp::EPOCH.as_millis() + 1_800_000_000_000);
    place.clock.set(now.saturating_add(years));
    for _ in 0..2 {
        QueueStore::sweep(&store).await.unwrap();
    }
    queue(&store, &["a@example.net"]).await;
    assert_eq!(claim_all(&store).await.len(), 1);
}
