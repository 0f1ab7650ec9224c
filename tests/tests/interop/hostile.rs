//! What does not belong into a queue, in `new/` and `cur/`: nothing hangs, every good mail goes, and what
//! was set aside is named with its reason.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode, mknodat};
use sendmail_testkit::smtp::{At, Do, Gate, Script, ScriptedServer};
use serde_json::Value;

use crate::support::{Daemon, Queue, demand, mail, subjects, until};

/// Makes a queue with a good mail of ours.
async fn queue_with_one() -> Queue {
    let queue = Queue::new();
    queue.send(&["b@example.net"], mail("ours")).await;
    queue
}

/// What zope.sendmail writes.
fn zope(subject: &str) -> String {
    format!(
        "X-Zope-From: a@example.org\nX-Zope-To: b@example.net\nMessage-Id: <{subject}@zope>\n\
         Subject: {subject}\n\nbody\n"
    )
}

/// Puts a file under a name of any bytes.
fn put(queue: &Queue, folder: &str, name: impl AsRef<[u8]>, content: impl AsRef<[u8]>) -> PathBuf {
    let path = queue.path().join(folder).join(OsStr::from_bytes(name.as_ref()));
    std::fs::write(&path, content).unwrap();
    path
}

/// Delivers, and returns the subjects that arrived. It may not hang, nor leave anything good.
async fn deliver(queue: &Queue) -> Vec<String> {
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    queue.run_once(&server.url()).await;
    subjects(&server.submitted())
}

/// Everything that `list` and `check` say was set aside.
async fn set_aside(queue: &Queue) -> String {
    let mut told = String::new();
    for command in ["list", "check"] {
        let done = queue.run(["--json", "--relay", "smtp://127.0.0.1:9", command]).await;
        let lines = done.stderr.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let notes: Vec<String> =
            lines.filter_map(|line| Some(line.get("set_aside")?.as_str()?.to_owned())).collect();
        assert!(!notes.is_empty(), "{command}: {done:?}");
        told.push_str(&notes.join("\n"));
        told.push('\n');
    }
    told
}

/// Both `list` and `check` name `what` with `why`.
fn assert_told(told: &str, what: &str, why: &str) {
    let count = told.lines().filter(|line| line.contains(what) && line.contains(why)).count();
    assert_eq!(count, 2, "{what}: {why} is not told twice in\n{told}");
}

// Proves: B-special-files, I12
#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_file_is_named_and_blocks_nothing() {
    let queue = queue_with_one().await;
    for folder in ["new", "cur"] {
        let folder = queue.path().join(folder);
        let mode = Mode::RUSR | Mode::WUSR;
        mknodat(CWD, folder.join("fifo"), FileType::Fifo, mode, 0).unwrap();
        mknodat(CWD, folder.join("socket"), FileType::Socket, mode, 0).unwrap();
        std::fs::create_dir(folder.join("directory")).unwrap();
        symlink("/nowhere/at/all", folder.join("dangling")).unwrap();
        symlink("loop", folder.join("loop")).unwrap();
        symlink("loop-b", folder.join("loop-a")).unwrap();
        symlink("loop-a", folder.join("loop-b")).unwrap();
        // A link to a good mail is not followed: it is not the queue's.
        let outside = queue.beside().join("outside");
        std::fs::write(&outside, zope("outside")).unwrap();
        symlink(&outside, folder.join("link")).unwrap();
    }
    assert_eq!(deliver(&queue).await, ["ours"]);
    let told = set_aside(&queue).await;
    for folder in ["new", "cur"] {
        for name in ["fifo", "socket", "directory", "dangling", "loop", "loop-a", "link"] {
            assert_told(&told, &format!("{folder}/{name}:"), "not a regular file");
        }
    }
    assert!(queue.beside().join("outside").exists());
}

