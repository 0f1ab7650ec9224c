//! The queue is an ordinary Maildir: mail readers open it, and whatever they do to it loses nothing.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;

use rustix::process::Signal;
use sendmail_testkit::smtp::{At, Do, Gate, Received, Script, ScriptedServer};
use sendmail_tests::fill::fill;
use tokio::process::Command;

use crate::support::{Daemon, Queue, demand, dovecot, files_in, finish, mail, subjects, until};

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

/// How many messages are delivered while others play with their files, and how many of those must have
/// been renamed, by each, before the relay answers for the first time.
const MANY: usize = 400;
const RENAMED: usize = 1_000;

// Proves: I8, I18
#[tokio::test(flavor = "multi_thread")]
async fn readers_that_move_and_flag_what_is_being_delivered_lose_and_double_nothing() {
    let Some(python) = demand::program("python3") else { return };
    let queue = Queue::new().configured("[delivery]\nmax_in_flight = 16\n");
    fill(queue.path(), MANY, 500, 50).await.unwrap();
    let gate = Gate::new();
    let answer = Do::Wait(gate.clone(), Box::new(Do::reply("250 2.0.0 taken")));
    let server = ScriptedServer::start(Script::new().on(At::Dot, answer)).await.unwrap();
    let processor = Daemon::start(queue.command(["--relay", &server.url(), "run"]));
    server.wait_for_command("DATA").await;

    let mut command = Command::new(python);
    command.args(["-c", include_str!("python/read_and_flag_on.py")]).arg(queue.path());
    let (reader, end_of_input) = Daemon::start_with_input(command);
    let mover = Mover::start(queue.path());
    let flagged = |line: &str| line.strip_prefix("flagged ")?.parse::<usize>().ok();
    reader.wait_for("the reader", |line| flagged(line).filter(|count| *count >= RENAMED)).await;
    until("the mover", || async { (mover.renamed() >= RENAMED).then_some(()) }).await;
    gate.open();
    server.wait_for_messages(MANY).await;

    // All are sent, and the readers still look while the last of them are settled.
    queue.drain(&server.url()).await;
    processor.signal(Signal::TERM);
    let (status, said) = processor.end().await;
    assert!(status.success(), "{said}");
    drop(end_of_input);
    let (status, said) = reader.end().await;
    assert!(status.success(), "{said}");
    mover.stop();

    let received = server.submitted();
    let ids: BTreeSet<&[u8]> = received.iter().map(message_id).collect();
    assert_eq!((received.len(), ids.len()), (MANY, MANY), "each arrives once");
    assert_eq!(queue.events_of("sent").await.len(), MANY);
    assert_eq!(queue.events_of("possible-duplicate").await.len(), 0);
    assert!(queue.list().await.is_empty());
    for place in ["tmp", "new", "cur", ".claimed", ".deferred", ".failed"] {
        let left = files_in(&queue.path().join(place));
        assert!(left.is_empty(), "{place}: {left:?}");
    }
}

fn message_id(message: &Received) -> &[u8] {
    let mut lines = message.bytes.split(|byte| *byte == b'\n');
    lines.find(|line| line.starts_with(b"Message-ID:")).unwrap()
}

/// Renames every file of a Maildir from one set of flags to another, without a pause, as fast as it can.
struct Mover {
    thread: JoinHandle<()>,
    renamed: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl Mover {
    fn start(queue: &Path) -> Self {
        let (renamed, stopped) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
        let (count, stop, queue) = (renamed.clone(), stopped.clone(), queue.to_owned());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                for file in files_in(&queue.join("new")).iter().chain(&files_in(&queue.join("cur")))
                {
                    let name = file.file_name().unwrap().to_str().unwrap();
                    let (name, flags) = name.split_once(":2,").unwrap_or((name, ""));
                    let flags = if flags == "RS" { "S" } else { "RS" };
                    // It may be claimed, or renamed by the other reader.
                    if std::fs::rename(file, queue.join(format!("cur/{name}:2,{flags}"))).is_ok() {
                        count.fetch_add(1, Ordering::SeqCst);
                    }
                }
            }
        });
        Self { thread, renamed, stopped }
    }

    fn renamed(&self) -> usize {
        self.renamed.load(Ordering::SeqCst)
    }

    fn stop(self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.thread.join().unwrap();
    }
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
