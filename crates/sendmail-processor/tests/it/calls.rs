//! Which calls the store and the mailer get, in which order, and which never.

use std::sync::Arc;

use mockall::{Sequence, predicate};
use sendmail_core::mock::{MockMailer, MockQueueStore};
use sendmail_core::{
    Capabilities, Claim, ClaimToken, Claimed, DeliveryReport, Envelope, Error, ErrorKind, Loaded,
    Message, Outcome, QueueId, Release, Reply, Settlement, Step, SweepReport, Timestamp, Unsettled,
    Verdict,
};
use sendmail_processor::QueueProcessor;
use sendmail_testkit::ManualClock;

fn id() -> QueueId {
    QueueId::from_bytes([7; 16])
}

fn claim() -> Claim {
    Claim { id: id(), attempt: 1, token: ClaimToken("token".to_owned()) }
}

fn loaded() -> Loaded {
    let now = Timestamp::from_millis(1_767_225_600_000);
    Loaded {
        envelope: Envelope::parse("a@example.org", ["b@example.net"]).unwrap(),
        message: Message::from_raw(b"Subject: x\r\n\r\nHello.\r\n", now, "example.org").unwrap(),
        queued_at: now,
    }
}

fn failure(kind: ErrorKind) -> Error {
    Error::new(kind, "work", "the test wants it to fail")
}

/// A store with one message, as far as its load.
fn store(order: &mut Sequence) -> MockQueueStore {
    let mut store = MockQueueStore::new();
    store.expect_capabilities().returning(Capabilities::new);
    store.expect_sweep().returning(|| Ok(SweepReport::default()));
    let claimed = || Claimed { claims: vec![claim()], events: Vec::new() };
    store.expect_claim().times(1).in_sequence(order).returning(move |_| Ok(claimed()));
    store.expect_load().times(1).in_sequence(order).returning(|_| Ok(loaded()));
    store
}

fn mailer() -> MockMailer {
    let mut mailer = MockMailer::new();
    mailer.expect_relay().return_const("mock".to_owned());
    mailer.expect_close().return_const(());
    mailer
}

async fn run(mut store: MockQueueStore, mailer: MockMailer) {
    store.expect_claim().returning(|_| Ok(Claimed::default()));
    let clock = Arc::new(ManualClock::default());
    let processor = QueueProcessor::builder(Arc::new(store), Arc::new(mailer), clock);
    processor.build().unwrap().run_once().await.unwrap();
}

#[tokio::test]
async fn begin_handover_and_settlement_come_in_that_order_and_once_each() {
    let mut order = Sequence::new();
    let mut store = store(&mut order);
    let mut mailer = mailer();
    let begin = predicate::eq(Step::Begin);
    let handover = predicate::eq(Step::Handover);
    let any = predicate::always;
    mailer.expect_check().times(1).in_sequence(&mut order).returning(|_| Ok(()));
    store
        .expect_record()
        .with(any(), begin)
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _| Ok(()));
    mailer.expect_announces().times(1).in_sequence(&mut order).return_const(true);
    store
        .expect_record()
        .with(any(), handover)
        .times(1)
        .in_sequence(&mut order)
        .returning(|_, _| Ok(()));
    mailer.expect_answer().times(1).in_sequence(&mut order).returning(|envelope, _| {
        Ok(DeliveryReport::same(envelope, &Outcome::Accepted(Reply::new(250, "ok"))))
    });
    store.expect_settle().times(1).in_sequence(&mut order).returning(|claimed, settlement| {
        assert_eq!(claimed, claim());
        let Settlement::Attempted(attempted) = settlement else { panic!("{settlement:?}") };
        assert_eq!(attempted.results.len(), 1);
        assert_eq!(attempted.results[0].verdict, Verdict::Done);
        Ok(Vec::new())
    });
    run(store, mailer).await;
}

#[tokio::test]
async fn nothing_is_sent_when_the_beginning_cannot_be_recorded() {
    let mut order = Sequence::new();
    let mut store = store(&mut order);
    let mut mailer = mailer();
    mailer.expect_check().returning(|_| Ok(()));
    mailer.expect_answer().never();
    store.expect_record().times(1).returning(|_, _| Err(failure(ErrorKind::Io)));
    let release = predicate::eq(Settlement::Release(Release::NotAttempted));
    store
        .expect_settle()
        .with(predicate::always(), release)
        .times(1)
        .returning(|_, _| Ok(Vec::new()));
    run(store, mailer).await;
}

