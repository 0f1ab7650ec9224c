//! Who may do what to a queue: it is its owner's alone, whatever the umask, and a queue that others could
//! take mail out of is refused with what to do.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use sendmail_testkit::smtp::{At, Do, Gate, Script, ScriptedServer};
use tokio::process::Command;

use crate::support::{Daemon, Done, Queue, demand, finish, mail, subjects, until};

/// A user who is not root.
const NOBODY: u32 = 65534;

/// Runs a command under a umask.
async fn under(umask: &str, queue: &Queue, words: &[&str]) -> Done {
    let program = queue.command(words);
    let program = program.as_std();
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(format!("umask {umask}; exec \"$0\" \"$@\""));
    shell.arg(program.get_program()).args(program.get_args());
    finish(shell, mail("s").as_bytes()).await
}

/// Everything in a directory that is not a link, itself included.
fn everything(path: &Path) -> Vec<PathBuf> {
    let mut found = vec![path.to_owned()];
    if path.is_dir() && !path.is_symlink() {
        for entry in std::fs::read_dir(path).unwrap() {
            found.extend(everything(&entry.unwrap().path()));
        }
    }
    found
}

// Proves: A-symlink, I16
#[tokio::test(flavor = "multi_thread")]
async fn the_queue_is_its_owners_alone_whatever_the_umask() {
    let script = Script::new().on(At::RcptTo("later@example.net".into()), Do::reply("450 later"));
    let script = script.on(At::RcptTo("never@example.net".into()), Do::reply("550 never"));
    let server = ScriptedServer::start(script).await.unwrap();
    for umask in ["000", "002", "022", "077"] {
        let queue = Queue::new();
        for to in ["b@example.net", "later@example.net", "never@example.net"] {
            let send = ["send", "-f", "a@example.org", to];
            under(umask, &queue, &send).await.exits(0);
        }
        let lane = ["send", "-f", "a@example.org", "--priority", "low", "b@example.net"];
        under(umask, &queue, &lane).await.exits(0);
        let later = ["send", "-f", "a@example.org", "--delay", "1h", "b@example.net"];
        under(umask, &queue, &later).await.exits(0);
        under(umask, &queue, &["freeze"]).await.exits(0);
        check_modes(&queue, umask);
        under(umask, &queue, &["freeze", "--off"]).await.exits(0);
        under(umask, &queue, &["--relay", &server.url(), "run", "--once"]).await.exits(75);
        check_modes(&queue, umask);
    }
}

/// 0700 and 0600, and nothing else; a decided manifest has `x` for its owner.
#[track_caller]
fn check_modes(queue: &Queue, umask: &str) {
    let all = everything(queue.path());
    assert!(all.len() > 20, "{all:?}");
    for path in all {
        let metadata = std::fs::symlink_metadata(&path).unwrap();
        let wanted = if metadata.is_dir() { 0o700 } else { 0o600 };
        let mode = metadata.permissions().mode() & 0o7777;
        assert_eq!(mode, wanted, "{} is {mode:o} under {umask}", path.display());
    }
}

/// What takes rights from the owner would make files that nobody can read again.
// Proves: A-symlink
#[tokio::test(flavor = "multi_thread")]
async fn a_umask_that_takes_rights_from_the_owner_is_refused_with_what_to_do() {
    for umask in ["0777", "0200", "0400", "0177"] {
        let queue = Queue::new();
        let send = ["send", "-f", "a@example.org", "b@example.net"];
        let done = under(umask, &queue, &send).await.exits(69);
        assert!(done.stderr.contains(umask) && done.stderr.contains("set it to 0077"), "{done:?}");
        assert!(!queue.path().exists(), "nothing was made");
    }
}

