//! What becomes of a message, for every moment at which a relay can fail and every way of failing.

use std::time::Duration;

use sendmail_core::Mailer;
use sendmail_smtp::Timeouts;
use sendmail_testkit::smtp::{At, Certificates, Do, Script};

use crate::support::{Relay, SHORT};

/// A relay that fails at `at` by `fault`, the first time only; two recipients; what comes of it. The
/// next message must get through. Each cell is tried with and without PIPELINING.
async fn cell(at: At, fault: Do, expected: &str) {
    for pipelining in [true, false] {
        let certificates = Certificates::new();
        let mut script = Script::new().with("AUTH PLAIN");
        let mut url = "";
        match at {
            At::Auth => url = "u:p@?clear-text-auth=loopback",
            At::StartTls => {
                script = script.starttls(certificates.valid());
                url = "?tls=required";
            }
            _ => {}
        }
        if !pipelining {
            script = script.without("PIPELINING");
        }
        script = match at {
            At::Greeting | At::Ehlo | At::StartTls | At::Auth => {
                script.on_session(1, at.clone(), fault.clone())
            }
            _ => script.on_transaction(1, at.clone(), fault.clone()),
        };
        let timeouts = only_this_is_short(&at);
        let relay = Relay::at(script, url, |config| {
            let config = config.with_timeouts(timeouts);
            config.with_root_certificates_pem(certificates.root_pem().as_bytes()).unwrap()
        })
        .await;
        let context = format!("{at:?}, {fault:?}, pipelining {pipelining}");
        assert_eq!(relay.send(&["a@y.example", "b@y.example"]).await, expected, "{context}");
        let dots = relay.server.submitted().len();
        assert_eq!(relay.handovers(), dots, "announced exactly if a dot was sent: {context}");
        assert_eq!(relay.send(&["c@y.example"]).await, "accepted", "afterwards: {context}");
    }
}

fn only_this_is_short(at: &At) -> Timeouts {
    let mut timeouts = Timeouts::default();
    let step = match at {
        At::Greeting => &mut timeouts.greeting,
        At::Mail => &mut timeouts.mail,
        At::Rcpt(_) | At::AnyRcpt => &mut timeouts.rcpt,
        At::Data => &mut timeouts.data,
        At::Dot => &mut timeouts.final_dot,
        At::Body(_) => &mut timeouts.block,
        _ => &mut timeouts.command,
    };
    *step = SHORT;
    timeouts
}

fn four() -> Do {
    Do::reply("451 4.3.0 later")
}

fn five() -> Do {
    Do::reply("554 5.7.1 never")
}

fn leave() -> Do {
    Do::reply_and_close("421 4.3.2 leaving")
}

/// One line for each cell.
macro_rules! matrix {
    ($($name:ident: $at:expr, $fault:expr => $expected:literal;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                cell($at, $fault, $expected).await;
            }
        )*
    };
}

