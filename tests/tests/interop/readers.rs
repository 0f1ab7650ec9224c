//! The queue is an ordinary Maildir: mail readers open it, and whatever they do to it loses nothing.

use std::path::Path;

use sendmail_testkit::smtp::{Script, ScriptedServer};
use tokio::process::Command;

use crate::support::{Queue, demand, dovecot, files_in, finish, mail, subjects};

async fn queue_of_three() -> Queue {
    let queue = Queue::new();
    for subject in ["one", "three", "two"] {
        queue.send(&["b@example.net"], mail(subject)).await;
    }
    queue
}

/// Delivers the queue: each of the three arrives once.
async fn all_three_arrive(queue: &Queue) {
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let done = queue.run_once(&server.url()).await.exits(0);
    assert_eq!(subjects(&server.submitted()), ["one", "three", "two"], "{done:?}");
    assert!(queue.list().await.is_empty());
}

// Proves: I18
#[tokio::test(flavor = "multi_thread")]
async fn pythons_mailbox_reads_the_queue_and_flags_what_is_in_it() {
    let Some(python) = demand::program("python3") else { return };
    let queue = queue_of_three().await;
    let program = include_str!("python/read_and_flag.py");
    let done = demand::python(&python, program, &[queue.path()]).await;
    let mut lines: Vec<&str> = done.stdout.lines().collect();
    lines.sort_unstable();
    let line = |subject| {
        format!(
            "<from@example.org>|<b@example.net>|{subject}|A line.\\n.\\n..two dots\\nThe end.\\n"
        )
    };
    assert_eq!(lines, [line("one"), line("three"), line("two")]);
    let flagged = files_in(&queue.path().join("cur"));
    assert!(
        flagged.iter().all(|file| file.display().to_string().ends_with(":2,FS")),
        "{flagged:?}"
    );
    assert_eq!(flagged.len(), 3);
    all_three_arrive(&queue).await;
}

// Proves: I18
#[tokio::test(flavor = "multi_thread")]
async fn mutt_reads_the_queue_and_marks_it_old() {
    let Some(mutt) = demand::program("mutt") else { return };
    // mutt talks to a terminal: script makes one for it.
    let Some(script) = demand::program("script") else { return };
    for read_only in [true, false] {
        let queue = queue_of_three().await;
        let seen = mutt_sees(&mutt, &script, &queue, read_only).await;
        for subject in ["one", "two", "three"] {
            assert_eq!(seen.matches(&format!("Subject: {subject}\n")).count(), 1, "{seen}");
        }
        assert_eq!(seen.matches("X-Envelope-To: <b@example.net>\n").count(), 3, "{seen}");
        let moved = files_in(&queue.path().join("cur"));
        assert_eq!(moved.len(), if read_only { 0 } else { 3 }, "{moved:?}");
        all_three_arrive(&queue).await;
    }
}

/// Lets mutt open the queue and hand each message to `cat`; returns what that got.
async fn mutt_sees(mutt: &Path, script: &Path, queue: &Queue, read_only: bool) -> String {
    let (settings, seen) = (queue.beside().join("muttrc"), queue.beside().join("seen"));
    // It would ask whether to make its folder of other mailboxes, and take the keys for the answer.
    let words = format!(
        "set folder='{}' quit=yes move=no delete=no mark_old=yes wait_key=no pipe_decode=no weed=no \
         header_cache='' sleep_time=0\n",
        queue.beside().display()
    );
    std::fs::write(&settings, words).unwrap();
    let pipe = format!("<pipe-message>cat >>{}<enter><next-entry>", seen.display());
    let leave = if read_only { "<exit>" } else { "<quit>" };
    let keys = format!("push \"<first-entry>{}{leave}\"", pipe.repeat(3));
    let mode = if read_only { "-R" } else { "" };
    let line = format!(
        "'{}' -n -F '{}' {mode} -f '{}' -e '{keys}'",
        mutt.display(),
        settings.display(),
        queue.path().display()
    );
    let mut command = Command::new(script);
    command.args(["-qec", &line, "/dev/null"]).env("TERM", "xterm").env("HOME", queue.beside());
    let done = finish(command, b"").await;
    let seen = std::fs::read_to_string(&seen);
    seen.unwrap_or_else(|error| panic!("{error}: {done:?}")).replace("\r\n", "\n")
}

