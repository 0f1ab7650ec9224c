//! Direct delivery: after the decision, once, and never a reason for the commit to fail.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sendmail_core::mock::MockMailer;
use sendmail_core::{
    DeliveryReport, Envelope, Error, ErrorKind, EventSink, MailDelivery, MailEvent, MailEventKind,
    Mailer, Outcome, Reply,
};
use sendmail_txn::{CommitOutcome, DirectDelivery, TransactionManager};

use crate::fake::{FakeDatabase, Fault, World, clock, mail};

/// Keeps what it hears.
#[derive(Default)]
pub(crate) struct Heard(Mutex<Vec<MailEvent>>);

impl Heard {
    pub(crate) fn events(&self) -> Vec<MailEvent> {
        self.0.lock().unwrap().clone()
    }
}

#[async_trait]
impl EventSink for Heard {
    async fn emit(&self, event: &MailEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

/// A sink that panics at everything.
struct Panics;

#[async_trait]
impl EventSink for Panics {
    async fn emit(&self, _: &MailEvent) {
        panic!("oops");
    }
}

fn mailer() -> MockMailer {
    let mut mailer = MockMailer::new();
    mailer.expect_relay().return_const("relay".to_owned());
    mailer.expect_announces().returning(|| true);
    mailer.expect_check().returning(|_| Ok(()));
    mailer
}

struct Scene {
    heard: Arc<Heard>,
    delivery: DirectDelivery,
    transactions: TransactionManager,
}

fn scene(mailer: MockMailer) -> Scene {
    let heard = Arc::new(Heard::default());
    let sinks: [Arc<dyn EventSink>; 2] = [Arc::new(Panics), heard.clone()];
    let mailer: Arc<dyn Mailer> = Arc::new(mailer);
    let delivery = DirectDelivery::new(mailer, clock(), sinks);
    Scene { heard, delivery, transactions: TransactionManager::new(clock()) }
}

impl Scene {
    async fn commit(&self, envelope: Envelope) -> CommitOutcome {
        let mut transaction = self.transactions.begin();
        let (_, message) = mail("a");
        self.delivery.send(&mut transaction, envelope, message).await.unwrap();
        self.transactions.commit(transaction).await
    }
}

#[tokio::test]
async fn each_recipient_gets_the_event_that_fits() {
    let mut relay = mailer();
    relay.expect_answer().times(1).returning(|envelope, _| {
        let outcomes = vec![
            Outcome::Accepted(Reply::new(250, "ok")),
            Outcome::Deferred(Reply::new(450, "later")),
            Outcome::Refused(Reply::new(550, "5.1.1 nobody")),
            Outcome::Unknown(Reply::new(451, "lost")),
        ];
        Ok(DeliveryReport::new(envelope, outcomes).unwrap())
    });
    let scene = scene(relay);
    let envelope = Envelope::parse("a@b", ["1@c", "2@c", "3@c", "4@c"]).unwrap();
    let outcome = scene.commit(envelope).await;
    assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");

    use MailEventKind::{Failed, Sent};
    let events = scene.heard.events();
    let seen: Vec<_> = events
        .iter()
        .map(|event| {
            assert_eq!(event.attempt, 1);
            let detail = event.detail.as_deref().unwrap_or_default();
            (event.kind, event.reply.as_ref().unwrap().code(), detail.split(' ').next().unwrap())
        })
        .collect();
    assert_eq!(
        seen,
        [(Sent, 250, ""), (Failed, 450, "deferred"), (Failed, 550, ""), (Failed, 451, "no")]
    );
    let recipients: Vec<_> =
        events.iter().map(|event| event.recipient.as_ref().unwrap().as_str()).collect();
    assert_eq!(recipients, ["1@c", "2@c", "3@c", "4@c"]);
}

#[tokio::test]
async fn trouble_with_the_relay_is_an_event_and_the_commit_stands() {
    let unreachable = || Err(Error::new(ErrorKind::Unreachable, "connect", "refused"));
    for panics in [false, true] {
        let mut relay = mailer();
        relay.expect_answer().times(1).returning(move |_, _| {
            assert!(!panics, "oops");
            unreachable()
        });
        let scene = scene(relay);
        let outcome = scene.commit(Envelope::parse("a@b", ["1@c", "2@c"]).unwrap()).await;
        assert!(matches!(outcome, CommitOutcome::Committed), "{outcome:?}");
        let events = scene.heard.events();
        assert_eq!(events.len(), 2);
        let expected = if panics { "oops" } else { "refused" };
        for event in events {
            assert_eq!((event.kind, event.reply.is_some()), (MailEventKind::Failed, false));
            assert!(event.detail.unwrap().contains(expected));
        }
    }
}

#[tokio::test]
async fn a_report_for_other_recipients_is_not_believed() {
    let mut relay = mailer();
    relay.expect_answer().times(1).returning(|_, _| {
        let other = Envelope::parse("a@b", ["somebody@else"]).unwrap();
        Ok(DeliveryReport::same(&other, &Outcome::Accepted(Reply::new(250, "ok"))))
    });
    let scene = scene(relay);
    assert!(scene.commit(Envelope::parse("a@b", ["1@c"]).unwrap()).await.is_committed());
    assert_eq!(scene.heard.events()[0].kind, MailEventKind::Failed);
}

#[tokio::test]
async fn nothing_is_sent_unless_the_database_committed() {
    for fault in [Fault::Before(ErrorKind::Aborted), Fault::After(ErrorKind::Uncertain)] {
        let mut relay = mailer();
        relay.expect_answer().never();
        let scene = scene(relay);
        let world = World::default();
        let database = FakeDatabase::new("db", &world);
        world.fail("db commit", fault);
        let mut transaction = scene.transactions.begin();
        let (envelope, message) = mail("a");
        scene.delivery.send(&mut transaction, envelope, message).await.unwrap();
        transaction.join(database.manager()).unwrap();
        assert!(!scene.transactions.commit(transaction).await.is_committed());
        assert_eq!(scene.heard.events(), []);
    }
}

#[tokio::test]
async fn a_probe_votes_against_the_commit() {
    let mut relay = mailer();
    relay
        .expect_probe()
        .times(1)
        .returning(|| Err(Error::new(ErrorKind::Unreachable, "connect", "refused")));
    relay.expect_answer().never();
    let mut scene = scene(relay);
    scene.delivery = scene.delivery.with_probe();
    let outcome = scene.commit(Envelope::parse("a@b", ["1@c"]).unwrap()).await;
    let CommitOutcome::Aborted(error) = outcome else { panic!("{outcome:?}") };
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn an_envelope_that_can_never_be_sent_is_refused_at_once() {
    let mut relay = MockMailer::new();
    relay.expect_relay().return_const("relay".to_owned());
    relay
        .expect_check()
        .returning(|_| Err(Error::new(ErrorKind::Refused, "check the envelope", "no SMTPUTF8")));
    let scene = scene(relay);
    let mut transaction = scene.transactions.begin();
    let (envelope, message) = mail("a");
    assert!(scene.delivery.send(&mut transaction, envelope, message).await.is_err());
    assert!(transaction.managers_mut().is_empty());
}

#[tokio::test]
async fn a_savepoint_takes_back_direct_mail_too() {
    let mut relay = mailer();
    relay
        .expect_answer()
        .times(1)
        .withf(|envelope, _| envelope.reverse_path().as_str() == "a@example.org")
        .returning(|envelope, _| {
            Ok(DeliveryReport::same(envelope, &Outcome::Accepted(Reply::new(250, "ok"))))
        });
    let scene = scene(relay);
    let mut transaction = scene.transactions.begin();
    let (envelope, message) = mail("a");
    scene.delivery.send(&mut transaction, envelope, message).await.unwrap();
    let savepoint = scene.transactions.savepoint(&mut transaction).await.unwrap();
    let (envelope, message) = mail("b");
    scene.delivery.send(&mut transaction, envelope, message).await.unwrap();
    scene.transactions.rollback_to(&mut transaction, &savepoint).await.unwrap();
    assert!(scene.transactions.commit(transaction).await.is_committed());
    assert_eq!(scene.heard.events().len(), 1);
}
