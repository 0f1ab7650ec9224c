//! Credentials are in no output whatever: not in plain, not in base64.

use std::error::Error as _;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use sendmail_core::{Error, Mailer};
use sendmail_smtp::{Credentials, SmtpConfig};
use sendmail_testkit::smtp::{At, Do, Script};

use crate::support::{Relay, envelope, message};

const USER: &str = "sEcReTuSeR";
const PASSWORD: &str = "hUnTeR2%!";

/// An error, its debug form, and all that it came from.
fn tell(out: &mut String, error: &Error) {
    write!(out, "{error} {error:?} {error:#?} ").unwrap();
    let mut source = error.source();
    while let Some(inner) = source {
        write!(out, "{inner} {inner:?} ").unwrap();
        source = inner.source();
    }
}

fn check(seen: &str) {
    let plain = format!("\0{USER}\0{PASSWORD}");
    let secrets = [
        PASSWORD.to_owned(),
        "hUnTeR2%25!".to_owned(),
        USER.to_owned(),
        BASE64.encode(PASSWORD),
        BASE64.encode(USER),
        BASE64.encode(plain),
    ];
    for secret in secrets {
        assert!(!seen.contains(&secret), "{secret} is in {seen}");
        assert!(!seen.contains(secret.trim_end_matches('=')), "{secret} is in {seen}");
    }
}

// Proves: A-secrets, I16
#[tokio::test]
async fn neither_password_nor_user_is_ever_told() {
    let mut seen = String::new();
    let echo = format!(
        "535 5.7.8 bad {PASSWORD} {} for {USER}",
        BASE64.encode(format!("\0{USER}\0{PASSWORD}"))
    );
    let answers = [
        Do::reply(&echo),
        Do::reply(&echo.replace("535 5", "454 4")),
        Do::reply("334 more"),
        Do::garbage(),
        Do::Close,
        Do::reply("235 welcome"),
    ];
    for mechanism in ["plain", "login", "xoauth2"] {
        for answer in &answers {
            let script =
                Script::new().with("AUTH PLAIN LOGIN XOAUTH2").on(At::Auth, answer.clone());
            let url = format!("{USER}:hUnTeR2%25!@?clear-text-auth=loopback&auth={mechanism}");
            let relay = Relay::at(script, &url, |config| {
                write!(seen, "{config:?} {config:#?} {} ", config.relay()).unwrap();
                config
            })
            .await;
            write!(seen, "{:?} {} ", relay.mailer, relay.mailer.relay()).unwrap();
            match relay.try_send(&envelope(&["a@y.example"]), &message("A: b\n\nx\n")).await {
                Ok(report) => write!(seen, "{report:?} ").unwrap(),
                Err(error) => tell(&mut seen, &error),
            }
            if let Err(error) = relay.mailer.probe().await {
                tell(&mut seen, &error);
            }
        }
    }
    check(&seen);
}

// Proves: A-secrets, I16
#[test]
fn a_url_that_is_refused_is_not_repeated() {
    let mut seen = String::new();
    for url in [
        format!("smtp://{USER}:hUnTeR2%25!@relay.example?tls=none"),
        format!("smtp://{USER}:{PASSWORD}@relay.example"),
        format!("smtp://{USER}:hUnTeR2%25!@relay.example:99999"),
        format!("smtp://{USER}:hUnTeR2%25!@"),
        format!("smtp://{USER}:hUnTeR2%25!@relay.example?tls={PASSWORD}"),
        format!("{USER}:hUnTeR2%25!@relay.example"),
    ] {
        tell(&mut seen, &SmtpConfig::from_url(&url).expect_err(&url));
    }
    let credentials = Credentials::new(USER, PASSWORD.to_owned().into());
    write!(seen, "{credentials:?} {credentials:#?}").unwrap();
    let controls = Credentials::new(USER, format!("{PASSWORD}\r\n").into());
    let config = SmtpConfig::new("relay.example", 25).unwrap();
    tell(&mut seen, &config.with_credentials(controls).unwrap_err());
    check(&seen);
}
