//! Connections that are kept between messages.

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::Mailer;
use sendmail_testkit::smtp::{At, Do, Gate, Script};

use crate::support::Relay;

#[tokio::test]
async fn one_connection_serves_many_messages() {
    let relay = Relay::start(Script::new()).await;
    for _ in 0..10 {
        assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    }
    assert_eq!(relay.server.connections(), 1);
    assert!(!relay.lines().iter().any(|line| line == "RSET" || line == "NOOP"));
}

#[tokio::test]
async fn there_are_never_more_connections_than_configured() {
    let gate = Gate::new();
    let script = Script::new().on(At::Dot, Do::Wait(gate.clone(), Box::new(Do::reply("250 ok"))));
    let relay = Arc::new(Relay::configured(script, |c| c.with_max_connections(3)).await);
    let sends: Vec<_> = (0..12)
        .map(|_| {
            let relay = relay.clone();
            tokio::spawn(async move { relay.send(&["a@y.example"]).await })
        })
        .collect();
    while relay.server.submitted().len() < 3 {
        tokio::task::yield_now().await;
    }
    gate.open();
    for send in sends {
        assert_eq!(send.await.unwrap(), "accepted");
    }
    assert_eq!(relay.server.connections(), 3);
}

#[tokio::test]
async fn a_connection_found_dead_at_mail_is_not_the_messages_trouble() {
    let faults =
        [Do::Close, Do::reply_and_close("421 4.4.2 idle for too long"), Do::garbage(), Do::Silence];
    for fault in faults {
        for pipelining in [true, false] {
            let mut script = Script::new().on_transaction(2, At::Mail, fault.clone());
            if !pipelining {
                script = script.without("PIPELINING");
            }
            let mut timeouts = sendmail_smtp::Timeouts::default();
            timeouts.mail = Duration::from_secs(2);
            let relay = Relay::timed(script, timeouts).await;
            assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
            assert_eq!(relay.send(&["b@y.example"]).await, "accepted", "{fault:?}");
            assert_eq!(relay.handovers(), 2);
            assert_eq!(relay.server.connections(), 2);
            assert_eq!(relay.server.messages().len(), 2);
        }
    }
}

#[tokio::test]
async fn a_kept_connection_that_breaks_later_is_not_tried_again() {
    for (at, outcome) in [(At::Data, "deferred"), (At::Dot, "unknown")] {
        let script = Script::new().on_transaction(2, at, Do::Close);
        let relay = Relay::start(script).await;
        assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
        assert_eq!(relay.send(&["b@y.example"]).await, outcome);
        assert_eq!(relay.server.connections(), 1);
        assert_eq!(relay.send(&["c@y.example"]).await, "accepted");
    }
}

#[tokio::test]
async fn a_connection_that_is_too_old_is_not_used() {
    let relay = Relay::configured(Script::new(), |c| c.with_max_idle(Duration::ZERO)).await;
    for _ in 0..3 {
        assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    }
    assert_eq!(relay.server.connections(), 3);
}

#[tokio::test]
async fn close_says_quit_and_the_next_message_connects_anew() {
    let relay = Relay::start(Script::new()).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    relay.mailer.close().await;
    relay.server.wait_for_command("QUIT").await;
    relay.server.wait_for_ended(1).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    assert_eq!(relay.server.connections(), 2);
}

#[tokio::test]
async fn a_probe_leaves_its_connection_to_the_next_message() {
    let relay = Relay::start(Script::new()).await;
    relay.mailer.probe().await.unwrap();
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    assert_eq!(relay.server.connections(), 1);
}

#[tokio::test]
async fn a_connection_that_has_aged_is_not_used() {
    let relay = Relay::start(Script::new()).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(61)).await;
    tokio::time::resume();
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    assert_eq!(relay.server.connections(), 2);
}

#[tokio::test]
async fn what_a_relay_says_while_idle_answers_no_later_command() {
    let gate = Gate::new();
    let late = Do::Wait(gate.clone(), Box::new(Do::reply_and_close("250 2.0.0 as you like")));
    let script = Script::new().on_session(
        1,
        At::Dot,
        Do::Sequence(vec![Do::reply("250 2.0.0 taken"), late]),
    );
    let relay = Relay::start(script).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    gate.open();
    relay.server.wait_for_ended(1).await;
    assert_eq!(relay.send(&["b@y.example"]).await, "accepted");
    assert_eq!(relay.server.connections(), 2);
}

#[tokio::test]
async fn a_relay_that_says_421_and_stays_is_left_all_the_same() {
    for at in [At::Mail, At::Rcpt(1), At::Data, At::Dot] {
        let script = Script::new().on_session(1, at.clone(), Do::reply("421 4.3.2 leaving"));
        let relay = Relay::start(script).await;
        assert_ne!(relay.send(&["a@y.example"]).await, "accepted", "{at:?}");
        relay.server.wait_for_ended(1).await;
        assert_eq!(relay.send(&["a@y.example"]).await, "accepted", "{at:?}");
        assert_eq!(relay.server.connections(), 2, "{at:?}");
    }
}

#[tokio::test]
async fn a_connection_found_dead_at_rset_is_not_the_messages_trouble() {
    for fault in [Do::Close, Do::reply_and_close("421 4.4.2 idle"), Do::reply("502 5.5.1 what")] {
        for pipelining in [true, false] {
            let mut script = Script::new()
                .on_transaction(1, At::AnyRcpt, Do::reply("550 5.1.1 no"))
                .on_session(1, At::Rset, fault.clone());
            if !pipelining {
                script = script.without("PIPELINING");
            }
            let relay = Relay::start(script).await;
            assert_eq!(relay.send(&["a@y.example"]).await, "refused");
            assert_eq!(relay.send(&["b@y.example"]).await, "accepted", "{fault:?}");
            assert_eq!(relay.server.connections(), 2);
            assert_eq!(relay.only_message().session, 2, "and nothing came of the first");
        }
    }
}
