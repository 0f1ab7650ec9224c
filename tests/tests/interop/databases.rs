//! Mail of database transactions, seen by an operator: what `recover`, `run`, `check`, `list` and `stats`
//! say and do when shops are killed, and databases are away, wrong or damaged.

use std::sync::Arc;

use rustix::process::Signal;
use sendmail_clock::SystemClock;
use sendmail_core::{Clock as _, Timestamp};
use sendmail_testkit::ManualClock;
use sendmail_testkit::smtp::{Script, ScriptedServer};
use serde_json::Value;

use crate::support::{Daemon, Queue, Shop, Sink, die, files_in, mail};

/// Nobody listens here.
const GONE: &str = "postgres://shop:s3cr3t-Pa55w0rd@127.0.0.1:1/shop";

/// What `recover` told of each message: its words for what was found and done.
fn told(lines: &[Value]) -> Vec<(&str, &str)> {
    let messages = lines.iter().filter_map(|line| Some((line["finding"].as_str()?, line)));
    let mut told: Vec<_> =
        messages.map(|(finding, line)| (finding, line["action"].as_str().unwrap())).collect();
    told.sort_unstable();
    told
}

// Proves: D-attach, F-window-kill
#[tokio::test(flavor = "multi_thread")]
async fn orders_of_killed_shops_are_decided_by_what_the_database_says() {
    let queue = Queue::new();
    let database = queue.beside().join("shop.db");
    let url = format!("sqlite:{}", database.display());
    die(&queue, &database, "before-commit", 1003).await;
    die(&queue, &database, "after-commit", 1004).await;

    let staged = queue.list().await;
    let resource = staged[0]["resource"].as_str().unwrap().to_owned();
    assert!(resource.starts_with("db-"), "{resource}");
    assert_eq!(staged.len(), 4);
    assert!(
        staged.iter().all(|entry| entry["resource"] == *resource && entry["state"] == "staged")
    );
    let stats = queue.run(["--json", "stats"]).await.exits(0).json();
    assert_eq!(stats[0]["in_doubt"][0]["resource"], *resource);
    assert_eq!(stats[0]["in_doubt"][0]["count"], 4);

    let recovered = queue.run(["--json", "--database", &url, "recover"]).await.exits(0).json();
    let (committed, aborted) = (("committed", "published"), ("aborted", "discarded"));
    assert_eq!(told(&recovered), [aborted, aborted, committed, committed]);
    assert!(recovered[0]["database"] == "default" && recovered[0]["resource"] == *resource);
    let summary = recovered.last().unwrap();
    assert_eq!((summary["messages"].as_u64(), summary["in_doubt"].as_u64()), (Some(4), Some(0)));
    let again = queue.run(["--json", "--database", &url, "recover"]).await.exits(0).json();
    assert!(told(&again).is_empty(), "{again:?}");

    // What was discarded wrongly, because the database is an old copy, is put back by hand.
    let discarded = queue.run(["--json", "list", "--state", "discarded"]).await.exits(0).json();
    assert_eq!(discarded.len(), 2);
    assert!(discarded.iter().all(|entry| entry["resource"] == *resource));
    let id = discarded[0]["message_id"].as_str().unwrap();
    let decide = ["--json", "recover", "--decide", "committed", id];
    assert_eq!(told(&queue.run(decide).await.exits(0).json()), [("discarded", "put-back")]);
    assert_eq!(told(&queue.run(decide).await.exits(0).json()), [("not-undecided", "nothing")]);

    let server = ScriptedServer::start(Script::new()).await.unwrap();
    queue.run_once(&server.url()).await.exits(0);
    assert_eq!(server.messages().len(), 3);
    assert!(queue.list().await.is_empty());
}

