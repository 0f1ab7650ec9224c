//! Running for long: starting, stopping, several at once, bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    Clock as _, EntryState, Error, ErrorKind, MailEvent, MailEventKind, QueueStore, Result,
    Timestamp,
};
use sendmail_processor::{Recovered, Recovery};
use sendmail_testkit::Answer;

use crate::bench::Bench;

#[tokio::test]
async fn what_is_queued_while_it_runs_is_delivered() {
    let bench = Bench::new();
    let running = bench.processor().spawn();
    for number in 1..=5 {
        bench.let_others_run().await;
        bench.queue(&["a@example.net"]).await;
        assert_eq!(bench.mailer.wait_for(number).await.len(), number, "no time passes");
    }
    running.stop();
    assert_eq!(running.join().await.unwrap().delivered, 5);
}

#[tokio::test]
async fn an_orderly_stop_finishes_what_is_on_the_wire_and_gives_back_the_rest() {
    let bench = Bench::new();
    for _ in 0..20 {
        bench.queue(&["a@example.net"]).await;
    }
    bench.mailer.always(Answer::HangAfterHandover);
    let processor = bench.processor_with(|config| {
        config.concurrency = 4;
        config.max_in_flight = 12;
    });
    let running = processor.spawn();
    bench.mailer.until_hanging(4).await;
    assert_eq!(bench.count(EntryState::Claimed).await, 12, "no more than were allowed");
    running.stop();
    bench.let_others_run().await;
    assert_eq!(bench.mailer.attempts(), 4, "nothing new is begun");
    assert_eq!(bench.count(EntryState::Claimed).await, 4, "the rest is given back at once");
    bench.mailer.release();
    let summary = running.join().await.unwrap();
    assert_eq!((summary.delivered, summary.left), (4, 8), "{summary}");
    for (state, attempts, _) in bench.shown().await {
        assert_eq!((state, attempts), (EntryState::Queued, 0));
    }
    assert!(bench.mailer.is_closed());
}

#[tokio::test]
async fn a_second_stop_is_at_once_and_loses_nothing() {
    let bench = Bench::new();
    bench.queue(&["a@example.net"]).await;
    bench.mailer.next(Answer::HangAfterHandover);
    let process = bench.store.process();
    let running = bench.builder_on(&process).build().unwrap().spawn();
    bench.mailer.until_hanging(1).await;
    running.stop();
    bench.let_others_run().await;
    running.stop();
    assert_eq!(running.join().await.unwrap_err().kind(), ErrorKind::Cancelled);
    process.kill();
    assert!(bench.processor().run_once().await.unwrap().is_complete());
    assert_eq!(
        bench.heard.count(MailEventKind::PossibleDuplicate),
        1,
        "and says what it cannot know"
    );
}

#[tokio::test]
async fn the_library_call_stops_with_its_future() {
    let bench = Bench::new();
    bench.queue(&["a@example.net"]).await;
    let mailer = bench.mailer.clone();
    let stop = async move {
        mailer.wait_for(1).await;
    };
    let summary = bench.processor().run(stop).await.unwrap();
    assert_eq!(summary.delivered, 1);
}

#[tokio::test]
async fn two_processors_send_nothing_twice() {
    let bench = Bench::new();
    for number in 0..200 {
        bench.queue(&[&format!("r{number}@example.net")]).await;
    }
    let other = bench.store.process();
    let (one, two) = (bench.processor().spawn(), bench.builder_on(&other).build().unwrap().spawn());
    bench.mailer.wait_for(200).await;
    bench.let_others_run().await;
    one.stop();
    two.stop();
    let (one, two) = (one.join().await.unwrap(), two.join().await.unwrap());
    assert_eq!(one.delivered + two.delivered, 200);
    assert_eq!(bench.mailer.attempts(), 200);
    for number in 0..200 {
        assert_eq!(bench.mailer.copies_to(&format!("r{number}@example.net")), 1);
    }
}

