//! The next message behind the last dot.

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::Mailer as _;
use sendmail_smtp::Timeouts;
use sendmail_testkit::smtp::{At, Do, Gate, Script};
use tokio::task::JoinHandle;

use crate::support::Relay;

/// One connection, on which the first message was taken in peace.
async fn used(script: Script, timeouts: Timeouts) -> Arc<Relay> {
    let configure =
        |config: sendmail_smtp::SmtpConfig| config.with_max_connections(1).with_timeouts(timeouts);
    let relay = Arc::new(Relay::configured(script, configure).await);
    assert_eq!(relay.send(&["first@y.example"]).await, "accepted");
    relay
}

fn send(relay: &Arc<Relay>, recipients: &'static [&'static str]) -> JoinHandle<String> {
    let relay = relay.clone();
    tokio::spawn(async move { relay.send(recipients).await })
}

/// What the second message's final dot is answered with, once the gate is open.
fn second_dot(gate: &Gate, answer: Do) -> Script {
    Script::new().on_transaction(2, At::Dot, Do::Wait(gate.clone(), Box::new(answer)))
}

/// Has two messages on their way: the second's final dot is received, and the third's commands are written behind
/// it. What became of both comes back.
async fn two_on_their_way(relay: &Arc<Relay>, gate: &Gate) -> (String, String) {
    let second = send(relay, &["second@y.example"]);
    while relay.server.submitted().len() < 2 {
        tokio::task::yield_now().await;
    }
    let third = send(relay, &["third@y.example"]);
    // All that the third can do without an answer is done when nothing else is left to do.
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    (second.await.unwrap(), third.await.unwrap())
}

