//! SMTP smuggling: a receiver that takes other things than CRLF for the end of a line sees one mail.

use sendmail_testkit::smtp::Script;

use crate::support::{Relay, message};

const SMUGGLED: &str = "MAIL FROM:<evil@x.example>\r\nRCPT TO:<victim@y.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n";

/// Every way in which somebody was seen to take a lone dot for the end.
const ENDS: [&str; 18] = [
    "\r\r",
    "\r.\r.\r",
    "\n.\n.\r\n",
    "\r\n.\r.\n",
    "\r\n..\r\n.\n",
    "\n\r.\n\r",
    "\n.\n",
    "\n.\r\n",
    "\r\n.\n",
    "\r.\r",
    "\r.\r\n",
    "\r\n.\r",
    "\n.\r",
    "\r.\n",
    "\r\n\x0b.\r\n",
    "\r\n.\r\n",
    "\n\n.\n\n",
    "\r\r\n.\r\r\n",
];

// Proves: A-smuggling, I14
#[tokio::test]
async fn a_lenient_relay_sees_one_mail() {
    for end in ENDS {
        let relay = Relay::start(Script::new().lenient_line_ends()).await;
        let message = message(format!("Subject: s\r\n\r\nbefore{end}{SMUGGLED}"));
        assert_eq!(relay.send_message(&["a@y.example"], &message).await, "accepted", "{end:?}");
        let received = relay.only_message();
        assert_eq!(received.recipients, ["a@y.example"], "{end:?}");
        assert_eq!(received.bytes, message.as_bytes(), "{end:?}");
        assert_eq!(relay.server.sessions()[0].verbs(), ["EHLO", "MAIL", "RCPT", "DATA"], "{end:?}");
    }
}

// Proves: A-smuggling, I14
#[tokio::test]
async fn no_bare_cr_or_lf_goes_on_the_wire() {
    for end in ENDS {
        let relay = Relay::start(Script::new()).await;
        let message = message(format!("Subject: s{end}x\r\n\r\nbefore{end}{SMUGGLED}"));
        assert_eq!(relay.send_message(&["a@y.example"], &message).await, "accepted");
        let raw = relay.server.sessions()[0].raw.clone();
        let text = String::from_utf8(raw).unwrap().replace("\r\n", "");
        assert!(!text.contains(['\r', '\n']), "{end:?}: {text:?}");
    }
}

// Proves: A-smuggling, I14
#[tokio::test]
async fn a_dot_at_a_block_border_is_still_doubled() {
    // Lone dots around every multiple of the size in which a body is written.
    for shift in 0..6 {
        let relay = Relay::start(Script::new().lenient_line_ends()).await;
        let filler = "y".repeat(shift);
        let message = message(format!("Subject: s\n\n{filler}\n{}", ".\n".repeat(70_000)));
        assert_eq!(relay.send_message(&["a@y.example"], &message).await, "accepted");
        assert!(relay.only_message().bytes == message.as_bytes(), "shift {shift}");
    }
}

/// Whatever the body, and wherever its line ends fall in the pieces in which it is written: one mail, and
/// on the wire no bare CR or LF, and no lone dot before the last.
mod any_body {
    use proptest::prelude::*;

    use super::*;

    fn body() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            Just("\r"),
            Just("\n"),
            Just("\r\n"),
            Just("."),
            Just("\n."),
            Just("MAIL FROM:<evil@x.example>\r\n"),
            Just("x"),
        ];
        (0usize..3, proptest::collection::vec(piece, 0..40)).prop_map(|(blocks, pieces)| {
            // Up to about the border of a block of 64 KiB, then what may lie across it.
            let line = format!("{}\r\n", "y".repeat(62));
            let filler = line.repeat(blocks * 1024);
            let cut = filler.len().saturating_sub(20 + pieces.len());
            format!("{}{}", &filler[..cut], pieces.concat())
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(60))]

        // Proves: A-smuggling, I14
        #[test]
        fn is_one_mail(body in body()) {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let relay = Relay::start(Script::new().lenient_line_ends()).await;
                let message = message(format!("Subject: s\r\n\r\n{body}"));
                assert_eq!(relay.send_message(&["a@y.example"], &message).await, "accepted");
                let received = relay.only_message();
                assert!(received.bytes == message.as_bytes());
                assert_eq!(relay.server.sessions()[0].verbs(), ["EHLO", "MAIL", "RCPT", "DATA"]);
                let raw = String::from_utf8(relay.server.sessions()[0].raw.clone()).unwrap();
                assert!(!raw.replace("\r\n", "").contains(['\r', '\n']));
                assert_eq!(raw.matches("\r\n.\r\n").count(), 1, "one lone dot");
            });
        }
    }
}
