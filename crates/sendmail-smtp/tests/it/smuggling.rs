//! SMTP smuggling: a receiver that takes other things than CRLF for the end of a line sees one mail.

use sendmail_testkit::smtp::Script;

use crate::support::{Relay, message};

const SMUGGLED: &str = "MAIL FROM:<evil@x.example>\r\nRCPT TO:<victim@y.example>\r\nDATA\r\nSubject: smuggled\r\n\r\nevil\r\n";

/// Every way in which somebody was seen to take a lone dot for the end.
const ENDS: [&str; 12] = [
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
