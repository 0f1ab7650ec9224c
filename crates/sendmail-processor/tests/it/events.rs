//! What sinks hear.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{EventLog, EventSink, MailEvent, MailEventKind, QueueId};
use sendmail_testkit::Answer;

use crate::bench::Bench;

struct Panicking;

#[async_trait]
impl EventSink for Panicking {
    async fn emit(&self, _: &MailEvent) {
        panic!("the test wants the sink to panic");
    }
}

struct Hanging;

#[async_trait]
impl EventSink for Hanging {
    async fn emit(&self, event: &MailEvent) {
        if event.kind == MailEventKind::Queued {
            std::future::pending::<()>().await;
        }
    }
}

// Proves: I12
#[tokio::test]
async fn a_panicking_sink_is_caught_and_the_others_still_hear() {
    let bench = Bench::new();
    let id = bench.queue(&["a@example.net"]).await;
    let builder = bench.builder().sink(Arc::new(Panicking));
    let processor = builder.sink(Arc::new(bench.heard.clone())).build().unwrap();
    assert!(processor.run_once().await.unwrap().is_complete());
    use MailEventKind::{Queued, Sent};
    assert_eq!(bench.heard.kinds_of(id), [Queued, Queued, Sent, Sent], "both sinks heard both");
}

#[tokio::test]
async fn a_hanging_sink_is_left_behind() {
    let bench = Bench::new();
    let id = bench.queue(&["a@example.net"]).await;
    let running = bench.builder().sink(Arc::new(Hanging)).build().unwrap().spawn();
    let heard = bench.heard.clone();
    bench.pass_time_until(|| heard.count(MailEventKind::Sent) == 1).await;
    assert_eq!(bench.heard.kinds_of(id), [MailEventKind::Queued, MailEventKind::Sent]);
    running.stop();
    running.join().await.unwrap();
}

// Proves: Q-events
#[tokio::test]
async fn events_are_heard_as_they_are_logged_in_order_per_message() {
    let bench = Bench::new();
    for number in 0..40 {
        bench.queue(&[&format!("r{number}@example.net"), "later@example.net"]).await;
    }
    bench.mailer.on("later@example.net", Answer::Reply(450, "later"));
    let processor = bench.processor();
    let running = processor.spawn();
    let heard = bench.heard.clone();
    bench.pass_time_until(|| heard.count(MailEventKind::Deferred) >= 200).await;
    bench.mailer.on("later@example.net", Answer::Accept);
    bench.pass_time_until(|| heard.count(MailEventKind::Sent) == 80).await;
    running.stop();
    running.join().await.unwrap();
    let logged = bench.store.read(None, 100_000).await.unwrap();
    let logged: Vec<MailEvent> = logged.events.into_iter().map(|(_, event)| event).collect();
    assert_eq!(per_message(&bench.heard.events()), per_message(&logged));
}

fn per_message(events: &[MailEvent]) -> BTreeMap<Option<QueueId>, Vec<MailEvent>> {
    let mut sorted: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for event in events {
        sorted.entry(event.queue_id).or_default().push(event.clone());
    }
    sorted
}
