//! The cases. Each is named after the property, and says the mistake it is there for.

use std::collections::BTreeSet;
use std::future::Future;
use std::sync::atomic::Ordering;

use sendmail_core::{Envelope, ErrorKind};

use super::support::{
    Answer, FROM, Watch, envelope, expect_usable, join_all, message, message_of, mixed, patiently,
    recipients_of, send, start, try_send, words,
};
use super::{Behaviour, MailerHarness};

/// Mistake: one result for the whole message, or results in the order of the replies.
// Proves: I9
pub async fn one_outcome_per_recipient_in_envelope_order<H: MailerHarness>() {
    let case = "one_outcome_per_recipient_in_envelope_order";
    let Some(harness) = start::<H>(case, mixed()).await else { return };
    let to = ["a@y.example", "later@y.example", "never@y.example", "b@y.example"];
    let outcome = send(&harness, &to, &message("mixed")).await;
    assert_eq!(outcome, "accepted deferred refused accepted");
    assert_eq!(recipients_of(&harness.delivered().await), ["a@y.example", "b@y.example"]);
}

/// Mistake: giving up at the first recipient that is refused.
// Proves: I9
pub async fn a_refused_recipient_stops_nobody_else<H: MailerHarness>() {
    let case = "a_refused_recipient_stops_nobody_else";
    let refused = vec!["never@y.example".to_owned()];
    let behaviour = Behaviour::Except { deferred: Vec::new(), refused };
    let Some(harness) = start::<H>(case, behaviour).await else { return };
    let outcome = send(&harness, &["never@y.example", "a@y.example"], &message("first")).await;
    assert_eq!(outcome, "refused accepted", "the second recipient must be served");
    assert_eq!(recipients_of(&harness.delivered().await), ["a@y.example"]);
}

/// Mistake: taking "not now" for "never", which loses mail, or for success, which loses it in silence.
pub async fn deferred_is_not_refused<H: MailerHarness>() {
    let deferred = vec!["later@y.example".to_owned()];
    let behaviour = Behaviour::Except { deferred, refused: Vec::new() };
    let Some(harness) = start::<H>("deferred_is_not_refused", behaviour).await else { return };
    let outcome = send(&harness, &["later@y.example", "a@y.example"], &message("later")).await;
    assert_eq!(outcome, "deferred accepted");
}

/// Mistake: reporting a refusal of all as an error, which blames the relay and tries for ever.
pub async fn all_refused_is_an_outcome_for_each<H: MailerHarness>() {
    let case = "all_refused_is_an_outcome_for_each";
    let Some(harness) = start::<H>(case, Behaviour::RefuseAll).await else { return };
    let outcome = send(&harness, &["a@y.example", "b@y.example"], &message("no")).await;
    assert_eq!(outcome, "refused refused");
    assert_eq!(harness.delivered().await, [], "nothing may be delivered to nobody");
}

/// Mistake: refusing for good what was deferred for all.
pub async fn all_deferred_is_an_outcome_for_each<H: MailerHarness>() {
    let case = "all_deferred_is_an_outcome_for_each";
    let Some(harness) = start::<H>(case, Behaviour::DeferAll).await else { return };
    let outcome = send(&harness, &["a@y.example", "b@y.example"], &message("later")).await;
    assert_eq!(outcome, "deferred deferred");
    assert_eq!(harness.delivered().await, [], "nothing may be delivered to nobody");
}

/// Mistake: dots that are lost or doubled, an empty line more, changed line ends.
// Proves: I14
pub async fn bytes_arrive_exactly_dots_included<H: MailerHarness>() {
    let case = "bytes_arrive_exactly_dots_included";
    let Some(harness) = start::<H>(case, Behaviour::AcceptAll).await else { return };
    let long = "x".repeat(998);
    let bodies = [
        ".\r\n..\r\n...\r\n.a\r\nb.\r\n",
        "ends with empty lines\r\n\r\n\r\n",
        "ends with a dot\r\n.\r\n",
        "From here\r\n\tand  spaces \r\n",
        &long,
        "",
    ];
    for (count, body) in bodies.iter().enumerate() {
        let message = message_of(format!("Subject: bytes\r\n\r\n{body}").as_bytes());
        assert_eq!(send(&harness, &["a@y.example"], &message).await, "accepted");
        let delivered = harness.delivered().await;
        assert_eq!(delivered.len(), count + 1, "{body:?}");
        let arrived = delivered.iter().any(|one| one.bytes == message.as_bytes());
        assert!(arrived, "{body:?} arrived changed: {delivered:?}");
    }
}

