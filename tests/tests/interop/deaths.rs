//! Processes that die, are stopped or stand still, and what becomes of the mail that they had.

use rustix::process::Signal;
use sendmail_testkit::smtp::{At, Do, Gate, Script, ScriptedServer};
use serde_json::Value;
use tokio::process::Command;

use crate::support::{Daemon, Queue, files_in, mail, subjects, until};

/// A server that does not answer the final dot until the gate is open.
async fn withholding(gate: &Gate) -> ScriptedServer {
    let answer = Do::Wait(gate.clone(), Box::new(Do::reply("250 2.0.0 taken")));
    ScriptedServer::start(Script::new().on(At::Dot, answer)).await.unwrap()
}

/// Waits until so many final dots have arrived.
async fn wait_for_dots(server: &ScriptedServer, count: usize) {
    until("the final dot", || async {
        let sessions = server.sessions();
        let dots = sessions.iter().map(|session| {
            let raw = String::from_utf8_lossy(&session.raw);
            raw.matches("\r\nThe end.\r\n.\r\n").count()
        });
        (dots.sum::<usize>() >= count).then_some(())
    })
    .await;
}

fn run(queue: &Queue, server: &ScriptedServer) -> Daemon {
    Daemon::start(queue.command(["--json", "--relay", &server.url(), "run"]))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_kills_its_worker_three_times_is_held() {
    let queue = Queue::new();
    let id = queue.send(&["b@example.net"], mail("killer")).await;
    let server = withholding(&Gate::new()).await;
    for death in 1..=3 {
        let worker = run(&queue, &server);
        wait_for_dots(&server, death).await;
        worker.kill().await;
    }
    server.set_script(Script::new());
    queue.send(&["b@example.net"], mail("harmless")).await;
    let before = server.connections();
    queue.run_once(&server.url()).await;
    assert_eq!(server.connections(), before + 1);
    let tried = subjects(&server.submitted());
    assert_eq!(tried, ["harmless", "killer", "killer", "killer"], "it is not tried again");

    let entry = queue.only_entry().await;
    assert_eq!((&entry["state"], &entry["attempts"]), (&"held".into(), &3.into()));
    assert_eq!(entry["message_id"], *id);
    let duplicates = queue.events_of("possible-duplicate").await;
    let attempts: Vec<_> = duplicates.iter().map(|event| event["attempt"].as_u64()).collect();
    assert_eq!(attempts, [Some(1), Some(2), Some(3)]);
    let held = queue.events_of("held").await;
    assert_eq!(held.len(), 1);
    assert!(held[0]["detail"].as_str().unwrap().contains("3 workers died"), "{held:?}");
}

// Proves: I8, F-send-kill
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_dies_before_the_handover_makes_no_duplicate() {
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("early")).await;
    let server = ScriptedServer::start(Script::new().on(At::Data, Do::Silence)).await.unwrap();
    let worker = run(&queue, &server);
    server.wait_for_command("DATA").await;
    worker.kill().await;
    server.set_script(Script::new());
    queue.run_once(&server.url()).await.exits(0);
    assert_eq!(subjects(&server.submitted()), ["early"]);
    assert!(queue.events_of("possible-duplicate").await.is_empty());
    assert_eq!(queue.events_of("sent").await[0]["attempt"], 2);
}

// Proves: I12, F-dot-kill
#[tokio::test(flavor = "multi_thread")]
async fn another_processor_takes_over_at_its_next_look() {
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("taken over")).await;
    let server = withholding(&Gate::new()).await;
    let first = run(&queue, &server);
    wait_for_dots(&server, 1).await;
    server.set_script(Script::new());
    let second = run(&queue, &server);
    second.wait_for("the second to run", |line| line.contains("delivering to").then_some(())).await;
    assert_eq!(server.connections(), 1, "the first one lives");
    first.kill().await;
    for kind in ["\"possible-duplicate\"", "\"sent\""] {
        second.wait_for(kind, |line| line.contains(kind).then_some(())).await;
    }
    second.kill().await;
    assert_eq!(server.connections(), 2, "once by each");
    assert!(queue.list().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_processor_that_stands_still_keeps_what_it_has() {
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("once")).await;
    let gate = Gate::new();
    let server = withholding(&gate).await;
    let sleeper = run(&queue, &server);
    wait_for_dots(&server, 1).await;
    sleeper.signal(Signal::STOP);
    let other = queue.run_once(&server.url()).await;
    assert!(other.stdout.starts_with("0 delivered"), "{other:?}");
    assert_eq!(queue.only_entry().await["state"], "claimed");
    sleeper.signal(Signal::CONT);
    gate.open();
    server.wait_for_messages(1).await;
    sleeper.signal(Signal::TERM);
    assert!(sleeper.end().await.0.success());
    assert!(queue.list().await.is_empty());
    assert_eq!(server.submitted().len(), 1);
    assert!(queue.events_of("possible-duplicate").await.is_empty());
}

