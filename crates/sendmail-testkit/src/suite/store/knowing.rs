//! What a frozen queue does and does not, and what a queue knows of what it published.

use std::time::Duration;

use sendmail_core::{Discard, MailEventKind, NewMessage, QueueId};

use crate::suite::QueueHarness;
use crate::suite::support::*;

const MINUTE: Duration = Duration::from_secs(60);

/// Catches a store that sends while an operator restores a backup, or forgets that it is frozen.
// Proves: Q-frozen
pub async fn a_frozen_queue_brings_nothing<H: QueueHarness>(h: &H) {
    let (store, admin) = (h.open().await, h.admin().await);
    let first = queue(h, &store, &["a@example.net"]).await;
    assert!(admin.set_frozen(true).await.expect("a freeze"), "it was not frozen");
    claim_none(&store, "the queue is frozen").await;
    let second = queue(h, &store, &["b@example.net"]).await;
    claim_none(&store, "the queue is frozen, whenever the message came").await;
    h.kill(store).await;
    let other = h.open().await;
    assert!(other.is_frozen().await.expect("an answer"), "another process froze it");
    claim_none(&other, "the queue is frozen, whoever died").await;
    assert!(admin.set_frozen(false).await.expect("a thaw"), "it was frozen");
    assert!(!other.is_frozen().await.expect("an answer"), "it was thawed");
    let (claims, _) = claim_due(&other).await;
    let mut ids: Vec<QueueId> = claims.iter().map(|claim| claim.id).collect();
    ids.sort();
    let mut both = [first.id, second.id];
    both.sort();
    assert_eq!(ids, both, "both are due");
}

/// Catches a store whose housekeeping decides about transactions while the queue is frozen.
// Proves: Q-frozen
pub async fn a_frozen_queue_decides_nothing<H: QueueHarness>(h: &H) {
    let (doomed, admin) = (h.open().await, h.admin().await);
    let new = mail(h, &doomed, &["a@example.net"]);
    write(&doomed, &new).await;
    doomed.stage(&[new.id]).await.expect("a written message can be staged");
    h.kill(doomed).await;
    admin.set_frozen(true).await.expect("a freeze");
    let store = h.open().await;
    h.clock().advance(Duration::from_secs(3600));
    let report = store.sweep().await.expect("a sweep");
    assert!(of_kind(&report.events, MailEventKind::Discarded).is_empty(), "the queue is frozen");
    let undecided = store.undecided().await.expect("a list");
    assert_eq!(undecided.len(), 1, "a frozen queue throws nothing away");
    admin.set_frozen(false).await.expect("a thaw");
    store.sweep().await.expect("a sweep");
    assert!(
        store.undecided().await.expect("a list").is_empty(),
        "its transaction can never commit"
    );
}

/// Catches a store that takes a message from its worker, or refuses new ones, because it is frozen.
pub async fn what_goes_on_in_a_frozen_queue<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    h.admin().await.set_frozen(true).await.expect("a freeze");
    store.sweep().await.expect("a sweep");
    store.renew(&claim).await.expect("a worker keeps what it has");
    let (id, events) = (claim.id, deliver(&store, claim).await);
    assert_eq!(events[0].kind, MailEventKind::Sent);
    assert_eq!(told(h, id, MailEventKind::Sent).await.len(), 1);
    let new = NewMessage { resource: elsewhere(), ..mail(h, &store, &["b@example.net"]) };
    write(&store, &new).await;
    store.stage(&[new.id]).await.expect("an application goes on staging");
    publish(&store, new.id).await;
    assert!(store.undecided().await.expect("a list").is_empty(), "and publishing");
}

/// Catches a store that does not know its own mail, or takes what is undecided or discarded for mail.
// Proves: Q-gone
pub async fn known_is_what_was_published<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let mut known = Vec::new();
    let failed = queue(h, &store, &["failed@example.net"]).await.id;
    try_once(&store, claim_one(&store, "published").await, vec![refused()], MINUTE).await;
    let held = queue(h, &store, &["held@example.net"]).await.id;
    h.admin().await.hold(held).await.expect("a hold");
    let delivered = queue(h, &store, &["delivered@example.net"]).await.id;
    deliver(&store, claim_one(&store, "published").await).await;
    let removed = queue(h, &store, &["removed@example.net"]).await.id;
    h.admin().await.remove(removed).await.expect("a removal");
    let claimed = queue(h, &store, &["claimed@example.net"]).await.id;
    let _kept = claim_one(&store, "published").await;
    let deferred_one = queue(h, &store, &["deferred@example.net"]).await.id;
    try_once(&store, claim_one(&store, "published").await, vec![deferred()], MINUTE).await;
    let queued = queue(h, &store, &["queued@example.net"]).await.id;
    known.extend([failed, held, deferred_one, delivered, removed, claimed, queued]);
    let written = mail(h, &store, &["written@example.net"]);
    write(&store, &written).await;
    let staged = NewMessage { resource: elsewhere(), ..mail(h, &store, &["staged@example.net"]) };
    let thrown = NewMessage { resource: elsewhere(), ..mail(h, &store, &["thrown@example.net"]) };
    for new in [&staged, &thrown] {
        write(&store, new).await;
        store.stage(&[new.id]).await.expect("a written message can be staged");
    }
    store.discard(&[thrown.id], Discard::Fenced).await.expect("a discard");
    let mut asked = vec![written.id, staged.id, thrown.id, QueueId::from_bytes([9; 16])];
    asked.extend(&known);
    known.sort();
    for process in [store, h.open().await] {
        let mut told = process.known(&asked).await.expect("an answer");
        told.sort();
        assert_eq!(told, known, "what was published, whatever became of it, and nothing else");
        assert!(process.known(&[]).await.expect("an answer").is_empty());
    }
}
