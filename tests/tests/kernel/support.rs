//! What these tests share: a queue with its books and a relay, and the end of every test, where the rest
//! is delivered in peace and everything is compared.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use sendmail_tests::ledger::Ledger;
use sendmail_tests::plan::{Ending, Mail, Plan};
use sendmail_tests::producer::Progress;
use sendmail_tests::queue::{Counts, Processor, Queue, left_overs};
use sendmail_tests::relay::{NEVER, Pace, Relay};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

/// How long a process may take; more means that it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The producer, which is a hidden command of the crash test.
pub(crate) const PRODUCER: &str = env!("CARGO_BIN_EXE_crash-test");

/// Takes everything at once.
const PACE: Pace =
    Pace { command: Duration::ZERO, dot: (Duration::ZERO, Duration::ZERO), deferred_percent: 0 };

/// The name of the running test, by which it is skipped: a test runs on a thread of its own, which has it.
pub(crate) fn this_test() -> String {
    std::thread::current().name().unwrap_or("a test").to_owned()
}

/// Whether everything is to be tried, and not only what fits into a run of continuous integration.
pub(crate) fn is_long() -> bool {
    std::env::var("SENDMAIL_KERNEL_LONG").is_ok_and(|value| value == "1")
}

/// Says something to the person who runs the test.
pub(crate) fn tell(text: &str) {
    use std::io::Write as _;
    // Whether it is read is not the test's business.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A queue, what was promised of it, and where its mail goes.
pub(crate) struct Scene {
    pub(crate) queue: Queue,
    pub(crate) ledger: Ledger,
    pub(crate) relay: Relay,
}

impl Scene {
    /// With a queue below `folder`, which needs not exist yet.
    pub(crate) async fn below(folder: &Path) -> Self {
        Self::with_pace(folder, PACE).await
    }

    /// The same with a relay that takes its time.
    pub(crate) async fn with_pace(folder: &Path, pace: Pace) -> Self {
        let queue = Queue::new(folder.join("queue")).unwrap();
        let relay = Relay::start(pace, 1, None).await.unwrap();
        Self { queue, ledger: Ledger::default(), relay }
    }

    /// A processor of this name, with one connection to the relay.
    pub(crate) fn processor(&self, name: &str) -> Processor {
        Processor { name: name.to_owned(), relay: self.relay.address, connections: 1 }
    }

    /// Hands a mail over, which is not in the ledger.
    pub(crate) async fn send(&self, subject: &str) {
        let words = ["send", "-f", "shop@example.org", "a@example.net"];
        let message = format!("Subject: {subject}\r\n\r\nhello\r\n");
        let output = finish(self.queue.command(words), message.as_bytes()).await;
        assert!(output.status.success(), "{output:?}");
    }

    /// Notes what a producer said.
    pub(crate) fn hear(&mut self, stdout: &[u8]) {
        for line in String::from_utf8_lossy(stdout).lines() {
            if let Some((number, progress, _)) = Progress::parse(line) {
                self.ledger.progress(number, progress);
            }
        }
    }

    /// Delivers what there is with nothing in the way, and compares: `Err` says what was broken.
    pub(crate) async fn end(mut self) -> Result<(), String> {
        self.relay.relent();
        let last = self.processor("last");
        self.ledger.begins(&last.name, 64);
        self.empty(&last).await?;
        let counts = self.queue.counts().await.map_err(|error| error.to_string())?;
        let events = self.queue.events().await.map_err(|error| error.to_string())?;
        let failed = events.iter().filter(|event| event.kind == "failed");
        let failed = failed.filter(|event| event.recipient == NEVER).count() as u64;
        if (counts != Counts { failed, ..Counts::default() }) {
            return Err(format!("left in the queue: {counts:?}"));
        }
        let left = left_overs(&self.queue.path);
        if !left.is_empty() {
            return Err(format!("left over: {left:?}"));
        }
        let account = self.ledger.compare(&self.relay.copies(), &events, None);
        if account.is_clean() { Ok(()) } else { Err(account.to_string()) }
    }

    /// Waits until those who work on it have nothing left to deliver.
    pub(crate) async fn until_drained(&self) {
        // A processor whose store was in trouble may pause for a minute.
        let until = tokio::time::Instant::now() + 2 * PATIENCE;
        loop {
            // Space that was given back is btrfs's only when its transaction has ended: an error is not the end.
            let counts = self.queue.counts().await;
            if counts.as_ref().is_ok_and(|counts| counts.to_do() == 0) {
                return;
            }
            assert!(tokio::time::Instant::now() < until, "it is not drained: {counts:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Runs a processor until there is nothing left to do.
    async fn empty(&self, last: &Processor) -> Result<(), String> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            // What was deferred, or is taken from a dead one, may need another run.
            let ran = self.queue.run_once(last).await;
            let counts = self.queue.counts().await.map_err(|error| error.to_string())?;
            if counts.to_do() == 0 && ran.is_ok() {
                return Ok(());
            }
            if tokio::time::Instant::now() > until {
                return Err(format!("it does not get empty: {counts:?}, {ran:?}"));
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// A mail to two people.
pub(crate) fn mail(marker: &str) -> Mail {
    mail_to(marker, &["a@example.net", "b@example.net"])
}

/// A mail to these people.
pub(crate) fn mail_to(marker: &str, recipients: &[&str]) -> Mail {
    let recipients = recipients.iter().map(|&to| to.to_owned()).collect();
    Mail { marker: marker.to_owned(), recipients, length: 600, undone: false }
}

/// A transaction with these mails.
pub(crate) fn plan(number: u64, mails: Vec<Mail>, ending: Ending) -> Plan {
    Plan::of_mails(number, mails, ending)
}

/// Runs it to its end with `input` on its standard input. If it hangs, the test fails.
pub(crate) async fn finish(command: Command, input: &[u8]) -> Output {
    match finish_within(command, input, PATIENCE).await {
        Ok(output) => output,
        Err(command) => panic!("it hangs: {command:?}"),
    }
}

/// Runs it to its end with `input` on its standard input. If it takes too long, it and all that it started
/// are killed, and the command comes back.
pub(crate) async fn finish_within(
    mut command: Command,
    input: &[u8],
    time: Duration,
) -> Result<Output, Command> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    // What it has started is killed with it.
    let mut child = command.process_group(0).spawn().unwrap();
    let group = child.id().and_then(|id| Pid::from_raw(id.cast_signed())).unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // It may be dead already.
    let _ = stdin.write_all(input).await;
    drop(stdin);
    match tokio::time::timeout(time, child.wait_with_output()).await {
        Ok(output) => Ok(output.unwrap()),
        Err(_) => {
            kill_process_group(group, Signal::KILL).unwrap();
            Err(command)
        }
    }
}

/// What a producer is told on its standard input.
pub(crate) fn told(plans: &[Plan]) -> Vec<u8> {
    let line = |plan| serde_json::to_string(plan).unwrap() + "\n";
    plans.iter().map(line).collect::<String>().into_bytes()
}

/// Hands a mail over with `send`, which is refused with this exit code and these words, and says nothing that
/// a caller could take for a yes.
pub(crate) async fn refused(queue: &Queue, code: i32, words: &str) {
    let command = queue.command(["send", "-f", "shop@example.org", "nobody@example.net"]);
    let output = finish(command, b"Subject: one too many\r\n\r\nhello\r\n").await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{said}");
    assert!(output.stdout.is_empty() && said.contains(words), "{said}");
}
