//! The Python example queues a mail, and prints the Message-ID under which it is in the queue.

use std::ops::ControlFlow;
use std::path::Path;
use std::process::Command;

use sendmail_core::{Filter, QueueAdmin as _};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_tests::programs;

#[tokio::test]
async fn send_py_queues_a_mail() {
    let Some(python) = programs::needs("send_py_queues_a_mail", "python3") else { return };
    let directory = tempfile::tempdir().unwrap();
    let queue = directory.path().join("queue");
    let run = |queue: &str| {
        Command::new(&python)
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("send.py"))
            .env("SENDMAIL_QUEUE_BIN", programs::sendmail_queue().unwrap())
            .env("SENDMAIL_QUEUE", queue)
            .output()
            .unwrap()
    };

    let done = run(queue.to_str().unwrap());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let store = MaildirStore::open(&queue, MaildirOptions::default()).await.unwrap();
    let mut queued = Vec::new();
    let mut visit = |entry: sendmail_core::Entry| {
        queued.push(entry.message_id.unwrap().to_string());
        ControlFlow::Continue(())
    };
    store.list(&Filter::default(), &mut visit).await.unwrap();
    assert_eq!(queued, [String::from_utf8(done.stdout).unwrap().trim()]);

    // A file stands where the queue should be: the program must not look as if it had worked.
    let done = run(store.path().join(".queue").to_str().unwrap());
    assert!(!done.status.success());
    assert!(String::from_utf8_lossy(&done.stderr).contains("exit code"));
}