matrix! {
    greeting_4yz: At::Greeting, four() => "error: relay unreachable, temporary";
    greeting_5yz: At::Greeting, five() => "error: relay unreachable";
    // Proves: I11
    greeting_421: At::Greeting, leave() => "error: relay unreachable, temporary";
    greeting_close: At::Greeting, Do::Close => "error: relay unreachable, temporary";
    greeting_silence: At::Greeting, Do::Silence => "error: timed out, temporary";
    greeting_garbage: At::Greeting, Do::garbage() => "error: protocol error";
    // Proves: I15, A-endless, S-connect-garbage
    greeting_endless_line: At::Greeting, Do::endless_line() => "error: protocol error";
    greeting_endless_reply: At::Greeting, Do::endless_reply(220) => "error: protocol error";
    greeting_drip: At::Greeting, Do::drip() => "error: timed out, temporary";

    ehlo_4yz: At::Ehlo, four() => "error: relay unreachable, temporary";
    ehlo_421: At::Ehlo, leave() => "error: relay unreachable, temporary";
    ehlo_close: At::Ehlo, Do::Close => "error: relay unreachable, temporary";
    ehlo_silence: At::Ehlo, Do::Silence => "error: timed out, temporary";
    ehlo_garbage: At::Ehlo, Do::garbage() => "error: protocol error";
    ehlo_endless_line: At::Ehlo, Do::endless_line() => "error: protocol error";
    ehlo_endless_reply: At::Ehlo, Do::endless_reply(250) => "error: protocol error";
    ehlo_drip: At::Ehlo, Do::drip() => "error: timed out, temporary";

    starttls_4yz: At::StartTls, four() => "error: TLS failed, temporary";
    starttls_5yz: At::StartTls, five() => "error: TLS failed";
    starttls_421: At::StartTls, leave() => "error: TLS failed, temporary";
    starttls_close: At::StartTls, Do::Close => "error: relay unreachable, temporary";
    starttls_silence: At::StartTls, Do::Silence => "error: timed out, temporary";
    starttls_garbage: At::StartTls, Do::garbage() => "error: protocol error";
    starttls_endless_line: At::StartTls, Do::endless_line() => "error: protocol error";
    starttls_endless_reply: At::StartTls, Do::endless_reply(220) => "error: protocol error";
    starttls_drip: At::StartTls, Do::drip() => "error: timed out, temporary";

    auth_4yz: At::Auth, Do::reply("454 4.7.0 later") => "error: authentication failed, temporary";
    // Proves: I11
    auth_5yz: At::Auth, Do::reply("535 5.7.8 no") => "error: authentication failed";
    auth_421: At::Auth, leave() => "error: relay unreachable, temporary";
    auth_close: At::Auth, Do::Close => "error: relay unreachable, temporary";
    auth_silence: At::Auth, Do::Silence => "error: timed out, temporary";
    auth_garbage: At::Auth, Do::garbage() => "error: protocol error";
    auth_endless_line: At::Auth, Do::endless_line() => "error: protocol error";
    auth_endless_reply: At::Auth, Do::endless_reply(235) => "error: protocol error";
    auth_drip: At::Auth, Do::drip() => "error: timed out, temporary";

    mail_4yz: At::Mail, four() => "deferred deferred";
    mail_5yz: At::Mail, five() => "refused refused";
    mail_3yz: At::Mail, Do::reply("354 what") => "deferred deferred";
    mail_421: At::Mail, leave() => "deferred deferred";
    mail_close: At::Mail, Do::Close => "deferred deferred";
    mail_silence: At::Mail, Do::Silence => "deferred deferred";
    mail_garbage: At::Mail, Do::garbage() => "deferred deferred";
    mail_endless_line: At::Mail, Do::endless_line() => "deferred deferred";
    mail_endless_reply: At::Mail, Do::endless_reply(250) => "deferred deferred";
    mail_drip: At::Mail, Do::drip() => "deferred deferred";

    first_rcpt_4yz: At::Rcpt(1), four() => "deferred accepted";
    first_rcpt_5yz: At::Rcpt(1), five() => "refused accepted";
    first_rcpt_421: At::Rcpt(1), leave() => "deferred deferred";
    first_rcpt_close: At::Rcpt(1), Do::Close => "deferred deferred";
    second_rcpt_4yz: At::Rcpt(2), four() => "accepted deferred";
    second_rcpt_5yz: At::Rcpt(2), five() => "accepted refused";
    second_rcpt_3yz: At::Rcpt(2), Do::reply("354 what") => "deferred deferred";
    second_rcpt_421: At::Rcpt(2), leave() => "deferred deferred";
    second_rcpt_close: At::Rcpt(2), Do::Close => "deferred deferred";
    second_rcpt_silence: At::Rcpt(2), Do::Silence => "deferred deferred";
    second_rcpt_garbage: At::Rcpt(2), Do::garbage() => "deferred deferred";
    second_rcpt_endless_line: At::Rcpt(2), Do::endless_line() => "deferred deferred";
    second_rcpt_endless_reply: At::Rcpt(2), Do::endless_reply(250) => "deferred deferred";
    second_rcpt_drip: At::Rcpt(2), Do::drip() => "deferred deferred";

    every_rcpt_4yz: At::AnyRcpt, four() => "deferred deferred";
    every_rcpt_5yz: At::AnyRcpt, five() => "refused refused";
    every_rcpt_421: At::AnyRcpt, leave() => "deferred deferred";
    every_rcpt_close: At::AnyRcpt, Do::Close => "deferred deferred";
    every_rcpt_silence: At::AnyRcpt, Do::Silence => "deferred deferred";
    every_rcpt_garbage: At::AnyRcpt, Do::garbage() => "deferred deferred";

    data_4yz: At::Data, four() => "deferred deferred";
    data_5yz: At::Data, five() => "refused refused";
    data_2yz: At::Data, Do::reply("250 what") => "deferred deferred";
    data_421: At::Data, leave() => "deferred deferred";
    data_close: At::Data, Do::Close => "deferred deferred";
    data_silence: At::Data, Do::Silence => "deferred deferred";
    data_garbage: At::Data, Do::garbage() => "deferred deferred";
    data_endless_line: At::Data, Do::endless_line() => "deferred deferred";
    data_endless_reply: At::Data, Do::endless_reply(354) => "deferred deferred";
    data_drip: At::Data, Do::drip() => "deferred deferred";

    dot_4yz: At::Dot, four() => "deferred deferred";
    dot_5yz: At::Dot, five() => "refused refused";
    dot_2yz: At::Dot, Do::reply("250") => "accepted accepted";
    dot_3yz: At::Dot, Do::reply("354 go on") => "unknown unknown";
    dot_421: At::Dot, leave() => "unknown unknown";
    dot_close: At::Dot, Do::Close => "unknown unknown";
    dot_silence: At::Dot, Do::Silence => "unknown unknown";
    dot_garbage: At::Dot, Do::garbage() => "unknown unknown";
    dot_endless_line: At::Dot, Do::endless_line() => "unknown unknown";
    dot_endless_reply: At::Dot, Do::endless_reply(250) => "unknown unknown";
    // Proves: I15, A-endless
    dot_drip: At::Dot, Do::drip() => "unknown unknown";
}

/// 5yz to EHLO means HELO, and 5yz to that too is the relay's trouble.
#[tokio::test]
async fn ehlo_5yz() {
    let script = Script::new().on(At::Ehlo, five()).on(At::Helo, five());
    assert_eq!(Relay::start(script).await.send(&["a@y.example"]).await, "error: relay unreachable");
}

/// Nothing that QUIT is answered changes anything.
#[tokio::test]
async fn quit_is_of_no_interest() {
    let faults = [
        four(),
        five(),
        leave(),
        Do::Close,
        Do::Silence,
        Do::garbage(),
        Do::endless_line(),
        Do::drip(),
    ];
    for fault in faults {
        let timeouts = Timeouts::default();
        let script = Script::new().on(At::Quit, fault.clone());
        let relay = Relay::timed(script, with_short_quit(timeouts)).await;
        assert_eq!(relay.send(&["a@y.example"]).await, "accepted");
        let closing = tokio::time::timeout(Duration::from_secs(20), relay.mailer.close());
        assert!(closing.await.is_ok(), "{fault:?}");
        relay.server.wait_for_command("QUIT").await;
    }
}

fn with_short_quit(mut timeouts: Timeouts) -> Timeouts {
    timeouts.quit = SHORT;
    timeouts
}
