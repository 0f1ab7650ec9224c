//! What became of which mail: read by cursor, followed, and found again after delivery.

use sendmail_testkit::smtp::{At, Do, Script, ScriptedServer};
use serde_json::Value;

use crate::support::{Daemon, Queue, mail, until};

/// A queue in which something has happened, by several workers.
async fn eventful(server: &ScriptedServer) -> Queue {
    let queue = Queue::new().configured("[delivery]\nfirst_retry = \"50ms\"\n");
    for round in 0..4 {
        for to in ["now@example.net", "never@example.net"] {
            queue.send(&[to, "other@example.net"], mail(&format!("{to} {round}"))).await;
        }
        queue.run_once(&server.url()).await;
    }
    queue
}

async fn server() -> ScriptedServer {
    let never = Do::reply("550 5.1.1 nobody");
    let script = Script::new().on(At::RcptTo("never@example.net".into()), never);
    ScriptedServer::start(script).await.unwrap()
}

async fn read(queue: &Queue, more: &[&str]) -> Vec<Value> {
    let words = ["--json", "events"].into_iter().chain(more.iter().copied());
    queue.run(words).await.exits(0).json()
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_goes_on_exactly_where_it_ended() {
    let server = server().await;
    let queue = eventful(&server).await;
    let all = queue.events().await;
    // 8 messages with 2 recipients each: queued once, and one outcome for each recipient.
    assert_eq!(all.len(), 8 * 3, "{all:?}");
    let distinct: std::collections::HashSet<_> =
        all.iter().map(|event| event["event"].as_str().unwrap()).collect();
    assert_eq!(distinct.len(), all.len());
    for (number, event) in all.iter().enumerate() {
        let rest = read(&queue, &["--after", event["cursor"].as_str().unwrap()]).await;
        assert_eq!(rest, all[number + 1..], "behind event {number}");
    }
    for size in ["1", "5"] {
        let mut pages = read(&queue, &["--limit", size]).await;
        loop {
            let cursor = pages.last().unwrap()["cursor"].as_str().unwrap();
            let page = read(&queue, &["--limit", size, "--after", cursor]).await;
            if page.is_empty() {
                break;
            }
            pages.extend(page);
        }
        assert_eq!(pages, all, "in pages of {size}");
    }
    let last = all.last().unwrap()["cursor"].as_str().unwrap();
    queue.send(&["now@example.net"], mail("another")).await;
    queue.run_once(&server.url()).await.exits(0);
    let kinds: Vec<Value> =
        read(&queue, &["--after", last]).await.iter().map(|event| event["kind"].clone()).collect();
    assert_eq!(kinds, ["queued", "sent"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_follows_hears_everything_once_and_in_order() {
    let server = server().await;
    let queue = eventful(&server).await;
    let before = queue.events().await;
    let from = before[before.len() / 2]["cursor"].as_str().unwrap();
    let follower = Daemon::start(queue.command(["--json", "events", "--follow", "--after", from]));
    let worker = Daemon::start(queue.command(["--relay", &server.url(), "run"]));
    for round in 0..3 {
        queue.send(&["now@example.net"], mail(&format!("later {round}"))).await;
        server.wait_for_messages(8 + round + 1).await;
    }
    let wanted = before.len() - before.len() / 2 - 1 + 3 * 2;
    let heard = until("all events", || async {
        let lines = follower.lines();
        (lines.len() >= wanted).then_some(lines)
    })
    .await;
    let heard: Vec<Value> = heard.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(heard, queue.events().await[before.len() / 2 + 1..]);
    worker.kill().await;
    follower.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cursor_that_is_none_or_too_old_is_refused_with_a_reason() {
    let server = server().await;
    let mut queue = eventful(&server).await;
    let old = queue.events().await[0]["cursor"].as_str().unwrap().to_owned();
    let done = queue.run(["events", "--after", "no-cursor"]).await.exits(65);
    assert!(done.stderr.contains("cursor"), "{done:?}");
    queue.configure("[queue]\nhistory = \"1ms\"\n");
    let done = until("history to be forgotten", || async {
        queue.send(&["now@example.net"], mail("s")).await;
        queue.run_once(&server.url()).await;
        let done = queue.run(["events", "--after", &old]).await;
        (done.code != Some(0)).then_some(done)
    })
    .await
    .exits(66);
    let oldest = queue.events().await[0]["cursor"].as_str().unwrap().to_owned();
    assert!(done.stderr.contains("oldest"), "{done:?}");
    queue.run(["events", "--after", &oldest]).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_is_shown_by_either_id_also_after_it_was_delivered() {
    let server = server().await;
    let queue = Queue::new();
    let message_id = queue.send(&["now@example.net"], mail("shown")).await;
    let id = queue.only_entry().await["id"].as_str().unwrap().to_owned();
    let bare = message_id.trim_matches(['<', '>']);
    for name in [id.as_str(), &message_id] {
        let shown = queue.run(["--json", "show", name]).await.exits(0).json();
        assert_eq!(
            (&shown[0]["id"], &shown[0]["entry"]["state"]),
            (&id.clone().into(), &"queued".into())
        );
        let raw = queue.run(["show", "--raw", name]).await.exits(0).stdout;
        assert!(raw.starts_with("From: Shop") && raw.ends_with("The end.\r\n"), "{raw}");
        assert!(!raw.contains("X-Envelope"), "as it is sent");
        assert!(queue.run(["show", name]).await.exits(0).stdout.contains("state        queued"));
    }
    queue.run_once(&server.url()).await.exits(0);
    for name in [id.as_str(), &message_id] {
        let shown = queue.run(["--json", "show", name]).await.exits(0).json();
        assert_eq!(shown.len(), 1);
        assert!(shown[0]["entry"].is_null());
        let history = shown[0]["history"].as_array().unwrap();
        let kinds: Vec<_> = history.iter().map(|event| event["kind"].as_str().unwrap()).collect();
        assert_eq!(kinds, ["queued", "sent"]);
        assert_eq!(history[1]["reply"], "250 2.0.0 taken");
        let text = queue.run(["show", name]).await.exits(0).stdout;
        assert!(text.contains("has left the queue"), "{text}");
        queue.run(["show", "--raw", name]).await.exits(66);
    }
    let done = queue.run(["show", bare]).await;
    assert!(matches!(done.code, Some(0 | 64)), "{done:?}");
}