// Proves: D-undecidable
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_cannot_be_reached_holds_up_no_other_mail() {
    let mut queue = Queue::new();
    let [shop, away, hidden] =
        ["shop.db", "away.db", "hidden.db"].map(|name| queue.beside().join(name));
    die(&queue, &shop, "after-commit", 1001).await;
    die(&queue, &away, "after-commit", 1004).await;
    std::fs::rename(&away, &hidden).unwrap();
    queue.configure(&format!(
        "[databases.shop]\nurl = 'sqlite:{}'\n[databases.away]\nurl = 'sqlite:{}'\n\
         [databases.gone]\nurl = '{GONE}'\n",
        shop.display(),
        away.display()
    ));
    queue.send(&["plain@example.net"], mail("plain")).await;
    let sink = Sink::start(&queue.beside().join("arrived")).await;
    let daemon = Daemon::start(queue.command(["--relay", &sink.url(), "run"]));
    sink.wait_for(3).await;
    let lost = |line: &str| line.contains("database away: cannot").then_some(());
    daemon.wait_for("it to say that a database is away", lost).await;
    let listed = queue.list().await;
    assert!(
        listed.len() == 2 && listed.iter().all(|entry| entry["state"] == "staged"),
        "{listed:?}"
    );

    std::fs::rename(&hidden, &away).unwrap();
    sink.wait_for(5).await;
    daemon.signal(Signal::TERM);
    let (status, said) = daemon.end().await;
    assert!(status.success(), "{said}");
    // Once for each change, however often it was tried.
    for line in ["database away: cannot", "can be asked again", "database gone: cannot"] {
        assert_eq!(said.matches(line).count(), 1, "{line}: {said}");
    }
    assert!(!said.contains("s3cr3t"), "{said}");
    assert!(queue.list().await.is_empty());
}