// Proves: Q-stop
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_finishes_what_is_on_the_wire_and_gives_back_the_rest() {
    for signal in [Signal::TERM, Signal::INT] {
        let queue = Queue::new().configured("[relay]\nmax_connections = 1\n");
        for subject in ["one", "two", "three", "four"] {
            queue.send(&["b@example.net"], mail(subject)).await;
        }
        let gate = Gate::new();
        let server = withholding(&gate).await;
        let worker = run(&queue, &server);
        wait_for_dots(&server, 1).await;
        worker.signal(signal);
        worker.wait_for("the stop", |line| line.contains("stopping").then_some(())).await;
        gate.open();
        let (status, told) = worker.end().await;
        assert_eq!(status.code(), Some(0), "{told}");
        // The one that had begun behind it, too: two attempts share a connection.
        assert_eq!(server.messages().len(), 2);
        let entries = queue.list().await;
        assert_eq!(entries.len(), 2, "{entries:?}");
        for entry in &entries {
            assert_eq!((&entry["state"], &entry["attempts"]), (&"queued".into(), &0.into()));
        }
        assert!(files_in(&queue.path().join(".claimed")).is_empty());
        queue.run_once(&server.url()).await.exits(0);
        assert_eq!(subjects(&server.messages()), ["four", "one", "three", "two"]);
        assert!(queue.events_of("possible-duplicate").await.is_empty());
    }
}

// Proves: Q-stop
#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_once_and_loses_nothing() {
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("cut short")).await;
    let server = withholding(&Gate::new()).await;
    let worker = run(&queue, &server);
    wait_for_dots(&server, 1).await;
    worker.signal(Signal::TERM);
    worker.wait_for("the stop", |line| line.contains("stopping").then_some(())).await;
    worker.signal(Signal::TERM);
    let (status, told) = worker.end().await;
    assert_eq!(status.code(), Some(75), "{told}");
    server.set_script(Script::new());
    queue.run_once(&server.url()).await.exits(0);
    assert_eq!(server.connections(), 2);
    assert!(queue.list().await.is_empty());
    let duplicates = queue.events_of("possible-duplicate").await;
    assert_eq!(duplicates.len(), 1, "it may have been taken: that is told");
}

/// A producer that has got as far as `prepared`, before its commit, or `decided`, before it publishes.
async fn producer(queue: &Queue, until: &str) -> Daemon {
    let mut command = Command::new(env!("CARGO_BIN_EXE_half-transaction"));
    command.arg(queue.path()).arg(until);
    let victim = Daemon::start(command);
    victim.wait_for("the victim", |line| (line == "ready").then_some(())).await;
    let staged = queue.list().await;
    assert_eq!(staged.len(), 2);
    for entry in staged {
        assert_eq!(entry["state"], "staged", "{entry}");
        assert!(entry["resource"].is_string());
    }
    victim
}

