//! Limits: what is left to the processor, and how long the queue may grow.

use sendmail_core::{ErrorKind, QueueStore as _};
use sendmail_maildir::MaildirStore;

use crate::support::{Queue, claim_all, deliver, mail, queue};

// Proves: A-flood
#[tokio::test]
async fn a_disk_that_is_nearly_full_takes_no_message_and_still_delivers() {
    let place = Queue::new();
    let store = place.open().await;
    queue(&store, &["a@x"]).await;
    let tight = place.options().with_reserve(u64::MAX, 0);
    let tight = MaildirStore::open(place.path(), tight).await.unwrap();
    let error = tight.write(&mail(&["b@x"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.is_temporary() && error.to_string().contains("free some space"), "{error}");
    for claim in claim_all(&tight).await {
        deliver(&tight, claim).await;
    }
    assert!(claim_all(&store).await.is_empty());
}

// Proves: A-flood
#[tokio::test]
async fn a_queue_that_is_full_says_so_until_it_is_drained() {
    let place = Queue::new();
    let mut options = place.options();
    options.max_messages = Some(3);
    let store = MaildirStore::open(place.path(), options).await.unwrap();
    for _ in 0..3 {
        queue(&store, &["a@x"]).await;
    }
    let error = store.write(&mail(&["b@x"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Full);
    assert!(error.to_string().contains("3 messages wait, and at most 3 may"), "{error}");
    for claim in claim_all(&store).await {
        deliver(&store, claim).await;
    }
    store.write(&mail(&["b@x"])).await.unwrap();
}

// Proves: B-lengths, A-flood
#[tokio::test]
async fn a_message_that_is_too_large_is_refused_with_both_numbers() {
    let place = Queue::new();
    let mut options = place.options();
    options.max_message_len = 20;
    let store = MaildirStore::open(place.path(), options).await.unwrap();
    let error = store.write(&mail(&["b@x"])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("takes at most 20"), "{error}");
}
