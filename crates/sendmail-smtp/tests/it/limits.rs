//! Time and space that a hostile relay can cost.

use std::time::Duration;

use sendmail_smtp::Timeouts;
use sendmail_testkit::smtp::{At, Do, Script};

use crate::support::{Relay, SHORT, message};

// Proves: A-endless, S-dot-silence
#[tokio::test]
async fn the_whole_message_has_a_deadline_of_its_own() {
    // Each step has minutes, all of them together do not.
    for (at, expected) in [
        (At::Greeting, "error: timed out, temporary"),
        (At::Mail, "deferred"),
        (At::Data, "deferred"),
        (At::Dot, "unknown"),
    ] {
        let mut timeouts = Timeouts::default();
        timeouts.message = Duration::from_millis(500);
        let relay = Relay::timed(Script::new().on(at.clone(), Do::Silence), timeouts).await;
        let sending = tokio::time::timeout(Duration::from_secs(60), relay.send(&["a@y.example"]));
        assert_eq!(sending.await.as_deref(), Ok(expected), "{at:?}");
    }
}

// Proves: A-endless, S-data-silence
#[tokio::test]
async fn a_relay_that_stops_reading_the_body_is_left() {
    // It says 354 and then waits for nothing: the body fills the buffers of both ends.
    let script = Script::new().on_transaction(
        1,
        At::Body(1),
        Do::Wait(Default::default(), Box::new(Do::Close)),
    );
    let mut timeouts = Timeouts::default();
    timeouts.block = SHORT;
    let relay = Relay::timed(script, timeouts).await;
    let large = message(format!("A: b\n\n{}", "a line of the body\n".repeat(1_500_000)));
    assert_eq!(relay.send_message(&["a@y.example"], &large).await, "deferred");
    assert_eq!(relay.handovers(), 0);
}

#[tokio::test]
async fn a_pipelined_group_that_fills_both_buffers_does_not_lock_up() {
    // Some 3 MB of RCPT commands, and as much of replies.
    let long_reply = format!("250 {}", "x".repeat(400));
    let relay = Relay::start(Script::new().on(At::AnyRcpt, Do::reply(&long_reply))).await;
    let domain = format!("{0}.{0}.{0}.example", "d".repeat(60));
    let recipients: Vec<String> = (0..10_000).map(|n| format!("r{n}@{domain}")).collect();
    let names: Vec<&str> = recipients.iter().map(String::as_str).collect();
    let outcome = relay.send(&names).await;
    assert_eq!(outcome.matches("accepted").count(), 10_000);
}

#[tokio::test]
async fn nobody_listens_is_an_error_at_once() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = sendmail_smtp::SmtpConfig::new("127.0.0.1", port).unwrap();
    let mailer = sendmail_smtp::SmtpMailer::new(config).unwrap();
    let error = sendmail_core::Mailer::probe(&mailer).await.unwrap_err();
    assert_eq!(crate::support::error_words(&error), "error: relay unreachable, temporary");
    let text = error.to_string();
    assert!(text.contains(&format!("smtp://127.0.0.1:{port}")), "{text}");
    assert!(text.contains("is the relay running"), "it says what to look at: {text}");
}
