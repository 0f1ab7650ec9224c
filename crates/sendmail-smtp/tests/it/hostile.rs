//! Relays that mean harm: each way to misbehave at each moment of a session, and any bytes at any time.
//! No panic, no made-up success, no unannounced handover, no mail that fails for it; and whoever sends
//! is free again at once, or when the time for the step is over.

use std::time::Duration;

use proptest::prelude::*;
use sendmail_core::{Mailer, Outcome};
use sendmail_smtp::{SmtpConfig, SmtpMailer, Timeouts, read_reply};
use sendmail_testkit::smtp::{At, Certificates, Do, Effect, Mode, Phase, Script};

use crate::support::{Relay, envelope, message, words};

/// The time for the step at which a relay says nothing; all other steps have minutes.
const DEADLINE: Duration = Duration::from_millis(200);
/// Within which everything has to be over, however busy the machine.
const BOUND: Duration = Duration::from_secs(60);

/// One way to misbehave, at every moment, with and without PIPELINING.
async fn at_every_phase(mode: Mode) {
    for phase in Phase::ALL {
        for pipelining in [true, false] {
            let attack = tokio::time::timeout(BOUND, attack(mode, phase, pipelining));
            assert!(attack.await.is_ok(), "{mode:?} at {phase:?} holds the sender up");
        }
    }
}

/// A relay that misbehaves in its first session or transaction, and what becomes of one message to it;
/// the next message, by another mailer, gets through.
async fn attack(mode: Mode, phase: Phase, pipelining: bool) {
    let context = format!("{mode:?} at {phase:?}, pipelining {pipelining}");
    let certificates = Certificates::new();
    let (script, parameters) = script(mode, phase, pipelining, &certificates);
    let timeouts = timeouts(mode, phase);
    let trusting = |config: SmtpConfig| {
        config.with_root_certificates_pem(certificates.root_pem().as_bytes()).unwrap()
    };
    let relay =
        Relay::at(script, parameters, |config| trusting(config).with_timeouts(timeouts)).await;
    if phase == Phase::Rset {
        assert_eq!(relay.send(&["a@y.example"]).await, "deferred", "{context}");
    }
    let told = relay.send(&["a@y.example"]).await;
    assert!(may_be(mode, phase, &told), "{context}: {told}");
    let taken = relay.server.messages().len();
    // What a relay says after the dot may be no reply, whatever it took it for itself.
    let agreed = (told == "accepted") == (taken == 1) || (told == "unknown" && phase == Phase::Dot);
    assert!(agreed, "{context}: {told}, and the relay took {taken}");
    if told.starts_with("error") || told == "deferred" {
        assert_eq!(relay.handovers(), 0, "a dot that was not sent is not announced: {context}");
    }
    relay.mailer.close().await;

    let url = format!("smtp://127.0.0.1:{}", relay.server.address().port());
    let url = if parameters.is_empty() { url } else { format!("{url}?tls=opportunistic") };
    let other = SmtpMailer::new(trusting(SmtpConfig::from_url(&url).unwrap())).unwrap();
    let nobody = relay.handovers();
    let sent = relay.send_by(&other, &["b@y.example"]).await;
    assert_eq!(sent, "accepted", "afterwards: {context}");
    assert_eq!(relay.handovers(), nobody + 1, "{context}");
}

fn script(
    mode: Mode,
    phase: Phase,
    pipelining: bool,
    certificates: &Certificates,
) -> (Script, &'static str) {
    let mut script = Script::new();
    let mut parameters = "";
    match phase {
        Phase::StartTls | Phase::Handshake => {
            script = script.starttls(certificates.valid());
            parameters = "?tls=required";
        }
        Phase::Auth => {
            script = script.with("AUTH PLAIN");
            parameters = "u:p@?clear-text-auth=loopback";
        }
        // RSET is said if a transaction was begun and not ended.
        Phase::Rset => script = script.on_transaction(1, At::Data, Do::reply("451 4.3.0 later")),
        _ => {}
    }
    if !pipelining {
        script = script.without("PIPELINING");
    }
    (script.on_session(1, phase.at(), mode.action(phase)), parameters)
}

fn timeouts(mode: Mode, phase: Phase) -> Timeouts {
    let mut timeouts = Timeouts::default();
    timeouts.quit = DEADLINE;
    if mode.effect() == Effect::Silence || ends_in_silence(mode, phase) {
        let step = match phase {
            Phase::Greeting => &mut timeouts.greeting,
            Phase::Handshake => &mut timeouts.handshake,
            Phase::Mail => &mut timeouts.mail,
            Phase::Rcpt => &mut timeouts.rcpt,
            Phase::Data => &mut timeouts.data,
            Phase::Dot => &mut timeouts.final_dot,
            _ => &mut timeouts.command,
        };
        // The time for commands is that for EHLO too, which has to be heard first.
        *step = if phase == Phase::Rset { 5 * DEADLINE } else { DEADLINE };
        if mode == Mode::LoneCr && phase == Phase::Rcpt {
            // The next reply ends its line, and then it is the one to DATA that is missing.
            timeouts.data = DEADLINE;
        }
    }
    timeouts
}

