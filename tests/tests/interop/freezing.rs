//! `freeze`: nobody claims or decides, everything else goes on, and it is said when it is safe to restore.

use rustix::process::Signal;
use sendmail_testkit::smtp::{At, Do, Script, ScriptedServer};

use crate::support::{Daemon, Queue, Sink, die, mail, until};

// Proves: D-restores
#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_queue_takes_mail_and_neither_sends_nor_decides() {
    let queue = Queue::new();
    let database = queue.beside().join("shop.db");
    let url = format!("sqlite:{}", database.display());
    die(&queue, &database, "after-commit", 1001).await;
    let frozen = queue.run(["--json", "freeze"]).await.exits(0).json();
    assert_eq!((&frozen[0]["frozen"], &frozen[0]["changed"]), (&true.into(), &true.into()));
    assert_eq!((&frozen[0]["claimed"], &frozen[0]["safe_to_restore"]), (&0.into(), &false.into()));
    let waited = queue.run(["--json", "freeze", "--wait"]).await.exits(0).json();
    assert_eq!(waited.last().unwrap()["safe_to_restore"], true);

    queue.send(&["b@example.net"], mail("while frozen")).await;
    let recovered = queue.run(["--json", "--database", &url, "recover"]).await.exits(75).json();
    assert_eq!(
        (&recovered[0]["finding"], &recovered[0]["action"]),
        (&"frozen".into(), &"kept".into())
    );
    let sink = Sink::start(&queue.beside().join("arrived")).await;
    for words in ["list", "stats", "check", "run --once"] {
        let words = ["--database", &url, "--relay", &sink.url()]
            .map(str::to_owned)
            .into_iter()
            .chain(words.split(' ').map(str::to_owned));
        let done = queue.run(words).await;
        assert!(done.stderr.contains("frozen"), "{done:?}");
    }
    // Two messages wait.
    let once = ["--database", &url, "--relay", &sink.url(), "run", "--once"];
    queue.run(once).await.exits(75);
    assert!(sink.messages().is_empty());

    // The daemon stays up, says so, and goes on when it may.
    let daemon = Daemon::start(queue.command(["--database", &url, "--relay", &sink.url(), "run"]));
    daemon.wait_for("the remark", |line| line.contains("frozen").then_some(())).await;
    assert!(sink.messages().is_empty());
    let thawed = queue.run(["--json", "freeze", "--off"]).await.exits(0).json();
    assert_eq!((&thawed[0]["frozen"], &thawed[0]["changed"]), (&false.into(), &true.into()));
    sink.wait_for(3).await;
    daemon.signal(Signal::TERM);
    let (status, said) = daemon.end().await;
    assert!(status.success() && said.contains("not frozen any more"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn freeze_waits_until_no_worker_has_a_message() {
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("on its way")).await;
    // The relay is silent after the final dot.
    let server = ScriptedServer::start(Script::new().on(At::Dot, Do::Silence)).await.unwrap();
    let daemon = Daemon::start(queue.command(["--relay", &server.url(), "run"]));
    until("the message to be claimed", || async {
        (queue.list().await[0]["state"] == "claimed").then_some(())
    })
    .await;
    let done = queue.run(["--json", "freeze", "--wait", "--timeout", "1s"]).await.exits(75);
    assert_eq!(done.json()[0]["claimed"], 1, "{done:?}");
    assert!(done.stderr.contains("1 message is still with workers"), "{done:?}");
    daemon.kill().await;
}
