//! Each way in which zope.sendmail 7.3 and repoze.sendmail 4.5 fail, and the test that shows that we do
//! not.
//!
//! | what goes wrong there | the test here |
//! |---|---|
//! | 450 for all recipients: rejected for good | [`deferred_for_everybody_is_tried_again`] |
//! | one of two deferred or refused: lost, logged as sent | [`one_of_two_is_never_lost`], [`of_three_recipients_each_gets_what_was_answered_for_it`] |
//! | 535: the whole queue rejected in one pass | [`refused_credentials_fail_no_mail`] |
//! | LF in the sender: mail to the attacker's recipient | [`a_line_feed_in_an_address_is_refused`], [`a_line_feed_that_zope_took_is_noticed`] |
//! | truncated file: sent | [`what_is_not_whole_is_never_sent_and_is_named`] |
//! | zero-length file: rejected with an empty list | [`what_is_not_whole_is_never_sent_and_is_named`] |
//! | dangling symlink: the loop dies | [`what_is_no_file_is_named_and_blocks_nothing`] |
//! | FIFO: it hangs | [`what_is_no_file_is_named_and_blocks_nothing`] |
//! | rename fails at commit: commit succeeds, mail lost in `tmp/` | [`a_commit_whose_rename_fails_says_so`] |
//! | killed between vote and rename: same | [`what_was_prepared_by_the_dead_is_discarded_and_what_was_committed_is_sent`] |
//! | killed while sending: three hours | [`another_processor_takes_over_at_its_next_look`] |
//! | server closes after its 250: the mailer is wedged for every later message | [`a_server_that_closes_after_its_250_wedges_nothing`] |
//! | two processors: one dies on a file the other took | [`two_processors_share_a_queue`] |
//! | two processors: stale takeover double-sends | [`a_processor_that_stands_still_keeps_what_it_has`] |
//! | same second and same random number: one message silently overwrites another | [`thousands_in_one_instant_are_all_kept`] |
//! | repoze: rejected files are sent again at every pass | [`what_was_refused_is_not_tried_again`] |
//! | repoze: a transient error delivers twice | [`a_transient_error_delivers_once`] |
//! | repoze: comma in a display name makes two recipients | [`three_hundred_messages_of_repoze_are_delivered_once_each`] |
//! | repoze: queue files 0644 | [`nobody_else_can_read_the_queue`] |
//! | exit status 0 when nothing could be sent | [`while_the_relay_is_down_nothing_is_attempted_and_afterwards_all_is_delivered`] |
//! | `force_tls = on` means false | [`tls_that_is_asked_for_is_insisted_on`] |
//! | a `%` in the password breaks the ini file | [`any_character_may_be_in_a_password`] |
//! | no certificate check at all | [`the_certificate_is_checked`] |
//!
//! [`of_three_recipients_each_gets_what_was_answered_for_it`]: crate::delivery::of_three_recipients_each_gets_what_was_answered_for_it
//! [`what_is_not_whole_is_never_sent_and_is_named`]: crate::hostile::what_is_not_whole_is_never_sent_and_is_named
//! [`what_is_no_file_is_named_and_blocks_nothing`]: crate::hostile::what_is_no_file_is_named_and_blocks_nothing
//! [`what_was_prepared_by_the_dead_is_discarded_and_what_was_committed_is_sent`]: crate::deaths::what_was_prepared_by_the_dead_is_discarded_and_what_was_committed_is_sent
//! [`another_processor_takes_over_at_its_next_look`]: crate::deaths::another_processor_takes_over_at_its_next_look
//! [`a_processor_that_stands_still_keeps_what_it_has`]: crate::deaths::a_processor_that_stands_still_keeps_what_it_has
//! [`three_hundred_messages_of_repoze_are_delivered_once_each`]: crate::foreign::three_hundred_messages_of_repoze_are_delivered_once_each
//! [`while_the_relay_is_down_nothing_is_attempted_and_afterwards_all_is_delivered`]: crate::delivery::while_the_relay_is_down_nothing_is_attempted_and_afterwards_all_is_delivered

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use sendmail_core::{Envelope, MailDelivery as _, Message, QueueStore, Timestamp, Transaction};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_testkit::ManualClock;
use sendmail_testkit::smtp::{At, Certificates, Do, Script, ScriptedServer};
use sendmail_txn::{QueuedDelivery, TransactionManager};
use tokio::process::Command;

