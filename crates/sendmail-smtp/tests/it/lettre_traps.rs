//! The traps of the library below, each by name: none may be ours.

use sendmail_smtp::Timeouts;
use sendmail_testkit::smtp::{At, Do, Script};

use crate::support::{Relay, SHORT, message};

async fn reply_to_dot(bytes: &[u8]) -> String {
    let script = Script::new().on(At::Dot, Do::Send(bytes.to_vec()));
    Relay::start(script).await.send(&["a@y.example"]).await
}

#[tokio::test]
async fn one_refused_recipient_does_not_end_the_message() {
    let script = Script::new().on(At::Rcpt(1), Do::reply("550 5.1.1 no"));
    let relay = Relay::start(script).await;
    assert_eq!(relay.send(&["a@y.example", "b@y.example"]).await, "refused accepted");
    assert_eq!(relay.only_message().recipients, ["b@y.example"]);
}

#[tokio::test]
async fn pipelining_is_used_where_offered_and_only_there() {
    let relay = Relay::start(Script::new()).await;
    relay.send(&["a@y.example", "b@y.example"]).await;
    assert!(relay.server.sessions()[0].is_pipelined());
    let relay = Relay::start(Script::new().without("PIPELINING")).await;
    relay.send(&["a@y.example", "b@y.example"]).await;
    let session = &relay.server.sessions()[0];
    assert!(!session.is_pipelined());
    let reads: Vec<_> = session.commands.iter().map(|command| command.read).collect();
    assert!(reads.windows(2).all(|pair| pair[0] < pair[1]), "each in a read of its own: {reads:?}");
}

#[tokio::test]
async fn size_is_said_where_offered() {
    let relay = Relay::start(Script::new()).await;
    relay.send(&["a@y.example"]).await;
    let received = relay.only_message();
    assert!(
        received.mail.contains(&format!(" SIZE={}", received.bytes.len())),
        "{}",
        received.mail
    );
}

#[tokio::test]
async fn helo_is_said_to_a_relay_that_does_not_know_ehlo() {
    for refusal in ["500 what", "502 5.5.1 not implemented", "550 no"] {
        let script = Script::new().on(At::Ehlo, Do::reply(refusal));
        let relay = Relay::start(script).await;
        assert_eq!(relay.send(&["a@y.example"]).await, "accepted", "{refusal}");
        assert!(!relay.only_message().mail.contains("SIZE"), "nothing was offered");
        assert_eq!(relay.server.sessions()[0].verbs()[..2], ["EHLO", "HELO"]);
    }
}

#[tokio::test]
async fn the_time_after_connecting_is_bounded() {
    let timeouts = Timeouts::all(SHORT);
    let relay = Relay::timed(Script::new().on(At::Ehlo, Do::Silence), timeouts).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "error: timed out, temporary");
}

#[tokio::test]
async fn a_relay_that_closed_an_idle_connection_costs_nothing() {
    let script = Script::new().on_session(1, At::Dot, Do::reply_and_close("250 2.0.0 ok"));
    let relay = Relay::start(script).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    assert_eq!(relay.server.connections(), 2);
}

#[tokio::test]
async fn a_line_of_ehlo_that_is_one_space_does_not_panic() {
    let ehlo = b"250-scripted.example\r\n250- \r\n250-\r\n250-PIPELINING\r\n250 \r\n".to_vec();
    let relay = Relay::start(Script::new().on(At::Ehlo, Do::Send(ehlo))).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    assert!(relay.server.sessions()[0].is_pipelined());
}

#[tokio::test]
async fn a_250_without_text_is_a_250() {
    for bytes in [&b"250\r\n"[..], b"250 \r\n", b"250-\r\n250\r\n", b"250\n"] {
        assert_eq!(reply_to_dot(bytes).await, "accepted", "{bytes:?}");
    }
}

#[tokio::test]
async fn a_250_in_latin_1_is_a_250() {
    assert_eq!(reply_to_dot(b"250 re\xe7u, merci \xe0 vous\r\n").await, "accepted");
}

#[tokio::test]
async fn any_second_and_third_digit_count_by_the_first() {
    for (code, outcome) in [
        (259, "accepted"),
        (288, "accepted"),
        (571, "refused"),
        (499, "deferred"),
        (599, "refused"),
    ] {
        assert_eq!(reply_to_dot(format!("{code} x\r\n").as_bytes()).await, outcome, "{code}");
    }
}

#[tokio::test]
async fn the_reply_is_told_as_it_was_sent() {
    let script = Script::new().on(At::Rcpt(1), Do::reply("571 5.7.1 Delivery not authorized"));
    let relay = Relay::start(script).await;
    let envelope = crate::support::envelope(&["a@y.example"]);
    let report = relay.try_send(&envelope, &message("A: b\n\nx\n")).await.unwrap();
    let reply = report.outcomes()[0].1.reply().to_string();
    assert_eq!(reply, "571 5.7.1 Delivery not authorized");
}

#[tokio::test]
async fn a_354_as_the_last_reply_is_no_success() {
    assert_eq!(reply_to_dot(b"354 go on\r\n").await, "unknown");
}

#[tokio::test]
async fn ehlo_keywords_count_in_any_case() {
    let script = Script::new().capabilities(["pipelining", "8BitMime", "SmtpUtf8", "size 100000"]);
    let relay = Relay::start(script).await;
    let utf8 = message("Subject: ü\n\nü\n".as_bytes());
    assert_eq!(relay.send_message(&["jörg@y.example"], &utf8).await, "accepted");
    assert!(relay.server.sessions()[0].is_pipelined());
    let mail = relay.only_message().mail;
    assert!(mail.contains(" SIZE=") && mail.ends_with(" BODY=8BITMIME SMTPUTF8"), "{mail}");
}

#[tokio::test]
async fn a_body_gets_no_line_more_and_every_leading_dot_back() {
    let relay = Relay::start(Script::new()).await;
    for body in ["", "x\r\n", ".\r\n", "..\r\n\r\n", ".x\r\n.\r\n\r\n\r\n"] {
        let message = message(format!("Subject: s\r\n\r\n{body}"));
        assert_eq!(relay.send_message(&["a@y.example"], &message).await, "accepted");
        assert_eq!(relay.server.messages().last().unwrap().bytes, message.as_bytes(), "{body:?}");
    }
}

#[tokio::test]
async fn the_last_block_and_the_dot_leave_in_one_piece() {
    let relay = Relay::start(Script::new()).await;
    relay.send(&["a@y.example"]).await;
    relay.send(&["a@y.example"]).await;
    // One read for EHLO, then one for the commands and one for the body of each message.
    let session = &relay.server.sessions()[0];
    let last = session.commands.last().unwrap();
    assert_eq!((last.line.as_str(), last.read), ("DATA", 4), "{:?}", session.commands);
}
