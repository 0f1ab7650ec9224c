//! TLS: what protects, what is refused, and what is told.

use std::time::Duration;

use sendmail_smtp::{SmtpConfig, TlsMode};
use sendmail_testkit::smtp::{At, Certificates, Do, Script, ServerTls};

use crate::support::{Relay, SHORT};

const USER: &str = "user:hunter2@";

fn trusting(certificates: &Certificates) -> impl Fn(SmtpConfig) -> SmtpConfig + use<'_> {
    |config| config.with_root_certificates_pem(certificates.root_pem().as_bytes()).unwrap()
}

fn implicit(certificates: &Certificates) -> impl Fn(SmtpConfig) -> SmtpConfig + use<'_> {
    move |config| trusting(certificates)(config).with_tls(TlsMode::Implicit)
}

#[tokio::test]
async fn starttls_protects_the_message_and_says_ehlo_again() {
    let certificates = Certificates::new();
    let script = Script::new().starttls(certificates.valid());
    let relay = Relay::at(script, "?tls=required", trusting(&certificates)).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    assert!(relay.only_message().encrypted);
    let session = &relay.server.sessions()[0];
    assert_eq!(session.verbs(), ["EHLO", "STARTTLS", "EHLO", "MAIL", "RCPT", "DATA"]);
    let in_clear = session.commands.iter().filter(|command| !command.encrypted).count();
    assert_eq!(in_clear, 2);
}

#[tokio::test]
async fn implicit_tls_protects_from_the_first_byte() {
    let certificates = Certificates::new();
    let script = Script::new().implicit_tls(certificates.valid());
    let relay = Relay::configured(script, implicit(&certificates)).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    assert!(relay.server.messages().iter().all(|message| message.encrypted));
    assert_eq!(relay.server.connections(), 1, "kept connections work over TLS");
    assert_eq!(relay.server.sessions()[0].verbs()[0], "EHLO");
}

/// One bad certificate, both ways of setting TLS up: refused, told as TLS, nothing sent.
async fn bad_certificate(certificates: &Certificates, tls: ServerTls) {
    let scripts = [Script::new().starttls(tls.clone()), Script::new().implicit_tls(tls)];
    for (script, mode) in scripts.into_iter().zip([TlsMode::Required, TlsMode::Implicit]) {
        let relay =
            Relay::configured(script, |config| trusting(certificates)(config).with_tls(mode)).await;
        assert_eq!(relay.send(&["a@y.example"]).await, "error: TLS failed", "{mode:?}");
        relay.server.wait_for_ended(1).await;
        let session = &relay.server.sessions()[0];
        assert!(session.handshake_failed, "{mode:?}");
        assert!(
            session.commands.iter().all(|command| !command.encrypted),
            "{:?}",
            session.commands
        );
        assert!(!session.verbs().contains(&"MAIL".to_owned()));
    }
}

// Proves: A-certificate
#[tokio::test]
async fn a_certificate_for_another_name_is_refused() {
    let certificates = Certificates::new();
    bad_certificate(&certificates, certificates.wrong_name()).await;
}

// Proves: A-certificate
#[tokio::test]
async fn an_expired_certificate_is_refused() {
    let certificates = Certificates::new();
    bad_certificate(&certificates, certificates.expired()).await;
}

// Proves: A-certificate
#[tokio::test]
async fn a_self_signed_certificate_is_refused() {
    bad_certificate(&Certificates::new(), Certificates::self_signed()).await;
}

// Proves: A-certificate
#[tokio::test]
async fn a_certificate_of_an_unknown_issuer_is_refused() {
    bad_certificate(&Certificates::new(), Certificates::unknown_issuer()).await;
}

// Proves: A-certificate
#[tokio::test]
async fn every_bad_certificate_and_every_hostile_chain_is_refused_in_time() {
    let certificates = Certificates::new();
    for (what, tls) in certificates.bad() {
        let begin = std::time::Instant::now();
        let script = Script::new().starttls(tls);
        let config = |config| trusting(&certificates)(config).with_tls(TlsMode::Required);
        let relay = Relay::configured(script, config).await;
        assert_eq!(relay.send(&["a@y.example"]).await, "error: TLS failed", "{what}");
        relay.server.wait_for_ended(1).await;
        assert_eq!(relay.server.sessions()[0].verbs(), ["EHLO", "STARTTLS"], "{what}");
        assert!(begin.elapsed() < Duration::from_secs(30), "{what} keeps the sender busy");
    }
}

/// Without this the refusals above might be for any reason.
#[tokio::test]
async fn a_certificate_of_an_authority_below_the_trusted_one_is_accepted() {
    let certificates = Certificates::new();
    let script = Script::new().starttls(certificates.valid_below());
    let relay = Relay::at(script, "?tls=required", trusting(&certificates)).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
}

/// An authority with a key of 1024 bits, and a signature by SHA-1. Made with openssl for a hundred years.
// Proves: A-certificate
#[tokio::test]
async fn a_certificate_that_could_be_forged_is_refused() {
    let root = include_bytes!("weak/root.pem");
    for (chain, expected) in [
        (include_str!("weak/good.pem"), "accepted"),
        (include_str!("weak/rsa-1024.pem"), "error: TLS failed"),
        (include_str!("weak/sha1.pem"), "error: TLS failed"),
    ] {
        let tls = ServerTls::from_pem(chain, include_str!("weak/key.pem"));
        let relay = Relay::at(Script::new().starttls(tls), "?tls=required", |config| {
            config.with_root_certificates_pem(root).unwrap()
        })
        .await;
        assert_eq!(relay.send(&["a@y.example"]).await, expected);
    }
}