async fn kill_producer(queue: &Queue, until: &str) {
    producer(queue, until).await.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_living_producer_has_prepared_is_left_to_it() {
    let queue = Queue::new();
    let alive = producer(&queue, "prepared").await;
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    for _ in 0..2 {
        let report = queue.run(["--json", "recover"]).await.exits(75).json();
        assert!(report[..2].iter().all(|line| line["done"] == "kept"), "{report:?}");
        assert_eq!(report[2]["in_doubt"], 2);
        queue.run_once(&server.url()).await;
    }
    assert!(server.submitted().is_empty());
    assert_eq!(queue.list().await.len(), 2);
    alive.kill().await;
}

// Proves: I2, F-prepare-kill
#[tokio::test(flavor = "multi_thread")]
async fn what_was_prepared_by_the_dead_is_discarded_and_what_was_committed_is_sent() {
    let queue = Queue::new();
    kill_producer(&queue, "prepared").await;
    let recovered = queue.run(["--json", "recover"]).await.exits(0).json();
    let done: Vec<&Value> = recovered.iter().filter_map(|line| line.get("done")).collect();
    assert_eq!(done.len(), 2, "{recovered:?}");
    assert!(done.iter().all(|done| done.as_str().unwrap().starts_with("discarded")));
    assert!(queue.list().await.is_empty());
    assert_eq!(queue.events_of("discarded").await.len(), 2);
    assert_eq!(files_in(&queue.path().join(".discarded")).len(), 2, "kept for some days");

    kill_producer(&queue, "decided").await;
    let recovered = queue.run(["--json", "recover"]).await.exits(0).json();
    let done: Vec<&Value> = recovered.iter().filter_map(|line| line.get("done")).collect();
    assert_eq!(done, ["published", "published"], "{recovered:?}");
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    queue.run_once(&server.url()).await.exits(0);
    assert_eq!(server.messages().len(), 2);
    queue.run(["recover"]).await.exits(0);
    queue.run_once(&server.url()).await.exits(0);
    assert_eq!(server.messages().len(), 2, "once is enough");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_processor_recovers_what_a_dead_producer_left_by_itself() {
    let queue = Queue::new();
    kill_producer(&queue, "decided").await;
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    queue.run_once(&server.url()).await.exits(0);
    assert_eq!(server.messages().len(), 2);
    assert!(queue.list().await.is_empty());
}

/// The queue itself knows that nobody committed: it is not talked into the opposite, and nothing is lost.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_cannot_decide_against_the_one_who_knows() {
    let queue = Queue::new();
    kill_producer(&queue, "prepared").await;
    let staged = queue.list().await;
    let ids = staged.iter().map(|entry| entry["id"].as_str().unwrap());
    let words = ["--json", "recover", "--decide", "committed"].into_iter().chain(ids);
    let report = queue.run(words).await.exits(75).json();
    assert!(report[..2].iter().all(|line| line["done"] == "kept"), "{report:?}");
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    queue.run_once(&server.url()).await;
    assert!(server.submitted().is_empty());
    assert_eq!(files_in(&queue.path().join(".discarded")).len(), 2);
    let report = queue.run(["recover", "--decide", "aborted", "<no.such@message>"]).await;
    assert_eq!(report.code, Some(66), "{report:?}");
}

// Proves: B-unknown-format, Q-newer
#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_newer_format_stays_untouched_and_is_reported() {
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("newer")).await;
    let file = queue.only_file("new");
    let newer = std::fs::read_to_string(&file).unwrap();
    let newer = newer.replace("X-Queue-Version: 1", "X-Queue-Version: 2\r\nX-Queue-Later: x");
    std::fs::write(&file, &newer).unwrap();
    queue.send(&["b@example.net"], mail("known")).await;
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    for _ in 0..2 {
        queue.run_once(&server.url()).await;
    }
    assert_eq!(subjects(&server.submitted()), ["known"]);
    assert_eq!(std::fs::read_to_string(&file).unwrap(), newer, "where and as it was");
    for command in [["list"], ["check"]] {
        let relay = server.url();
        let done = queue.run(["--relay", &relay].iter().chain(&command)).await.exits(0);
        assert!(done.stderr.contains("version 2 is newer"), "{done:?}");
    }
    assert_eq!(queue.only_entry().await["state"], "queued");
    assert!(queue.events_of("damaged").await.is_empty());
}

// Proves: B-unknown-format, Q-newer
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_a_newer_layout_is_not_touched_at_all() {
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("kept")).await;
    let identity = queue.path().join(".queue");
    let newer = std::fs::read_to_string(&identity).unwrap().replace("version 1", "version 2");
    std::fs::write(&identity, newer).unwrap();
    let before = files_in(queue.path());
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let relay = server.url();
    for command in [vec!["run", "--once"], vec!["list"], vec!["recover"], vec!["events"]] {
        let words = ["--relay", relay.as_str()].into_iter().chain(command);
        let done = queue.run(words).await.exits(69);
        assert!(done.stderr.contains("newer program (version 2)"), "{done:?}");
    }
    assert_eq!(files_in(queue.path()), before);
    assert_eq!(server.connections(), 0);
}
