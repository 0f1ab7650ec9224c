//! Recipients that are too many, messages for nobody, and what else a transaction can turn into.

use async_trait::async_trait;
use sendmail_core::{Error, ErrorKind, Handover, Mailer, Result};
use sendmail_testkit::smtp::{At, Do, Gate, Script};

use crate::support::{Relay, envelope, message, words};

const THREE: [&str; 3] = ["a@y.example", "b@y.example", "c@y.example"];

#[tokio::test]
async fn too_many_recipients_are_sent_to_in_further_transactions() {
    for (code, pipelining) in [("452 4.5.3", true), ("552 too many", true), ("452", false)] {
        let full = || Do::reply(code);
        let mut script = Script::new()
            .on_transaction(1, At::Rcpt(2), full())
            .on_transaction(1, At::Rcpt(3), full())
            .on_transaction(2, At::Rcpt(2), full());
        if !pipelining {
            script = script.without("PIPELINING");
        }
        let relay = Relay::start(script).await;
        assert_eq!(relay.send(&THREE).await, "accepted accepted accepted", "{code}");
        let recipients: Vec<_> =
            relay.server.messages().into_iter().flat_map(|message| message.recipients).collect();
        assert_eq!(recipients, THREE, "each once, in three transactions");
        assert_eq!(relay.handovers(), 1, "announced once, however many transactions it takes");
        assert_eq!(relay.server.connections(), 1);
    }
}

#[tokio::test]
async fn a_lost_further_transaction_leaves_the_first_ones_result() {
    for (at, outcome) in [(At::Mail, "deferred"), (At::Data, "deferred"), (At::Dot, "unknown")] {
        let script = Script::new()
            .on_transaction(1, At::Rcpt(2), Do::reply("452 4.5.3 too many"))
            .on_transaction(2, at, Do::Close);
        let relay = Relay::start(script).await;
        assert_eq!(relay.send(&THREE[..2]).await, format!("accepted {outcome}"));
        assert_eq!(relay.handovers(), 1);
    }
}

#[tokio::test]
async fn a_452_for_the_first_recipient_is_a_452() {
    let script = Script::new().on(At::AnyRcpt, Do::reply("452 4.3.1 no space"));
    assert_eq!(Relay::start(script).await.send(&THREE).await, "deferred deferred deferred");
}

/// A message to one recipient cannot be sent in parts, so that waiting would help nobody.
// Proves: S-too-many
#[tokio::test]
async fn too_many_for_the_only_recipient_is_as_final_as_its_code() {
    for (code, outcome) in [
        ("452 4.5.3 too many", "deferred"),
        ("552 too many", "deferred"),
        ("550 5.5.3 too many", "refused"),
    ] {
        let script = Script::new().on(At::AnyRcpt, Do::reply(code));
        assert_eq!(Relay::start(script).await.send(&THREE[..1]).await, outcome, "{code}");
    }
}

#[tokio::test]
async fn a_354_for_nobody_is_answered_with_a_lone_dot_and_nobody_is_accepted() {
    for reply in ["250 2.0.0 taken", "554 no valid recipients"] {
        let script = Script::new()
            .on_transaction(1, At::AnyRcpt, Do::reply("550 5.1.1 no"))
            .on_transaction(1, At::Data, Do::reply("354 go"))
            .on_transaction(1, At::Dot, Do::reply(reply));
        let relay = Relay::start(script).await;
        assert_eq!(relay.send(&THREE[..2]).await, "refused refused");
        assert_eq!(relay.server.submitted()[0].bytes, b"", "not a byte of the message");
        assert_eq!(relay.handovers(), 0);
        assert_eq!(relay.send(&THREE[..1]).await, "accepted", "on the same connection");
        assert_eq!(relay.server.connections(), 1);
        assert!(!relay.lines().contains(&"RSET".to_owned()), "the dot ended the transaction");
    }
}

#[tokio::test]
async fn a_354_after_a_refused_mail_is_answered_with_a_lone_dot_too() {
    let script = Script::new()
        .on_transaction(1, At::Mail, Do::reply("550 5.7.1 no"))
        .on_transaction(1, At::Data, Do::reply("354 go"));
    let relay = Relay::start(script).await;
    assert_eq!(relay.send(&THREE[..2]).await, "refused refused");
    assert_eq!(relay.server.submitted()[0].bytes, b"");
    assert_eq!(relay.send(&THREE[..1]).await, "accepted");
}

#[tokio::test]
async fn an_unfinished_transaction_is_reset_before_the_next() {
    for (at, pipelining) in [(At::AnyRcpt, true), (At::Data, true), (At::Data, false)] {
        let mut script = Script::new().on_transaction(1, at, Do::reply("451 4.3.0 later"));
        if !pipelining {
            script = script.without("PIPELINING");
        }
        let relay = Relay::start(script).await;
        assert_eq!(relay.send(&THREE[..1]).await, "deferred");
        assert_eq!(relay.send(&THREE[..1]).await, "accepted");
        assert_eq!(relay.server.connections(), 1);
        let sets = relay.lines().iter().filter(|line| *line == "RSET").count();
        assert_eq!(sets, 1, "once, and only where it is needed");
    }
}

