//! Cases for [`EventLog`](sendmail_core::EventLog).

use std::collections::HashSet;
use std::time::Duration;

use sendmail_core::{Clock, Cursor, ErrorKind, EventId, MailEvent, MailEventKind};

use super::support::*;
use super::{Case, QueueHarness, skipped};

/// One test per case of the contract of [`EventLog`](sendmail_core::EventLog), on a
/// [`QueueHarness`](crate::suite::QueueHarness): `event_log_suite!(path::to::Harness)`.
#[macro_export]
macro_rules! event_log_suite {
    ($harness:ty) => {
        $crate::__event_log_cases! {
            __suite_tests; $harness, <$harness as $crate::suite::QueueHarness>::new
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __event_log_cases {
    ($callback:ident; $($args:tt)*) => {
        $crate::$callback! { $($args)*; log; [
            an_empty_log_is_no_error,
            events_are_durable_and_in_order,
            returned_events_are_in_the_log,
            cursor_resumes_exactly,
            a_page_is_as_long_as_was_asked,
            a_cursor_skips_nothing_that_comes_later,
            a_cursor_outlives_its_process,
            foreign_cursor_is_refused,
            an_expired_cursor_names_the_oldest,
            an_announced_event_is_in_the_log,
        ] }
    };
}

/// The cases as a table.
#[must_use]
pub fn cases<H: QueueHarness>() -> Vec<Case<H>> {
    crate::__event_log_cases!(__suite_table;)
}

/// Catches a log that fails before anything has happened.
pub async fn an_empty_log_is_no_error<H: QueueHarness>(h: &H) {
    let page = h.log().await.read(None, 10).await.expect("an empty log is no error");
    assert!(page.events.is_empty());
}

/// Catches a log that is in memory, or that mixes the events of a message up.
pub async fn events_are_durable_and_in_order<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let new = queue(h, &doomed, &["a@example.net", "b@example.net"]).await;
    let first = claim_one(&doomed, "it is published").await;
    try_once(&doomed, first, vec![deferred(), accepted()], Duration::from_secs(60)).await;
    h.clock().advance(Duration::from_secs(60));
    deliver(&doomed, claim_one(&doomed, "one was deferred").await).await;
    h.kill(doomed).await;
    let kinds: Vec<_> = history_of(h, new.id).await.iter().map(|event| event.kind).collect();
    use MailEventKind::{Deferred, Queued, Sent};
    assert_eq!(kinds, [Queued, Deferred, Sent, Sent], "what happened, in its order, once each");
}

/// Catches a store that returns events which nobody can find in the log, or under other ids.
// Proves: Q-events
pub async fn returned_events_are_in_the_log<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let mut returned = Vec::new();
    for _ in 0..3 {
        queue(h, &store, &["a@example.net", "b@example.net"]).await;
        let (claim, events) = claim_one_with_events(&store, "it is published").await;
        returned.extend(events);
        returned.extend(try_once(&store, claim, vec![refused(), accepted()], Duration::ZERO).await);
    }
    let logged = history(&h.log().await).await;
    for event in &returned {
        assert!(logged.contains(event), "it is not in the log as it was returned: {event:?}");
    }
    assert_eq!(ids(&logged).len(), logged.len(), "each event is in the log once");
    assert_eq!(logged.len(), returned.len(), "nothing else is in the log");
}

/// Catches a cursor that skips or repeats.
// Proves: Q-events
pub async fn cursor_resumes_exactly<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    for _ in 0..5 {
        queue(h, &store, &["a@example.net", "b@example.net"]).await;
        deliver(&store, claim_one(&store, "it is published").await).await;
    }
    let log = h.log().await;
    let all = read_from(&log, None, 1000).await;
    assert_eq!(all.len(), 15, "queued once and sent twice, five times");
    for page in [1, 2, 7] {
        let paged = read_from(&log, None, page).await;
        assert_eq!(events(&paged), events(&all), "in pages of {page}");
    }
    for (index, (cursor, _)) in all.iter().enumerate() {
        let rest = read_from(&log, Some(cursor.clone()), 4).await;
        assert_eq!(events(&rest), events(&all[index + 1..]), "behind event {index}");
    }
    assert!(all.iter().all(|(cursor, _)| !cursor.as_str().contains(char::is_whitespace)));
}

/// Catches a log that ignores the limit.
pub async fn a_page_is_as_long_as_was_asked<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    for _ in 0..3 {
        queue(h, &store, &["a@example.net"]).await;
        deliver(&store, claim_one(&store, "it is published").await).await;
    }
    let page = h.log().await.read(None, 4).await.expect("a page");
    assert!((1..=4).contains(&page.events.len()), "four were asked for, six are there");
}