/// Whether it is the beginning of something that TLS waits for more of.
fn ends_in_silence(mode: Mode, phase: Phase) -> bool {
    let endless = [Mode::EmptyRecords, Mode::EndlessAlerts];
    endless.contains(&mode) && phase == Phase::Handshake
}

/// Whether that may be told of a message to a relay that misbehaves so.
fn may_be(mode: Mode, phase: Phase, told: &str) -> bool {
    let trouble = told.starts_with("error");
    let nothing_handed_over = trouble || told == "deferred";
    match (phase, mode.effect()) {
        // Nothing that QUIT is answered is of any interest.
        (Phase::Quit, _) => told == "accepted",
        // A kept connection that has gone bad is replaced; only too much behind it is too late for that.
        (Phase::Rset, Effect::TooMuch | Effect::Gone) => matches!(told, "accepted" | "deferred"),
        // With the next reply on its line it is one, and then one is missing.
        (Phase::Rset, _) if mode == Mode::LoneCr => matches!(told, "accepted" | "deferred"),
        (Phase::Rset, _) => told == "accepted",
        (Phase::Handshake, _) => trouble,
        (Phase::Dot, Effect::Reply | Effect::TooMuch) => told == "accepted",
        // A reset may overtake what was said before it.
        (Phase::Dot, Effect::Gone) => matches!(told, "accepted" | "unknown"),
        (Phase::Dot, _) => told == "unknown",
        // After an odd reply to EHLO less is offered than before.
        (Phase::Greeting | Phase::Ehlo | Phase::Auth, Effect::Reply) => told == "accepted",
        (Phase::StartTls, Effect::Reply) => told == "accepted",
        (Phase::Mail | Phase::Rcpt | Phase::Data, Effect::Reply) => told == "accepted",
        (Phase::Greeting | Phase::StartTls, _) => trouble,
        // The end may come a moment after the reply, when MAIL has been said.
        (Phase::Ehlo | Phase::Auth, Effect::Gone) => nothing_handed_over,
        (Phase::Ehlo | Phase::Auth, _) => trouble,
        (Phase::Data, Effect::Gone) => matches!(told, "deferred" | "unknown"),
        (Phase::Mail | Phase::Rcpt | Phase::Data, _) => told == "deferred",
        _ => false,
    }
}

/// A test for each way to misbehave.
macro_rules! hostile {
    ($($name:ident: $mode:ident;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                at_every_phase(Mode::$mode).await;
            }
        )*

        #[test]
        fn every_way_to_misbehave_has_its_test() {
            let tested = [$(Mode::$mode),*];
            assert!(Mode::ALL.iter().all(|mode| tested.contains(mode)));
        }
    };
}

hostile! {
    // Proves: A-endless, I11, I15
    an_endless_line: EndlessLine;
    // Proves: A-endless, I11, I15
    an_endless_reply: EndlessReply;
    // Proves: A-endless
    a_thousand_lines: ThousandLines;
    // Proves: A-endless
    a_million_lines: MillionLines;
    // Proves: A-endless, I11
    byte_by_byte: Drip;
    // Proves: S-connect-silence, S-mail-silence, S-rcpt-one-silence, S-data-silence, S-dot-silence, S-quit-silence, I11
    silence: Silence;
    // Proves: A-endless
    deafness: Deaf;
    // Proves: A-early-reply
    replies_before_they_are_due: EarlyReplies;
    // Proves: A-early-reply
    a_reply_twice: ExtraReply;
    // Proves: A-endless
    odd_lines: OddLines;
    a_line_of_64_kib: HugeLine;
    code_000: Code000;
    code_099: Code099;
    code_199: Code199;
    code_999: Code999;
    a_letter_in_the_code: LetterInCode;
    a_negative_code: NegativeCode;
    changing_codes: ChangingCodes;
    no_code: NoCode;
    an_empty_line: EmptyLine;
    // Proves: S-codes
    nul_in_a_reply: Nul;
    a_reply_in_no_encoding: NotUtf8;
    half_a_character: HalfCharacter;
    cr_in_a_reply: CrInText;
    a_reply_that_ends_in_cr: LoneCr;
    a_reply_that_ends_in_lf: LoneLf;
    // Proves: S-connect-garbage, S-mail-garbage, S-rcpt-one-garbage, S-data-garbage, S-dot-garbage, S-quit-garbage, I11
    another_protocol: OtherProtocol;
    a_tls_alert: TlsAlert;
    empty_tls_records: EmptyRecords;
    endless_tls_alerts: EndlessAlerts;
    a_huge_handshake: HugeHandshake;
    close: Close;
    half_a_close: HalfClose;
    a_reset: Reset;
    a_reply_and_close: ReplyAndClose;
    a_reply_and_half_a_close: ReplyAndHalfClose;
    a_reply_and_a_reset: ReplyAndReset;
}