// Proves: I18
#[tokio::test(flavor = "multi_thread")]
async fn dovecot_opens_every_folder_writes_its_indexes_and_nothing_is_lost() {
    let queue = queue_of_three().await;
    let commands = [
        "SELECT INBOX",
        "FETCH 1:* (BODY.PEEK[HEADER.FIELDS (SUBJECT)])",
        "STORE 1:2 +FLAGS (\\Seen)",
        "CREATE Archive",
        "CLOSE",
        "STATUS deferred (MESSAGES)",
        "SELECT deferred",
        "SELECT claimed",
        "SELECT journal",
        "SELECT owners",
        "SELECT staged",
        "SELECT lanes",
        "SELECT held",
        "SELECT failed",
        "SELECT discarded",
        "SELECT wishes",
        "LOGOUT",
    ];
    let Some(answers) = dovecot::imap(queue.path(), &commands).await else { return };
    assert!(answers.contains("* 3 EXISTS"), "{answers}");
    for subject in ["one", "two", "three"] {
        assert!(answers.contains(&format!("Subject: {subject}\r\n")), "{answers}");
    }
    let moved = files_in(&queue.path().join("cur"));
    assert_eq!(moved.len(), 3, "{moved:?}");
    assert_eq!(moved.iter().filter(|file| file.to_str().unwrap().ends_with(":2,S")).count(), 2);
    for index in ["dovecot-uidlist", ".deferred/dovecot.index.log", ".journal/cur", ".claimed/new"]
    {
        assert!(queue.path().join(index).exists(), "{index}");
    }

    let entries = queue.list().await;
    assert_eq!(entries.len(), 3);
    assert!(entries.iter().all(|entry| entry["state"] == "queued"));
    all_three_arrive(&queue).await;
    assert!(queue.path().join("dovecot-uidlist").exists(), "its files are its own");
    queue.run(["recover"]).await.exits(0);
    let relay = ["--relay", "smtp://127.0.0.1:9", "--json", "check"];
    let found = queue.run(relay).await.json();
    assert_eq!(found[1]["ok"], true, "{found:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_deferred_or_failed_survives_dovecot_too() {
    use sendmail_testkit::smtp::{At, Do};
    let queue = Queue::new().configured("[delivery]\nfirst_retry = \"100ms\"\n");
    let script = Script::new()
        .on(At::RcptTo("later@example.net".into()), Do::reply("450 4.2.0 later"))
        .on(At::RcptTo("never@example.net".into()), Do::reply("550 5.1.1 nobody"));
    let server = ScriptedServer::start(script).await.unwrap();
    queue.send(&["later@example.net"], mail("later")).await;
    queue.send(&["never@example.net"], mail("never")).await;
    queue.run_once(&server.url()).await.exits(75);
    let commands = [
        "SELECT failed",
        "FETCH 1 (BODY[HEADER.FIELDS (SUBJECT)])",
        "SELECT deferred",
        "SELECT INBOX",
        "LOGOUT",
    ];
    let Some(answers) = dovecot::imap(queue.path(), &commands).await else { return };
    assert!(answers.contains("Subject: never"), "a person finds what failed: {answers}");
    server.set_script(Script::new());
    queue.drain(&server.url()).await;
    assert_eq!(subjects(&server.messages()), ["later"]);
    let entry = queue.only_entry().await;
    assert_eq!(entry["state"], "failed", "read, and still listed");
    let id = entry["id"].as_str().unwrap();
    let done = queue.run(["show", "--raw", id]).await.exits(0);
    assert!(done.stdout.contains("Subject: never\r\n"));
}