use crate::support::{Daemon, Queue, binary, demand, files_in, finish, mail, subjects, until};

/// A relay that is tried again soon.
const SOON: &str = "[delivery]\nfirst_retry = \"100ms\"\n";

#[tokio::test(flavor = "multi_thread")]
async fn deferred_for_everybody_is_tried_again() {
    let queue = Queue::new().configured(SOON);
    let script = Script::new().on_transaction(1, At::AnyRcpt, Do::reply("450 4.2.0 later"));
    let server = ScriptedServer::start(script).await.unwrap();
    queue.send(&["b@example.net", "c@example.net"], mail("later")).await;
    queue.run_once(&server.url()).await.exits(75);
    let entry = queue.only_entry().await;
    assert_eq!((&entry["state"], &entry["attempts"]), (&"deferred".into(), &1.into()));
    queue.drain(&server.url()).await;
    let arrived = server.messages();
    assert_eq!(arrived.len(), 1);
    assert_eq!(arrived[0].recipients, ["b@example.net", "c@example.net"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_is_never_lost() {
    for (answer, kind) in [("450 4.2.0 later", "deferred"), ("550 5.1.1 nobody", "failed")] {
        let queue = Queue::new();
        let script = Script::new().on(At::RcptTo("c@example.net".into()), Do::reply(answer));
        let server = ScriptedServer::start(script).await.unwrap();
        queue.send(&["b@example.net", "c@example.net"], mail("two")).await;
        queue.run_once(&server.url()).await;
        let sent = queue.events_of("sent").await;
        assert_eq!(sent.len(), 1);
        assert_eq!(sent[0]["recipient"], "b@example.net");
        let other = queue.events_of(kind).await;
        assert_eq!(other.len(), 1);
        assert_eq!(
            (&other[0]["recipient"], &other[0]["reply"]),
            (&"c@example.net".into(), &answer.into())
        );
        let entry = queue.only_entry().await;
        assert_eq!((&entry["state"], &entry["to"][0]), (&kind.into(), &"c@example.net".into()));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_fail_no_mail() {
    let refusing = Script::new()
        .with("AUTH PLAIN LOGIN")
        .on(At::Auth, Do::reply("535 5.7.8 authentication failed"));
    let server = ScriptedServer::start(refusing).await.unwrap();
    let relay = format!("{}?clear-text-auth=loopback", server.url());
    let relay = format!("[relay]\nurl = '{relay}'\nuser = 'u'\npassword = 'p'\n");
    let queue = Queue::new().configured(&relay);
    for subject in ["one", "two", "three"] {
        queue.send(&["b@example.net"], mail(subject)).await;
    }
    let done = queue.run(["run", "--once"]).await.exits(75);
    assert!(done.all().contains("535"), "{done:?}");
    for entry in queue.list().await {
        assert_eq!((&entry["state"], &entry["attempts"]), (&"queued".into(), &0.into()));
    }
    assert_eq!(queue.events_of("relay-paused").await.len(), 1);
    server.set_script(Script::new().with("AUTH PLAIN"));
    queue.run(["run", "--once"]).await.exits(0);
    assert_eq!(server.messages().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_feed_in_an_address_is_refused() {
    let queue = Queue::new();
    for bad in
        ["a@example.org\nX-Envelope-To: <evil@x>", "a@x\r\nRCPT TO:<evil@x>", "a@x\rb", "<a@x\n>"]
    {
        for words in [["send", "-f", bad, "b@example.net"], ["send", "-f", "a@example.org", bad]] {
            let done = finish(queue.command(words), mail("injected").as_bytes()).await.exits(65);
            assert_eq!(done.stderr.lines().count(), 1, "it is told on one line: {done:?}");
        }
    }
    let raw = b"To: b@example.net,\n \"evil\r\n\" <x@example.net>\nBcc: c@example.net\nSubject: s\n\nbody\n";
    finish(queue.command(["send", "-f", "a@example.org", "-t"]), raw).await;
    for entry in queue.list().await {
        for to in entry["to"].as_array().unwrap() {
            assert!(to.as_str().unwrap().ends_with("@example.net"), "{entry}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_feed_that_zope_took_is_noticed() {
    let Some(python) = demand::zope_python() else { return };
    let queue = Queue::new();
    let program = include_str!("python/zope_inject.py");
    demand::python(&python, program, &[queue.path()]).await;
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    queue.run_once(&server.url()).await;
    for arrived in server.submitted() {
        assert_eq!(arrived.recipients, ["real@example.net"], "{arrived:?}");
    }
    let commands = server.sessions().iter().flat_map(|s| s.commands.clone()).collect::<Vec<_>>();
    assert!(!commands.iter().any(|command| command.line.contains("evil")), "{commands:?}");
    assert!(!queue.events_of("damaged").await.is_empty());
}

/// The system call fails as on a full disk: `send` says that nothing was queued, and nothing was. After an I/O
/// error that is not certain: it says so, and recovery finds out.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_rename_fails_says_so() {
    let Some(strace) = demand::program("strace") else { return };
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("before")).await;
    for (error, code) in [("ENOSPC", 73), ("EIO", 75)] {
        let mut command = Command::new(&strace);
        let renames = "?rename,?renameat,?renameat2";
        command.args(["-f", "-qq", "-o"]).arg(queue.beside().join("trace"));
        command.arg("-P").arg(queue.path().join("new"));
        command.args(["-e", &format!("trace={renames}")]);
        command.args(["-e", &format!("inject={renames}:error={error}")]);
        command.arg(binary()).arg("--queue").arg(queue.path());
        command.args(["send", "-f", "a@example.org", "b@example.net"]);
        let done = finish(command, mail("never").as_bytes()).await.exits(code);
        assert_eq!(done.stdout, "", "no Message-ID for what is not queued");
        assert!(done.stderr.contains("cannot publish the message"), "{done:?}");
    }
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    queue.run_once(&server.url()).await.exits(0);
    assert_eq!(subjects(&server.submitted()), ["before"]);
    assert!(files_in(&queue.path().join("tmp")).is_empty(), "nothing is left over");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_closes_after_its_250_wedges_nothing() {
    let queue = Queue::new().configured("[relay]\nmax_connections = 1\n");
    let closing = Script::new().on(At::Dot, Do::reply_and_close("250 2.0.0 taken"));
    let server = ScriptedServer::start(closing).await.unwrap();
    let all = ["1", "2", "3", "4", "5"];
    for subject in all {
        queue.send(&["b@example.net"], mail(subject)).await;
    }
    queue.run_once(&server.url()).await.exits(0);
    assert_eq!(subjects(&server.submitted()), all);
    assert!(queue.list().await.is_empty());
    assert_eq!(queue.events_of("relay-paused").await.len(), 0);
    assert_eq!(queue.events_of("possible-duplicate").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_processors_share_a_queue() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue");
    let queue = Queue::at(&path).configured("[delivery]\nmax_in_flight = 4\n");
    let wanted = fill(&path, 300).await;
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let run = || Daemon::start(queue.command(["--relay", &server.url(), "run", "--once"]));
    let (one, two, three) = (run(), run(), run());
    for (status, told) in [one.end().await, two.end().await, three.end().await] {
        assert_eq!(status.code(), Some(0), "{told}");
    }
    assert_eq!(subjects(&server.submitted()), wanted);
    assert!(queue.list().await.is_empty());
    assert_eq!(queue.events_of("possible-duplicate").await.len(), 0);
}

/// Queues so many messages, all in the same instant, from several tasks and processes' worth of stores at
/// once; returns their subjects.
async fn fill(path: &Path, count: usize) -> Vec<String> {
    let instant = ManualClock::default();
    instant.set(Timestamp::from_millis(1_700_000_000_000));
    let mut tasks = tokio::task::JoinSet::new();
    for part in 0..4 {
        let (path, clock) = (path.to_owned(), Arc::new(instant.clone()));
        tasks.spawn(async move {
            let options = MaildirOptions::default().with_clock(clock.clone());
            let store: Arc<dyn QueueStore> =
                Arc::new(MaildirStore::open(path, options).await.unwrap());
            let delivery = QueuedDelivery::new(store, clock.clone());
            let manager = TransactionManager::new(clock);
            for number in (part..count).step_by(4) {
                let mut transaction: Transaction = manager.begin();
                let raw = mail(&format!("number {number:04}"));
                let now = Timestamp::from_millis(1_700_000_000_000);
                let message = Message::from_raw(raw.as_bytes(), now, "example.org").unwrap();
                let envelope = Envelope::parse("from@example.org", ["b@example.net"]).unwrap();
                delivery.send(&mut transaction, envelope, message).await.unwrap();
                manager.commit(transaction).await.into_result().unwrap();
            }
        });
    }
    tasks.join_all().await;
    (0..count).map(|number| format!("number {number:04}")).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn thousands_in_one_instant_are_all_kept() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("queue");
    let wanted = fill(&path, 2000).await;
    let files = files_in(&path.join("new"));
    let names: HashSet<_> = files.iter().map(|file| file.file_name().unwrap()).collect();
    assert_eq!(names.len(), wanted.len());
    let subject = |file: &std::path::PathBuf| {
        let text = std::fs::read_to_string(file).unwrap();
        text.lines().find_map(|line| line.strip_prefix("Subject: ")).unwrap().to_owned()
    };
    let mut found: Vec<String> = files.iter().map(subject).collect();
    found.sort_unstable();
    assert_eq!(found, wanted);
    let message_ids: HashSet<String> = files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .map(|text| text.lines().find(|line| line.starts_with("Message-ID: ")).unwrap().to_owned())
        .collect();
    assert_eq!(message_ids.len(), wanted.len(), "each with a Message-ID of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_is_not_tried_again() {
    let queue = Queue::new();
    let script = Script::new().on(At::Dot, Do::reply("554 5.6.0 never"));
    let server = ScriptedServer::start(script).await.unwrap();
    queue.send(&["b@example.net"], mail("refused")).await;
    for _ in 0..3 {
        queue.run_once(&server.url()).await.exits(0);
    }
    assert_eq!(server.submitted().len(), 1);
    assert_eq!(queue.events_of("failed").await.len(), 1);
    assert_eq!(queue.only_entry().await["state"], "failed", "kept for people");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transient_error_delivers_once() {
    for moment in [At::Mail, At::AnyRcpt, At::Data, At::Dot] {
        let queue = Queue::new().configured(SOON);
        let script = Script::new().on_transaction(1, moment, Do::reply("451 4.3.0 not now"));
        let server = ScriptedServer::start(script).await.unwrap();
        queue.send(&["b@example.net", "c@example.net"], mail("once")).await;
        queue.run_once(&server.url()).await.exits(75);
        queue.drain(&server.url()).await;
        queue.run_once(&server.url()).await.exits(0);
        let arrived = server.messages();
        assert_eq!(arrived.len(), 1);
        assert_eq!(arrived[0].recipients, ["b@example.net", "c@example.net"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_else_can_read_the_queue() {
    let queue = Queue::new().configured(SOON);
    // Whatever the umask is, and in every place in which there are files.
    let program = |words: &str| {
        let mut command = Command::new("sh");
        let line = format!("umask 0; exec \"$0\" --queue \"$1\" --config \"$2\" {words}");
        command.args(["-c", &line]).arg(binary()).arg(queue.path()).arg(queue.config());
        command
    };
    let answers = Script::new()
        .on(At::RcptTo("later@example.net".into()), Do::reply("450 4.2.0 later"))
        .on(At::RcptTo("never@example.net".into()), Do::reply("550 5.1.1 nobody"));
    let server = ScriptedServer::start(answers).await.unwrap();
    let raw = mail("secret");
    for to in ["later@example.net never@example.net now@example.net", "--delay 1h z@example.net"] {
        finish(program(&format!("send -f a@example.org {to}")), raw.as_bytes()).await.exits(0);
    }
    finish(program(&format!("--relay {} run --once", server.url())), b"").await.exits(75);
    finish(program("send -f a@example.org b@example.net"), raw.as_bytes()).await.exits(0);
    let mut seen = 0;
    let mut folders = vec![queue.path().to_owned()];
    while let Some(folder) = folders.pop() {
        assert_eq!(mode(&folder), 0o700, "{}", folder.display());
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                assert_eq!(mode(&path) & 0o677, 0o600, "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 5, "messages in four states and a journal");
}

fn mode(path: &Path) -> u32 {
    std::fs::symlink_metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test(flavor = "multi_thread")]
async fn tls_that_is_asked_for_is_insisted_on() {
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("secret")).await;
    let plain = ScriptedServer::start(Script::new()).await.unwrap();
    for word in ["on", "true", "yes", "force", "1", "Required"] {
        let done = queue.run_once(&format!("{}?tls={word}", plain.url())).await;
        assert!(matches!(done.code, Some(65 | 78)), "{word}: {done:?}");
        assert!(done.stderr.contains("tls=required|opportunistic|none"), "{done:?}");
    }
    assert_eq!(plain.connections(), 0);
    let done = queue.run_once(&format!("{}?tls=required", plain.url())).await.exits(75);
    assert!(done.all().contains("TLS"), "{done:?}");
    assert!(plain.submitted().is_empty(), "nothing in the clear");
    assert_eq!(queue.only_entry().await["attempts"], 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_character_may_be_in_a_password() {
    let server = ScriptedServer::start(Script::new().with("AUTH PLAIN")).await.unwrap();
    let relay =
        format!("[relay]\nurl = '{}?clear-text-auth=loopback'\nuser = 'u%r'\n", server.url());
    let password = r#"100%(pass)s %% $x #;= "'é"#;
    let in_file = format!("{relay}password = '''{password}'''\n");
    let mut queue = Queue::new().configured(&in_file);
    queue.send(&["b@example.net"], mail("one")).await;
    queue.run(["run", "--once"]).await.exits(0);
    let file = queue.password_file(password);
    queue.configure(&format!("{relay}password_file = '{}'\n", file.display()));
    queue.send(&["b@example.net"], mail("two")).await;
    queue.run(["run", "--once"]).await.exits(0);
    let wanted = base64::engine::general_purpose::STANDARD.encode(format!("\0u%r\0{password}"));
    for session in server.sessions() {
        assert!(session.lines().contains(&format!("AUTH PLAIN {wanted}").as_str()), "{session:?}");
    }
    assert_eq!(server.messages().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_checked() {
    let certificates = Certificates::new();
    let mut queue = Queue::new();
    let root = queue.beside().join("root.pem");
    std::fs::write(&root, certificates.root_pem()).unwrap();
    queue.configure(&format!("[relay]\nca_file = '{}'\n", root.display()));
    queue.send(&["b@example.net"], mail("secret")).await;
    let bad = [
        certificates.wrong_name(),
        certificates.expired(),
        Certificates::self_signed(),
        Certificates::unknown_issuer(),
    ];
    for tls in bad {
        let server = ScriptedServer::start(Script::new().starttls(tls)).await.unwrap();
        let done = queue.run_once(&format!("{}?tls=required", server.url())).await.exits(75);
        assert!(done.all().contains("TLS"), "{done:?}");
        assert!(server.submitted().is_empty());
    }
    let good = ScriptedServer::start(Script::new().starttls(certificates.valid())).await.unwrap();
    queue.run_once(&format!("{}?tls=required", good.url())).await.exits(0);
    assert!(good.messages()[0].encrypted);
    until("the end of the session", || async { good.sessions()[0].ended.then_some(()) }).await;
}
