//! Panics, a store that fails, damaged entries, dead workers.

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{EntryState, ErrorKind, MailEventKind, QueueStore, Step};
use sendmail_testkit::{Answer, MemoryStore, Operation};

use crate::bench::Bench;

#[tokio::test]
async fn a_panicking_mailer_stops_nobody_else() {
    let bench = Bench::new();
    for _ in 0..20 {
        bench.queue(&["a@example.net"]).await;
    }
    bench.mailer.next(Answer::Panic);
    let summary = bench.processor().run_once().await.unwrap();
    assert_eq!((summary.delivered, summary.deferred), (19, 1), "{summary}");
    let deferred = bench.entries().await;
    assert_eq!((deferred[0].state, deferred[0].attempts), (EntryState::Deferred, 1));
    assert_eq!(bench.heard.count(MailEventKind::PossibleDuplicate), 0, "nothing was handed over");
}

// Proves: I12
#[tokio::test]
async fn damaged_and_unreadable_messages_stop_nobody_else() {
    let bench = Bench::new();
    let damaged = bench.queue(&["a@example.net"]).await;
    let newer = bench.queue(&["b@example.net"]).await;
    for _ in 0..20 {
        bench.queue(&["c@example.net"]).await;
    }
    assert!(bench.store.corrupt(damaged) && bench.store.make_unsupported(newer));
    let summary = bench.processor().run_once().await.unwrap();
    assert_eq!((summary.delivered, summary.unreadable), (20, 2), "{summary}");
    use MailEventKind::{Damaged, Queued};
    assert_eq!(bench.heard.kinds_of(damaged), [Queued, Damaged]);
    let mut left: Vec<_> = bench.entries().await.iter().map(|e| (e.state, e.id)).collect();
    left.sort();
    assert_eq!(left, [(EntryState::Queued, newer), (EntryState::Failed, damaged)]);
}

// Proves: F-record-full, F-record-eio, F-record-access, I9
#[tokio::test]
async fn an_outcome_that_cannot_be_recorded_is_kept_and_nothing_else_is_sent() {
    for kind in [ErrorKind::Full, ErrorKind::Io, ErrorKind::PermissionDenied] {
        let bench = Bench::new();
        let id = bench.queue(&["a@example.net"]).await;
        for _ in 0..3 {
            bench.store.fail_next(Operation::Settle, kind);
        }
        let processor = bench.processor();
        let running = processor.spawn();
        bench.mailer.wait_for(1).await;
        bench.let_others_run().await;
        assert!(processor.health().store_trouble.is_some(), "{kind:?}");
        bench.queue(&["b@example.net"]).await;
        bench.let_others_run().await;
        assert_eq!(bench.mailer.attempts(), 1, "an outcome waits: nothing else is sent");
        assert_eq!(bench.heard.count(MailEventKind::Sent), 0, "nobody hears before it is durable");
        let mailer = bench.mailer.clone();
        bench.pass_time_until(|| mailer.deliveries().len() == 2).await;
        running.stop();
        running.join().await.unwrap();
        assert_eq!(bench.mailer.copies_to("a@example.net"), 1, "what was done is not done again");
        assert_eq!(bench.heard.kinds_of(id), [MailEventKind::Queued, MailEventKind::Sent]);
        assert_eq!(processor.health().store_trouble, None);
        assert!(bench.entries().await.is_empty());
    }
}

