//! What becomes of messages and their recipients.

use std::time::Duration;

use sendmail_core::{AmbiguousPolicy, Clock, EntryState, MailEventKind};
use sendmail_testkit::Answer;

use crate::bench::{Bench, DAY, sorted};

#[tokio::test]
async fn everything_that_is_due_is_delivered_once() {
    let bench = Bench::new();
    for number in 0..300 {
        bench.queue(&[&format!("r{number}@example.net")]).await;
    }
    let summary = bench.processor().run_once().await.unwrap();
    assert!(summary.is_complete(), "{summary}");
    assert_eq!((summary.messages, summary.delivered), (300, 300));
    let got = bench.mailer.deliveries();
    let mut got: Vec<String> =
        got.iter().map(|delivery| delivery.recipients[0].to_string()).collect();
    got = sorted(got);
    got.dedup();
    assert_eq!(got.len(), 300);
    assert!(bench.entries().await.is_empty());
    assert!(bench.mailer.is_closed());
}

#[tokio::test]
async fn an_empty_queue_is_complete() {
    let summary = Bench::new().processor().run_once().await.unwrap();
    assert!(summary.is_complete());
    assert_eq!(summary.to_string(), "0 delivered");
}

// Proves: I9
#[tokio::test]
async fn each_recipient_has_its_own_fate() {
    let bench = Bench::new();
    let to = ["taken@example.net", "later@example.net", "never@example.net"];
    let id = bench.queue(&to).await;
    bench.mailer.on("later@example.net", Answer::Reply(450, "4.2.1 not now"));
    bench.mailer.on("never@example.net", Answer::Reply(571, "5.7.1 never"));
    let processor = bench.processor();
    let summary = processor.run_once().await.unwrap();
    assert_eq!((summary.delivered, summary.deferred, summary.failed), (1, 1, 1), "{summary}");
    assert!(!summary.is_complete());
    assert_eq!(summary.reasons.get("450 4.2.1 not now"), Some(&1));
    assert_eq!(
        bench.shown().await,
        [
            (EntryState::Deferred, 1, vec!["later@example.net".to_owned()]),
            (EntryState::Failed, 1, vec!["never@example.net".to_owned()]),
        ]
    );
    bench.mailer.on("later@example.net", Answer::Accept);
    bench.clock.advance(Duration::from_secs(36));
    assert!(processor.run_once().await.unwrap().is_complete());
    for (recipient, copies) in to.iter().zip([1, 1, 0]) {
        assert_eq!(bench.mailer.copies_to(recipient), copies, "{recipient}");
    }
    use MailEventKind::{Deferred, Failed, Queued, Sent};
    assert_eq!(bench.heard.kinds_of(id), [Queued, Sent, Deferred, Failed, Sent]);
    let events = bench.heard.events();
    let failed = events.iter().find(|event| event.kind == Failed).unwrap();
    assert_eq!(failed.reply.as_ref().unwrap().to_string(), "571 5.7.1 never");
    assert_eq!(failed.recipient.as_ref().unwrap().as_str(), "never@example.net");
}

#[tokio::test]
async fn a_pass_tries_each_message_at_most_once() {
    let bench = Bench::new();
    for _ in 0..10 {
        bench.queue(&["later@example.net"]).await;
    }
    bench.mailer.always(Answer::Reply(450, "later"));
    // Due again as soon as it is deferred.
    let processor = bench.processor_with(|config| {
        config.backoff.first = Duration::from_nanos(1);
        config.backoff.max = Duration::from_nanos(1);
        config.max_in_flight = 4;
        config.concurrency = 2;
    });
    let summary = processor.run_once().await.unwrap();
    assert_eq!(bench.mailer.attempts() as u64, summary.messages);
    assert!(summary.messages <= 10, "{summary}");
    assert_eq!(bench.count(EntryState::Claimed).await, 0, "what was kept aside is given back");
}