// Proves: B-file-names, A-log
#[tokio::test(flavor = "multi_thread")]
async fn odd_names_are_names() {
    let queue = queue_with_one().await;
    let ours = queue.only_file("new");
    let flagged = format!("{}:2,FS", ours.file_name().unwrap().to_str().unwrap());
    std::fs::rename(&ours, queue.path().join("cur").join(flagged)).unwrap();
    let mut expected = vec!["ours".to_owned()];
    for folder in ["new", "cur"] {
        let names: [(&str, &[u8]); 8] = [
            ("not-utf8", b"\xff\xfe\x80name"),
            ("longest", &[b'n'; 255]),
            ("newline", b"two\nlines"),
            ("dash", b"--help"),
            ("flags", b"1700000000.1.host.2:2,S"),
            ("spaces", b" leading and trailing "),
            ("percent", b"%s%n$(reboot)`reboot`"),
            ("control", b"\x1b[2J\x07\r"),
        ];
        for (what, name) in names {
            let subject = format!("{what}-{folder}");
            put(&queue, folder, name, zope(&subject));
            expected.push(subject);
        }
        put(&queue, folder, b".hidden", zope("hidden"));
    }
    expected.sort_unstable();
    let listed = queue.run(["list"]).await.exits(0);
    let printable = |byte: &u8| *byte == b'\n' || (b' '..=b'~').contains(byte);
    assert!(listed.all().as_bytes().iter().all(printable), "{listed:?}");
    assert_eq!(queue.list().await.len(), expected.len());
    assert_eq!(deliver(&queue).await, expected);
    assert!(queue.list().await.is_empty());
    for folder in ["new", "cur"] {
        assert!(queue.path().join(folder).join(".hidden").exists(), "never a message");
    }
}

// Proves: B-damaged, B-unknown-format, I6, A-envelope, I10, I12
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_whole_is_never_sent_and_is_named() {
    let queue = queue_with_one().await;
    queue.send(&["b@example.net"], mail("cut")).await;
    let files = crate::support::files_in(&queue.path().join("new"));
    let is_cut = |file: &&PathBuf| std::fs::read_to_string(file).unwrap().contains("Subject: cut");
    let cut = files.iter().find(is_cut).unwrap();
    let content = std::fs::read(cut).unwrap();
    std::fs::remove_file(cut).unwrap();
    let name = cut.file_name().unwrap().to_str().unwrap();
    // The same message cut off here and there, with a byte more, with one changed, and empty.
    let mut damaged =
        vec![Vec::new(), content[..40].to_vec(), content[..content.len() / 2].to_vec()];
    damaged.push(content[..content.len() - 1].to_vec());
    damaged.push([&content[..], b"\r\n"].concat());
    let mut changed = content.clone();
    *changed.last_mut().unwrap() ^= 1;
    damaged.push(changed);
    let at = content.windows(5).position(|window| window == b"b@exa").unwrap();
    let mut redirected = content;
    redirected[at] = b'x';
    damaged.push(redirected);
    for (index, content) in damaged.iter().enumerate() {
        let folder = if index % 2 == 0 { "new" } else { "cur" };
        put(&queue, folder, name.replace(".a0.", &format!(".a{index}.")), content);
    }
    put(&queue, "new", "empty", "");
    put(&queue, "cur", "letter", "Subject: a mail without an envelope\n\nbody\n");
    put(&queue, "new", "zope-cut", "X-Zope-From: a@example.org\nX-Zope-T");
    put(
        &queue,
        "new",
        "zope-injected",
        "X-Zope-From: a@b\nX-Zope-To: evil@x\nX-Zope-To: c@d\n\nb\n",
    );

    let told = set_aside(&queue).await;
    for (what, why) in [
        ("new/empty", "no envelope"),
        ("cur/letter", "no envelope"),
        ("new/zope-cut", "no envelope"),
        ("new/zope-injected", "twice"),
        (".a0.k0", "the file is empty"),
        (".a3.k0", "should have"),
        (".a5.k0", "checksum"),
        (".a6.k0", "checksum"),
    ] {
        assert_told(&told, what, why);
    }
    assert_eq!(deliver(&queue).await, ["ours"]);
    let events = queue.events_of("damaged").await;
    assert_eq!(events.len(), damaged.len() + 1, "{events:?}");
    let kept = crate::support::files_in(&queue.path().join(".failed/new"));
    assert_eq!(kept.len(), damaged.len() + 1, "kept for people");
    for left in ["new/empty", "cur/letter", "new/zope-cut"] {
        assert!(queue.path().join(left).exists(), "{left} is nobody's and stays");
    }
    assert!(deliver(&queue).await.is_empty());
    assert_eq!(queue.events_of("damaged").await.len(), events.len(), "told once");
}

// Proves: B-special-files, A-symlink
#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_somebody_else_is_named_and_not_sent() {
    if !demand::root("give a file to somebody else") {
        return;
    }
    let queue = queue_with_one().await;
    for folder in ["new", "cur"] {
        let path = put(&queue, folder, "planted", zope("planted"));
        chown(&path, Some(65534), None).unwrap();
    }
    assert_eq!(deliver(&queue).await, ["ours"]);
    let told = set_aside(&queue).await;
    assert_told(&told, "new/planted", "user 65534");
    assert_told(&told, "cur/planted", "user 65534");
    assert!(queue.path().join("new/planted").exists());
}