/// Those whose final dot has not gone yet are not sent either, though they had begun.
// Proves: F-record-full, F-record-eio, F-record-access, I8
#[tokio::test]
async fn while_an_outcome_waits_no_attempt_that_has_begun_is_handed_over() {
    for kind in [ErrorKind::Full, ErrorKind::Io, ErrorKind::PermissionDenied] {
        let bench = Bench::new();
        bench.queue(&["a@example.net"]).await;
        bench.mailer.next(Answer::Hang);
        bench.store.fail_next(Operation::Settle, kind);
        let processor = bench.processor();
        let running = processor.spawn();
        bench.mailer.until_hanging(1).await;
        bench.queue(&["b@example.net"]).await;
        let mailer = bench.mailer.clone();
        bench.pass_time_until(|| mailer.deliveries().len() == 1).await;
        bench.let_others_run().await;
        assert_eq!(bench.mailer.copies_to("b@example.net"), 1, "its outcome waits");
        bench.mailer.release();
        bench.let_others_run().await;
        assert_eq!(bench.mailer.copies_to("a@example.net"), 0, "{kind:?}: sent meanwhile");
        bench.pass_time_until(|| mailer.deliveries().len() == 2).await;
        running.stop();
        running.join().await.unwrap();
        assert_eq!(bench.mailer.copies_to("a@example.net"), 1);
        assert_eq!(bench.mailer.copies_to("b@example.net"), 1);
        assert_eq!(bench.heard.count(MailEventKind::PossibleDuplicate), 0);
        assert_eq!(bench.heard.count(MailEventKind::Deferred), 0, "it cost no attempt");
        assert!(bench.entries().await.is_empty());
    }
}

/// Whatever keeps it from claiming, health tells until a claim succeeds, and nothing is sent meanwhile.
// Proves: F-claim-full, F-claim-access
#[tokio::test]
async fn a_queue_that_cannot_be_claimed_from_is_told_of_and_tried_again() {
    for kind in [ErrorKind::Full, ErrorKind::PermissionDenied] {
        let bench = Bench::new();
        bench.queue(&["a@example.net"]).await;
        for _ in 0..3 {
            bench.store.fail_next(Operation::Claim, kind);
        }
        let processor = bench.processor();
        let running = processor.spawn();
        bench.let_others_run().await;
        for _ in 0..2 {
            let trouble = processor.health().store_trouble.unwrap();
            assert!(trouble.contains("claim"), "{trouble}");
            assert_eq!(bench.mailer.attempts(), 0, "{kind:?}");
            bench.clock.advance_to_next().await;
            bench.let_others_run().await;
        }
        let mailer = bench.mailer.clone();
        bench.pass_time_until(|| mailer.deliveries().len() == 1).await;
        bench.let_others_run().await;
        assert_eq!(processor.health().store_trouble, None);
        running.stop();
        assert_eq!(running.join().await.unwrap().delivered, 1);
    }
}

