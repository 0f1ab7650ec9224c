//! Work that is done again after a temporary failure.

use std::sync::atomic::{AtomicUsize, Ordering};

use sendmail_core::{Error, ErrorKind, MailDelivery};
use sendmail_txn::LentTransaction;

use crate::fake::{Fault, Place, mail};
use crate::scene::Scene;

impl Scene {
    /// Sends one message at each attempt; `result` says how the work ends, by attempt from 0.
    async fn run(
        &self,
        attempts: u32,
        result: impl Fn(usize) -> Result<(), Error>,
    ) -> (Result<usize, Error>, usize) {
        let made = AtomicUsize::new(0);
        let (made_so_far, result) = (&made, &result);
        let work = |mut transaction: LentTransaction| async move {
            let attempt = made_so_far.fetch_add(1, Ordering::Relaxed);
            let (envelope, message) = mail("a");
            self.delivery.send(&mut transaction, envelope, message).await?;
            result(attempt).map(|()| attempt)
        };
        let done = self.transactions.run(attempts, work).await;
        let done = done.map(|completed| {
            assert!(completed.pending.is_empty());
            completed.value
        });
        (done, made.load(Ordering::Relaxed))
    }
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, "do as told", "injected")
}

// Proves: Q-retried
#[tokio::test]
async fn a_transaction_that_is_tried_again_sends_its_mail_once() {
    let scene = Scene::new();
    let twice_busy = |attempt| if attempt < 2 { Err(error(ErrorKind::Busy)) } else { Ok(()) };
    let (done, made) = scene.run(5, twice_busy).await;
    assert_eq!((done.unwrap(), made), (2, 3));
    assert_eq!(scene.queue.names(Place::Published), ["a"]);
}

// Proves: Q-retried
#[tokio::test]
async fn a_commit_that_fails_is_tried_again_under_a_new_queue_id() {
    let scene = Scene::new();
    scene.world.fail("queue publish", Fault::Before(ErrorKind::Full));
    // The failed attempt's file is left, as if it could not be discarded either.
    scene.world.fail("queue discard", Fault::Before(ErrorKind::Io));
    let (done, made) = scene.run(2, |_| Ok(())).await;
    assert_eq!((done.unwrap(), made), (1, 2));
    assert_eq!(scene.queue.ids().len(), 2);
    assert_eq!(scene.queue.names(Place::Published), ["a"]);
    assert_eq!(scene.queue.names(Place::Written), ["a"]);
}

#[tokio::test]
async fn a_message_whose_transaction_rolled_back_is_sent_by_the_next() {
    let scene = Scene::new();
    let (done, _) = scene.run(1, |_| Err(error(ErrorKind::Busy))).await;
    assert!(done.is_err());
    assert_eq!(scene.queue.ids().len(), 0);
    let (done, _) = scene.run(1, |_| Ok(())).await;
    assert!(done.is_ok());
    assert_eq!(scene.queue.names(Place::Published), ["a"]);
}

#[tokio::test]
async fn what_is_permanent_or_uncertain_is_not_tried_again() {
    let scene = Scene::new();
    let (done, made) = scene.run(5, |_| Err(error(ErrorKind::InvalidInput))).await;
    assert_eq!((done.unwrap_err().kind(), made), (ErrorKind::InvalidInput, 1));

    scene.world.fail("queue publish", Fault::After(ErrorKind::Uncertain));
    let (done, made) = scene.run(5, |_| Ok(())).await;
    assert_eq!((done.unwrap_err().kind(), made), (ErrorKind::Uncertain, 1));
}

#[tokio::test]
async fn attempts_are_counted_and_there_is_at_least_one() {
    for (attempts, expected) in [(0, 1), (1, 1), (3, 3)] {
        let scene = Scene::new();
        let (done, made) = scene.run(attempts, |_| Err(error(ErrorKind::Busy))).await;
        assert_eq!((done.unwrap_err().kind(), made), (ErrorKind::Busy, expected));
        assert_eq!(scene.queue.ids().len(), 0);
    }
}

#[tokio::test]
async fn it_can_run_in_a_task_of_its_own() {
    let scene = Scene::new();
    let queue = scene.queue.clone();
    let task = tokio::spawn(async move {
        let delivery = &scene.delivery;
        let work = |mut transaction: LentTransaction| async move {
            let (envelope, message) = mail("a");
            delivery.send(&mut transaction, envelope, message).await
        };
        scene.transactions.run(1, work).await.map(|completed| completed.value)
    });
    assert!(task.await.unwrap().is_ok());
    assert_eq!(queue.names(Place::Published), ["a"]);
}

#[tokio::test]
async fn work_that_keeps_its_transaction_commits_nothing() {
    let scene = Scene::new();
    let delivery = &scene.delivery;
    let work = |mut transaction: LentTransaction| async move {
        let (envelope, message) = mail("a");
        delivery.send(&mut transaction, envelope, message).await?;
        Ok(transaction)
    };
    let error = scene.transactions.run(3, work).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidState);
    assert_eq!(scene.queue.ids().len(), 0);
}
