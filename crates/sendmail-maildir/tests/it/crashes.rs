//! What a dead worker leaves behind, beyond what the suites ask of every store.

use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::time::Duration;

use sendmail_core::{
    AdminOutcome, DecisionLog as _, DecisionStore as _, Discard, ErrorKind, EventLog as _,
    MailEventKind, QueueAdmin as _, QueueStore, Step, TransactionId, Verdict,
};

use crate::harness::files;
use crate::support::{Queue, attempt, claim_all, deliver, queue};

/// The outcome is in the journal, and the file could not be moved: whoever takes over carries it out.
// Proves: Q-delivered, F-unlink-kill
#[tokio::test]
async fn an_outcome_that_was_only_recorded_is_carried_out() {
    let place = Queue::new();
    let store = place.open().await;
    let id = queue(&store, &["done@x", "later@x", "never@x"]).await;
    let claim = claim_all(&store).await.remove(0);
    let loaded = store.load(&claim).await.unwrap();
    store.record(&claim, Step::Begin).await.unwrap();
    store.record(&claim, Step::Handover).await.unwrap();
    // Without the directory for deferred mail the file cannot go where it should.
    let deferred = place.path().join(".deferred");
    std::fs::remove_dir(&deferred).unwrap();
    let verdicts = [Verdict::Done, Verdict::Retry, Verdict::Fail];
    let unsettled = store
        .settle(claim, attempt(&loaded, &verdicts, Duration::from_secs(60)))
        .await
        .unwrap_err();
    assert_eq!(unsettled.claim.id, id, "the claim comes back");
    store.simulate_death();
    std::fs::create_dir(&deferred).unwrap();

    let other = place.open().await;
    let events = QueueStore::sweep(&other).await.unwrap().events;
    assert!(events.is_empty(), "the first worker told already: {events:?}");
    assert!(claim_all(&other).await.is_empty(), "it waits for its time");
    place.clock.advance(Duration::from_secs(61));
    let claim = claim_all(&other).await.remove(0);
    assert_eq!((claim.id, claim.attempt), (id, 2));
    assert_eq!(deliver(&other, claim).await.0, ["later@x"]);
    assert_eq!(files(&place.path().join(".failed/new")).len(), 1, "never@x is kept");
    let log = other.read(None, 100).await.unwrap();
    let told = |kind| log.events.iter().filter(|(_, event)| event.kind == kind).count();
    assert_eq!(told(MailEventKind::Sent), 2);
    assert_eq!(told(MailEventKind::Failed), 1);
    assert_eq!(told(MailEventKind::PossibleDuplicate), 0, "the reply was recorded");
}

/// After a crash of the machine handovers may not have reached the disk: every claim counts.
// Proves: I8, F-dot-power
#[tokio::test]
async fn after_another_boot_every_claim_may_have_been_sent() {
    let place = Queue::new();
    let store = place.open().await;
    queue(&store, &["a@x", "b@x"]).await;
    let claim = claim_all(&store).await.remove(0);
    store.simulate_death();
    let segment = files(&place.path().join(".journal")).remove(0);
    let segment = std::fs::OpenOptions::new().write(true).open(segment).unwrap();
    segment.write_all_at(&[0xee; 16], 24).unwrap();

    let other = place.open().await;
    let claimed = other.claim(16).await.unwrap();
    assert_eq!(claimed.claims[0].id, claim.id);
    assert_eq!(claimed.claims[0].attempt, 2);
    let kinds: Vec<_> = claimed.events.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, [MailEventKind::PossibleDuplicate, MailEventKind::PossibleDuplicate]);
}