#[tokio::test]
async fn nothing_is_sent_when_the_handover_cannot_be_recorded() {
    let bench = Bench::new();
    bench.queue(&["a@example.net"]).await;
    bench.store.fail_next(Operation::Handover, ErrorKind::Io);
    let processor = bench.processor();
    let summary = processor.run_once().await.unwrap();
    assert!(bench.mailer.deliveries().is_empty());
    assert_eq!((summary.left, summary.messages), (1, 0), "it costs no attempt: {summary}");
    assert_eq!(bench.shown().await[0].0, EntryState::Queued);
    assert!(processor.run_once().await.unwrap().is_complete());
    assert_eq!(bench.mailer.copies_to("a@example.net"), 1);
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_is_an_error_of_a_single_pass() {
    let bench = Bench::new();
    bench.queue(&["a@example.net"]).await;
    bench.store.fail_next(Operation::Claim, ErrorKind::Io);
    let error = bench.processor().run_once().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_is_tried_again_while_it_runs() {
    let bench = Bench::new();
    bench.queue(&["a@example.net"]).await;
    for operation in [Operation::Sweep, Operation::Claim, Operation::Claim, Operation::Load] {
        bench.store.fail_next(operation, ErrorKind::Io);
    }
    bench.store.fail_next(Operation::Begin, ErrorKind::Io);
    let processor = bench.processor();
    let running = processor.spawn();
    let mailer = bench.mailer.clone();
    bench.pass_time_until(|| mailer.deliveries().len() == 1).await;
    bench.let_others_run().await;
    assert_eq!(processor.health().store_trouble, None);
    running.stop();
    assert_eq!(running.join().await.unwrap().delivered, 1);
}

#[tokio::test]
async fn what_a_dead_worker_may_have_sent_is_announced_and_sent_again() {
    let bench = Bench::new();
    let id = bench.queue(&["a@example.net"]).await;
    let doomed = bench.store.process();
    let claim = doomed.claim(1).await.unwrap().claims.remove(0);
    doomed.load(&claim).await.unwrap();
    doomed.record(&claim, Step::Begin).await.unwrap();
    doomed.record(&claim, Step::Handover).await.unwrap();
    doomed.kill();
    assert!(bench.processor().run_once().await.unwrap().is_complete());
    use MailEventKind::{PossibleDuplicate, Sent};
    assert_eq!(bench.heard.kinds_of(id), [PossibleDuplicate, Sent], "announced before it is sent");
}

#[tokio::test]
async fn a_message_that_killed_three_workers_is_held() {
    let bench = Bench::new();
    let id = bench.queue(&["poison@example.net"]).await;
    let mut stores: Vec<MemoryStore> = Vec::new();
    for number in 1..=3 {
        let doomed = bench.store.process();
        bench.mailer.next(Answer::Hang);
        let running = bench.builder_on(&doomed).build().unwrap().spawn();
        bench.mailer.until_hanging(1).await;
        doomed.kill();
        running.abort();
        assert_eq!(running.join().await.unwrap_err().kind(), ErrorKind::Cancelled);
        assert_eq!(bench.mailer.attempts(), number);
        stores.push(doomed);
    }
    bench.queue(&["good@example.net"]).await;
    let summary = bench.processor().run_once().await.unwrap();
    assert_eq!(summary.delivered, 1, "the others go on: {summary}");
    assert_eq!(bench.mailer.copies_to("poison@example.net"), 0);
    assert_eq!(bench.count(EntryState::Held).await, 1);
    assert_eq!(*bench.heard.kinds_of(id).last().unwrap(), MailEventKind::Held);
}

#[tokio::test]
async fn a_lease_is_kept_while_the_message_is_sent() {
    let lease = Duration::from_secs(30);
    let bench = Bench::with(|clock| MemoryStore::leased(clock, lease));
    bench.queue(&["a@example.net"]).await;
    bench.mailer.next(Answer::HangAfterHandover);
    let running = bench.processor().spawn();
    bench.mailer.until_hanging(1).await;
    let other = bench.store.process();
    for _ in 0..20 {
        bench.let_others_run().await;
        bench.clock.advance(lease / 3);
        bench.let_others_run().await;
        assert!(other.claim(1).await.unwrap().claims.is_empty(), "its worker lives");
    }
    bench.mailer.release();
    let heard = bench.heard.clone();
    bench.pass_time_until(|| heard.count(MailEventKind::Sent) == 1).await;
    running.stop();
    running.join().await.unwrap();
    assert_eq!(bench.heard.count(MailEventKind::PossibleDuplicate), 0);
    assert_eq!(bench.mailer.copies_to("a@example.net"), 1);
}

#[tokio::test]
async fn a_lost_claim_is_forgotten() {
    let lease = Duration::from_secs(30);
    let bench = Bench::with(|clock| MemoryStore::leased(clock, lease));
    bench.queue(&["a@example.net"]).await;
    bench.mailer.next(Answer::Hang);
    let processor = Arc::new(bench.processor());
    let running = processor.spawn();
    bench.mailer.until_hanging(1).await;
    // The machine slept: all of the lease has passed before the processor could renew it.
    bench.clock.advance(2 * lease);
    let other = bench.store.process();
    let claimed = other.claim(1).await.unwrap();
    assert_eq!(claimed.claims.len(), 1);
    bench.mailer.release();
    bench.let_others_run().await;
    assert!(bench.mailer.deliveries().is_empty(), "the late worker sends nothing");
    running.stop();
    let summary = running.join().await.unwrap();
    assert_eq!(summary.messages, 0, "{summary}");
}
