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

/// Each end, at every place across the border of the blocks in which a body is written.
// Proves: A-smuggling, I14
#[tokio::test]
async fn across_a_block_border_it_is_still_one_mail() {
    const BLOCK: usize = 64 * 1024;
    for end in ENDS {
        let relay = Relay::start(Script::new().lenient_line_ends()).await;
        let header = message("Subject: s\r\n\r\n").as_bytes().len();
        for before in 0..=end.len() + 2 {
            let line = format!("{}\r\n", "y".repeat(62));
            let mut filler = line.repeat(BLOCK / 64);
            filler.truncate(BLOCK - header - before);
            let message = message(format!("Subject: s\r\n\r\n{filler}{end}{SMUGGLED}"));
            let told = relay.send_message(&["a@y.example"], &message).await;
            assert_eq!(told, "accepted", "{end:?}, {before} bytes before the border");
            let messages = relay.server.messages();
            let received = messages.last().unwrap();
            assert_eq!(messages.len(), before + 1, "{end:?}, {before} bytes before the border");
            assert_eq!(received.recipients, ["a@y.example"], "{end:?}");
            assert!(received.bytes == message.as_bytes(), "{end:?}, {before}");
        }
    }
}

/// Whatever stands in an address: what is taken into an envelope makes one command of one line.
mod any_address {
    use proptest::prelude::*;
    use sendmail_core::{Envelope, Mailer};

    use super::*;

    struct Quiet;

    #[async_trait::async_trait]
    impl sendmail_core::Handover for Quiet {
        async fn before_handover(&self) -> sendmail_core::Result<()> {
            Ok(())
        }
    }

    fn address() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            4 => Just("a"),
            2 => Just("@y.example"),
            1 => Just("\r\nRCPT TO:<evil@x.example>"),
            1 => Just("\nDATA"),
            1 => Just("\r"),
            1 => Just("\0"),
            1 => Just(">"),
            1 => Just("<"),
            1 => Just("> BODY=8BITMIME <"),
            1 => Just(" "),
            1 => Just("\""),
            1 => Just("\u{2028}"),
            1 => Just("\u{a}\u{85}"),
        ];
        prop_oneof![
            1 => proptest::collection::vec(piece, 1..6).prop_map(|pieces| pieces.concat()),
            2 => "[a-zA-Z0-9!#$%&'*+/=?^_`{|}~.\"<> \\\\-]{1,20}@y\\.example",
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        // Proves: A-injection, A-envelope
        #[test]
        fn makes_one_command(from in address(), to in address()) {
            let Ok(envelope) = Envelope::parse(&from, [to.as_str()]) else { return Ok(()) };
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let relay = Relay::start(Script::new()).await;
                let sent = relay.mailer.send(&envelope, &message("Subject: s\n\nx\n"), &Quiet).await;
                let Ok(_) = sent else { return };
                for session in relay.server.sessions() {
                    let verbs = session.verbs();
                    let whole = ["EHLO", "MAIL", "RCPT", "DATA"];
                    assert!(verbs.len() <= 4 && verbs == whole[..verbs.len()], "{verbs:?}");
                }
                for received in relay.server.messages() {
                    assert_eq!(received.recipients, [to.as_str()]);
                    assert_eq!(received.reverse_path, from);
                }
            });
        }
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
