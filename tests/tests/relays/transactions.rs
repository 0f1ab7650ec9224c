//! What a cell of the matrix cannot hold: further transactions, odd codes, the dialogue itself, and what
//! an operator does with a message in doubt.

use std::time::Duration;

use sendmail_core::AmbiguousPolicy::{Hold, Retry};
use sendmail_core::MailEventKind::PossibleDuplicate;
use sendmail_processor::ProcessorConfig;
use sendmail_smtp::{SmtpConfig, Timeouts};
use sendmail_testkit::smtp::{At, Do, Script};

use crate::scripted::{Stage, local_part};

fn both() -> [Script; 2] {
    [Script::new(), Script::new().without("PIPELINING")]
}

impl Stage {
    /// Who got what, transaction by transaction: `a | b c`.
    fn transactions(&self) -> String {
        let messages = self.server.messages();
        let one = |to: &Vec<String>| to.iter().map(local_part).collect::<Vec<_>>().join(" ");
        messages.iter().map(|message| one(&message.recipients)).collect::<Vec<_>>().join(" | ")
    }
}

/// More recipients than a relay takes at once are served in further transactions of the same attempt.
// Proves: S-too-many, I9
#[tokio::test(flavor = "multi_thread")]
async fn too_many_recipients_get_further_transactions() {
    for script in both() {
        let replies = ["452 4.5.3 too many", "552 5.5.3 too many", "452", "552 too many"];
        for full in replies.into_iter().chain(["451 4.5.3 too many", "550 5.5.3 too many"]) {
            let script = script
                .clone()
                .on_transaction(1, At::Rcpt(2), Do::reply(full))
                .on_transaction(1, At::Rcpt(3), Do::reply(full))
                .on_transaction(2, At::Rcpt(2), Do::reply(full));
            let stage = Stage::with(script, Retry).await;
            let seen = stage.look().await;
            assert_eq!(seen.queue, "", "{full}");
            assert_eq!(seen.events, "a sent, b sent, c sent", "{full}");
            assert_eq!(stage.transactions(), "a | b | c", "{full}");
            assert_eq!(stage.server.connections(), 1);
        }
    }
}

/// What the first transaction settled stays settled, however the next one ends.
// Proves: S-too-many, S-dot-421, I8, I9
#[tokio::test(flavor = "multi_thread")]
async fn too_many_recipients_and_the_further_transaction_fails() {
    let failures = [
        (At::Mail, Do::Close, "a sent, b deferred, c deferred", "a | b c"),
        (At::Data, Do::Close, "a sent, b deferred, c deferred", "a | b c"),
        (At::Dot, Do::reply("451 no"), "a sent, b deferred, c deferred", "a | b c"),
        (At::Dot, Do::Close, "a sent, b possible-duplicate, c possible-duplicate", "a | b c"),
    ];
    for script in both() {
        for (at, answer, events, transactions) in &failures {
            let script = script
                .clone()
                .on_transaction(1, At::Rcpt(2), Do::reply("452 4.5.3 too many"))
                .on_transaction(1, At::Rcpt(3), Do::reply("452 4.5.3 too many"))
                .on_transaction(2, at.clone(), answer.clone());
            let stage = Stage::with(script, Retry).await;
            let seen = stage.look().await;
            assert_eq!((seen.queue.as_str(), &*seen.events), ("deferred a1: b c", *events));
            stage.world.wait();
            stage.server.set_script(stage.healthy.clone());
            let seen = stage.look().await;
            assert_eq!((seen.queue.as_str(), seen.events.as_str()), ("", "b sent, c sent"));
            assert_eq!(stage.transactions(), *transactions);
        }
    }
}

/// Only who was accepted before makes "too many" of a 452: alone it means "later".
// Proves: S-rcpt-all-4xx
#[tokio::test(flavor = "multi_thread")]
async fn too_many_for_the_first_recipient_is_later() {
    for script in both() {
        let stage = Stage::with(script.on(At::AnyRcpt, Do::reply("452")), Retry).await;
        let seen = stage.look().await;
        assert_eq!(seen.queue, "deferred a1: a b c");
        assert_eq!(stage.offered(), ["a", "b", "c"], "one transaction");
    }
}

/// Replies that are as good as the usual ones: no text, Latin-1, several lines, other digits.
// Proves: S-codes
#[tokio::test(flavor = "multi_thread")]
async fn any_2yz_is_a_250() {
    let latin_1 = Do::Send(b"250 gr\xfc\xdfe\r\n".to_vec());
    let replies = [
        Do::reply("250"),
        Do::reply("250 "),
        Do::reply("250-one\n250-two\n250 three"),
        Do::reply("200 ok"),
        Do::reply("251 will be forwarded"),
        Do::reply("299 ok"),
        latin_1,
    ];
    for reply in replies {
        let on = |script: Script, all: &[At]| {
            all.iter().fold(script, |script, at| script.on(at.clone(), reply.clone()))
        };
        let transaction = [At::Mail, At::AnyRcpt, At::Dot];
        let [pipelined, plain] = both().map(|script| on(script, &transaction));
        for script in [pipelined, plain, on(Script::new(), &[At::Greeting, At::Ehlo])] {
            let stage = Stage::with(script, Retry).await;
            let seen = stage.look().await;
            let told = (seen.queue.as_str(), seen.events.as_str(), seen.relay.as_str());
            assert_eq!(told, ("", "a sent, b sent, c sent", ""), "{reply:?}");
            assert_eq!(stage.transactions(), "a b c", "{reply:?}");
        }
    }
}

