//! A transaction that is decided when there is no room left to publish it: it is committed, says that the rest
//! is to be done, and is published when there is room.
//!
//! A rename into another directory takes a block when that directory has to grow: on ext4 and XFS it fails
//! then. The decision needs none.

use std::sync::Arc;

use sendmail_clock::SystemClock;
use sendmail_core::{
    Clock as _, DataManager as _, Envelope, ErrorKind, Message, PrepareContext, QueueId,
    QueueStore, TransactionId,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_tests::mounted::{Kind, Mounted};
use sendmail_tests::plan::{Ending, Mail};
use sendmail_tests::producer::Progress;
use sendmail_txn::MailDataManager;

use crate::support::{Scene, mail, plan, this_test};

/// So many names do not fit into a directory as it was made.
const COUNT: usize = 200;

async fn check(kind: Kind) {
    let Some(disk) = Mounted::small(&this_test(), kind).unwrap() else { return };
    let mut scene = Scene::below(disk.path()).await;
    let options = MaildirOptions::default().with_reserve(0, 0);
    let store: Arc<dyn QueueStore> =
        Arc::new(MaildirStore::open(&scene.queue.path, options).await.unwrap());
    let mails: Vec<Mail> = (0..COUNT).map(|number| mail(&format!("t1-m{number}"))).collect();
    let now = || SystemClock.now();
    let mut context =
        PrepareContext::new(TransactionId::mint(now()), Some(store.resource_id().clone()));
    let mut manager = MailDataManager::new(store);
    for mail in &mails {
        let envelope = Envelope::parse("shop@example.org", &mail.recipients).unwrap();
        let message = Message::from_raw(&mail.bytes(), now(), "crash.test").unwrap();
        manager.hand_over(QueueId::mint(now()), envelope, message);
    }
    manager.prepare(&mut context).await.unwrap();
    disk.fill(0).unwrap();
    let error = manager.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::CommittedFinishPending, "{error}");
    assert!(error.to_string().contains("No space left"), "{error}");
    drop(manager);
    scene.ledger.plan(plan(1, mails, Ending::Commit));
    scene.ledger.progress(1, Progress::Committed);
    disk.make_room().unwrap();
    let end = scene.end().await;
    assert!(end.is_ok(), "{}", end.unwrap_err());
}

// Proves: I1, I3, F-publish-full, F-decide-full
#[tokio::test(flavor = "multi_thread")]
async fn what_is_decided_on_a_full_ext4_is_published_when_there_is_room() {
    check(Kind::Ext4).await;
}

// Proves: I1, I3, F-publish-full, F-decide-full
#[tokio::test(flavor = "multi_thread")]
async fn what_is_decided_on_a_full_xfs_is_published_when_there_is_room() {
    check(Kind::Xfs).await;
}
