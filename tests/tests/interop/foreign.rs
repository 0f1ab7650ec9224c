//! Queues that zope.sendmail 7.3 and repoze.sendmail 4.5 have written themselves.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::process::Command;

use crate::support::{Daemon, Queue, Sink, demand, files_in};

const WRITE_ZOPE: &str = include_str!("python/zope_write.py");
const WRITE_REPOZE: &str = include_str!("python/repoze_write.py");
const PROCESS_ZOPE: &str = include_str!("python/zope_process.py");

/// Lets one of those programs write `count` messages; returns those whose transaction committed.
async fn write(
    python: &Path,
    program: &str,
    queue: &Queue,
    count: usize,
    more: &[&str],
) -> Vec<Value> {
    let count_text = count.to_string();
    let mut arguments = vec![queue.path(), Path::new(&count_text)];
    arguments.extend(more.iter().map(Path::new));
    let written = demand::python(python, program, &arguments).await.json();
    assert_eq!(written.len(), count);
    assert_eq!(files_in(&queue.path().join("new")).len(), count);
    written
}

/// From, recipients and subject of each message, in order.
fn envelopes(messages: &[Value]) -> Vec<String> {
    let line =
        |message: &Value| format!("{} {} {}", message["subject"], message["from"], message["to"]);
    let mut lines: Vec<String> = messages.iter().map(line).collect();
    lines.sort_unstable();
    lines
}

/// What is left of a queue that is empty for whoever looks into it.
fn left(queue: &Queue) -> Vec<PathBuf> {
    ["new", "cur", ".claimed", ".deferred", ".failed", ".held"]
        .iter()
        .flat_map(|folder| files_in(&queue.path().join(folder)))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_messages_of_zope_are_delivered_once_each() {
    let Some(python) = demand::zope_python() else { return };
    let queue = Queue::new();
    let sink = Sink::start(&queue.beside().join("arrived")).await;
    let committed = write(&python, WRITE_ZOPE, &queue, 300, &[]).await;
    queue.run_once(&sink.url()).await.exits(0);
    let arrived = sink.wait_for(300).await;
    assert_eq!(envelopes(&arrived), envelopes(&committed));
    assert_eq!(left(&queue), Vec::<PathBuf>::new());
    for message in &arrived {
        let text = std::fs::read_to_string(stored(&queue, message)).unwrap();
        let header = text.split("\r\n\r\n").next().unwrap();
        assert!(!header.contains("X-Zope-"), "{header}");
        let body = "caf\u{e9}, as bytes\r\n.\r\n..\r\nFrom here\r\nX-Zope-To: body@example.com\r\n";
        assert_eq!(text.split_once("\r\n\r\n").unwrap().1, body);
    }
    // What a killed zope process had written was never committed: it is neither sent nor touched.
    let prepared = files_in(&queue.path().join("tmp"));
    assert_eq!(prepared.len(), 1);
    assert!(std::fs::read_to_string(&prepared[0]).unwrap().contains("killed zope"));
    queue.run_once(&sink.url()).await.exits(0);
    assert_eq!(sink.messages().len(), 300);
}

#[tokio::test(flavor = "multi_thread")]
async fn three_hundred_messages_of_repoze_are_delivered_once_each() {
    let Some(python) = demand::zope_python() else { return };
    let queue = Queue::new();
    let sink = Sink::start(&queue.beside().join("arrived")).await;
    let committed = write(&python, WRITE_REPOZE, &queue, 300, &[]).await;
    queue.run_once(&sink.url()).await.exits(0);
    let arrived = sink.wait_for(300).await;
    assert_eq!(envelopes(&arrived), envelopes(&committed), "commas in names make no recipients");
    assert_eq!(left(&queue), Vec::<PathBuf>::new());
    for message in &arrived {
        let text = std::fs::read_to_string(stored(&queue, message)).unwrap();
        assert!(!text.split("\r\n\r\n").next().unwrap().contains("X-Actually-"), "{text}");
    }
    queue.run_once(&sink.url()).await.exits(0);
    assert_eq!(sink.messages().len(), 300);
}

/// Where the sink keeps a message.
fn stored(queue: &Queue, message: &Value) -> PathBuf {
    queue.beside().join("arrived/new").join(message["file"].as_str().unwrap())
}

// Proves: B-file-names
#[tokio::test(flavor = "multi_thread")]
async fn what_zope_has_locked_is_left_to_it() {
    let Some(python) = demand::zope_python() else { return };
    let queue = Queue::new();
    let sink = Sink::start(&queue.beside().join("arrived")).await;
    write(&python, WRITE_ZOPE, &queue, 3, &[]).await;
    let mut names = Vec::new();
    for file in files_in(&queue.path().join("new")) {
        let name = file.file_name().unwrap().to_str().unwrap().to_owned();
        std::fs::hard_link(&file, file.with_file_name(format!(".sending-{name}"))).unwrap();
        names.push(name);
    }
    queue.run_once(&sink.url()).await.exits(0);
    assert!(sink.messages().is_empty(), "zope is sending them");
    assert_eq!(files_in(&queue.path().join("new")).len(), 6, "files and locks stay");
    let unlocked = queue.path().join("new").join(format!(".sending-{}", names[0]));
    std::fs::remove_file(unlocked).unwrap();
    queue.run_once(&sink.url()).await.exits(0);
    assert_eq!(sink.messages().len(), 1);
    assert!(!queue.path().join("new").join(&names[0]).exists());
    assert_eq!(files_in(&queue.path().join("new")).len(), 4);
}

/// Both processors at once on the same messages, which are old, as after an outage: whoever has the
/// lock sends, and the other keeps away.
#[tokio::test(flavor = "multi_thread")]
async fn zopes_processor_and_ours_share_a_queue_and_nothing_is_sent_twice() {
    let Some(python) = demand::zope_python() else { return };
    let queue = Queue::new().configured("[delivery]\nmax_in_flight = 2\n");
    let sink = Sink::start(&queue.beside().join("arrived")).await;
    let committed = write(&python, WRITE_ZOPE, &queue, 300, &["crlf"]).await;
    let old = SystemTime::now() - Duration::from_secs(6 * 3600);
    for file in files_in(&queue.path().join("new")) {
        let file = std::fs::File::options().write(true).open(file).unwrap();
        file.set_modified(old).unwrap();
    }
    let mut command = Command::new(&python);
    command.args(["-c", PROCESS_ZOPE]).arg(queue.path()).arg(sink.port());
    let zope = Daemon::start(command);
    sink.wait_for(1).await;
    let ours = Daemon::start(queue.command(["--relay", &sink.url(), "run"]));
    let (status, told) = zope.end().await;
    assert!(status.success(), "{told}");
    sink.wait_for(300).await;
    ours.signal(rustix::process::Signal::TERM);
    assert!(ours.end().await.0.success());
    assert_eq!(subjects(&sink.messages()), subjects(&committed));
    assert_eq!(left(&queue), Vec::<PathBuf>::new());
    let by_us = queue.events_of("sent").await.len();
    let recipients = committed.iter().map(|message| message["to"].as_array().unwrap().len());
    assert!(0 < by_us && by_us < recipients.sum(), "both had their share");
}

fn subjects(messages: &[Value]) -> Vec<&str> {
    let mut found: Vec<&str> =
        messages.iter().map(|message| message["subject"].as_str().unwrap()).collect();
    found.sort_unstable();
    found
}
