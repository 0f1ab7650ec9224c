//! What a frozen queue looks like on the disk, and what comes back from `.discarded/`.

use std::os::unix::fs::PermissionsExt as _;

use sendmail_core::{AdminOutcome, Discard, MailEventKind, QueueAdmin as _, QueueStore};

use crate::support::{Queue, claim_all, deliver, mail, queue};

#[tokio::test]
async fn a_frozen_queue_is_a_file_for_its_owner_alone() {
    let place = Queue::new();
    let store = place.open().await;
    assert!(store.set_frozen(true).await.unwrap());
    let metadata = std::fs::symlink_metadata(place.path().join(".frozen")).unwrap();
    assert!(metadata.is_file());
    assert_eq!(metadata.permissions().mode() & 0o777, 0o600);
    drop(store);
    let store = place.open().await;
    assert!(store.is_frozen().await.unwrap(), "a restart thaws nothing");
    // As an operator with no program at hand would.
    std::fs::remove_file(place.path().join(".frozen")).unwrap();
    assert!(!store.is_frozen().await.unwrap());
}

#[tokio::test]
async fn a_mail_readers_folder_freezes_nothing() {
    let place = Queue::new();
    std::fs::create_dir(place.path().join(".frozen")).unwrap();
    let store = place.open().await;
    let id = queue(&store, &["a@example.net"]).await;
    assert!(!store.is_frozen().await.unwrap());
    assert!(!store.set_frozen(false).await.unwrap());
    let error = store.set_frozen(true).await.unwrap_err();
    assert!(error.to_string().contains("rename"), "it says what to do: {error}");
    assert_eq!(claim_all(&store).await[0].id, id);
}

/// A backup of the queue may bring a discarded message back that was put back and sent since.
#[tokio::test]
async fn a_copy_of_what_was_sent_is_not_put_back() {
    let place = Queue::new();
    let store = place.open().await;
    let mut new = mail(&["a@example.net"]);
    new.resource = "database".parse().unwrap();
    store.write(&new).await.unwrap();
    store.stage(&[new.id]).await.unwrap();
    store.discard(&[new.id], Discard::Fenced).await.unwrap();
    let discarded = std::fs::read_dir(place.path().join(".discarded")).unwrap();
    let file = discarded.map(|entry| entry.unwrap().path()).next().unwrap();
    let copy = std::fs::read(&file).unwrap();
    let outcome = store.put_back(new.id).await.unwrap();
    let AdminOutcome::Done(event) = outcome else { panic!("{outcome:?}") };
    assert_eq!(event.kind, MailEventKind::Released);
    for claim in claim_all(&store).await {
        deliver(&store, claim).await;
    }
    std::fs::write(&file, copy).unwrap();
    assert_eq!(store.put_back(new.id).await.unwrap(), AdminOutcome::Unchanged);
    assert!(claim_all(&store).await.is_empty(), "it would be sent twice");
}