/// A file that comes back after the crash of the machine, because its unlink was not synced.
// Proves: Q-delivered
#[tokio::test]
async fn a_delivered_message_that_comes_back_is_not_sent_again() {
    let place = Queue::new();
    let store = place.open().await;
    queue(&store, &["a@x"]).await;
    let claim = claim_all(&store).await.remove(0);
    let claimed = files(&place.path().join(".claimed")).remove(0);
    let content = std::fs::read(&claimed).unwrap();
    deliver(&store, claim).await;
    assert!(!claimed.exists());
    std::fs::write(&claimed, content).unwrap();
    store.simulate_death();

    let other = place.open().await;
    assert!(claim_all(&other).await.is_empty());
    assert!(!claimed.exists(), "the journal says that it was delivered");
}

/// The journal of a dead worker ends in a record that was being written.
#[tokio::test]
async fn a_torn_record_ends_the_journal_and_the_rest_counts() {
    let place = Queue::new();
    let store = place.open().await;
    queue(&store, &["a@x"]).await;
    let claim = claim_all(&store).await.remove(0);
    store.record(&claim, Step::Begin).await.unwrap();
    store.record(&claim, Step::Handover).await.unwrap();
    store.simulate_death();
    let segment = files(&place.path().join(".journal")).remove(0);
    let content = std::fs::read(&segment).unwrap();
    let end = content.iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1;
    let file = std::fs::OpenOptions::new().write(true).open(&segment).unwrap();
    file.write_all_at(&[40, 0, 0, 0, 1, 2, 3, 4, 5], end + 8).unwrap();

    let other = place.open().await;
    let claimed = other.claim(16).await.unwrap();
    assert_eq!(claimed.claims.len(), 1);
    assert_eq!(claimed.events.len(), 1);
    let log = other.read(None, 100).await.unwrap();
    assert_eq!(log.events.len(), 2, "queued, and possible-duplicate");
}

