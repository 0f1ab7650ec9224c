//! 8BITMIME, SMTPUTF8, SIZE: used if needed and offered, a clear refusal if needed and not offered.

use sendmail_core::{Envelope, Outcome};
use sendmail_testkit::smtp::Script;

use crate::support::{Relay, message, words};

const PLAIN: &str = "Message-ID: <a@b>\nDate: d\n\nplain\n";

async fn one_refusal(script: Script, recipients: &[&str], raw: &[u8]) -> String {
    let relay = Relay::start(script).await;
    let envelope = Envelope::parse("from@x.example", recipients).unwrap();
    let report = relay.try_send(&envelope, &message(raw)).await.unwrap();
    assert_eq!(relay.server.submitted(), []);
    assert_eq!(relay.handovers(), 0);
    match &report.outcomes()[0].1 {
        Outcome::Refused(reply) => reply.to_string(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn plain_mail_asks_for_nothing() {
    let relay = Relay::start(Script::new()).await;
    assert_eq!(relay.send_message(&["a@y.example"], &message(PLAIN)).await, "accepted");
    assert_eq!(relay.only_message().mail, "MAIL FROM:<from@x.example> SIZE=37");
}

// Proves: B-8bit
#[tokio::test]
async fn an_8bit_body_needs_8bitmime() {
    let raw = b"Message-ID: <a@b>\nDate: d\n\n\xe9\xff\n";
    let relay = Relay::start(Script::new().without("SMTPUTF8")).await;
    assert_eq!(relay.send_message(&["a@y.example"], &message(raw)).await, "accepted");
    let received = relay.only_message();
    assert!(received.mail.ends_with(" BODY=8BITMIME"), "{}", received.mail);
    assert!(received.bytes.ends_with(b"\xe9\xff\r\n"));
    let script = Script::new().without("8BITMIME");
    let refusal = one_refusal(script, &["a@y.example"], raw).await;
    assert!(refusal.starts_with("554 5.6.3 ") && refusal.contains("8BITMIME"), "{refusal}");
}

// Proves: B-8bit, B-long-lines
#[tokio::test]
async fn an_8bit_header_needs_smtputf8() {
    let script = Script::new().without("SMTPUTF8");
    let refusal = one_refusal(script, &["a@y.example"], "Subject: ü\n\nx\n".as_bytes()).await;
    assert!(refusal.starts_with("554 5.6.7 ") && refusal.contains("SMTPUTF8"), "{refusal}");
}

// Proves: B-utf8-local
#[tokio::test]
async fn a_local_part_beyond_ascii_fails_alone() {
    let relay = Relay::start(Script::new().without("SMTPUTF8")).await;
    let recipients = ["jörg@y.example", "a@y.example"];
    assert_eq!(relay.send_message(&recipients, &message(PLAIN)).await, "refused accepted");
    assert_eq!(relay.only_message().recipients, ["a@y.example"]);
    let relay = Relay::start(Script::new()).await;
    assert_eq!(relay.send_message(&recipients, &message(PLAIN)).await, "accepted accepted");
    let received = relay.only_message();
    assert!(received.mail.ends_with(" SMTPUTF8"), "{}", received.mail);
    assert_eq!(received.recipients, recipients);
}

// Proves: B-utf8-local
#[tokio::test]
async fn a_domain_beyond_ascii_goes_as_a_labels() {
    for script in [Script::new(), Script::new().without("SMTPUTF8")] {
        let relay = Relay::start(script).await;
        let envelope = Envelope::parse("from@bücher.example", ["a@münchen.example"]).unwrap();
        let report = relay.try_send(&envelope, &message(PLAIN)).await.unwrap();
        assert_eq!(words(&report), "accepted");
        assert_eq!(report.outcomes()[0].0.as_str(), "a@münchen.example", "the report keeps it");
        let received = relay.only_message();
        assert_eq!(received.reverse_path, "from@xn--bcher-kva.example");
        assert_eq!(received.recipients, ["a@xn--mnchen-3ya.example"]);
    }
}

// Proves: B-lengths
#[tokio::test]
async fn a_message_over_the_relays_size_is_refused_with_both_numbers() {
    let script = Script::new().without("SIZE").with("SIZE 30");
    let refusal = one_refusal(script, &["a@y.example"], PLAIN.as_bytes()).await;
    assert!(refusal.starts_with("552 5.3.4 "), "{refusal}");
    assert!(refusal.contains("37") && refusal.contains("30"), "{refusal}");
    let relay = Relay::start(Script::new().without("SIZE").with("SIZE 37")).await;
    assert_eq!(relay.send_message(&["a@y.example"], &message(PLAIN)).await, "accepted");
}

#[tokio::test]
async fn the_name_for_ehlo_is_as_configured_or_a_literal() {
    let relay = Relay::start(Script::new()).await;
    relay.send(&["a@y.example"]).await;
    assert_eq!(relay.lines()[0], "EHLO [127.0.0.1]");
    let relay = Relay::at(Script::new(), "?hello=shop.example.org", |config| config).await;
    relay.send(&["a@y.example"]).await;
    assert_eq!(relay.lines()[0], "EHLO shop.example.org");
}