/// `/dev/zero` by another name: whoever reads it never ends.
// Proves: B-special-files, I12
#[tokio::test(flavor = "multi_thread")]
async fn a_device_is_named_and_never_read() {
    if !demand::root("make a device") {
        return;
    }
    let queue = queue_with_one().await;
    let zero = rustix::fs::makedev(1, 5);
    for folder in ["new", "cur"] {
        let place = queue.path().join(folder).join("device");
        let mode = Mode::RUSR | Mode::WUSR;
        if mknodat(CWD, place, FileType::CharacterDevice, mode, zero).is_err() {
            demand::skip("making a device is not allowed here");
            return;
        }
    }
    // Under a name of ours too: it is no message whatever it is called.
    let files = crate::support::files_in(&queue.path().join("new"));
    let ours = files.iter().find(|file| file.to_str().unwrap().contains(".a0.")).unwrap();
    let name = ours.file_name().unwrap().to_str().unwrap().replace(".a0.", ".a7.");
    let place = queue.path().join("new").join(name);
    mknodat(CWD, place, FileType::CharacterDevice, Mode::RUSR, zero).unwrap();
    assert_eq!(deliver(&queue).await, ["ours"]);
    let told = set_aside(&queue).await;
    for name in ["new/device", "cur/device", ".a7.k0"] {
        assert_told(&told, name, "not a regular file");
    }
}

/// What another worker has claimed is its own, whatever lies there, and nobody reads it in `new/`.
// Proves: B-file-names, I7
#[tokio::test(flavor = "multi_thread")]
async fn anothers_claim_is_left_to_it() {
    let queue = queue_with_one().await;
    let gate = Gate::new();
    let held = Do::Wait(gate.clone(), Box::new(Do::reply("250 ok")));
    let server =
        ScriptedServer::start(Script::new().on_transaction(1, At::Dot, held)).await.unwrap();
    let first = Daemon::start(queue.command(["--relay", &server.url(), "run", "--once"]));
    until("the claim", || async { (server.connections() > 0).then_some(()) }).await;
    let claims = queue.path().join(".claimed");
    until("the file", || async { (crate::support::files_in(&claims).len() == 1).then_some(()) })
        .await;
    let claimed = queue.only_file(".claimed");
    let odd = claimed.parent().unwrap().join("zope");
    std::fs::write(&odd, zope("claimed")).unwrap();
    put(&queue, "new", ".sending-locked", "");
    put(&queue, "new", "locked", zope("locked"));
    queue.run_once(&server.url()).await;
    assert!(claimed.exists() && odd.exists(), "they were taken from a live worker");
    assert!(queue.path().join("new/locked").exists());
    assert_eq!(server.submitted().len(), 1, "only what the first is at");
    gate.open();
    first.end().await;
    assert_eq!(subjects(&server.submitted()), ["ours"]);
}

/// As a user who is not root: for root there are no unreadable files.
// Proves: B-special-files, I12
#[tokio::test(flavor = "multi_thread")]
async fn an_unreadable_file_is_named_and_blocks_nothing() {
    let queue = queue_with_one().await;
    for folder in ["new", "cur"] {
        let path = put(&queue, folder, "unreadable", zope("unreadable"));
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o000)).unwrap();
    }
    let server = ScriptedServer::start(Script::new()).await.unwrap();
    let relay = server.url();
    if demand::is_root() {
        give_to_nobody(queue.beside());
    }
    let run = |arguments: &[&str]| {
        let mut command = queue.command(arguments);
        if demand::is_root() {
            command.uid(65534).gid(65534);
        }
        crate::support::finish(command, b"")
    };
    run(&["--relay", &relay, "run", "--once"]).await;
    assert_eq!(subjects(&server.submitted()), ["ours"]);
    let mut told = run(&["--json", "list"]).await.exits(0).stderr;
    told.push_str(&run(&["--json", "--relay", &relay, "check"]).await.exits(0).stderr);
    assert_told(&told, "new/unreadable", "Permission denied");
    assert_told(&told, "cur/unreadable", "Permission denied");
    assert!(queue.path().join("new/unreadable").exists());
}

/// Gives a directory and all that is in it to `nobody`.
fn give_to_nobody(path: &Path) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            give_to_nobody(&entry.unwrap().path());
        }
    }
    chown(path, Some(65534), Some(65534)).unwrap();
}