/// A relay that says a word too many to the first recipient: what it says of the second is not known.
// Proves: A-early-reply
#[tokio::test]
async fn a_reply_to_nothing_is_told_of_nobody() {
    let twice = Do::reply("250 2.1.5 ok\n550 5.1.1 no such user");
    let script = Script::new()
        .without("PIPELINING")
        .on_transaction(1, At::Rcpt(1), twice)
        .on_transaction(1, At::Rcpt(2), Do::reply("250 2.1.5 ok"));
    let relay = Relay::start(script).await;
    assert_eq!(relay.send(&TWO).await, "deferred deferred");
    assert_eq!(relay.send(&TWO).await, "accepted accepted");
    assert_eq!(relay.server.connections(), 2);
}

/// A relay that takes no part in anything any more keeps one message, and none of the others.
// Proves: I12
#[tokio::test]
async fn others_are_sent_while_a_relay_says_nothing() {
    let gate = sendmail_testkit::smtp::Gate::new();
    let silent = Do::Wait(gate.clone(), Box::new(Do::reply("250 2.0.0 taken")));
    let relay = Relay::start(Script::new().on_session(1, At::Dot, silent)).await;
    let stuck = relay.send(&["stuck@y.example"]);
    let others = async {
        relay.server.wait_for_command("DATA").await;
        for _ in 0..5 {
            assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
        }
        gate.open();
    };
    let (stuck, ()) = tokio::join!(stuck, others);
    assert_eq!(stuck, "accepted");
}

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
        2 => chunks(),
        1 => (200u16..600).prop_map(|code| Do::Reset(format!("{code} x\r\n").into_bytes())),
        1 => bytes().prop_map(Do::HalfClose),
        1 => Just(Do::Close),
    ]
}

/// Bytes cut anywhere, each piece in a packet of its own.
fn chunks() -> impl Strategy<Value = Do> {
    (bytes(), 1usize..5).prop_map(|(bytes, length)| {
        let mut actions: Vec<Do> =
            bytes.chunks(length).map(|chunk| Do::Send(chunk.to_vec())).collect();
        actions.push(Do::Close);
        Do::Sequence(actions)
    })
}

/// All bytes that an action sends.
fn sent_by(action: &Do) -> Vec<u8> {
    match action {
        Do::Send(bytes) | Do::SendAndClose(bytes) | Do::HalfClose(bytes) | Do::Reset(bytes) => {
            bytes.clone()
        }
        Do::Sequence(actions) => actions.iter().flat_map(sent_by).collect(),
        _ => Vec::new(),
    }
}

/// Whether the relay has said that, as a whole reply that is a success: by an action, or of itself.
fn has_said(actions: &[Do], reply: &str) -> bool {
    let of_itself = "250 2.0.0 taken\r\n";
    let all = actions.iter().map(sent_by).chain([of_itself.as_bytes().to_vec()]);
    all.into_iter().any(|bytes| {
        let starts = (0..bytes.len()).filter(|at| *at == 0 || bytes[at - 1] == b'\n');
        starts.into_iter().any(|at| match read_reply(&bytes[at..]) {
            Ok(Some(said)) => said.is_class(2) && said.to_reply().to_string() == reply,
            _ => false,
        })
    })
}

async fn check(script: Script, actions: &[Do]) {
    let mut timeouts = sendmail_smtp::Timeouts::default();
    // A relay that still owes a reply says nothing more: only this bounds the case.
    timeouts.message = std::time::Duration::from_millis(200);
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
    for (_, outcome) in report.outcomes() {
        if let Outcome::Accepted(reply) = outcome {
            assert!(has_said(actions, &reply.to_string()), "{reply} was never said");
        }
    }
    let words = words(&report);
    for (recipient, word) in TWO.iter().zip(words.split(' ')) {
        let taken =
            with_body.iter().any(|message| message.recipients.iter().any(|r| r == recipient));
        // A relay that answers DATA in pieces may send a success just when the dot is on its way.
        let in_pieces = actions.iter().any(|action| matches!(action, Do::Sequence(_)));
        if word == "accepted" && !in_pieces {
            assert!(taken, "{recipient} was not sent to: {words}");
        }
        if matches!(word, "accepted" | "unknown") {
            assert_eq!(relay.handovers(), 1, "{words}");
        }
    }
    assert!(relay.handovers() >= with_body.len().min(1), "a dot that was not announced: {words}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    // Proves: A-endless, A-early-reply, I11
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
        let actions: Vec<Do> = rules.iter().map(|(_, action)| action.clone()).collect();
        for (at, action) in rules {
            script = script.on(at, action);
        }
        runtime.block_on(check(script, &actions));
    }
}