fn bare_words(relay: &Relay) -> Vec<String> {
    relay.lines().iter().map(|line| line.split([' ', ':']).next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_next_message_is_begun_before_the_last_is_answered() {
    let gate = Gate::new();
    let script = second_dot(&gate, Do::reply("250 2.0.0 taken"));
    let relay = used(script, Timeouts::default()).await;
    let (second, third) = two_on_their_way(&relay, &gate).await;
    assert_eq!((second.as_str(), third.as_str()), ("accepted", "accepted"));
    assert_eq!(relay.server.connections(), 1);
    assert_eq!(relay.handovers(), 3);
    // It came in one piece, and there was nothing between: no RSET, no NOOP.
    let group = ["MAIL", "RCPT", "DATA"];
    assert_eq!(bare_words(&relay), [&["EHLO"][..], &group, &group, &group].concat());
    let session = &relay.server.sessions()[0];
    let reads: Vec<usize> = session.commands.iter().skip(7).map(|command| command.read).collect();
    assert_eq!(reads, [reads[0]; 3]);
}

#[tokio::test]
async fn each_message_gets_the_answer_to_its_own() {
    for (answer, outcome) in [
        ("250 2.0.0 taken", "accepted"),
        ("450 4.2.0 later", "deferred"),
        ("554 5.6.0 never", "refused"),
    ] {
        let gate = Gate::new();
        let script = second_dot(&gate, Do::reply(answer))
            .on(At::RcptTo("third@y.example".into()), Do::reply("550 5.1.1 nobody"));
        let relay = used(script, Timeouts::default()).await;
        let (second, third) = two_on_their_way(&relay, &gate).await;
        assert_eq!((second.as_str(), third.as_str()), (outcome, "refused"));
        assert_eq!(relay.server.connections(), 1);
        // And what follows finds the connection in order.
        assert_eq!(relay.send(&["fourth@y.example"]).await, "accepted");
        assert_eq!(relay.server.connections(), 1);
    }
}

// Proves: I8
#[tokio::test]
async fn what_was_said_behind_a_lost_dot_is_said_again_elsewhere() {
    for fault in [
        Do::Close,
        Do::Reset(Vec::new()),
        Do::reply_and_close("421 4.3.2 leaving"),
        Do::reply("421 4.3.2 leaving"),
        Do::garbage(),
        Do::Silence,
    ] {
        let gate = Gate::new();
        let script = second_dot(&gate, fault.clone());
        let mut timeouts = Timeouts::default();
        timeouts.final_dot = Duration::from_secs(2);
        let relay = used(script, timeouts).await;
        let (second, third) = two_on_their_way(&relay, &gate).await;
        assert_eq!((second.as_str(), third.as_str()), ("unknown", "accepted"), "{fault:?}");
        assert_eq!(relay.server.connections(), 2, "{fault:?}");
        assert_eq!(relay.handovers(), 3, "the lost commands were no handover");
        if matches!(fault, Do::Silence) {
            let first = String::from_utf8(relay.server.sessions()[0].raw.clone()).unwrap();
            assert!(first.contains("RCPT TO:<third@y.example>"), "{first}");
        }
        let third: Vec<_> =
            relay.server.messages().into_iter().filter(|it| it.session == 2).collect();
        assert_eq!(third.len(), 1);
        assert_eq!(third[0].recipients, ["third@y.example"]);
    }
}

/// Each reply behind the second one to the dot is one too early: a refusal would be told of somebody else.
// Proves: A-early-reply
#[tokio::test]
async fn a_dot_that_is_answered_twice_lets_no_refusal_be_told_of_another() {
    for (refused, outcomes) in [("a", "refused accepted"), ("b", "accepted refused")] {
        let gate = Gate::new();
        let twice = Do::Send(b"250 2.0.0 taken\r\n250 2.0.0 taken\r\n".to_vec());
        let script = second_dot(&gate, twice)
            .on(At::RcptTo(format!("{refused}@y.example")), Do::reply("550 5.1.1 nobody"));
        let relay = used(script, Timeouts::default()).await;
        let second = send(&relay, &["second@y.example"]);
        while relay.server.submitted().len() < 2 {
            tokio::task::yield_now().await;
        }
        let third = send(&relay, &["a@y.example", "b@y.example"]);
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        gate.open();
        assert_eq!(second.await.unwrap(), "accepted");
        assert_eq!(third.await.unwrap(), outcomes);
        assert_eq!(relay.server.connections(), 2);
    }
}

/// A refusal that is one is believed, on the same connection.
#[tokio::test]
async fn a_message_that_is_refused_behind_another_is_refused_once() {
    let gate = Gate::new();
    let script = second_dot(&gate, Do::reply("250 2.0.0 taken")).on_transaction(
        3,
        At::Mail,
        Do::reply("550 5.7.1 not you"),
    );
    let relay = used(script, Timeouts::default()).await;
    let (second, third) = two_on_their_way(&relay, &gate).await;
    assert_eq!((second.as_str(), third.as_str()), ("accepted", "refused"));
    assert_eq!(relay.send(&["fourth@y.example"]).await, "accepted");
    assert_eq!(relay.server.connections(), 1);
}

#[tokio::test]
async fn a_place_that_nobody_took_keeps_no_connection_open() {
    let relay = used(Script::new(), Timeouts::default()).await;
    assert_eq!(relay.send(&["second@y.example"]).await, "accepted");
    relay.mailer.close().await;
    relay.server.wait_for_ended(1).await;
}

#[tokio::test]
async fn whoever_gives_up_waiting_takes_the_connection_along_and_nothing_else() {
    let gate = Gate::new();
    let relay = used(second_dot(&gate, Do::reply("250 2.0.0 taken")), Timeouts::default()).await;
    let second = send(&relay, &["second@y.example"]);
    while relay.server.submitted().len() < 2 {
        tokio::task::yield_now().await;
    }
    let third = send(&relay, &["third@y.example"]);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    third.abort();
    assert!(third.await.unwrap_err().is_cancelled());
    gate.open();
    assert_eq!(second.await.unwrap(), "accepted");
    assert_eq!(relay.send(&["fourth@y.example"]).await, "accepted");
    assert_eq!(relay.server.connections(), 2);
    let sent: Vec<String> =
        relay.server.messages().iter().map(|it| it.recipients.concat()).collect();
    assert_eq!(sent, ["first@y.example", "second@y.example", "fourth@y.example"]);
}

#[tokio::test]
async fn without_pipelining_each_waits_for_the_last() {
    let gate = Gate::new();
    let script = second_dot(&gate, Do::reply("250 2.0.0 taken")).without("PIPELINING");
    let relay = used(script, Timeouts::default()).await;
    let second = send(&relay, &["second@y.example"]);
    while relay.server.submitted().len() < 2 {
        tokio::task::yield_now().await;
    }
    let third = send(&relay, &["third@y.example"]);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    let before = bare_words(&relay).len();
    gate.open();
    assert_eq!(second.await.unwrap(), "accepted");
    assert_eq!(third.await.unwrap(), "accepted");
    assert_eq!(before, 7, "EHLO and twice MAIL, RCPT, DATA");
    assert_eq!(bare_words(&relay).len(), 10);
}

/// A message that takes a further transaction has its connection to itself until then.
#[tokio::test]
async fn recipients_that_were_too_many_come_before_the_next_message() {
    let gate = Gate::new();
    let script = second_dot(&gate, Do::reply("250 2.0.0 taken")).on_transaction(
        2,
        At::Rcpt(2),
        Do::reply("452 4.5.3 too many"),
    );
    let relay = used(script, Timeouts::default()).await;
    let second = send(&relay, &["a@y.example", "b@y.example"]);
    while relay.server.submitted().len() < 2 {
        tokio::task::yield_now().await;
    }
    let third = send(&relay, &["third@y.example"]);
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    gate.open();
    assert_eq!(second.await.unwrap(), "accepted accepted");
    assert_eq!(third.await.unwrap(), "accepted");
    let sent: Vec<String> =
        relay.server.messages().iter().map(|it| it.recipients.concat()).collect();
    assert_eq!(sent, ["first@y.example", "a@y.example", "b@y.example", "third@y.example"]);
}

#[tokio::test]
async fn a_hundred_at_once_share_few_connections_and_each_is_sent_once() {
    let relay =
        Arc::new(Relay::configured(Script::new(), |config| config.with_max_connections(3)).await);
    let sends: Vec<_> = (0..100)
        .map(|number| {
            let relay = relay.clone();
            tokio::spawn(async move { relay.send(&[&format!("r{number}@y.example")]).await })
        })
        .collect();
    for send in sends {
        assert_eq!(send.await.unwrap(), "accepted");
    }
    let mut sent: Vec<String> =
        relay.server.messages().iter().map(|it| it.recipients.concat()).collect();
    sent.sort();
    sent.dedup();
    assert_eq!(sent.len(), 100);
    assert_eq!(relay.server.messages().len(), 100);
    assert_eq!(relay.server.connections(), 3);
}

/// A relay that allows two connections and says so to the third: those two serve all.
#[tokio::test]
async fn what_a_relay_takes_too_few_connections_for_waits_for_those_that_it_took() {
    let gate = Gate::new();
    let mut script =
        Script::new().on(At::Dot, Do::Wait(gate.clone(), Box::new(Do::reply("250 2.0.0 taken"))));
    for session in 3..100 {
        let refusal = Do::reply_and_close("421 4.7.0 too many connections");
        script = script.on_session(session, At::Greeting, refusal);
    }
    let relay = Arc::new(Relay::start(script).await);
    let sends: Vec<_> = (0..10).map(|_| send(&relay, &["a@y.example"])).collect();
    while relay.server.submitted().len() < 2 || relay.server.connections() < 10 {
        tokio::task::yield_now().await;
    }
    gate.open();
    for send in sends {
        assert_eq!(send.await.unwrap(), "accepted");
    }
    let sessions = relay.server.sessions();
    let served = sessions.iter().filter(|session| !session.commands.is_empty());
    assert_eq!(served.count(), 2);
    assert_eq!(relay.server.connections(), 10, "each was tried for once");
}

/// Ten find out at once that the relay takes nobody. When it is well again it is used as before.
#[tokio::test]
async fn a_relay_that_was_down_gets_as_many_connections_afterwards() {
    let refusal = Do::reply_and_close("421 4.3.2 starting");
    let relay = Arc::new(Relay::start(Script::new().on(At::Greeting, refusal)).await);
    let sends: Vec<_> = (0..10).map(|_| send(&relay, &["a@y.example"])).collect();
    for send in sends {
        assert_eq!(send.await.unwrap(), "error: relay unreachable, temporary");
    }
    let gate = Gate::new();
    let taken = Do::Wait(gate.clone(), Box::new(Do::reply("250 2.0.0 taken")));
    relay.server.set_script(Script::new().on(At::Dot, taken));
    let sends: Vec<_> = (0..10).map(|_| send(&relay, &["a@y.example"])).collect();
    while relay.server.submitted().len() < 10 {
        tokio::task::yield_now().await;
    }
    gate.open();
    for send in sends {
        assert_eq!(send.await.unwrap(), "accepted");
    }
}

/// Nobody else is served: then it is the relay's trouble, as ever.
#[tokio::test]
async fn a_relay_that_takes_no_connection_at_all_is_in_trouble() {
    let refusal = Do::reply_and_close("421 4.7.0 too many connections");
    let relay = Relay::start(Script::new().on(At::Greeting, refusal)).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "error: relay unreachable, temporary");
    assert_eq!(relay.send(&["a@y.example"]).await, "error: relay unreachable, temporary");
}
