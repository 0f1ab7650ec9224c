//! AUTH: mechanisms, refusals, and where credentials may not go.

use sendmail_smtp::SmtpConfig;
use sendmail_testkit::smtp::{At, Certificates, Do, Script};

use crate::support::Relay;

const CLEAR: &str = "clear-text-auth=loopback";

async fn lines(offered: &str, parameters: &str) -> Vec<String> {
    let url = format!("us%40er:p%C3%A4ss@?{CLEAR}{parameters}");
    let relay = Relay::at(Script::new().with(offered), &url, |config| config).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted", "{offered} {parameters}");
    let lines = relay.lines();
    let mail = lines.iter().position(|line| line.starts_with("MAIL")).unwrap();
    lines[1..mail].to_vec()
}

#[tokio::test]
async fn each_mechanism_says_what_it_has_to() {
    // printf '\0us@er\0päss' | base64
    assert_eq!(lines("AUTH LOGIN PLAIN", "").await, ["AUTH PLAIN AHVzQGVyAHDDpHNz"]);
    let login = ["AUTH LOGIN", "dXNAZXI=", "cMOkc3M="];
    assert_eq!(lines("AUTH LOGIN", "").await, login);
    assert_eq!(lines("AUTH PLAIN LOGIN", "&auth=login").await, login);
    assert_eq!(lines("auth=login", "").await, login);
    // printf 'user=us@er\x01auth=Bearer päss\x01\x01' | base64
    let xoauth2 = "AUTH XOAUTH2 dXNlcj11c0BlcgFhdXRoPUJlYXJlciBww6RzcwEB";
    assert_eq!(lines("AUTH PLAIN XOAUTH2", "&auth=xoauth2").await, [xoauth2]);
}

#[tokio::test]
async fn a_mechanism_that_is_not_offered_is_not_tried() {
    for (offered, parameters) in
        [("AUTH CRAM-MD5", ""), ("AUTH LOGIN", "&auth=plain"), ("AUTH XOAUTH2", ""), ("X", "")]
    {
        let url = format!("u:p@?{CLEAR}{parameters}");
        let relay = Relay::at(Script::new().with(offered), &url, |config| config).await;
        assert_eq!(relay.send(&["a@y.example"]).await, "error: authentication failed", "{offered}");
        assert!(!relay.lines().iter().any(|line| line.starts_with("AUTH")));
    }
}

#[tokio::test]
async fn a_refused_token_is_a_refusal_after_the_empty_answer() {
    let script = Script::new().with("AUTH XOAUTH2").on_session(
        1,
        At::Auth,
        Do::reply("334 eyJzdGF0dXMiOiI0MDAifQ=="),
    );
    let url = format!("u:p@?{CLEAR}&auth=xoauth2");
    let relay = Relay::at(script, &url, |config| config).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "error: authentication failed");
    let sent = relay.lines();
    assert_eq!(sent.len(), 3, "AUTH and one empty answer, then it is given up: {sent:?}");
    assert_eq!(sent[2], "");
}

// Proves: A-auth-clear
#[tokio::test]
async fn credentials_wait_for_encryption() {
    let certificates = Certificates::new();
    let trusting = |config: SmtpConfig| {
        config.with_root_certificates_pem(certificates.root_pem().as_bytes()).unwrap()
    };
    let script = Script::new().with("AUTH PLAIN").starttls(certificates.valid());
    let relay = Relay::at(script, "u:p@?tls=required", trusting).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    let session = &relay.server.sessions()[0];
    let auth = session.commands.iter().find(|command| command.line.starts_with("AUTH")).unwrap();
    assert!(auth.encrypted);
    // Opportunistic, and STARTTLS is not offered: the message could go, the password may not.
    let relay =
        Relay::at(Script::new().with("AUTH PLAIN"), "u:p@?tls=opportunistic", trusting).await;
    assert_eq!(relay.send(&["a@y.example"]).await, "error: authentication failed");
    assert_eq!(relay.server.sessions()[0].verbs(), ["EHLO"]);
}

#[tokio::test]
async fn authentication_is_done_once_a_connection() {
    let url = format!("u:p@?{CLEAR}");
    let relay = Relay::at(Script::new().with("AUTH PLAIN"), &url, |config| config).await;
    for _ in 0..3 {
        assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
    }
    assert_eq!(relay.lines().iter().filter(|line| line.starts_with("AUTH")).count(), 1);
}

/// The three ways to say it, all refused before a connection; and the one way that is allowed.
// Proves: A-auth-clear
#[tokio::test]
async fn credentials_go_over_clear_text_on_loopback_only_and_only_if_that_is_said() {
    for (url, allowed) in [
        ("smtp://u:p@127.0.0.1:2525?tls=none", false),
        ("smtp://u:p@127.0.0.1:2525?tls=none&clear-text-auth=loopback", true),
        ("smtp://u:p@relay.example.net?tls=none", false),
        ("smtp://u:p@relay.example.net?tls=none&clear-text-auth=loopback", false),
        ("smtp://u:p@192.0.2.1?tls=none&clear-text-auth=loopback", false),
    ] {
        let mailer = SmtpConfig::from_url(url).and_then(sendmail_smtp::SmtpMailer::new);
        assert_eq!(mailer.is_ok(), allowed, "{url}");
        if let Err(error) = mailer {
            assert!(error.to_string().contains("clear text"), "{error}");
        }
    }
}