#[tokio::test]
async fn nothing_is_sent_when_the_handover_cannot_be_recorded() {
    let mut order = Sequence::new();
    let mut store = store(&mut order);
    let mut mailer = mailer();
    mailer.expect_check().returning(|_| Ok(()));
    mailer.expect_announces().return_const(true);
    mailer.expect_answer().never();
    store.expect_record().times(2).returning(|_, step| match step {
        Step::Begin => Ok(()),
        Step::Handover => Err(failure(ErrorKind::Full)),
    });
    let release = predicate::eq(Settlement::Release(Release::NotAttempted));
    store
        .expect_settle()
        .with(predicate::always(), release)
        .times(1)
        .returning(|_, _| Ok(Vec::new()));
    run(store, mailer).await;
}

#[tokio::test]
async fn a_claim_that_is_lost_at_the_handover_is_neither_sent_nor_settled() {
    let mut order = Sequence::new();
    let mut store = store(&mut order);
    let mut mailer = mailer();
    mailer.expect_check().returning(|_| Ok(()));
    mailer.expect_announces().return_const(true);
    mailer.expect_answer().never();
    store.expect_settle().never();
    store.expect_record().times(2).returning(|_, step| match step {
        Step::Begin => Ok(()),
        Step::Handover => Err(failure(ErrorKind::LeaseLost)),
    });
    run(store, mailer).await;
}

#[tokio::test]
async fn a_settlement_that_lost_its_claim_is_not_repeated() {
    let mut order = Sequence::new();
    let mut store = store(&mut order);
    let mut mailer = mailer();
    mailer.expect_check().returning(|_| Ok(()));
    mailer.expect_announces().return_const(false);
    mailer.expect_answer().times(1).returning(|envelope, _| {
        Ok(DeliveryReport::same(envelope, &Outcome::Deferred(Reply::new(450, "later"))))
    });
    store.expect_record().times(1).returning(|_, _| Ok(()));
    let lost = |claim, _| Err(Unsettled { claim, error: failure(ErrorKind::LeaseLost) });
    store.expect_settle().times(1).returning(lost);
    run(store, mailer).await;
}

// Proves: I17
#[tokio::test]
async fn a_store_that_can_record_nothing_more_ends_the_run_for_somebody_to_start_it_anew() {
    let mut order = Sequence::new();
    let mut store = store(&mut order);
    store.expect_claim().returning(|_| Ok(Claimed::default()));
    store.expect_is_frozen().returning(|| Ok(false));
    store.expect_wait_for_work().returning(|_| ());
    let mut mailer = mailer();
    mailer.expect_check().returning(|_| Ok(()));
    mailer.expect_announces().return_const(false);
    mailer.expect_answer().times(1).returning(|envelope, _| {
        Ok(DeliveryReport::same(envelope, &Outcome::Deferred(Reply::new(450, "later"))))
    });
    store.expect_record().times(1).returning(|_, _| Ok(()));
    let stopped = |claim, _| {
        let error = failure(ErrorKind::Io).permanent();
        Err(Unsettled { claim, error })
    };
    store.expect_settle().times(1).returning(stopped);
    let clock = Arc::new(ManualClock::default());
    let processor = QueueProcessor::builder(Arc::new(store), Arc::new(mailer), clock);
    let processor = processor.build().unwrap();
    let error = processor.run(std::future::pending()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert!(processor.health().store_trouble.is_some());
}

#[tokio::test]
async fn what_the_mailer_cannot_send_is_failed_without_a_record_or_a_call() {
    let mut order = Sequence::new();
    let mut store = store(&mut order);
    let mut mailer = mailer();
    mailer.expect_check().times(1).returning(|_| Err(failure(ErrorKind::Unsupported)));
    mailer.expect_announces().never();
    mailer.expect_answer().never();
    store.expect_record().never();
    store.expect_settle().times(1).returning(|_, settlement| {
        let Settlement::Attempted(attempted) = settlement else { panic!("{settlement:?}") };
        assert_eq!(attempted.results[0].verdict, Verdict::Fail);
        Ok(Vec::new())
    });
    run(store, mailer).await;
}

#[tokio::test]
async fn an_error_after_the_handover_is_settled_as_unknown_and_pauses_the_relay() {
    let mut order = Sequence::new();
    let mut store = store(&mut order);
    let mut mailer = mailer();
    mailer.expect_check().returning(|_| Ok(()));
    mailer.expect_announces().return_const(true);
    mailer.expect_answer().times(1).returning(|_, _| Err(failure(ErrorKind::Unreachable)));
    store.expect_record().times(2).returning(|_, _| Ok(()));
    store.expect_settle().times(1).returning(|_, settlement| {
        let Settlement::Attempted(attempted) = settlement else { panic!("{settlement:?}") };
        assert!(matches!(attempted.results[0].outcome, Outcome::Unknown(_)));
        assert_eq!(attempted.results[0].verdict, Verdict::Retry);
        Ok(Vec::new())
    });
    store.expect_announce().times(1).returning(|_| Ok(()));
    run(store, mailer).await;
}
