//! Cases for [`EventSink`].

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{EventSink, MailEvent, MailEventKind, QueueId, Reply, Timestamp};

use super::Case;

/// How the suite gets at the sink that it tests, and at what the sink made of what it heard.
#[async_trait]
pub trait EventSinkHarness: Sized + Send + Sync + 'static {
    /// A sink that has heard nothing.
    async fn new() -> Self;

    /// The sink.
    fn sink(&self) -> Arc<dyn EventSink>;

    /// The events that have arrived where the sink sends them, in the order of their arrival; those
    /// that came more than once are there once if the sink deduplicates.
    async fn heard(&self) -> Vec<MailEvent>;
}

/// One test per case of the contract of [`EventSink`](sendmail_core::EventSink), on an
/// [`EventSinkHarness`](crate::suite::sink::EventSinkHarness): `event_sink_suite!(path::to::Harness)`.
#[macro_export]
macro_rules! event_sink_suite {
    ($harness:ty) => {
        $crate::__event_sink_cases! {
            __suite_tests; $harness, <$harness as $crate::suite::sink::EventSinkHarness>::new
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __event_sink_cases {
    ($callback:ident; $($args:tt)*) => {
        $crate::$callback! { $($args)*; sink; [
            it_hears_every_kind,
            it_hears_events_with_nothing_set,
            it_hears_events_whole,
            it_keeps_the_order_of_a_message,
            an_event_that_comes_again_does_no_harm,
            it_may_be_called_at_once,
            a_dropped_call_leaves_it_usable,
        ] }
    };
}

/// The cases as a table.
#[must_use]
pub fn cases<H: EventSinkHarness>() -> Vec<Case<H>> {
    crate::__event_sink_cases!(__suite_table;)
}

/// Catches a sink that does not know all kinds.
pub async fn it_hears_every_kind<H: EventSinkHarness>(h: &H) {
    let events: Vec<MailEvent> = MailEventKind::ALL.into_iter().map(full).collect();
    for event in &events {
        h.sink().emit(event).await;
    }
    let kinds: Vec<_> = h.heard().await.iter().map(|event| event.kind).collect();
    assert_eq!(kinds, MailEventKind::ALL);
}

/// Catches a sink that takes for granted what an event need not have.
pub async fn it_hears_events_with_nothing_set<H: EventSinkHarness>(h: &H) {
    for kind in MailEventKind::ALL {
        h.sink().emit(&MailEvent::new(kind, Timestamp::EPOCH)).await;
    }
    assert_eq!(h.heard().await.len(), MailEventKind::ALL.len());
}

/// Catches a sink that drops or changes fields.
pub async fn it_hears_events_whole<H: EventSinkHarness>(h: &H) {
    let mut odd = full(MailEventKind::Failed).with_detail(&"\"ü,\\\u{2028}; 'x' ".repeat(100));
    odd.time = Timestamp::from_millis(-1);
    odd.attempt = u32::MAX;
    odd.recipient = Some("\"a b,c\"@example.net".parse().expect("an address"));
    h.sink().emit(&odd).await;
    assert_eq!(h.heard().await, [odd]);
}

/// Catches a sink that sorts or hurries.
pub async fn it_keeps_the_order_of_a_message<H: EventSinkHarness>(h: &H) {
    let first = full(MailEventKind::Queued);
    let mut events = Vec::new();
    for attempt in 0..50 {
        let mut event = full(MailEventKind::Deferred);
        (event.queue_id, event.attempt) = (first.queue_id, attempt);
        h.sink().emit(&event).await;
        events.push(event);
    }
    assert_eq!(h.heard().await, events, "in the order in which it heard them");
}

/// Catches a sink that fails when a crash lets an event come twice.
pub async fn an_event_that_comes_again_does_no_harm<H: EventSinkHarness>(h: &H) {
    let (event, other) = (full(MailEventKind::Sent), full(MailEventKind::Sent));
    for event in [&event, &event, &other] {
        h.sink().emit(event).await;
    }
    let heard = h.heard().await;
    assert!(heard.contains(&event) && heard.contains(&other));
    assert!(heard.iter().all(|heard| *heard == event || *heard == other));
}

/// Catches a sink that cannot be shared.
pub async fn it_may_be_called_at_once<H: EventSinkHarness>(h: &H) {
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let sink = h.sink();
        callers.spawn(async move {
            for _ in 0..10 {
                sink.emit(&full(MailEventKind::Sent)).await;
            }
        });
    }
    while let Some(done) = callers.join_next().await {
        done.expect("no call panics");
    }
    assert_eq!(h.heard().await.len(), 80);
}

/// Catches a sink that is stuck after its caller stopped.
pub async fn a_dropped_call_leaves_it_usable<H: EventSinkHarness>(h: &H) {
    let sink = h.sink();
    for _ in 0..3 {
        let event = full(MailEventKind::Deferred);
        let dropped = sink.emit(&event);
        let _ = tokio::time::timeout(std::time::Duration::ZERO, dropped).await;
    }
    let last = full(MailEventKind::Sent);
    sink.emit(&last).await;
    assert_eq!(h.heard().await.last(), Some(&last), "it hears what comes later");
}

/// An event in which everything is set.
fn full(kind: MailEventKind) -> MailEvent {
    let now = Timestamp::from_millis(1_767_225_600_123);
    let id = "<case@example.org>".parse().expect("a Message-ID");
    let recipient = "a@example.net".parse().expect("an address");
    MailEvent::new(kind, now)
        .about(QueueId::mint(now), Some(&id))
        .in_attempt(3, &recipient, &Reply::new(450, "4.2.1 not now"))
        .with_detail("a case")
}