// Proves: D-undecidable
#[tokio::test(flavor = "multi_thread")]
async fn no_other_database_is_asked_and_the_operator_is_told_what_to_configure() {
    let queue = Queue::new();
    let right = queue.beside().join("right.db");
    die(&queue, &right, "after-commit", 1001).await;
    let wrong = Shop::open(&queue, "wrong.db", Arc::new(SystemClock)).await;
    let url = wrong.url();

    let done = queue.run(["--json", "--database", &url, "recover"]).await.exits(75);
    let kept = ("unknown-resource", "kept");
    assert_eq!(told(&done.json()), [kept, kept]);
    let resource = queue.list().await[0]["resource"].as_str().unwrap().to_owned();
    for word in [resource.as_str(), "default (db-", "[databases.NAME]"] {
        assert!(done.stderr.contains(word), "{word}: {done:?}");
    }
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let run = ["--database", &url, "--relay", &server.url(), "run", "--once"];
    let done = queue.run(run).await.exits(75);
    assert!(done.stderr.contains(&resource), "{done:?}");
    assert!(server.messages().is_empty());

    let ids: Vec<String> =
        queue.list().await.iter().map(|it| it["id"].as_str().unwrap().to_owned()).collect();
    let decide = ["--json", "recover", "--decide", "committed", &ids[0], &ids[1]];
    let published = ("unknown-resource", "published");
    assert_eq!(told(&queue.run(decide).await.exits(0).json()), [published, published]);
    queue.run_once(&server.url()).await.exits(0);
    assert_eq!(server.messages().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_its_tables_a_database_decides_nothing() {
    let queue = Queue::new();
    let database = queue.beside().join("shop.db");
    die(&queue, &database, "after-commit", 1001).await;
    let shop = Shop::open(&queue, "shop.db", Arc::new(SystemClock)).await;
    shop.execute("ALTER TABLE sendmail_marker RENAME TO elsewhere").await;
    let (url, server) = (shop.url(), ScriptedServer::start(Script::new()).await.unwrap());

    let relay = server.url();
    let done = queue.run(["--database", &url, "--relay", &relay, "check"]).await;
    assert!(done.code != Some(0) && done.stdout.contains("migrate default"), "{done:?}");
    assert!(done.stdout.contains("restore them from the backup"), "{done:?}");
    assert!(!done.stdout.contains("sendmail_sqlx::"), "an operator has no library: {done:?}");
    assert!(done.stdout.contains("2 of them in doubt"), "however young they are: {done:?}");
    let done = queue.run(["--database", &url, "recover"]).await.exits(75);
    assert!(done.stderr.contains("sendmail_marker"), "{done:?}");
    let done = queue.run(["--database", &url, "--relay", &relay, "run", "--once"]).await.exits(75);
    assert!(done.stdout.contains("database: default, url: sqlite:"), "{done:?}");
    assert_eq!(queue.list().await.len(), 2);
    assert!(server.messages().is_empty());

    shop.execute("ALTER TABLE elsewhere RENAME TO sendmail_marker").await;
    queue.run(["--database", &url, "--relay", &relay, "run", "--once"]).await.exits(0);
    assert_eq!(server.messages().len(), 2);
}

// Proves: D-markers
#[tokio::test(flavor = "multi_thread")]
async fn a_committed_mail_that_is_gone_is_an_alarm() {
    let queue = Queue::new();
    let shop = Shop::open(&queue, "shop.db", Arc::new(SystemClock)).await;
    shop.commit("alice@example.net").await;
    for file in files_in(&queue.path().join(".staged")) {
        std::fs::remove_file(file).unwrap();
    }
    shop.execute("UPDATE sendmail_marker SET at = at - 3600").await;
    let done = queue.run(["--json", "--database", &shop.url(), "recover"]).await.exits(66);
    assert_eq!(told(&done.json()), [("missing", "kept")]);
    assert_eq!(done.json().last().unwrap()["missing"], 1);
    assert!(done.stderr.contains("alarm"), "{done:?}");
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let check = ["--database", &shop.url(), "--relay", &server.url(), "check"];
    let done = queue.run(check).await.exits(66);
    assert!(done.stdout.contains("ALARM"), "{done:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn check_says_what_is_in_doubt_and_which_database_it_is() {
    let queue = Queue::new();
    let now = SystemClock.now();
    let earlier = Timestamp::from_millis(now.as_millis() - 5 * 60_000);
    let shop = Shop::open(&queue, "shop.db", Arc::new(ManualClock::new(earlier))).await;
    shop.commit("alice@example.net").await;
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let (url, relay) = (shop.url(), server.url());
    let check = ["--json", "--database", &url, "--relay", &relay, "check"];
    let done = queue.run(check).await.exits(0);
    let resource = queue.list().await[0]["resource"].clone();
    assert!(done.stderr.contains("1 in doubt, the oldest since 5 min"), "{done:?}");
    let lines = done.json();
    assert_eq!(lines[0]["values"]["databases"]["default"]["url"], url);
    let database = lines.iter().find(|line| line["check"] == "database").unwrap();
    assert_eq!((&database["name"], &database["ok"]), (&"default".into(), &true.into()));
    assert_eq!(database["resource"], resource);
}

#[tokio::test(flavor = "multi_thread")]
async fn migrate_makes_the_tables_of_the_database_that_is_meant() {
    let mut queue = Queue::new();
    let files = ["a.db", "b.db"].map(|name| queue.beside().join(name));
    for file in &files {
        std::fs::File::create(file).unwrap();
    }
    let url = |index: usize| format!("sqlite:{}", files[index].display());
    queue.configure(&format!(
        "[databases.a]\nurl = '{}'\n[databases.b]\nurl = '{}'\n",
        url(0),
        url(1)
    ));
    let done = queue.run(["migrate"]).await.exits(64);
    assert!(done.stderr.contains("a, b"), "{done:?}");
    let resource = async |name: &str| {
        let made = queue.run(["--json", "migrate", name]).await.exits(0).json();
        made[0]["resource"].as_str().unwrap().to_owned()
    };
    let (a, b) = (resource("a").await, resource("b").await);
    assert_ne!(a, b);
    assert_eq!(resource("a").await, a, "it may be run again");
    for kind in ["postgres", "mysql", "sqlite"] {
        let done = queue.run(["migrate", "--print", kind]).await.exits(0);
        assert!(done.stdout.contains("CREATE TABLE IF NOT EXISTS sendmail_marker"), "{done:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_password_of_a_database_is_printed() {
    let mut queue = Queue::new();
    let config = format!("[databases.gone]\nurl = '{GONE}'\nrequire_durable = true\n");
    queue.configure(&config);
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let relay = server.url();
    for words in ["check", "recover", "run --once", "migrate", "list", "stats", "--help"] {
        for format in ["--json", "--log=trace"] {
            let words = ["--relay", &relay, format].into_iter().chain(words.split(' '));
            let mut command = queue.command(words);
            command.env("SENDMAIL_DATABASE", GONE);
            let done = crate::support::finish(command, b"").await;
            assert!(!done.all().contains("s3cr3t"), "{done:?}");
        }
    }
    let done = queue.run(["--database", "mysql://u:s3cr3t@h:port/d", "list"]).await.exits(78);
    assert!(!done.all().contains("s3cr3t"), "{done:?}");
}
