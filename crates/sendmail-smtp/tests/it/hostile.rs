//! A relay that says anything at any time: no panic, no made-up success, no unannounced handover.

use proptest::prelude::*;
use sendmail_testkit::smtp::{At, Do, Script};

use crate::support::{Relay, envelope, message, words};

const TWO: [&str; 2] = ["a@y.example", "b@y.example"];

fn moment() -> impl Strategy<Value = At> {
    prop_oneof![
        Just(At::Greeting),
        Just(At::Ehlo),
        Just(At::Mail),
        Just(At::Rcpt(1)),
        Just(At::Rcpt(2)),
        Just(At::Data),
        Just(At::Dot),
    ]
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![
        Just(b'2'),
        Just(b'3'),
        Just(b'4'),
        Just(b'5'),
        Just(b'0'),
        Just(b' '),
        Just(b'-'),
        Just(b'\r'),
        Just(b'\n'),
        any::<u8>(),
    ];
    proptest::collection::vec(byte, 0..60)
}

fn action() -> impl Strategy<Value = Do> {
    prop_oneof![
        4 => (200u16..600).prop_map(|code| Do::reply(&format!("{code} x"))),
        2 => (200u16..600).prop_map(|code| Do::reply_and_close(&format!("{code}"))),
        2 => (200u16..600, 200u16..600).prop_map(|(a, b)| Do::reply(&format!("{a} x\n{b} y"))),
        2 => bytes().prop_map(Do::SendAndClose),
        1 => Just(Do::Close),
    ]
}

async fn check(script: Script) {
    let mut timeouts = sendmail_smtp::Timeouts::default();
    // A relay that still owes a reply says nothing more: only this bounds the case.
    timeouts.message = std::time::Duration::from_millis(400);
    let relay = Relay::timed(script, timeouts).await;
    let sent = relay.try_send(&envelope(&TWO), &message("Subject: s\n\nHello.\n")).await;
    let submitted = relay.server.submitted();
    let with_body: Vec<_> = submitted.iter().filter(|message| !message.bytes.is_empty()).collect();
    let Ok(report) = sent else {
        assert_eq!(
            (relay.handovers(), submitted.len()),
            (0, 0),
            "an error means: nobody was tried"
        );
        return;
    };
    let words = words(&report);
    for (recipient, word) in TWO.iter().zip(words.split(' ')) {
        let taken =
            with_body.iter().any(|message| message.recipients.iter().any(|r| r == recipient));
        if word == "accepted" {
            assert!(taken, "{recipient} was not sent to: {words}");
        }
        if matches!(word, "accepted" | "unknown") {
            assert_eq!(relay.handovers(), 1, "{words}");
        }
    }
    assert!(relay.handovers() >= with_body.len().min(1), "a dot that was not announced: {words}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn whatever_a_relay_says_each_recipient_gets_one_honest_outcome(
        rules in proptest::collection::vec((moment(), action()), 1..4),
        pipelining: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut script = Script::new();
        if !pipelining {
            script = script.without("PIPELINING");
        }
        for (at, action) in rules {
            script = script.on(at, action);
        }
        runtime.block_on(check(script));
    }
}
