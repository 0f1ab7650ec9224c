//! A process is killed at its first call that changes the disk, at its second, and so on, until one
//! lives to its end: what random kills hit by luck is hit for certain.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use sendmail_tests::ledger::Ledger;
use sendmail_tests::plan::{Ending, Mail, Plan};
use sendmail_tests::producer::Progress;
use sendmail_tests::programs::needs;
use sendmail_tests::queue::{Counts, Processor, Queue, left_overs};
use sendmail_tests::relay::{Pace, Relay};
use sendmail_tests::{fill, now_ms};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// Everything by which a process may change what others find.
const CALLS: [&str; 16] = [
    "write",
    "pwrite64",
    "fsync",
    "fdatasync",
    "fallocate",
    "ftruncate",
    "rename",
    "renameat",
    "renameat2",
    "linkat",
    "unlink",
    "unlinkat",
    "rmdir",
    "mkdir",
    "mkdirat",
    "fchmod",
];
/// More calls of one kind than any of these processes makes in one thread.
const MANY: usize = 1000;
/// Fewer kills than any of these processes can be hit by.
const FEW: usize = 15;
const PACE: Pace =
    Pace { command: Duration::ZERO, dot: (Duration::ZERO, Duration::ZERO), deferred_percent: 0 };
const PRODUCER: &str = env!("CARGO_BIN_EXE_crash-test");

/// When a process is killed: before one of its threads makes a call for the nth time.
#[derive(Debug, Clone, Copy)]
struct Moment {
    call: &'static str,
    nth: usize,
}

/// Lets `kill` kill a process at each moment in turn; it says whether the process lived to its end.
async fn at_each_moment(mut kill: impl AsyncFnMut(Moment) -> bool) {
    let mut kills = 0;
    for call in CALLS {
        let mut nth = 1;
        while !kill(Moment { call, nth }).await {
            (nth, kills) = (nth + 1, kills + 1);
            assert!(nth < MANY, "it calls {call} again and again");
        }
    }
    assert!(kills > FEW, "only {kills} processes were killed");
}

/// The same command, killed at that moment.
fn killed_at(strace: &Path, Moment { call, nth }: Moment, command: &Command) -> Command {
    let mut killed = Command::new(strace);
    killed.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    killed.args(["-e", &format!("inject={call}:signal=SIGKILL:when={nth}")]);
    killed.arg(command.as_std().get_program()).args(command.as_std().get_args());
    killed.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    killed
}

fn mail(index: usize, undone: bool) -> Mail {
    let recipients = vec!["a@example.net".to_owned(), "b@example.net".to_owned()];
    Mail { marker: format!("t1-m{index}"), recipients, length: 300, undone }
}

async fn relay_and_processor(name: &str) -> (Relay, Processor) {
    let relay = Relay::start(PACE, 1, None).await.unwrap();
    let (name, address) = (name.to_owned(), relay.address);
    (relay, Processor { name, relay: address, connections: 1 })
}

/// Delivers what is to be delivered, and compares.
async fn settle(queue: &Queue, ledger: &mut Ledger, relay: &Relay, last: &Processor, at: Moment) {
    ledger.begins(&last.name, 1);
    queue.run_once(last).await.unwrap();
    assert_eq!(queue.counts().await.unwrap(), Counts::default(), "killed at {at:?}");
    let left = left_overs(&queue.path);
    assert!(left.is_empty(), "killed at {at:?}: {left:?}");
    let account = ledger.compare(&relay.copies(), &queue.events().await.unwrap(), None);
    assert!(account.is_clean(), "killed at {at:?}:\n{account}");
}

/// Kills a producer at every call of one transaction.
async fn check_producer(test: &str, plan: Plan, exists: bool) {
    let Some(strace) = needs(test, "strace") else { return };
    at_each_moment(async |at| {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new(folder.path().join("queue")).unwrap();
        if exists {
            queue.counts().await.unwrap();
        }
        let mut ledger = Ledger::default();
        ledger.plan(plan.clone());
        let mut command = Command::new(PRODUCER);
        command.arg("producer").arg(&queue.path).arg("--one-thread");
        let output = produce(killed_at(&strace, at, &command), &plan).await;
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let (number, progress, _) = Progress::parse(line).unwrap();
            ledger.progress(number, progress);
        }
        let (relay, processor) = relay_and_processor("last").await;
        settle(&queue, &mut ledger, &relay, &processor, at).await;
        output.status.success()
    })
    .await;
}

async fn produce(mut command: Command, plan: &Plan) -> Output {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let line = format!("{}\n", serde_json::to_string(plan).unwrap());
    // It may be dead already.
    let _ = stdin.write_all(line.as_bytes()).await;
    drop(stdin);
    child.wait_with_output().await.unwrap()
}

fn plan(mails: Vec<Mail>, ending: Ending) -> Plan {
    Plan::of_mails(1, mails, ending)
}

#[tokio::test]
async fn the_first_mail_of_a_queue() {
    let mails = vec![mail(0, false)];
    check_producer("the_first_mail_of_a_queue", plan(mails, Ending::Commit), false).await;
}

#[tokio::test]
async fn a_commit_of_three_mails_is_all_or_none() {
    let mails = vec![mail(0, false), mail(1, true), mail(2, false), mail(3, false)];
    let test = "a_commit_of_three_mails_is_all_or_none";
    check_producer(test, plan(mails, Ending::Commit), true).await;
}

#[tokio::test]
async fn an_abort_after_prepare_sends_nothing() {
    let mails = vec![mail(0, false), mail(1, false)];
    let test = "an_abort_after_prepare_sends_nothing";
    check_producer(test, plan(mails, Ending::AbortPrepared), true).await;
}

#[tokio::test]
async fn a_processor_announces_every_second_copy() {
    let Some(strace) = needs("a_processor_announces_every_second_copy", "strace") else { return };
    at_each_moment(async |at| {
        let folder = tempfile::tempdir().unwrap();
        let queue = Queue::new(folder.path().join("queue")).unwrap();
        fill::fill(&queue.path, 2, 512, 2).await.unwrap();
        let mut ledger = Ledger::default();
        ledger.plan(plan(fill::mails(2, 512), Ending::Commit));
        ledger.progress(1, Progress::Committed);
        let (relay, first) = relay_and_processor("first").await;
        ledger.begins(&first.name, 1);
        let mut command = queue.processor(&first).unwrap();
        command.arg("--once");
        let output = killed_at(&strace, at, &command).output().await.unwrap();
        let lived = output.status.success();
        if !lived {
            ledger.is_killed(&first.name, now_ms());
        }
        let last = Processor { name: "last".to_owned(), ..first };
        settle(&queue, &mut ledger, &relay, &last, at).await;
        lived
    })
    .await;
}