#[tokio::test]
async fn left_overs_of_the_dead_are_removed_and_those_of_the_living_stay() {
    let place = Queue::new();
    let (store, doomed) = (place.open().await, place.open().await);
    for each in [&store, &doomed] {
        let mut new = crate::support::mail(&["a@x"]);
        new.resource = sendmail_core::QueueStore::resource_id(each).clone();
        each.write(&new).await.unwrap();
    }
    let partial = files(&place.path().join("tmp")).remove(0);
    doomed.simulate_death();
    std::fs::OpenOptions::new().write(true).open(partial).unwrap().set_len(10).unwrap();
    let third = place.open().await;
    QueueStore::sweep(&third).await.unwrap();
    QueueStore::sweep(&third).await.unwrap();
    assert!(files(&place.path().join("tmp")).len() <= 1, "the dead one's is gone");
    assert!(third.visible(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn what_the_dead_were_making_is_removed_and_what_the_living_are_making_stays() {
    let place = Queue::new();
    let (living, doomed) = (place.open().await, place.open().await);
    let owners = files(&place.path().join(".owners"));
    // Making the directory of staged messages is the sweep's first act.
    QueueStore::sweep(&living).await.unwrap();
    let staged = place.path().join(".staged").join(QueueStore::resource_id(&living).as_str());
    for owner in &owners {
        let name = format!(".new-{}", owner.file_name().unwrap().display());
        std::fs::write(staged.join(&name), "half").unwrap();
        std::fs::write(place.path().join(".journal").join(&name), "half").unwrap();
    }
    assert_eq!(owners.len(), 2);
    doomed.simulate_death();
    QueueStore::sweep(&living).await.unwrap();
    assert_eq!(files(&staged).len(), 1);
    let half_made = |path: &&std::path::PathBuf| path.to_string_lossy().contains("/.new-");
    assert_eq!(files(&place.path().join(".journal")).iter().filter(half_made).count(), 1);
}

/// The sweep may come before recovery: what a dead producer had prepared is kept and told all the same.
#[tokio::test]
async fn the_sweep_keeps_what_the_dead_had_prepared() {
    let place = Queue::new();
    let producer = place.open().await;
    let mut mails = [crate::support::mail(&["a@x"]), crate::support::mail(&["b@x"])];
    for mail in &mut mails {
        mail.resource = sendmail_core::QueueStore::resource_id(&producer).clone();
        producer.write(mail).await.unwrap();
    }
    producer.stage(&[mails[0].id]).await.unwrap();
    producer.simulate_death();
    let other = place.open().await;
    let mut told: Vec<_> = QueueStore::sweep(&other).await.unwrap().events;
    told.retain(|event| event.kind == MailEventKind::Discarded);
    assert_eq!(told.len(), 2, "{told:?}");
    assert_eq!(files(&place.path().join(".discarded")).len(), 2);
    assert!(other.undecided().await.unwrap().is_empty());
    assert!(claim_all(&other).await.is_empty());
}

/// What a restore by hand, or a copy that was kept for failed recipients and is retried, may bring.
// Proves: B-file-names
#[tokio::test]
async fn two_files_of_one_id_are_sent_one_after_the_other() {
    let place = Queue::new();
    let store = place.open().await;
    let id = queue(&store, &["a@x"]).await;
    let file = files(&place.path().join("new")).remove(0);
    std::fs::copy(&file, place.path().join(format!("cur/{id}.a1.k0"))).unwrap();
    let mut claims = claim_all(&store).await;
    assert_eq!(claims.len(), 1, "the journal knows them by their id");
    deliver(&store, claims.remove(0)).await;
    store.simulate_death();
    let other = place.open().await;
    let claims = claim_all(&other).await;
    assert_eq!(claims.len(), 1, "what became of the first says nothing of the second");
}

/// The worker renamed the file once more and died before it could write that down.
#[tokio::test]
async fn an_earlier_outcome_is_not_that_of_a_later_claim() {
    let place = Queue::new();
    let store = place.open().await;
    let id = queue(&store, &["a@x"]).await;
    let claim = claim_all(&store).await.remove(0);
    let loaded = store.load(&claim).await.unwrap();
    let given_up = attempt(&loaded, &[Verdict::Fail], Duration::ZERO);
    store.settle(claim, given_up).await.unwrap();
    let worker = std::fs::read_dir(place.path().join(".claimed")).unwrap();
    let worker = worker.map(|entry| entry.unwrap().path()).next().unwrap();
    let operator = place.open().await;
    operator.retry_now(id).await.unwrap();
    let file = files(&place.path().join("new")).remove(0);
    std::fs::rename(&file, worker.join(file.file_name().unwrap())).unwrap();
    store.simulate_death();
    let claims = claim_all(&operator).await;
    assert_eq!(claims.len(), 1, "the operator's retry is lost");
    assert_eq!(claims[0].attempt, 2);
}

/// One file of a dead worker cannot be moved: the others, and other messages, go on meanwhile.
#[tokio::test]
async fn what_cannot_be_taken_over_keeps_nobody_and_is_told_once() {
    let place = Queue::new();
    let store = place.open().await;
    queue(&store, &["later@x"]).await;
    let claim = claim_all(&store).await.remove(0);
    queue(&store, &["begun@x"]).await;
    let begun = claim_all(&store).await.remove(0);
    store.record(&begun, Step::Begin).await.unwrap();
    store.record(&begun, Step::Handover).await.unwrap();
    let loaded = store.load(&claim).await.unwrap();
    let deferred = place.path().join(".deferred");
    std::fs::remove_dir(&deferred).unwrap();
    let later = attempt(&loaded, &[Verdict::Retry], Duration::from_secs(60));
    store.settle(claim, later).await.unwrap_err();
    store.simulate_death();

    let other = place.open().await;
    std::fs::remove_dir(&deferred).unwrap();
    queue(&other, &["new@x"]).await;
    let mut served = Vec::new();
    for claim in claim_all(&other).await {
        served.extend(deliver(&other, claim).await.0);
    }
    served.sort_unstable();
    assert_eq!(served, ["begun@x", "new@x"]);
    QueueStore::sweep(&other).await.unwrap_err();
    std::fs::create_dir(&deferred).unwrap();
    let third = place.open().await;
    QueueStore::sweep(&third).await.unwrap();
    place.clock.advance(Duration::from_secs(61));
    assert_eq!(deliver(&third, claim_all(&third).await.remove(0)).await.0, ["later@x"]);
    let log = third.read(None, 100).await.unwrap();
    let told = |kind| log.events.iter().filter(|(_, event)| event.kind == kind).count();
    assert_eq!(told(MailEventKind::PossibleDuplicate), 1);
}

/// An operator was told that the worker would see to it; the worker died.
#[tokio::test]
async fn a_wish_outlives_the_worker() {
    let place = Queue::new();
    let (store, operator) = (place.open().await, place.open().await);
    let held = queue(&store, &["a@x"]).await;
    let removed = queue(&store, &["b@x"]).await;
    assert_eq!(claim_all(&store).await.len(), 2);
    assert_eq!(operator.hold(held).await.unwrap(), AdminOutcome::Claimed);
    assert_eq!(operator.remove(removed).await.unwrap(), AdminOutcome::Claimed);
    store.simulate_death();
    let other = place.open().await;
    assert!(claim_all(&other).await.is_empty());
    let left = files(&place.path().join(".held"));
    assert_eq!(left.len(), 1);
    assert!(files(&place.path().join(".wishes")).is_empty());
}

/// The decision is there, and what it is about is not readable any more.
#[tokio::test]
async fn nothing_of_a_damaged_decision_is_thrown_away() {
    let place = Queue::new();
    let store = place.open().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let mut new = crate::support::mail(&["a@x"]);
        new.resource = sendmail_core::QueueStore::resource_id(&store).clone();
        store.write(&new).await.unwrap();
        ids.push(new.id);
    }
    let transaction = TransactionId::from_bytes([1; 16]);
    store.stage(&ids).await.unwrap();
    store.propose(transaction, &ids).await.unwrap();
    store.decide(transaction).await.unwrap();
    let error = store.discard(&ids, Discard::Aborted).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState, "it is committed");
    let staged = place.path().join(".staged");
    let is_manifest = |path: &PathBuf| path.to_string_lossy().contains(".tx.o");
    let manifest = files(&staged).into_iter().find(is_manifest).unwrap();
    let content = std::fs::read(&manifest).unwrap();
    std::fs::write(&manifest, &content[1..]).unwrap();
    store.simulate_death();
    let other = place.open().await;
    let told = QueueStore::sweep(&other).await.unwrap().set_aside.join("\n");
    assert!(told.contains("only an operator"), "{told}");
    assert_eq!(files(&staged).len(), 3, "both messages, and the manifest");
    std::fs::write(&manifest, &content).unwrap();
    assert_eq!(QueueStore::sweep(&other).await.unwrap().published, 2);
}

#[tokio::test]
async fn what_was_discarded_is_not_said_to_be_published() {
    let place = Queue::new();
    let store = place.open().await;
    let mut new = crate::support::mail(&["a@x"]);
    new.resource = "database".parse().unwrap();
    store.write(&new).await.unwrap();
    store.stage(&[new.id]).await.unwrap();
    let other = place.open().await;
    assert_eq!(other.discard(&[new.id], Discard::Fenced).await.unwrap().len(), 1);
    let error = store.publish(&[new.id]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Aborted);
}

/// A processor and a recovery in one process: none takes a wake-up from the other.
#[tokio::test]
async fn each_clone_hears_every_wake_up() {
    let place = Queue::new();
    let store = place.open().await;
    let others = [store.clone(), store.clone()];
    let forever = Duration::from_secs(86_400);
    for other in &others {
        // There may be work from before.
        other.wait_for_work(forever).await;
    }
    let mut id = None;
    for _ in 0..3 {
        id = Some(queue(&store, &["a@example.net"]).await);
        for other in &others {
            other.wait_for_work(forever).await;
        }
    }
    assert!(claim_all(&store).await.iter().any(|claim| Some(claim.id) == id));
}