#[tokio::test]
async fn a_slow_message_does_not_stop_the_others() {
    let bench = Bench::new();
    bench.queue(&["slow@example.net"]).await;
    bench.mailer.next(Answer::Hang);
    let running = bench.processor().spawn();
    bench.mailer.until_hanging(1).await;
    for _ in 0..100 {
        bench.queue(&["fast@example.net"]).await;
    }
    bench.mailer.wait_for(100).await;
    assert_eq!(bench.mailer.copies_to("slow@example.net"), 0);
    bench.mailer.release();
    bench.mailer.wait_for(101).await;
    running.stop();
    running.join().await.unwrap();
}

// Proves: B-clock, I13
#[tokio::test]
async fn a_clock_that_steps_neither_stops_nor_expires() {
    let bench = Bench::new();
    let running = bench.processor().spawn();
    bench.let_others_run().await;
    for step in [0, -1_000_000_000_000, i64::MAX / 4, 1_767_225_600_000] {
        bench.clock.set(Timestamp::from_millis(step));
        bench.queue(&["a@example.net"]).await;
        bench.let_others_run().await;
    }
    let mailer = bench.mailer.clone();
    bench.pass_time_until(|| mailer.deliveries().len() == 4).await;
    running.stop();
    let summary = running.join().await.unwrap();
    assert_eq!((summary.delivered, summary.expired), (4, 0), "{summary}");
}

/// Publishes what is staged, every second time; panics or fails at the others.
struct Publisher {
    store: sendmail_testkit::MemoryStore,
    runs: AtomicUsize,
}

#[async_trait]
impl Recovery for Publisher {
    fn name(&self) -> &str {
        "publish what is staged"
    }

    async fn recover(&self) -> Result<Recovered> {
        let run = self.runs.fetch_add(1, Ordering::SeqCst);
        assert!(!run.is_multiple_of(4), "the test wants the recovery to panic");
        if run % 4 == 2 {
            return Err(Error::new(ErrorKind::Io, "recover", "the test wants it to fail"));
        }
        let undecided = self.store.undecided().await?;
        let ids: Vec<_> = undecided.iter().map(|undecided| undecided.id).collect();
        self.store.publish(&ids).await?;
        Ok(vec![MailEvent::new(MailEventKind::Discarded, Timestamp::EPOCH)].into())
    }
}

#[tokio::test]
async fn recoveries_run_beside_and_their_trouble_stops_nothing() {
    let bench = Bench::new();
    let publisher = Arc::new(Publisher { store: bench.store.clone(), runs: AtomicUsize::new(0) });
    let processor = bench.builder().recovery(publisher.clone()).build().unwrap();
    let summary = processor.run_once().await.unwrap();
    assert!(summary.to_string().contains("panicked"), "a single pass says so: {summary}");
    let running = processor.spawn();
    let runs = publisher.clone();
    bench.pass_time_until(|| runs.runs.load(Ordering::SeqCst) >= 9).await;
    bench.queue(&["a@example.net"]).await;
    bench.mailer.wait_for(1).await;
    assert!(bench.heard.count(MailEventKind::Discarded) >= 4, "its events are told");
    running.stop();
    running.join().await.unwrap();
}

#[tokio::test]
async fn decided_mail_that_nobody_published_is_swept_up() {
    use sendmail_core::{DecisionLog, TransactionId};
    let bench = Bench::new();
    let doomed = bench.store.process();
    let running = bench.processor().spawn();
    bench.let_others_run().await;
    let id = bench.queue_staged(&doomed).await;
    let transaction = TransactionId::mint(bench.clock.now());
    doomed.propose(transaction, &[id]).await.unwrap();
    doomed.decide(transaction).await.unwrap();
    doomed.kill();
    let mailer = bench.mailer.clone();
    bench.pass_time_until(|| mailer.deliveries().len() == 1).await;
    running.stop();
    running.join().await.unwrap();
}

