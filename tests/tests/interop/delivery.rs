//! One message from `send` to the relay, a relay that is down, and recipients with different answers.

use sendmail_testkit::smtp::{At, Do, Script, ScriptedServer};

use crate::support::{Daemon, Queue, files_in, mail};

// Proves: I14
#[tokio::test(flavor = "multi_thread")]
async fn the_relay_gets_the_bytes_as_they_were_and_the_queue_is_empty() {
    let queue = Queue::new();
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let id = queue.send(&["b@example.net", "c@example.net"], mail("as it was")).await;
    let entry = queue.only_entry().await;
    assert_eq!((&entry["message_id"], &entry["state"]), (&id.clone().into(), &"queued".into()));

    let done = queue.run_once(&server.url()).await.exits(0);
    assert!(done.stdout.starts_with("2 delivered"), "{done:?}");
    let received = server.wait_for_messages(1).await.remove(0);
    let end_of_header = format!("\r\nMessage-ID: {id}\r\n\r\n");
    let as_it_was = mail("as it was").replace('\n', "\r\n").replacen("\r\n\r\n", &end_of_header, 1);
    assert_eq!(String::from_utf8(received.bytes).unwrap(), as_it_was, "no header of ours");
    assert_eq!(received.reverse_path, "from@example.org");
    assert_eq!(received.recipients, ["b@example.net", "c@example.net"]);

    assert!(queue.list().await.is_empty());
    for place in ["tmp", "new", "cur", ".claimed", ".deferred", ".staged", ".held", ".failed"] {
        let left = files_in(&queue.path().join(place));
        assert!(left.is_empty(), "{place}: {left:?}");
    }
    queue.run_once(&server.url()).await.exits(0);
    assert_eq!(server.submitted().len(), 1, "nothing is left to send");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_complete_is_not_changed_by_a_byte() {
    let queue = Queue::new();
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let raw = "Received: by nobody\r\nMessage-ID: <own@example.org>\r\nDate: Thu, 01 Jan 2026 12:00:00 \
               +0000\r\nSubject: =?utf-8?q?caf=C3=A9?=\r\n\t folded\r\n\r\n\r\n.\r\n..\r\n.x\r\n \r\n\
               From the start of a line\r\n\tand \x01 the end\r\n";
    assert_eq!(queue.send(&["b@example.net"], raw).await, "<own@example.org>");
    queue.run_once(&server.url()).await.exits(0);
    let received = server.wait_for_messages(1).await.remove(0);
    assert_eq!(String::from_utf8(received.bytes).unwrap(), raw);
}

// Proves: I11
#[tokio::test(flavor = "multi_thread")]
async fn while_the_relay_is_down_nothing_is_attempted_and_afterwards_all_is_delivered() {
    let queue = Queue::new();
    for subject in ["one", "two", "three"] {
        queue.send(&["b@example.net"], mail(subject)).await;
    }
    // Bound and not listening: whoever connects is refused, and nobody else gets the port.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let down = format!("smtp://{}", socket.local_addr().unwrap());
    for _ in 0..2 {
        let done = queue.run_once(&down).await.exits(75);
        let told = |line: &str| line.contains("not tried") && line.contains("Connection refused");
        assert!(done.stdout.lines().any(told), "{done:?}");
    }
    let entries = queue.list().await;
    assert_eq!(entries.len(), 3);
    for entry in entries {
        assert_eq!((&entry["attempts"], &entry["state"]), (&0.into(), &"queued".into()));
    }
    assert!(!queue.events_of("relay-paused").await.is_empty());

    let server = ScriptedServer::start(Script::new()).await.unwrap();
    queue.run_once(&server.url()).await.exits(0);
    assert_eq!(crate::support::subjects(&server.messages()), ["one", "three", "two"]);
    assert!(queue.list().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_comes_back_gets_everything_from_a_processor_that_runs_on() {
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("waiting")).await;
    let busy = Do::reply_and_close("421 4.3.2 not now");
    let server =
        ScriptedServer::start(Script::new().on_session(1, At::Greeting, busy)).await.unwrap();
    let run = Daemon::start(queue.command(["--json", "--relay", &server.url(), "run"]));
    server.wait_for_messages(1).await;
    run.wait_for("the relay's return", |line| line.contains("relay-resumed").then_some(())).await;
    queue.send(&["b@example.net"], mail("behind it")).await;
    let received = server.wait_for_messages(2).await;
    assert_eq!(crate::support::subjects(&received), ["behind it", "waiting"]);
    run.kill().await;
}

// Proves: I9
#[tokio::test(flavor = "multi_thread")]
async fn of_three_recipients_each_gets_what_was_answered_for_it() {
    let queue = Queue::new().configured("[delivery]\nfirst_retry = \"200ms\"\n");
    let script = Script::new()
        .on_transaction(
            1,
            At::RcptTo("later@example.net".into()),
            Do::reply("450 4.2.0 greylisted"),
        )
        .on(At::RcptTo("never@example.net".into()), Do::reply("571 5.7.1 not wanted here"));
    let server = ScriptedServer::start(script).await.unwrap();
    let everybody = ["now@example.net", "later@example.net", "never@example.net"];
    let id = queue.send(&everybody, mail("three")).await;
    queue.run_once(&server.url()).await.exits(75);
    assert_eq!(server.messages()[0].recipients, ["now@example.net"]);

    let entries = queue.list().await;
    let [deferred, failed] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!((&deferred["state"], &deferred["attempts"]), (&"deferred".into(), &1.into()));
    assert_eq!(deferred["to"], serde_json::json!(["later@example.net"]));
    assert!(deferred["next_attempt"].is_string());
    assert_eq!(failed["state"], "failed");
    assert_eq!(failed["to"], serde_json::json!(["never@example.net"]));

    queue.drain(&server.url()).await;
    let received = server.messages();
    let recipients: Vec<_> = received.iter().map(|message| message.recipients.clone()).collect();
    assert_eq!(recipients, [["now@example.net"], ["later@example.net"]]);
    assert_eq!(received[0].bytes, received[1].bytes);
    let sessions = server.sessions();
    let asked = sessions.iter().flat_map(|session| session.lines());
    let asked = asked.filter(|line| line.contains("<never@") || line.contains("<now@"));
    assert_eq!(asked.count(), 2, "neither was asked a second time");

    let events = queue.events().await;
    let of = |kind: &str| -> Vec<(&str, &str)> {
        let chosen = events.iter().filter(|event| event["kind"] == kind);
        chosen
            .map(|event| (event["recipient"].as_str().unwrap(), event["reply"].as_str().unwrap()))
            .collect()
    };
    assert_eq!(of("failed"), [("never@example.net", "571 5.7.1 not wanted here")]);
    assert_eq!(of("deferred"), [("later@example.net", "450 4.2.0 greylisted")]);
    assert_eq!(
        of("sent").iter().map(|sent| sent.0).collect::<Vec<_>>(),
        ["now@example.net", "later@example.net"]
    );
    assert!(events.iter().all(|event| event["message_id"] == *id));
    let kept = std::fs::read_to_string(queue.only_file(".failed/new")).unwrap();
    assert!(kept.contains("X-Envelope-To: <never@example.net>") && kept.contains("The end."));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_for_later_waits_and_what_is_out_of_time_is_given_up_after_an_attempt() {
    let queue = Queue::new().configured("[delivery]\nfirst_retry = \"100ms\"\n");
    let script =
        Script::new().on(At::RcptTo("old@example.net".into()), Do::reply("450 4.2.0 later"));
    let server = ScriptedServer::start(script).await.unwrap();
    let send = |more: [&'static str; 3]| {
        let mut command = queue.command(["send", "-f", "from@example.org"]);
        command.args(more);
        crate::support::finish(command, b"Subject: s\n\nbody\n")
    };
    send(["--delay", "1h", "tomorrow@example.net"]).await.exits(0);
    send(["--expire-after", "1ms", "old@example.net"]).await.exits(0);
    queue.run_once(&server.url()).await.exits(0);
    assert!(server.submitted().is_empty());
    let entries = queue.list().await;
    let states: Vec<_> = entries.iter().map(|entry| entry["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["deferred", "failed"]);
    let expired = queue.events_of("expired").await;
    assert_eq!(expired[0]["reply"], "450 4.2.0 later", "it was tried once more before");
}
