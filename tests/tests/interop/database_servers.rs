//! Real database servers, seen by an operator: servers that forget, and servers that go and come back.

use std::sync::Arc;

use rustix::process::Signal;
use sendmail_clock::SystemClock;
use sendmail_core::{Clock as _, Envelope, Message, QueueStore};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_sqlx::{AttachExt as _, SqlDelivery};
use sendmail_testkit::smtp::{Script, ScriptedServer};
use sendmail_tests::servers::{Engine, MariaDb, Postgres, Server};
use sqlx::{PgPool, Postgres as PgDatabase, Transaction};

use crate::support::{Daemon, Queue, Sink, finish, mail, until};

/// Begins a transaction with a mail. What attached it is gone when this returns, as if it had died.
async fn begin(queue: &Queue, pool: &PgPool, to: &str) -> Transaction<'static, PgDatabase> {
    let store = MaildirStore::open(queue.path(), MaildirOptions::default()).await.unwrap();
    let store: Arc<dyn QueueStore> = Arc::new(store);
    let delivery = SqlDelivery::connect(store, Arc::new(SystemClock), pool).await.unwrap();
    let raw = format!("From: shop@example.org\nTo: {to}\nSubject: Your order\n\nThank you.\n");
    let message = Message::from_raw(raw.as_bytes(), SystemClock.now(), "example.org").unwrap();
    let envelope = Envelope::parse("shop@example.org", [to]).unwrap();
    let mut tx = pool.begin().await.unwrap();
    delivery.attach(&mut *tx, envelope, message).await.unwrap();
    tx
}

/// A configuration of that database, with its password in a file of its own.
fn configuration(queue: &Queue, url: &str, more: &str) -> String {
    let (user, rest) = url.rsplit_once('@').unwrap();
    let (user, password) = user.rsplit_once(':').unwrap();
    let file = queue.password_file(password);
    let file = file.display();
    format!("[databases.shop]\nurl = '{user}@{rest}'\npassword_file = '{file}'\n{more}\n")
}

// Proves: D-relaxed
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_may_forget_is_told_of_and_refused_where_it_must_not() {
    let test = "a_database_that_may_forget_is_told_of_and_refused_where_it_must_not";
    let Some(server) = Postgres::own(test, &[("synchronous_commit", "off")]) else { return };
    let mut queue = Queue::new();
    let url = server.create_database("shop").unwrap();
    queue.configure(&configuration(&queue, &url, "require_durable = true"));
    queue.run(["migrate", "shop"]).await.exits(0);
    let pool = PgPool::connect(&url).await.unwrap();
    begin(&queue, &pool, "alice@example.net").await.commit().await.unwrap();

    let relay = ScriptedServer::start(Script::new()).await.unwrap();
    let (relay_url, setting) = (relay.url(), "synchronous_commit is off");
    for (words, code) in [("check", 69), ("run --once", 75), ("recover", 75)] {
        let words = ["--relay", &relay_url].into_iter().chain(words.split(' '));
        let done = finish(queue.command(words), b"").await.exits(code);
        let said = done.all();
        assert!(said.contains(setting) && said.contains("require_durable"), "{done:?}");
    }
    assert_eq!((queue.list().await.len(), relay.messages().len()), (1, 0));

    queue.configure(&configuration(&queue, &url, ""));
    for words in ["check", "run --once"] {
        let words = ["--relay", &relay_url].into_iter().chain(words.split(' '));
        let done = finish(queue.command(words), b"").await.exits(0);
        assert!(done.stderr.contains(setting), "{done:?}");
    }
    assert_eq!(relay.messages().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn mariadb_that_may_forget_is_told_of() {
    let setting = ("innodb-flush-log-at-trx-commit", "2");
    let Some(server) = MariaDb::own("mariadb_that_may_forget_is_told_of", &[setting]) else {
        return;
    };
    says_what_it_found(&server, "innodb_flush_log_at_trx_commit is 2").await;
}

async fn says_what_it_found<E: Engine>(server: &Server<E>, found: &str) {
    let mut queue = Queue::new();
    let url = server.create_database("shop").unwrap();
    queue.configure(&configuration(&queue, &url, ""));
    let relay = ScriptedServer::start(Script::new()).await.unwrap();
    let check = ["--json", "--relay", &relay.url(), "check"];
    let done = queue.run(check).await;
    assert!(done.code != Some(0) && done.stdout.contains("migrate shop"), "{done:?}");
    let made = queue.run(["--json", "migrate"]).await.exits(0).json();
    let done = queue.run(check).await.exits(0);
    let lines = done.json();
    let database = lines.iter().find(|line| line["check"] == "database").unwrap();
    assert_eq!(database["resource"], made[0]["resource"]);
    assert!(database["warnings"][0].as_str().unwrap().contains(found), "{database}");
}

/// The client and the server die with a transaction open, while `run` looks on.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_and_comes_back_keeps_its_mails_in_doubt_meanwhile() {
    let test = "a_server_that_dies_and_comes_back_keeps_its_mails_in_doubt_meanwhile";
    let Some(mut server) = Postgres::own(test, &[]) else { return };
    let mut queue = Queue::new();
    let url = server.create_database("shop").unwrap();
    queue.configure(&configuration(&queue, &url, ""));
    queue.run(["migrate"]).await.exits(0);
    let pool = PgPool::connect(&url).await.unwrap();
    let sink = Sink::start(&queue.beside().join("arrived")).await;
    let daemon = Daemon::start(queue.command(["--relay", &sink.url(), "run"]));

    begin(&queue, &pool, "alice@example.net").await.commit().await.unwrap();
    sink.wait_for(1).await;
    let open = begin(&queue, &pool, "bob@example.net").await;
    server.kill().unwrap();
    drop(open);
    let lost = |line: &str| line.contains("database shop: cannot").then_some(());
    daemon.wait_for("it to say that the database is away", lost).await;
    queue.send(&["carol@example.net"], mail("plain")).await;
    sink.wait_for(2).await;
    assert_eq!(queue.only_entry().await["state"], "staged");

    server.restart().unwrap();
    until("the mail to be decided", || async { queue.list().await.is_empty().then_some(()) }).await;
    daemon.signal(Signal::TERM);
    let (status, said) = daemon.end().await;
    assert!(status.success(), "{said}");
    assert_eq!(said.matches("database shop: cannot").count(), 1, "{said}");
    assert!(said.contains("can be asked again"), "{said}");
    let discarded = queue.run(["--json", "list", "--state", "discarded"]).await.exits(0).json();
    assert_eq!(discarded[0]["to"][0], "bob@example.net");
    assert_eq!(sink.messages().len(), 2);
}