#[tokio::test]
async fn an_idle_processor_waits_and_does_not_spin() {
    let bench = Bench::new();
    let running = bench.processor().spawn();
    bench.let_others_run().await;
    assert!(bench.clock.sleepers() > 0);
    let mut looks = 0;
    for _ in 0..100 {
        looks += usize::from(bench.clock.advance_to_next().await >= Duration::from_millis(1));
        bench.let_others_run().await;
    }
    assert!(looks >= 30, "it wakes when its intervals are over, and not without end: {looks}");
    running.stop();
    running.join().await.unwrap();
}

/// Counts its runs, and wants to run again when it is told to; or never comes to its end.
struct Paced {
    runs: AtomicUsize,
    again: Option<Duration>,
    hangs: bool,
}

impl Paced {
    fn again(again: Option<Duration>) -> Arc<Self> {
        Arc::new(Self { runs: AtomicUsize::new(0), again, hangs: false })
    }

    fn runs(&self) -> usize {
        self.runs.load(Ordering::SeqCst)
    }
}

#[async_trait]
impl Recovery for Paced {
    fn name(&self) -> &str {
        "count the runs"
    }

    async fn recover(&self) -> Result<Recovered> {
        self.runs.fetch_add(1, Ordering::SeqCst);
        if self.hangs {
            std::future::pending::<()>().await;
        }
        Ok(Recovered::default().again_after(self.again))
    }
}

#[tokio::test]
async fn a_recovery_runs_again_when_it_wants_to_and_waits_for_no_other() {
    let bench = Bench::new();
    let fast = Paced::again(Some(Duration::from_millis(20)));
    let slow = Paced::again(None);
    let stuck = Arc::new(Paced { runs: AtomicUsize::new(0), again: None, hangs: true });
    let mut builder = bench.builder();
    for recovery in [&stuck, &slow, &fast] {
        builder = builder.recovery(recovery.clone());
    }
    let running = builder.build().unwrap().spawn();
    bench.let_others_run().await;
    let begun = bench.clock.now();
    while bench.clock.now().saturating_since(begun) < Duration::from_secs(10) {
        bench.clock.advance_to_next().await;
        bench.let_others_run().await;
    }
    assert_eq!(stuck.runs(), 1, "one run at a time");
    assert!((10..=12).contains(&slow.runs()), "{}", slow.runs());
    assert!((490..=502).contains(&fast.runs()), "{}", fast.runs());
    bench.queue(&["a@example.net"]).await;
    bench.mailer.wait_for(1).await;
    running.stop();
    running.join().await.unwrap();
}

#[tokio::test]
async fn what_another_process_stages_is_looked_at_within_milliseconds() {
    let bench = Bench::new();
    // It says that it goes on: what it looks for is there.
    let recovery = Paced::again(Some(Duration::from_secs(1)));
    let running = bench.builder().recovery(recovery.clone()).build().unwrap().spawn();
    bench.let_others_run().await;
    bench.pass_time_until(|| recovery.runs() >= 2).await;
    bench.let_others_run().await;
    let producer = bench.store.process();
    for _ in 0..5 {
        let (runs, begun) = (recovery.runs(), bench.clock.now());
        bench.queue_staged(&producer).await;
        bench.let_others_run().await;
        bench.pass_time_until(|| recovery.runs() > runs).await;
        let passed = bench.clock.now().saturating_since(begun);
        assert!(passed <= Duration::from_millis(10), "{passed:?}");
    }
    running.stop();
    running.join().await.unwrap();
}

#[tokio::test]
async fn mail_that_no_transaction_holds_back_pays_for_no_look_of_its_own() {
    let bench = Bench::new();
    let recovery = Paced::again(None);
    let running = bench.builder().recovery(recovery.clone()).build().unwrap().spawn();
    bench.let_others_run().await;
    let before = recovery.runs();
    for sent in 1..=200 {
        bench.queue(&["a@example.net"]).await;
        bench.mailer.wait_for(sent).await;
        bench.clock.advance(Duration::from_millis(1));
    }
    // 200 messages in 200 ms: the first few make it look, and then ever fewer.
    assert!(recovery.runs() - before <= 8, "{}", recovery.runs() - before);
    running.stop();
    running.join().await.unwrap();
}