// Proves: A-stripped, A-auth-clear
#[tokio::test]
async fn starttls_that_is_stripped_is_refused_and_nothing_is_sent() {
    let certificates = Certificates::new();
    let script = Script::new().with("AUTH PLAIN LOGIN");
    let relay = Relay::at(script, &format!("{USER}?tls=required"), trusting(&certificates)).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "error: TLS failed");
    relay.server.wait_for_ended(1).await;
    assert_eq!(relay.server.sessions()[0].verbs(), ["EHLO"], "neither AUTH nor MAIL");
}

// Proves: A-early-reply
#[tokio::test]
async fn clear_text_behind_the_220_is_refused_and_never_an_answer() {
    let certificates = Certificates::new();
    // Forged replies for all that follows, as one who sits on the way would add them.
    let forged =
        b"220 go\r\n250-x\r\n250 PIPELINING\r\n250 ok\r\n250 ok\r\n354 go\r\n250 taken\r\n";
    for injected in [&forged[..], b"220 go\r\n2", b"220 go\r\n\x16\x03\x01"] {
        let script = Script::new().starttls(certificates.valid()).on_session(
            1,
            At::StartTls,
            Do::Send(injected.to_vec()),
        );
        let relay = Relay::at(script, "?tls=required", trusting(&certificates)).await;
        assert_eq!(relay.send(&["a@y.example"]).await, "error: TLS failed", "{injected:?}");
        assert_eq!(relay.server.submitted(), []);
        assert_eq!(relay.handovers(), 0);
        assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    }
}

// Proves: A-stripped
#[tokio::test]
async fn what_was_offered_in_clear_text_is_forgotten_after_the_handshake() {
    let certificates = Certificates::new();
    // Somebody on the way offers what the relay does not have.
    let lie = Do::reply("250-scripted.example\n250-PIPELINING\n250-STARTTLS\n250 SMTPUTF8");
    let truth = Script::new().without("PIPELINING").without("SMTPUTF8");
    let script = truth.starttls(certificates.valid()).on(At::EhloInClear, lie);
    let relay = Relay::at(script, "?tls=required", trusting(&certificates)).await;
    assert_eq!(relay.send(&["a@y.example", "jörg@y.example"]).await, "accepted refused");
    assert!(!relay.server.sessions()[0].is_pipelined());
}

#[tokio::test]
async fn opportunistic_uses_what_is_offered_and_then_insists() {
    let certificates = Certificates::new();
    let offered = Script::new().starttls(certificates.valid());
    let relay = Relay::at(offered, "?tls=opportunistic", trusting(&certificates)).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    assert!(relay.only_message().encrypted);
    let relay = Relay::at(Script::new(), "?tls=opportunistic", trusting(&certificates)).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    assert!(!relay.only_message().encrypted);
    let bad = Script::new().starttls(Certificates::self_signed());
    let relay = Relay::at(bad, "?tls=opportunistic", trusting(&certificates)).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "error: TLS failed");
}

#[tokio::test]
async fn a_relay_on_this_host_is_spoken_to_in_clear_text_by_default() {
    let certificates = Certificates::new();
    let script = Script::new().starttls(certificates.valid());
    let relay = Relay::start(script).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    assert!(!relay.only_message().encrypted);
}

#[tokio::test]
async fn a_relay_that_speaks_no_tls_where_tls_was_expected_is_told_as_tls() {
    let relay = Relay::configured(Script::new(), |config| config.with_tls(TlsMode::Implicit)).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "error: TLS failed");
}

// Proves: I11, S-connect-garbage, S-connect-silence
#[tokio::test]
async fn a_handshake_that_fails_or_never_ends_is_the_relays_trouble() {
    let certificates = Certificates::new();
    let then = |last| Do::Sequence(vec![Do::reply("220 go"), last]);
    for (fault, expected) in [
        (then(Do::Silence), "error: timed out, temporary"),
        (then(Do::Close), "error: TLS failed, temporary"),
        (then(Do::garbage()), "error: TLS failed"),
    ] {
        let script =
            Script::new().starttls(certificates.valid()).on_session(1, At::StartTls, fault.clone());
        let relay = Relay::at(script, "?tls=required", |config| {
            let mut timeouts = sendmail_smtp::Timeouts::default();
            // Only the silence waits for it; the handshake that follows takes milliseconds.
            timeouts.handshake =
                if expected.contains("timed") { SHORT } else { timeouts.handshake };
            trusting(&certificates)(config).with_timeouts(timeouts)
        })
        .await;
        assert_eq!(relay.send(&["a@y.example"]).await, expected, "{fault:?}");
        assert_eq!(relay.server.submitted(), []);
    }
}

/// One who sits on the way answers in clear text, as if STARTTLS had failed or were over.
// Proves: A-stripped, A-early-reply
#[tokio::test]
async fn whoever_answers_starttls_with_anything_but_tls_gets_no_message() {
    let certificates = Certificates::new();
    for answer in ["220 go", "250 ok", "354 go", "454 4.7.0 not now", "502 5.5.1 what", "530 no"] {
        // No handshake follows: the server goes on in clear text.
        let script = Script::new().with("STARTTLS").on(At::StartTls, Do::reply(answer));
        for mode in [TlsMode::Required, TlsMode::Opportunistic] {
            let config = |config| trusting(&certificates)(config).with_tls(mode);
            let relay = Relay::configured(script.clone(), config).await;
            let told = relay.send(&["a@y.example"]).await;
            assert!(told.starts_with("error"), "{answer}, {mode:?}: {told}");
            assert_eq!(relay.handovers(), 0);
            relay.server.wait_for_ended(1).await;
            let verbs = relay.server.sessions()[0].verbs();
            assert!(!verbs.contains(&"MAIL".to_owned()), "{answer}, {mode:?}: {verbs:?}");
        }
    }
}