/// Mistake: 8-bit bytes cut to 7, replaced, or sent where they may not go.
pub async fn eight_bit_bytes_arrive_or_are_refused<H: MailerHarness>() {
    let case = "eight_bit_bytes_arrive_or_are_refused";
    let Some(harness) = start::<H>(case, Behaviour::AcceptAll).await else { return };
    let message = message_of(b"Subject: bytes\r\n\r\nLatin \xe9, not UTF-8 \xff\xfe\r\n");
    let outcome = send(&harness, &["a@y.example"], &message).await;
    let delivered = harness.delivered().await;
    if outcome == "refused" {
        assert_eq!(delivered, []);
    } else {
        assert_eq!(outcome, "accepted");
        assert_eq!(delivered[0].bytes, message.as_bytes());
    }
}

/// Mistake: a message that does not fit into one write is cut, or blocks both sides.
pub async fn a_large_message_arrives_whole<H: MailerHarness>() {
    let case = "a_large_message_arrives_whole";
    let Some(harness) = start::<H>(case, Behaviour::AcceptAll).await else { return };
    let lines = ".A line that starts with a dot, as every line of this message does.\r\n";
    let raw = format!("Subject: large\r\n\r\n{}", lines.repeat(30_000));
    let message = message_of(raw.as_bytes());
    assert_eq!(send(&harness, &["a@y.example"], &message).await, "accepted");
    let delivered = harness.delivered().await;
    assert!(delivered[0].bytes == message.as_bytes(), "2 MB did not arrive as they were sent");
}

/// Mistake: a null reverse-path is replaced by a default sender, so that bounces bounce.
pub async fn the_null_reverse_path_stays_null<H: MailerHarness>() {
    let case = "the_null_reverse_path_stays_null";
    let Some(harness) = start::<H>(case, Behaviour::AcceptAll).await else { return };
    let envelope = Envelope::parse("", ["a@y.example"])
        .unwrap_or_else(|error| panic!("the suite's envelope: {error}"));
    let watch = Watch::new(&harness, Answer::Consent);
    let report = try_send(&harness, &envelope, &message("bounce"), &watch).await;
    assert_eq!(report.map(|report| words(&report)).ok().as_deref(), Some("accepted"));
    assert_eq!(harness.delivered().await[0].reverse_path, "");
    assert_eq!(send(&harness, &["b@y.example"], &message("other")).await, "accepted");
    assert!(harness.delivered().await.iter().any(|one| one.reverse_path == FROM));
}

/// Mistake: recipients beyond some number are dropped, or command and reply get out of step.
pub async fn many_recipients_are_all_served<H: MailerHarness>() {
    let case = "many_recipients_are_all_served";
    let Some(harness) = start::<H>(case, Behaviour::AcceptAll).await else { return };
    let to: Vec<String> = (0..500).map(|n| format!("recipient-{n:03}@y.example")).collect();
    let names: Vec<&str> = to.iter().map(String::as_str).collect();
    let outcome = send(&harness, &names, &message("many")).await;
    assert_eq!(outcome, vec!["accepted"; 500].join(" "));
    assert_eq!(recipients_of(&harness.delivered().await), to);
}

/// Mistake: no announcement, one for each recipient, or one after the fact: a crash in between would
/// send the message twice and tell nobody.
// Proves: Q-handover
pub async fn handover_comes_before_the_message_is_out_and_once<H: MailerHarness>() {
    let case = "handover_comes_before_the_message_is_out_and_once";
    let Some(harness) = start::<H>(case, Behaviour::AcceptAll).await else { return };
    for round in 0..3 {
        let watch = Watch::new(&harness, Answer::Consent);
        let envelope = envelope(&["a@y.example", "b@y.example"]);
        let report = try_send(&harness, &envelope, &message("handover"), &watch).await;
        assert!(report.is_ok(), "{report:?}");
        assert_eq!(watch.calls(), 1, "the handover must be announced exactly once");
        let before = watch.delivered_before.load(Ordering::SeqCst);
        assert_eq!(before, round, "the handover must be announced before the message is out");
        assert_eq!(harness.delivered().await.len(), round + 1);
    }
}

/// Mistake: sending although the record could not be written.
// Proves: Q-handover
pub async fn refused_handover_sends_nothing<H: MailerHarness>() {
    let case = "refused_handover_sends_nothing";
    let Some(harness) = start::<H>(case, Behaviour::AcceptAll).await else { return };
    let watch = Watch::new(&harness, Answer::Refuse);
    let envelope = envelope(&["a@y.example", "b@y.example"]);
    match try_send(&harness, &envelope, &message("refused"), &watch).await {
        Ok(report) => assert_eq!(words(&report), "deferred deferred"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Cancelled, "{error}"),
    }
    assert_eq!(watch.calls(), 1, "a refusal is final for this attempt");
    expect_usable(&harness).await;
    assert_eq!(recipients_of(&harness.delivered().await), ["after@y.example"]);
}

