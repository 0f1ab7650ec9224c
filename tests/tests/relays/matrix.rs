//! The matrix: one row for each moment at which a relay can fail and each way of failing.
//!
//! A row says what is seen after a pass in which the relay fails, and after one in which it is well again:
//! the queue's files with their attempts and recipients, the events, and one word for each copy that the
//! relay took. The message goes to `a`, `b` and `c`.

use sendmail_core::AmbiguousPolicy::{Drop, Hold, Retry};
use sendmail_testkit::smtp::{At, Do};

use crate::scripted::Cell;

macro_rules! cells {
    ($($(#[$comment:meta])* $name:ident: $cell:expr;)*) => {
        $(
            $(#[$comment])*
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() {
                $cell.check().await;
            }
        )*
    };
}

fn four() -> [Do; 2] {
    [Do::reply("451 4.3.0 later"), Do::reply("499-not\n499 yet")]
}

fn five() -> [Do; 2] {
    [Do::reply("554 5.7.1 never"), Do::reply("599 no")]
}

fn leaving() -> [Do; 3] {
    [Do::reply_and_close("421 4.3.2 leaving"), Do::reply("421 busy"), Do::Close]
}

/// `drip` says something all the time, and never comes to an end.
fn silence() -> [Do; 2] {
    [Do::Silence, Do::drip()]
}

/// `usual` is the code that is hoped for.
fn garbage(usual: u16) -> [Do; 3] {
    [Do::garbage(), Do::endless_line(), Do::endless_reply(usual)]
}

/// What happens to the TLS handshake after STARTTLS was answered as it should be.
fn handshake(then: Do) -> Do {
    Do::Sequence(vec![Do::reply("220 2.0.0 go ahead"), then])
}

cells! {
    // Proves: S-connect-4xx, I11
    greeting_4xx: Cell::at(At::Greeting, four()).pauses("the relay answered 4");
    // Proves: S-connect-5xx, I11
    greeting_5xx: Cell::at(At::Greeting, five()).pauses("the relay answered 5");
    // Proves: S-connect-421, I11
    greeting_421: Cell::at(At::Greeting, leaving()).pauses("greeting");
    // Proves: S-connect-silence, I11
    greeting_silence: Cell::at(At::Greeting, silence()).pauses("took longer");
    // Proves: S-connect-garbage, I11
    greeting_garbage: Cell::at(At::Greeting, garbage(220)).pauses("does not speak SMTP");

    // Proves: S-connect-4xx, I11
    ehlo_4xx: Cell::at(At::Ehlo, four()).pauses("the relay answered 4");
    // Proves: S-connect-5xx, I11
    ehlo_5xx: Cell::at(At::Ehlo, five()).beside(At::Helo, "502 5.5.1 no").pauses("502");
    // Proves: S-connect-421, I11
    ehlo_421: Cell::at(At::Ehlo, leaving()).pauses("EHLO");
    // Proves: S-connect-silence, I11
    ehlo_silence: Cell::at(At::Ehlo, silence()).pauses("took longer");
    // Proves: S-connect-garbage, I11
    ehlo_garbage: Cell::at(At::Ehlo, garbage(250)).pauses("does not speak SMTP");

    // Proves: S-connect-4xx, I11
    starttls_4xx: Cell::at(At::StartTls, four()).pauses("the relay answered 4");
    // Proves: S-connect-5xx, I11
    starttls_5xx: Cell::at(At::StartTls, five()).pauses("the relay answered 5");
    // Proves: S-connect-421, I11
    starttls_421: Cell::at(At::StartTls, leaving()).pauses("TLS");
    // Proves: S-connect-silence, I11
    starttls_silence: Cell::at(At::StartTls, silence()).pauses("took longer");
    // Proves: S-connect-garbage, I11
    starttls_garbage: Cell::at(At::StartTls, garbage(220)).pauses("does not speak SMTP");

    // In the middle of a handshake a reply in clear text is garbage, whatever its code.
    // Proves: S-connect-4xx, I11
    handshake_4xx: Cell::at(At::StartTls, four().map(handshake)).pauses("TLS");
    // Proves: S-connect-5xx, I11
    handshake_5xx: Cell::at(At::StartTls, five().map(handshake)).pauses("TLS");
    // Proves: S-connect-421, I11
    handshake_421: Cell::at(At::StartTls, leaving().map(handshake)).pauses("TLS");
    // Proves: S-connect-silence, I11
    handshake_silence: Cell::at(At::StartTls, [handshake(Do::Silence)]).pauses("took longer");
    // Proves: S-connect-garbage, I11
    handshake_garbage: Cell::at(At::StartTls, garbage(220).map(handshake)).pauses("TLS");

    // Proves: S-connect-4xx, I11
    auth_4xx: Cell::at(At::Auth, four()).pauses("the relay answered 4");
    // Proves: S-connect-5xx, I11
    auth_5xx: Cell::at(At::Auth, [Do::reply("535 5.7.8 no"), Do::reply("599 no")])
        .pauses("the relay answered 5");
    // Proves: S-connect-421, I11
    auth_421: Cell::at(At::Auth, leaving()).pauses("authenticate");
    // Proves: S-connect-silence, I11
    auth_silence: Cell::at(At::Auth, silence()).pauses("took longer");
    // Proves: S-connect-garbage, I11
    auth_garbage: Cell::at(At::Auth, garbage(235)).pauses("does not speak SMTP");

    // Proves: S-mail-4xx, I9
    mail_4xx: Cell::at(At::Mail, four())
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");
    // Proves: S-mail-5xx, I9, I10
    mail_5xx: Cell::at(At::Mail, five())
        .leaves("failed a1: a b c", "a failed, b failed, c failed", "")
        .then("", "failed a1: a b c", "", "");
    // Proves: S-mail-421
    mail_421: Cell::at(At::Mail, leaving())
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");
    // Proves: S-mail-silence
    mail_silence: Cell::at(At::Mail, silence())
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");
    // Proves: S-mail-garbage
    mail_garbage: Cell::at(At::Mail, garbage(250))
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");

    // Proves: S-rcpt-one-4xx, I9
    one_rcpt_4xx: Cell::at(At::Rcpt(2), four())
        .leaves("deferred a1: b", "a sent, b deferred, c sent", "a c")
        .then("b", "", "b sent", "a b c");
    // Proves: S-rcpt-one-5xx, I9, I10
    one_rcpt_5xx: Cell::at(At::Rcpt(2), five())
        .leaves("failed a1: b", "a sent, b failed, c sent", "a c")
        .then("", "failed a1: b", "", "a c");
    // Who has a result keeps it; who was accepted has none yet, since no message followed.
    // Proves: S-rcpt-one-421, I9
    one_rcpt_421: Cell::at(At::Rcpt(3), leaving())
        .beside(At::Rcpt(1), "550 5.1.1 nobody")
        .leaves("deferred a1: b c; failed a1: a", "a failed, b deferred, c deferred", "")
        .then("b c", "failed a1: a", "b sent, c sent", "b c");
    // Proves: S-rcpt-one-silence, I9
    one_rcpt_silence: Cell::at(At::Rcpt(3), silence())
        .beside(At::Rcpt(1), "550 5.1.1 nobody")
        .leaves("deferred a1: b c; failed a1: a", "a failed, b deferred, c deferred", "")
        .then("b c", "failed a1: a", "b sent, c sent", "b c");
    // Proves: S-rcpt-one-garbage, I9
    one_rcpt_garbage: Cell::at(At::Rcpt(3), garbage(250))
        .beside(At::Rcpt(1), "550 5.1.1 nobody")
        .leaves("deferred a1: b c; failed a1: a", "a failed, b deferred, c deferred", "")
        .then("b c", "failed a1: a", "b sent, c sent", "b c");

    // Proves: S-rcpt-all-4xx, I9
    every_rcpt_4xx: Cell::at(At::AnyRcpt, four())
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");
    // Proves: S-rcpt-all-5xx, I9, I10
    every_rcpt_5xx: Cell::at(At::AnyRcpt, five())
        .leaves("failed a1: a b c", "a failed, b failed, c failed", "")
        .then("", "failed a1: a b c", "", "");
    // Proves: S-rcpt-all-421
    every_rcpt_421: Cell::at(At::AnyRcpt, leaving())
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");
    // Proves: S-rcpt-all-silence
    every_rcpt_silence: Cell::at(At::AnyRcpt, silence())
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");
    // Proves: S-rcpt-all-garbage
    every_rcpt_garbage: Cell::at(At::AnyRcpt, garbage(250))
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");

    // Proves: S-data-4xx
    data_4xx: Cell::at(At::Data, four())
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");
    // Proves: S-data-5xx, I10
    data_5xx: Cell::at(At::Data, five())
        .leaves("failed a1: a b c", "a failed, b failed, c failed", "")
        .then("", "failed a1: a b c", "", "");
    // Who was refused before keeps that result.
    // Proves: S-data-4xx, I9
    data_4xx_after_a_refused_rcpt: Cell::at(At::Data, four())
        .beside(At::Rcpt(2), "550 5.1.1 nobody")
        .leaves("deferred a1: a c; failed a1: b", "a deferred, b failed, c deferred", "")
        .then("a c", "failed a1: b", "a sent, c sent", "a c");
    // Proves: S-data-421
    data_421: Cell::at(At::Data, leaving())
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");
    // Proves: S-data-silence
    data_silence: Cell::at(At::Data, silence())
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");
    // Proves: S-data-garbage
    data_garbage: Cell::at(At::Data, garbage(354))
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");

    // Proves: S-dot-4xx, I9
    dot_4xx: Cell::at(At::Dot, four())
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");
    // Proves: S-dot-5xx, I9, I10
    dot_5xx: Cell::at(At::Dot, five())
        .leaves("failed a1: a b c", "a failed, b failed, c failed", "")
        .then("", "failed a1: a b c", "", "");
    // Proves: S-dot-421, I8
    dot_421: in_doubt(leaving());
    // Proves: S-dot-silence, I8
    dot_silence: in_doubt(silence());
    // Proves: S-dot-garbage, I8
    dot_garbage: in_doubt(garbage(250));
    // Proves: S-354, I8
    dot_354: in_doubt([Do::reply("354 go on"), Do::reply("354")]);

    // A refusal after the dot leaves no doubt, whatever is to be done in doubt.
    // Proves: S-dot-4xx
    dot_4xx_if_doubt_is_to_be_held: Cell::at(At::Dot, four())
        .policy(Hold)
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");
    // Proves: S-dot-4xx
    dot_4xx_if_doubt_is_to_be_dropped: Cell::at(At::Dot, four())
        .policy(Drop)
        .leaves("deferred a1: a b c", "a deferred, b deferred, c deferred", "")
        .then("a b c", "", "a sent, b sent, c sent", "a b c");
    // Proves: S-dot-5xx
    dot_5xx_if_doubt_is_to_be_held: Cell::at(At::Dot, five())
        .policy(Hold)
        .leaves("failed a1: a b c", "a failed, b failed, c failed", "")
        .then("", "failed a1: a b c", "", "");
    // Proves: S-dot-5xx
    dot_5xx_if_doubt_is_to_be_dropped: Cell::at(At::Dot, five())
        .policy(Drop)
        .leaves("failed a1: a b c", "a failed, b failed, c failed", "")
        .then("", "failed a1: a b c", "", "");
    // Proves: S-dot-421, I8
    dot_421_held: held(leaving());
    // Proves: S-dot-silence, I8
    dot_silence_held: held(silence());
    // Proves: S-dot-garbage, I8
    dot_garbage_held: held(garbage(250));
    // Proves: S-dot-421, I8, I10
    dot_421_dropped: dropped(leaving());
    // Proves: S-dot-silence, I8, I10
    dot_silence_dropped: dropped(silence());
    // Proves: S-dot-garbage, I8, I10
    dot_garbage_dropped: dropped(garbage(250));
    // Who was deferred before the dot is in no doubt: only the others are announced.
    // Proves: S-dot-421, I8, I9
    dot_421_after_a_deferred_and_a_refused_rcpt: Cell::at(At::Dot, leaving())
        .policy(Retry)
        .beside(At::Rcpt(1), "450 4.2.0 later")
        .beside(At::Rcpt(2), "550 5.1.1 nobody")
        .leaves(
            "deferred a1: a c; failed a1: b",
            "a deferred, b failed, c possible-duplicate",
            "c",
        )
        .then("a c", "failed a1: b", "a sent, c sent", "a c c");

    // Proves: S-quit-4xx
    quit_4xx: quit(four());
    // Proves: S-quit-5xx
    quit_5xx: quit(five());
    // Proves: S-quit-421
    quit_421: quit(leaving());
    // Proves: S-quit-silence
    quit_silence: quit(silence());
    // Proves: S-quit-garbage
    quit_garbage: quit(garbage(221));
}

/// The relay may have the message or not: it is announced, and sent again.
fn in_doubt(answers: impl IntoIterator<Item = Do>) -> Cell {
    Cell::at(At::Dot, answers)
        .leaves(
            "deferred a1: a b c",
            "a possible-duplicate, b possible-duplicate, c possible-duplicate",
            "a b c",
        )
        .then("a b c", "", "a sent, b sent, c sent", "a a b b c c")
}

/// It waits until somebody decides.
fn held(answers: impl IntoIterator<Item = Do>) -> Cell {
    Cell::at(At::Dot, answers)
        .policy(Hold)
        .leaves(
            "held a1: a b c",
            "a held, a possible-duplicate, b held, b possible-duplicate, c held, \
             c possible-duplicate",
            "a b c",
        )
        .then("", "held a1: a b c", "", "a b c")
}

/// It is given up, and kept with the failed.
fn dropped(answers: impl IntoIterator<Item = Do>) -> Cell {
    Cell::at(At::Dot, answers)
        .policy(Drop)
        .leaves(
            "failed a1: a b c",
            "a possible-duplicate, a failed, b possible-duplicate, b failed, \
             c possible-duplicate, c failed",
            "a b c",
        )
        .then("", "failed a1: a b c", "", "a b c")
}

/// What QUIT is answered changes nothing: all was settled before.
fn quit(answers: impl IntoIterator<Item = Do>) -> Cell {
    Cell::at(At::Quit, answers)
        .leaves("", "a sent, b sent, c sent", "a b c")
        .then("", "", "", "a b c")
}