#[tokio::test]
async fn a_reply_before_the_dot_is_the_last_word() {
    let large = message(format!("Subject: large\n\n{}", "a line of the body\n".repeat(200_000)));
    for (reply, outcome) in [
        (Do::reply_and_close("552 5.3.4 too big"), "refused"),
        (Do::reply_and_close("451 4.3.0 full"), "deferred"),
        (Do::reply_and_close("421 4.3.2 leaving"), "deferred"),
        (Do::reply("250 2.0.0 taken, says who"), "deferred"),
        (Do::garbage(), "deferred"),
        (Do::Close, "deferred"),
    ] {
        let script = Script::new().on_transaction(1, At::Body(100_000), reply.clone());
        let relay = Relay::start(script).await;
        let found = relay.send_message(&THREE[..1], &large).await;
        // When the relay hangs up over unread data its reply may be lost on the way.
        assert!(found == outcome || found == "deferred", "{reply:?}: {found}");
        assert_eq!(relay.handovers(), 0, "{reply:?}");
        assert_eq!(relay.server.submitted(), []);
        assert_eq!(relay.send(&THREE[..1]).await, "accepted");
    }
}

#[tokio::test]
async fn a_250_that_comes_along_with_the_354_is_not_believed() {
    let script = Script::new().on(At::Data, Do::Send(b"354 go\r\n250 2.0.0 taken\r\n".to_vec()));
    let relay = Relay::start(script).await;
    assert_eq!(relay.send(&THREE[..1]).await, "deferred");
    assert_eq!((relay.handovers(), relay.server.submitted().len()), (0, 0));
}

#[tokio::test]
async fn a_reply_too_many_does_not_answer_the_next_message() {
    let twice = Do::Send(b"250 2.0.0 taken\r\n250 2.0.0 and again\r\n".to_vec());
    let script = Script::new().on_transaction(1, At::Dot, twice).on_transaction(
        2,
        At::Mail,
        Do::reply("550 5.7.1 no"),
    );
    let relay = Relay::start(script).await;
    assert_eq!(relay.send(&THREE[..1]).await, "accepted");
    assert_eq!(relay.send(&THREE[..1]).await, "refused");
}

struct Refusing;

#[async_trait]
impl Handover for Refusing {
    async fn before_handover(&self) -> Result<()> {
        Err(Error::new(ErrorKind::Io, "write the journal", "no space left"))
    }
}

#[tokio::test]
async fn a_refused_handover_sends_no_dot_and_keeps_refusals() {
    let script = Script::new().on(At::Rcpt(1), Do::reply("550 5.1.1 no"));
    let relay = Relay::start(script).await;
    let report =
        relay.mailer.send(&envelope(&THREE), &message("A: b\n\nx\n"), &Refusing).await.unwrap();
    assert_eq!(words(&report), "refused deferred deferred");
    let reply = report.outcomes()[1].1.reply().to_string();
    assert!(reply.contains("no space left"), "it says why: {reply}");
    relay.server.wait_for_ended(1).await;
    assert_eq!(relay.server.submitted(), []);
}

struct Waiting(Gate, Gate);

#[async_trait]
impl Handover for Waiting {
    async fn before_handover(&self) -> Result<()> {
        self.0.open();
        self.1.opened().await;
        Ok(())
    }
}

// Proves: Q-handover
#[tokio::test]
async fn the_dot_waits_for_the_handover() {
    let relay = Relay::start(Script::new()).await;
    let waiting = Waiting(Gate::new(), Gate::new());
    let (envelope, message) = (envelope(&THREE), message("A: b\n\nx\n"));
    let send = relay.mailer.send(&envelope, &message, &waiting);
    let look = async {
        waiting.0.opened().await;
        // The 354 has been read by now; no dot can be on its way.
        assert!(relay.lines().contains(&"DATA".to_owned()));
        assert_eq!(relay.server.submitted(), []);
        waiting.1.open();
    };
    let (report, ()) = tokio::join!(send, look);
    assert_eq!(words(&report.unwrap()), "accepted accepted accepted");
}

#[tokio::test]
async fn a_relay_that_wants_authentication_is_the_relays_trouble() {
    for reply in ["530 5.7.0 Authentication required", "530 5.7.0 Must issue STARTTLS first"] {
        let relay = Relay::start(Script::new().on(At::Mail, Do::reply(reply))).await;
        assert_eq!(relay.send(&THREE).await, "error: authentication failed");
    }
}

/// Answers the handover only after the relay has left.
struct Slow<'a>(&'a Relay, Gate);

#[async_trait]
impl Handover for Slow<'_> {
    async fn before_handover(&self) -> Result<()> {
        self.1.open();
        self.0.server.wait_for_ended(1).await;
        Ok(())
    }
}

#[tokio::test]
async fn a_relay_that_left_during_the_handover_leaves_no_doubt() {
    for last in [Do::reply_and_close("421 4.4.2 too slow"), Do::Close] {
        let gate = Gate::new();
        let later = Do::Wait(gate.clone(), Box::new(last));
        let script = Script::new().on(At::Data, Do::Sequence(vec![Do::reply("354 go"), later]));
        let relay = Relay::start(script).await;
        let slow = Slow(&relay, gate);
        let sent = relay.mailer.send(&envelope(&THREE), &message("A: b\n\nx\n"), &slow).await;
        assert_eq!(words(&sent.unwrap()), "deferred deferred deferred", "no dot was sent");
    }
}