/// Mistake: failing or deferring messages because the relay is down, which costs them attempts.
pub async fn unreachable_is_an_error_and_not_an_outcome<H: MailerHarness>() {
    let case = "unreachable_is_an_error_and_not_an_outcome";
    let Some(harness) = start::<H>(case, Behaviour::Unreachable).await else { return };
    let watch = Watch::new(&harness, Answer::Consent);
    let report = try_send(&harness, &envelope(&["a@y.example"]), &message("x"), &watch).await;
    let error = match report {
        Ok(report) => panic!("nobody was attempted, yet there are outcomes: {report:?}"),
        Err(error) => error,
    };
    assert!(error.is_temporary(), "an outage passes: {error:?}");
    assert_eq!(watch.calls(), 0, "what cannot be handed over must not be announced");
}

/// Mistake: calling an attempt ambiguous that cannot have succeeded.
pub async fn unknown_only_after_the_handover<H: MailerHarness>() {
    let case = "unknown_only_after_the_handover";
    let Some(harness) = start::<H>(case, Behaviour::LostOnceBeforeHandover).await else { return };
    let watch = Watch::new(&harness, Answer::Consent);
    let envelope = envelope(&["a@y.example", "b@y.example"]);
    let report = try_send(&harness, &envelope, &message("lost"), &watch).await;
    if let Ok(report) = report {
        assert_eq!(words(&report), "deferred deferred", "nobody can have got it");
    }
    assert_eq!(watch.calls(), 0, "it never came to the handover");
    assert_eq!(harness.delivered().await, []);
    expect_usable(&harness).await;
}

/// Mistake: calling it failed, deferred or accepted, when nobody can know.
pub async fn lost_after_the_handover_is_unknown<H: MailerHarness>() {
    let case = "lost_after_the_handover_is_unknown";
    let Some(harness) = start::<H>(case, Behaviour::LostOnceAfterHandover).await else { return };
    let watch = Watch::new(&harness, Answer::Consent);
    let envelope = envelope(&["a@y.example", "b@y.example"]);
    let report = try_send(&harness, &envelope, &message("lost"), &watch).await;
    let report = report.unwrap_or_else(|error| panic!("it was attempted: {error}"));
    assert_eq!(words(&report), "unknown unknown");
    assert_eq!(watch.calls(), 1, "the message must not be handed over again by the mailer itself");
    expect_usable(&harness).await;
}

/// Mistake: a connection that broke wedges the mailer for every later message.
pub async fn usable_after_a_broken_connection<H: MailerHarness>() {
    let case = "usable_after_a_broken_connection";
    for behaviour in [Behaviour::LostOnceBeforeHandover, Behaviour::LostOnceAfterHandover] {
        let Some(harness) = start::<H>(case, behaviour).await else { continue };
        let watch = Watch::new(&harness, Answer::Consent);
        let lost = try_send(&harness, &envelope(&["a@y.example"]), &message("lost"), &watch).await;
        drop(lost);
        expect_usable(&harness).await;
        expect_usable(&harness).await;
    }
}

/// Mistake: a kept connection that the other end has closed fails the next message.
pub async fn usable_after_the_other_end_left<H: MailerHarness>() {
    let case = "usable_after_the_other_end_left";
    let Some(harness) = start::<H>(case, Behaviour::LeavesAfterEach).await else { return };
    for _ in 0..5 {
        expect_usable(&harness).await;
    }
}

/// Mistake: a future that was dropped half-way takes a lock, a place or a connection with it.
pub async fn usable_after_a_dropped_future<H: MailerHarness>() {
    let case = "usable_after_a_dropped_future";
    let Some(harness) = start::<H>(case, Behaviour::AcceptAll).await else { return };
    // More often than any mailer has connections.
    for _ in 0..40 {
        let watch = Watch::new(&harness, Answer::Never);
        let mailer = harness.mailer();
        let (envelope, message) = (envelope(&["dropped@y.example"]), message("dropped"));
        let send = mailer.send(&envelope, &message, &watch);
        let announced = async {
            while watch.calls() == 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            report = send => panic!("the handover has not answered, and yet: {report:?}"),
            () = patiently("the handover", announced) => {}
        }
    }
    expect_usable(&harness).await;
    let delivered = recipients_of(&harness.delivered().await);
    assert_eq!(delivered, ["after@y.example"], "what was dropped before the handover was not sent");
}