/// Catches a log in which a reader overtakes a writer and never sees its events.
// Proves: Q-events
pub async fn a_cursor_skips_nothing_that_comes_later<H: QueueHarness>(h: &H) {
    const EACH: usize = 20;
    let producer = h.open().await;
    for _ in 0..2 * EACH {
        queue(h, &producer, &["a@example.net"]).await;
    }
    let mut workers = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let store = h.open().await;
        workers.spawn(async move {
            for _ in 0..EACH {
                let claimed = store.claim(1).await.expect("a claim");
                for claim in claimed.claims {
                    deliver(&store, claim).await;
                    tokio::task::yield_now().await;
                }
            }
        });
    }
    let log = h.log().await;
    let mut cursor: Option<Cursor> = None;
    let mut seen = Vec::new();
    let mut all_written = false;
    loop {
        let page = log.read(cursor.clone(), 3).await.expect("a page");
        if let Some((last, _)) = page.events.last() {
            cursor = Some(last.clone());
            seen.extend(page.events.into_iter().map(|(_, event)| event));
        } else if all_written {
            break;
        } else if let Some(done) = workers.try_join_next() {
            done.expect("a worker");
        } else {
            all_written = workers.is_empty();
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(ids(&seen).len(), seen.len(), "an event was read twice");
    assert_eq!(ids(&seen), ids(&history(&log).await), "a reader that follows sees them all");
    assert_eq!(of_kind(&seen, MailEventKind::Sent).len(), 2 * EACH);
}

/// Catches a cursor that means something else after a restart.
pub async fn a_cursor_outlives_its_process<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    queue(h, &doomed, &["a@example.net"]).await;
    deliver(&doomed, claim_one(&doomed, "it is published").await).await;
    let before = read_from(&h.log().await, None, 100).await;
    let cursor = before.last().expect("two events").0.clone();
    h.kill(doomed).await;
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    deliver(&store, claim_one(&store, "it is published").await).await;
    let text = cursor.as_str().to_owned();
    let rest = read_from(&h.log().await, Some(Cursor::new(text)), 100).await;
    let kinds: Vec<_> = rest.iter().map(|(_, event)| (event.queue_id, event.kind)).collect();
    let expected = [(Some(new.id), MailEventKind::Queued), (Some(new.id), MailEventKind::Sent)];
    assert_eq!(kinds, expected, "what has happened since, and nothing else");
}

/// Catches a log that reads from somewhere when it is asked for something else.
pub async fn foreign_cursor_is_refused<H: QueueHarness>(h: &H) {
    let log = h.log().await;
    for text in ["", "somewhere", "9999999999", "../x", "-"] {
        let error = log.read(Some(Cursor::new(text)), 1).await.expect_err("no cursor of this log");
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text:?}: {error}");
    }
}

/// Catches a log that silently goes on where history begins.
pub async fn an_expired_cursor_names_the_oldest<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    for _ in 0..3 {
        queue(h, &store, &["a@example.net"]).await;
        deliver(&store, claim_one(&store, "it is published").await).await;
    }
    let log = h.log().await;
    let first = read_from(&log, None, 100).await.remove(0).0;
    if !h.expire_history().await {
        return skipped("an_expired_cursor_names_the_oldest", "the harness cannot expire history");
    }
    let error = log.read(Some(first), 100).await.expect_err("what follows is not kept");
    assert_eq!(error.kind(), ErrorKind::CursorExpired, "{error}");
    let kept = read_from(&log, None, 100).await;
    let mut resumed = false;
    for (_, value) in error.context() {
        if let Ok(page) = log.read(Some(Cursor::new(value.as_str())), 100).await {
            resumed |= events(&page.events) == events(&kept);
        }
    }
    assert!(resumed, "the error names the oldest cursor: {error}");
}

/// Catches a store that forgets what its processor found out about the relay.
pub async fn an_announced_event_is_in_the_log<H: QueueHarness>(h: &H) {
    let doomed = h.open().await;
    let event = MailEvent::new(MailEventKind::RelayPaused, h.clock().now());
    let event = event.with_detail("relay.example.org: connection refused");
    doomed.announce(&event).await.expect("an event about a relay can be announced");
    h.kill(doomed).await;
    let logged = history(&h.log().await).await;
    assert_eq!(logged, [event], "as it was announced, once");
}

fn events(read: &[(Cursor, MailEvent)]) -> Vec<&MailEvent> {
    read.iter().map(|(_, event)| event).collect()
}

fn ids(events: &[MailEvent]) -> HashSet<EventId> {
    events.iter().map(|event| event.id).collect()
}