// Proves: S-codes
#[tokio::test(flavor = "multi_thread")]
async fn any_3yz_to_data_is_a_354() {
    for script in both() {
        for reply in ["354", "300 go", "399-go\n399 on"] {
            let stage = Stage::with(script.clone().on(At::Data, Do::reply(reply)), Retry).await;
            assert_eq!(stage.look().await.events, "a sent, b sent, c sent", "{reply}");
        }
    }
}

/// A 354 says "go on": where it is the last word, nothing was promised. After the dot it is a row of the
/// matrix.
// Proves: S-354
#[tokio::test(flavor = "multi_thread")]
async fn a_354_is_a_success_nowhere() {
    for script in both() {
        for at in [At::Mail, At::AnyRcpt] {
            let stage = Stage::with(script.clone().on(at, Do::reply("354 go on")), Retry).await;
            let seen = stage.look().await;
            assert_eq!(seen.queue, "deferred a1: a b c");
            assert_eq!(seen.events, "a deferred, b deferred, c deferred");
            assert_eq!(stage.server.submitted(), []);
        }
    }
    for at in [At::Greeting, At::Ehlo] {
        let stage = Stage::with(Script::new().on(at, Do::reply("354 go on")), Retry).await;
        let seen = stage.look().await;
        assert_eq!((seen.queue.as_str(), seen.relay.as_str()), ("queued a0: a b c", "paused"));
    }
}

/// If everybody was refused, a relay that pipelines and says 354 all the same gets a lone dot, and what it
/// says of it makes nobody's success.
// Proves: S-354, S-rcpt-all-5xx
#[tokio::test(flavor = "multi_thread")]
async fn a_354_for_nobody_is_no_delivery() {
    let script = Script::new()
        .on(At::AnyRcpt, Do::reply("550 5.1.1 nobody"))
        .on(At::Data, Do::reply("354 go on"));
    let stage = Stage::with(script, Retry).await;
    let seen = stage.look().await;
    assert_eq!(seen.queue, "failed a1: a b c");
    assert_eq!(seen.events, "a failed, b failed, c failed");
    assert_eq!(stage.server.submitted()[0].bytes, b"", "not a byte of the message");
}

/// The two dialogues of the matrix are really two.
// Proves: I14
#[tokio::test(flavor = "multi_thread")]
async fn the_dialogue_is_pipelined_exactly_where_it_is_offered() {
    for (script, pipelined) in both().into_iter().zip([true, false]) {
        let stage = Stage::with(script, Retry).await;
        assert_eq!(stage.look().await.events, "a sent, b sent, c sent");
        let session = &stage.server.sessions()[0];
        assert_eq!(session.is_pipelined(), pipelined);
        assert_eq!(session.verbs(), ["EHLO", "MAIL", "RCPT", "RCPT", "RCPT", "DATA", "QUIT"]);
        assert_eq!(stage.copies(false), ["a", "b", "c"], "byte for byte");
    }
}

/// The time that silence cells make short is what the charter asks for.
// Proves: S-dot-silence, S-quit-silence
#[test]
fn the_deadlines_are_those_of_rfc_5321() {
    let (minute, times) = (Duration::from_secs(60), Timeouts::default());
    assert_eq!((times.greeting, times.mail, times.rcpt), (5 * minute, 5 * minute, 5 * minute));
    assert_eq!((times.data, times.block, times.final_dot), (2 * minute, 3 * minute, 10 * minute));
    assert_eq!(times.quit, Duration::from_secs(5));
}

/// A message in doubt that was held is sent again when an operator says so, and was announced before.
// Proves: S-dot-421, I8
#[tokio::test(flavor = "multi_thread")]
async fn a_held_doubt_is_sent_again_when_it_is_released() {
    let stage = Stage::with(Script::new().on(At::Dot, Do::Close), Hold).await;
    assert_eq!(stage.look().await.queue, "held a1: a b c");
    let announced = stage.world.log().await.iter().filter(|e| e.kind == PossibleDuplicate).count();
    assert_eq!(announced, 3, "before anything is sent again");
    stage.server.set_script(Script::new());
    stage.world.release_all().await;
    let seen = stage.look().await;
    assert_eq!(
        (seen.queue.as_str(), seen.events.as_str()),
        ("", "released, a sent, b sent, c sent")
    );
    assert_eq!(stage.copies(false).join(" "), "a a b b c c");
}

/// A relay that refuses message after message is not believed: it is paused, and what it refused from
/// then on is kept for later.
// Proves: S-mail-5xx, I10
#[tokio::test(flavor = "multi_thread")]
async fn many_refusals_in_a_row_are_the_relays_trouble() {
    for at in [At::Mail, At::AnyRcpt, At::Data, At::Dot] {
        let refusing = Script::new().on(at.clone(), Do::reply("550 5.7.1 you are blocked"));
        let stage = Stage::with(refusing, Retry).await;
        for _ in 0..5 {
            stage.queue(Retry).await;
        }
        let mut config = ProcessorConfig::default();
        (config.max_refusals_in_a_row, config.concurrency) = (3, 1);
        let relay = SmtpConfig::from_url(&stage.server.url()).unwrap();
        let processor = stage.world.processor(relay, config);
        let seen = stage.world.pass(&processor).await;
        let all = ["deferred a1: a b c", "failed a1: a b c", "failed a1: a b c"];
        let untouched = ["queued a0: a b c"; 3];
        assert_eq!(seen.queue, [all, untouched].concat().join("; "), "{at:?}");
        assert_eq!(seen.relay, "paused");
        assert!(seen.trouble.unwrap().contains("refused 3 different messages in a row"));

        stage.server.set_script(Script::new());
        stage.world.wait();
        let seen = stage.world.pass(&processor).await;
        assert_eq!(seen.queue, "failed a1: a b c; failed a1: a b c");
        assert_eq!(seen.relay, "resumed");
        assert_eq!(stage.server.messages().len(), 4, "{at:?}");
    }
}