#[tokio::test]
async fn what_cannot_be_sent_fails_without_the_network() {
    let bench = Bench::new();
    let id = bench.queue(&["ü@example.net"]).await;
    bench.queue(&["a@example.net"]).await;
    bench.mailer.cannot_send_to("ü@example.net");
    let summary = bench.processor().run_once().await.unwrap();
    assert!(summary.is_complete(), "{summary}");
    assert_eq!((summary.delivered, summary.failed), (1, 1));
    assert_eq!(bench.mailer.attempts(), 1, "only for the one that can be sent");
    assert_eq!(bench.heard.kinds_of(id), [MailEventKind::Queued, MailEventKind::Failed]);
    assert_eq!(bench.count(EntryState::Failed).await, 1, "it is kept");
}

// Proves: Q-policy
#[tokio::test]
async fn an_ambiguous_end_goes_by_the_messages_policy() {
    use AmbiguousPolicy::{Drop, Hold, Retry};
    use MailEventKind::{Failed, Held, PossibleDuplicate, Queued};
    // An operator may let what is held or failed be sent again, so that all three are announced.
    for (policy, kinds, state) in [
        (Retry, &[Queued, PossibleDuplicate][..], EntryState::Deferred),
        (Hold, &[Queued, Held, PossibleDuplicate], EntryState::Held),
        (Drop, &[Queued, PossibleDuplicate, Failed], EntryState::Failed),
    ] {
        let bench = Bench::new();
        let id = bench.queue_with(&["a@example.net"], |options| options.ambiguous = policy).await;
        bench.mailer.next(Answer::Unknown);
        let processor = bench.processor();
        processor.run_once().await.unwrap();
        assert_eq!(bench.heard.kinds_of(id), kinds, "{policy:?}");
        assert_eq!(bench.count(state).await, 1, "{policy:?}");
        bench.clock.advance(DAY);
        processor.run_once().await.unwrap();
        let copies = if policy == Retry { 2 } else { 1 };
        assert_eq!(bench.mailer.copies_to("a@example.net"), copies, "{policy:?}");
    }
}

#[tokio::test]
async fn back_off_grows_and_the_time_runs_out_after_an_attempt() {
    let bench = Bench::new();
    let id = bench.queue(&["later@example.net"]).await;
    let began = bench.clock.now();
    bench.mailer.always(Answer::Reply(450, "later"));
    let minute = Duration::from_secs(60);
    let processor = bench.processor_with(|config| {
        // Less of everything than by default, only to let it pass faster.
        config.lifetime = 600 * minute;
        config.poll_interval = minute / 6;
        config.sweep_interval = 60 * minute;
        config.recovery_interval = 60 * minute;
    });
    let running = processor.spawn();
    let heard = bench.heard.clone();
    bench.pass_time_until(|| heard.count(MailEventKind::Expired) == 1).await;
    let lived = bench.clock.now().saturating_since(began);
    assert!((600 * minute..601 * minute).contains(&lived), "{lived:?}");
    assert_eq!(bench.count(EntryState::Failed).await, 1, "it is kept");
    let events = bench.heard.events();
    let tries: Vec<_> = events.iter().filter(|e| e.kind == MailEventKind::Deferred).collect();
    assert_eq!(tries[1].attempt, 2);
    let first_wait = tries[1].time.saturating_since(tries[0].time);
    assert!((24..=46).contains(&first_wait.as_secs()), "{first_wait:?}");
    assert!((14..22).contains(&tries.len()), "at last about once an hour: {}", tries.len());
    assert_eq!(*bench.heard.kinds_of(id).last().unwrap(), MailEventKind::Expired);
    running.stop();
    running.join().await.unwrap();
}

#[tokio::test]
async fn a_message_expires_when_it_says_so() {
    let bench = Bench::new();
    let expires = bench.clock.now().saturating_add(Duration::from_secs(600));
    let id = bench.queue_with(&["a@example.net"], |options| options.expires = Some(expires)).await;
    bench.mailer.always(Answer::Reply(450, "later"));
    let running = bench.processor().spawn();
    let heard = bench.heard.clone();
    bench.pass_time_until(|| heard.count(MailEventKind::Expired) == 1).await;
    let late = bench.clock.now().saturating_since(expires);
    assert!(late < Duration::from_secs(5), "{late:?} after its time");
    running.stop();
    running.join().await.unwrap();
    assert_eq!(*bench.heard.kinds_of(id).last().unwrap(), MailEventKind::Expired);
}
