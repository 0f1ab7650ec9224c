//! What a relay answers is printed and kept, and cannot pretend to be anything else: no line of its own in
//! a log, no command to a terminal, and no more than 512 bytes.

use sendmail_testkit::smtp::{At, Do, Script, ScriptedServer};
use serde_json::Value;

use crate::support::{Done, Queue, files_in, mail};

/// Commands to a terminal in both forms, line ends, a lie, Latin-1, the direction of text, and very long.
fn evil(code: u16) -> Do {
    let lie = "\x1b]0;owned\x07\x1b[2J\x08\x7f\0";
    let mut line = format!("{code} {lie}").into_bytes();
    line.extend_from_slice(b"\x9b2J \xfc \xe2\x80\xae gnp.exe");
    line.extend_from_slice(b"\r2026-01-01T00:00:00Z sent to=x@y");
    line.extend_from_slice(&[b'A'; 700]);
    line.extend_from_slice(b"\r\n");
    Do::Send(line)
}

/// Only what is shown as it is, and at most 512 bytes of the relay's words.
#[track_caller]
fn assert_harmless(what: &str, done: &Done) {
    for line in done.all().lines() {
        assert!(line.chars().all(|c| (' '..='~').contains(&c)), "{what}: {line:?}");
        assert!(!line.starts_with("2026-01-01"), "{what} has a line that the relay wrote: {line}");
        assert!(line.matches('A').count() < 600, "{what}: {line}");
    }
}

// Proves: A-log
#[tokio::test(flavor = "multi_thread")]
async fn what_a_relay_answers_forges_no_line_and_commands_no_terminal() {
    for at in [At::Greeting, At::Ehlo, At::Mail, At::AnyRcpt, At::Data, At::Dot] {
        for code in [450, 550] {
            let queue = Queue::new();
            queue.send(&["b@example.net"], mail("s")).await;
            let script = Script::new().on(at.clone(), evil(code));
            let server = ScriptedServer::start(script).await.unwrap();
            let relay = server.url();
            for format in [&["--log", "trace"][..], &["--log", "trace", "--json"]] {
                let run = format.iter().copied().chain(["--relay", &relay, "run", "--once"]);
                let what = format!("{at:?} {code} {format:?}");
                assert_harmless(&what, &queue.run(run).await);
                for words in ["events", "list", "stats", "check"] {
                    let relay = ["--relay", "smtp://127.0.0.1:1"];
                    let words = format.iter().copied().chain(relay).chain([words]);
                    assert_harmless(&what, &queue.run(words).await);
                }
            }
            for event in queue.events().await {
                for key in ["reply", "detail"] {
                    let text = event[key].as_str().unwrap_or_default();
                    // The code and the status stand before the text.
                    assert!(text.len() <= 512 + "550 5.0.0 ".len(), "{event}");
                }
                let id = event["id"].as_str().unwrap_or_default().to_owned();
                if !id.is_empty() {
                    assert_harmless("show", &queue.run(["show", &id]).await);
                }
            }
            let journal = files_in(&queue.path().join(".journal"));
            for file in journal {
                let content = std::fs::read(&file).unwrap();
                assert!(!content.windows(4).any(|four| four == b"\x1b[2J"), "{}", file.display());
            }
        }
    }
}

/// JSON is one object a line, whatever is in it.
// Proves: A-log
#[tokio::test(flavor = "multi_thread")]
async fn every_line_of_a_json_log_is_an_object() {
    let queue = Queue::new();
    for to in ["b@example.net", "c@example.net"] {
        queue.send(&[to], mail("s")).await;
    }
    std::fs::write(queue.path().join("new/two\nlines\x1b[2J"), "nothing\n").unwrap();
    let script = Script::new().on(At::AnyRcpt, evil(451));
    let server = ScriptedServer::start(script).await.unwrap();
    let words = ["--json", "--log", "trace", "--relay", &server.url(), "run", "--once"];
    let mut done = queue.run(words).await.exits(75);
    let listed = queue.run(["--json", "--log", "trace", "list"]).await.exits(0);
    done.stderr.push_str(&listed.stderr);
    assert!(done.stderr.contains("two") && done.stderr.contains("deferred"), "{done:?}");
    for line in done.all().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok_and(|it| it.is_object()), "{line:?}");
    }
}
