//! The relay's trouble is not the mail's.

use std::time::Duration;

use sendmail_core::{Clock, EntryState, MailEventKind};
use sendmail_processor::ProcessorConfig;
use sendmail_testkit::Answer;

use crate::bench::{Bench, DAY};

// Proves: I11
#[tokio::test]
async fn a_relay_that_is_down_costs_no_attempt() {
    let bench = Bench::new();
    for _ in 0..100 {
        bench.queue(&["a@example.net"]).await;
    }
    bench.mailer.always(Answer::RelayDown);
    let processor = bench.processor();
    let summary = processor.run_once().await.unwrap();
    assert!(!summary.is_complete());
    assert!(summary.left > 0 && summary.messages == 0, "{summary}");
    assert!(summary.to_string().contains("connection refused"), "{summary}");
    let at_once = ProcessorConfig::default().concurrency;
    assert!(bench.mailer.attempts() <= at_once, "the pass ends when the relay is found to be down");
    for (state, attempts, _) in bench.shown().await {
        assert_eq!((state, attempts), (EntryState::Queued, 0));
    }
    assert!(processor.health().relay_trouble.is_some());
    bench.mailer.always(Answer::Accept);
    let summary = processor.run_once().await.unwrap();
    assert_eq!(summary.delivered, 100, "{summary}");
    assert_eq!(processor.health().relay_trouble, None);
    assert_eq!(bench.heard.count(MailEventKind::RelayPaused), 1);
    assert_eq!(bench.heard.count(MailEventKind::RelayResumed), 1);
}

// Proves: I11
#[tokio::test]
async fn an_outage_of_six_days_expires_nothing() {
    let bench = Bench::new();
    for _ in 0..20 {
        bench.queue(&["a@example.net"]).await;
    }
    let began = bench.clock.now();
    bench.mailer.always(Answer::RelayDown);
    let processor = bench.processor_with(|config| {
        // The queue is looked at less often than by default only to let six days pass faster.
        config.poll_interval = Duration::from_secs(600);
        config.sweep_interval = Duration::from_secs(3600);
        config.recovery_interval = Duration::from_secs(3600);
    });
    let running = processor.spawn();
    let clock = bench.clock.clone();
    bench.pass_time_until(|| clock.now().saturating_since(began) > 6 * DAY).await;
    assert!(bench.mailer.attempts() < 6 * 86_400 / 240 + 40, "{}", bench.mailer.attempts());
    for (_, attempts, _) in bench.shown().await {
        assert_eq!(attempts, 0);
    }
    bench.mailer.always(Answer::Accept);
    let mailer = bench.mailer.clone();
    bench.pass_time_until(|| mailer.deliveries().len() == 20).await;
    running.stop();
    let summary = running.join().await.unwrap();
    assert_eq!((summary.delivered, summary.expired, summary.failed), (20, 0, 0), "{summary}");
    assert_eq!(bench.heard.count(MailEventKind::RelayPaused), 1, "one outage, one event");
    assert_eq!(bench.heard.count(MailEventKind::RelayResumed), 1);
    assert_eq!(bench.heard.count(MailEventKind::Expired), 0);
}

#[tokio::test]
async fn after_an_outage_what_ran_out_of_time_is_tried_once_more() {
    let bench = Bench::new();
    bench.queue(&["good@example.net"]).await;
    bench.queue(&["later@example.net"]).await;
    bench.mailer.on("later@example.net", Answer::Reply(450, "later"));
    bench.clock.advance(30 * DAY);
    let summary = bench.processor().run_once().await.unwrap();
    assert_eq!((summary.delivered, summary.expired), (1, 1), "{summary}");
    assert_eq!(bench.mailer.attempts(), 2);
}

// Proves: I11, A-550
#[tokio::test]
async fn a_relay_that_refuses_everything_does_not_empty_the_queue() {
    let bench = Bench::new();
    for number in 0..500 {
        bench.queue(&[&format!("r{number}@example.net")]).await;
    }
    bench.mailer.always(Answer::Reply(550, "5.7.1 go away"));
    let processor = bench.processor();
    let running = processor.spawn();
    let heard = bench.heard.clone();
    bench.pass_time_until(|| heard.count(MailEventKind::RelayPaused) == 1).await;
    let mailer = bench.mailer.clone();
    bench.pass_time_until(|| mailer.attempts() > 80).await;
    let failed = bench.count(EntryState::Failed).await;
    assert_eq!(failed, 49, "the fiftieth in a row is not believed, and no later one");
    let why = processor.health().relay_trouble.unwrap();
    assert!(why.contains("different messages in a row"), "{why}");
    assert!(why.contains("5.7.1 go away"), "{why}");
    bench.mailer.always(Answer::Accept);
    bench.pass_time_until(|| mailer.deliveries().len() == 451).await;
    assert_eq!(bench.heard.count(MailEventKind::RelayResumed), 1);
    assert_eq!(bench.heard.count(MailEventKind::Failed), 49);
    running.stop();
    running.join().await.unwrap();
}

#[tokio::test]
async fn an_error_after_the_handover_is_a_possible_duplicate() {
    let bench = Bench::new();
    let id = bench.queue(&["a@example.net"]).await;
    bench.mailer.next(Answer::PanicAfterHandover);
    let processor = bench.processor();
    let summary = processor.run_once().await.unwrap();
    assert_eq!(summary.deferred, 1, "{summary}");
    bench.clock.advance(Duration::from_secs(36));
    processor.run_once().await.unwrap();
    use MailEventKind::{PossibleDuplicate, Queued, Sent};
    assert_eq!(bench.heard.kinds_of(id), [Queued, PossibleDuplicate, Sent]);
    assert_eq!(bench.mailer.copies_to("a@example.net"), 2);
}