/// Mistake: a mailer that was closed cannot be used again.
pub async fn usable_after_close<H: MailerHarness>() {
    let Some(harness) = start::<H>("usable_after_close", Behaviour::AcceptAll).await else {
        return;
    };
    expect_usable(&harness).await;
    patiently("close", harness.mailer().close()).await;
    expect_usable(&harness).await;
    patiently("close", harness.mailer().close()).await;
    patiently("close", harness.mailer().close()).await;
}

/// Mistake: messages that share a mailer get each other's recipients, bytes or replies.
pub async fn many_at_once<H: MailerHarness>() {
    let Some(harness) = start::<H>("many_at_once", Behaviour::AcceptAll).await else { return };
    let mut sends: Vec<std::pin::Pin<Box<dyn Future<Output = String> + Send + '_>>> = Vec::new();
    for number in 0..50 {
        let harness = &harness;
        sends.push(Box::pin(async move {
            let to = format!("recipient-{number:02}@y.example");
            send(harness, &[&to], &message(&format!("number {number:02}"))).await
        }));
    }
    for outcome in join_all(sends).await {
        assert_eq!(outcome, "accepted");
    }
    let delivered = harness.delivered().await;
    assert_eq!(delivered.len(), 50, "each is delivered, and once");
    let subjects: BTreeSet<Vec<u8>> = delivered.iter().map(|one| one.bytes.clone()).collect();
    assert_eq!(subjects.len(), 50, "no message twice");
    for one in &delivered {
        let number = one.recipients[0].replace("recipient-", "").replace("@y.example", "");
        let text = String::from_utf8_lossy(&one.bytes).into_owned();
        assert!(text.contains(&format!("number {number}\r\n")), "{:?} got {text}", one.recipients);
    }
}

/// Mistake: a mailer that thinks a Message-ID is a key and drops the second copy.
pub async fn the_same_message_twice_is_delivered_twice<H: MailerHarness>() {
    let case = "the_same_message_twice_is_delivered_twice";
    let Some(harness) = start::<H>(case, Behaviour::AcceptAll).await else { return };
    let message = message("twice");
    for recipient in ["a@y.example", "b@y.example", "a@y.example"] {
        assert_eq!(send(&harness, &[recipient], &message).await, "accepted");
    }
    assert_eq!(harness.delivered().await.len(), 3);
}

/// Mistake: `check` asks the network, or refuses what could be sent, which fails it for good.
pub async fn check_refuses_without_network<H: MailerHarness>() {
    let case = "check_refuses_without_network";
    let harness = match start::<H>(case, Behaviour::Unreachable).await {
        Some(harness) => harness,
        None => match start::<H>(case, Behaviour::AcceptAll).await {
            Some(harness) => harness,
            None => return,
        },
    };
    let checked = harness.mailer().check(&envelope(&["a@y.example"]));
    assert!(checked.is_ok(), "an ordinary envelope can be sent: {checked:?}");
    if let Some(unsendable) = H::unsendable() {
        let Err(error) = harness.mailer().check(&unsendable) else {
            panic!("the harness says that {unsendable:?} cannot be sent, `check` does not");
        };
        assert!(!error.is_temporary(), "what `check` says is for good: {error:?}");
    }
}

/// Mistake: a probe that says yes to an outage, or that sends something.
pub async fn probe_tells_and_sends_nothing<H: MailerHarness>() {
    let case = "probe_tells_and_sends_nothing";
    let Some(harness) = start::<H>(case, Behaviour::AcceptAll).await else { return };
    let probed = patiently("probe", harness.mailer().probe()).await;
    assert!(probed.is_ok(), "the other end is there: {probed:?}");
    assert_eq!(harness.delivered().await, []);
    let Some(harness) = start::<H>(case, Behaviour::Unreachable).await else { return };
    let probed = patiently("probe", harness.mailer().probe()).await;
    assert!(probed.is_err(), "the other end is not there");
}

/// Mistake: a password in the relay's name or in an error, from where it gets into logs and events.
pub async fn the_relay_is_named_without_credentials<H: MailerHarness>() {
    let case = "the_relay_is_named_without_credentials";
    let Some(harness) = start::<H>(case, Behaviour::AcceptAll).await else { return };
    let mailer = harness.mailer();
    let mut seen = mailer.relay().to_owned();
    assert!(!seen.is_empty() && !seen.contains(char::is_control), "{seen:?}");
    if let Some(broken) = start::<H>(case, Behaviour::Unreachable).await
        && let Err(error) = patiently("probe", broken.mailer().probe()).await
    {
        seen.push_str(&format!("{error} {error:?} {}", broken.mailer().relay()));
    }
    if let Some(secret) = harness.secret() {
        assert!(!seen.contains(&secret), "a credential is in {:?}", seen.replace(&secret, "<it>"));
    }
}
