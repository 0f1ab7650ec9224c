//! Things in the queue that are no messages: they block nothing, and are named.

use std::ffi::OsStr;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt as _;

use sendmail_core::{Filter, QueueAdmin as _, QueueStore, Release, Settlement};

use crate::support::{Queue, claim_all, deliver, queue};

// Proves: B-special-files, B-file-names, B-unknown-format, I12
#[tokio::test]
async fn nothing_blocks_the_good_ones() {
    let place = Queue::new();
    let store = place.open().await;
    for kind in ["new", "cur"] {
        let folder = place.path().join(kind);
        let put = |name: &[u8], content: &str| {
            std::fs::write(folder.join(OsStr::from_bytes(name)), content).unwrap();
        };
        // A message is known by its name and its content.
        let zope = format!("X-Zope-From: a@b\nX-Zope-To: c@d\n\nin {kind}\n");
        std::fs::create_dir(folder.join("directory")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", folder.join("dangling")).unwrap();
        std::os::unix::fs::symlink("loop", folder.join("loop")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", folder.join("passwd")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.join("fifo"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        put(b"empty", "");
        put(b"letter", "Subject: a mail without an envelope\n\nbody\n");
        put(b"\xff\xfe not utf-8", &zope);
        put(b"-rf", &zope);
        put(b"new\nline", &zope);
        put(&[b'x'; 255], &zope);
        put(b".dotted", &zope);
        put(b"dovecot-uidlist", "3 V1 N1\n");
    }
    for _ in 0..3 {
        queue(&store, &["a@example.net"]).await;
    }
    let mut delivered = 0;
    for claim in claim_all(&store).await {
        deliver(&store, claim).await;
        delivered += 1;
    }
    // A name of 255 bytes leaves no room for zope.sendmail's lock: nobody else can have it.
    assert_eq!(delivered, 3 + 2 * 4, "ours, and the four of zope's whose names are only odd");
    let told = QueueStore::sweep(&store).await.unwrap().set_aside.join("\n");
    for (what, why) in [
        ("new/directory", "directory"),
        ("cur/dangling", "symbolic link"),
        ("new/loop", "symbolic link"),
        ("new/passwd", "symbolic link"),
        ("cur/fifo", "FIFO"),
        ("new/empty", "no envelope"),
        ("new/letter", "no envelope"),
        ("cur/dovecot-uidlist", "no envelope"),
    ] {
        let found = told.lines().any(|line| line.contains(what) && line.contains(why));
        assert!(found, "{what}: {why} is not in\n{told}");
    }
    assert!(!told.contains("dotted"), "names with a dot are nobody's business");
    let again = QueueStore::sweep(&store).await.unwrap().set_aside;
    assert!(again.is_empty(), "each is reported once: {again:?}");
}

// Proves: B-special-files, B-unknown-format
#[tokio::test]
async fn listing_shows_messages_only_and_statistics_name_the_rest() {
    let place = Queue::new();
    let store = place.open().await;
    queue(&store, &["a@example.net"]).await;
    place.put("new/letter", "Subject: s\n\nbody\n");
    place.put("new/zope", "X-Zope-From: a@b\nX-Zope-To: c@d\n\nbody\n");
    std::fs::create_dir(place.path().join("cur/directory")).unwrap();
    let mut listed = Vec::new();
    let mut visit = |entry: sendmail_core::Entry| {
        listed.push(entry.recipients[0].to_string());
        ControlFlow::Continue(())
    };
    store.list(&Filter::default(), &mut visit).await.unwrap();
    listed.sort_unstable();
    assert_eq!(listed, ["a@example.net", "c@d"]);
    let statistics = store.statistics().await.unwrap();
    assert_eq!(statistics.states[1].count, 2, "the letter is no message");
    let told = statistics.set_aside.join("\n");
    assert!(told.contains("new/letter") && told.contains("cur/directory"), "{told}");
}

// Proves: B-damaged, B-file-names, I6
#[tokio::test]
async fn every_truncation_of_a_message_is_damaged_and_none_is_sent() {
    let place = Queue::new();
    let store = place.open().await;
    queue(&store, &["a@example.net"]).await;
    let file = crate::harness::files(&place.path().join("new")).remove(0);
    let content = std::fs::read(&file).unwrap();
    let lengths = [0, 1, 20, content.len() / 2, content.len() - 1];
    for (index, length) in lengths.into_iter().enumerate() {
        // The same id in five copies: what a restore by hand may leave.
        let name =
            file.file_name().unwrap().to_str().unwrap().replace(".a0.", &format!(".a{index}."));
        std::fs::write(place.path().join("cur").join(name), &content[..length]).unwrap();
    }
    std::fs::remove_file(&file).unwrap();
    let claimed = store.claim(16).await.unwrap();
    assert!(claimed.claims.is_empty());
    assert_eq!(claimed.events.len(), lengths.len());
    assert_eq!(crate::harness::files(&place.path().join(".failed/new")).len(), lengths.len());
}

// Proves: B-damaged
#[tokio::test]
async fn what_is_damaged_in_the_failed_mail_is_listed_and_not_reported_again() {
    let place = Queue::new();
    let store = place.open().await;
    queue(&store, &["a@example.net"]).await;
    let file = crate::harness::files(&place.path().join("new")).remove(0);
    std::fs::write(&file, "X-Envelope-From: <a@b>\r\n").unwrap();
    assert_eq!(store.claim(16).await.unwrap().events.len(), 1);
    let again = place.open().await;
    let mut states = Vec::new();
    let mut visit = |entry: sendmail_core::Entry| {
        states.push((entry.state, entry.message_id));
        ControlFlow::Continue(())
    };
    again.list(&Filter::default(), &mut visit).await.unwrap();
    assert_eq!(states, [(sendmail_core::EntryState::Failed, None)]);
    assert!(again.statistics().await.unwrap().set_aside.is_empty());
}

/// An id is minted for one message. Where two files have it all the same, neither takes the other's place.
// Proves: B-file-names, I10
#[tokio::test]
async fn two_files_of_one_id_are_both_kept() {
    let scene = Queue::new();
    let store = scene.open().await;
    queue(&store, &["a@x"]).await;
    let [new, cur] = ["new", "cur"].map(|folder| scene.path().join(folder));
    let file = std::fs::read_dir(&new).unwrap().next().unwrap().unwrap();
    let other = format!("{}:2,S", file.file_name().to_str().unwrap());
    std::fs::copy(file.path(), cur.join(other)).unwrap();
    let mut released = 0;
    for _ in 0..4 {
        for claim in claim_all(&store).await {
            store.settle(claim, Settlement::Release(Release::NotAttempted)).await.unwrap();
            released += 1;
        }
    }
    assert!(released >= 2);
    let count = |folder| std::fs::read_dir(folder).unwrap().count();
    assert_eq!(count(&new) + count(&cur), 2);
}