// Proves: A-symlink
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_that_others_may_write_to_is_refused_with_what_to_do() {
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("s")).await;
    let commands: [&[&str]; 4] = [
        &["list"],
        &["check"],
        &["send", "-f", "a@example.org", "b@example.net"],
        &["--relay", "smtp://127.0.0.1:1", "run", "--once"],
    ];
    for place in ["", "new", ".journal", ".claimed", ".failed/new"] {
        let path = queue.path().join(place);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o703)).unwrap();
        for words in commands {
            let done = finish(queue.command(words), mail("s").as_bytes()).await;
            assert_eq!(done.code, Some(69), "{place} {words:?}: {done:?}");
            assert!(done.all().contains("chmod o-w"), "{place} {words:?}: {done:?}");
        }
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o730)).unwrap();
        let done = queue.run(["--relay", "smtp://127.0.0.1:1", "check"]).await;
        assert!(done.stderr.contains("chmod g-w"), "{place}: {done:?}");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
    }
    queue.run(["list"]).await.exits(0);
}

// Proves: A-symlink
#[tokio::test(flavor = "multi_thread")]
async fn a_queue_of_somebody_else_is_refused_with_what_to_do() {
    if !demand::root("give a queue to somebody else") {
        return;
    }
    // It is root's, and we are nobody, who may look into it.
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("s")).await;
    let open = |mode| PermissionsExt::from_mode(mode);
    std::fs::set_permissions(queue.beside(), open(0o755)).unwrap();
    std::fs::set_permissions(queue.path(), open(0o755)).unwrap();
    let mut list = queue.command(["list"]);
    list.uid(NOBODY).gid(NOBODY);
    let done = finish(list, b"").await.exits(69);
    assert!(done.stderr.contains("belongs to user 0"), "{done:?}");
    assert!(done.stderr.contains(&format!("this is user {NOBODY}")), "{done:?}");
    // It is ours, and one of its directories is not.
    std::fs::set_permissions(queue.path(), open(0o700)).unwrap();
    chown(queue.path().join("cur"), Some(NOBODY), None).unwrap();
    let done = queue.run(["list"]).await.exits(69);
    assert!(done.stderr.contains("cur belongs to user 65534"), "{done:?}");
    assert!(done.stderr.contains("chown"), "{done:?}");
    chown(queue.path().join("cur"), Some(0), None).unwrap();
    queue.run(["list"]).await.exits(0);
}

/// The processor runs, and while it does a directory of the queue becomes a link to a place with mail.
// Proves: A-symlink
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_swapped_under_a_running_processor_leads_nowhere() {
    let queue = Queue::new();
    let gate = Gate::new();
    let script = Script::new().on_transaction(
        1,
        At::Dot,
        Do::Wait(gate.clone(), Box::new(Do::reply("250 ok"))),
    );
    let server = ScriptedServer::start(script).await.unwrap();
    queue.send(&["b@example.net"], mail("first")).await;
    let words = ["--relay", &server.url(), "run"];
    let daemon = Daemon::start(queue.command(words));
    until("the first message", || async { (server.connections() > 0).then_some(()) }).await;
    let outside = queue.beside().join("outside");
    std::fs::create_dir(&outside).unwrap();
    let bait = "X-Zope-From: a@b\nX-Zope-To: c@d\nSubject: bait\n\nbody\n";
    for place in ["new", "cur", ".lanes", ".deferred"] {
        let path = queue.path().join(place);
        std::fs::rename(&path, queue.beside().join(format!("aside{place}"))).unwrap();
        std::os::unix::fs::symlink(&outside, &path).unwrap();
    }
    std::fs::write(outside.join("bait"), bait).unwrap();
    gate.open();
    until("the first delivery", || async { (!server.submitted().is_empty()).then_some(()) }).await;
    // A second queue of the same directories, whose links are taken away again: it goes on.
    for place in ["new", "cur", ".lanes", ".deferred"] {
        let path = queue.path().join(place);
        std::fs::remove_file(&path).unwrap();
        std::fs::rename(queue.beside().join(format!("aside{place}")), path).unwrap();
    }
    queue.send(&["b@example.net"], mail("second")).await;
    until("the second delivery", || async { (server.submitted().len() > 1).then_some(()) }).await;
    daemon.signal(rustix::process::Signal::TERM);
    daemon.end().await;
    assert_eq!(subjects(&server.submitted()), ["first", "second"]);
    assert_eq!(everything(&outside), [outside.clone(), outside.join("bait")]);
    assert_eq!(std::fs::read_to_string(outside.join("bait")).unwrap(), bait);
    assert_eq!(std::fs::metadata(&outside).unwrap().nlink(), 2, "no directory was made in it");
}
