//! One call of a process fails, or the process is killed at it: at its first call that has to do with the
//! queue, at its second, and so on. What random kills hit by luck is hit for certain.
//!
//! A run of continuous integration kills at every call that changes something, and draws the errors by a seed that it prints;
//! `SENDMAIL_KERNEL_LONG=1` tries every error at every call, and `SENDMAIL_KERNEL_SEED` repeats a draw.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use sendmail_tests::plan::{Ending, Mail};
use sendmail_tests::producer::Progress;
use sendmail_tests::programs::needs;
use sendmail_tests::relay::{LATER, NEVER};
use sendmail_tests::{fill, now_ms};
use tokio::process::Command;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::strace::{
    Case, Fault, Moment, folders, has_struck, moments, struck_the_queue, watched, with_fault,
};
use crate::support::{
    PRODUCER, Scene, finish, finish_within, is_long, mail, mail_to, plan, tell, this_test, told,
};

/// How many errors are drawn for each act when not all are tried.
const DRAWN: usize = 30;
/// How many cases are tried at once; most of the time they wait for the disk.
const AT_ONCE: usize = 6;
/// How long a process may take that is struck; more means that it hangs.
const LONGEST: Duration = Duration::from_secs(20);
/// Fewer calls than any of these processes makes.
const FEW: usize = 8;
const TRANSACTION: u64 = 1;

/// What a process does while it is struck.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// `send` into a queue that is there, or is to be made.
    Send { exists: bool },
    /// A transaction of three mails and one that is rolled back with its savepoint.
    Several(Ending),
    /// `run --once`, with recipients that are accepted, deferred and refused.
    Deliver,
    /// `recover`, with a transaction that is decided and one that is not.
    Recover,
}

/// Strikes a process at each of its calls, as many at once as do not disturb each other.
async fn check(act: Act) {
    let test = this_test();
    let Some(strace) = needs(&test, "strace") else { return };
    let begin = Instant::now();
    let (moments, folders) = Trial::new(act, &strace).await.watch().await;
    assert!(moments.len() >= FEW, "{act:?} makes only these calls: {moments:?}");
    let cases = draw(&test, &moments);
    let (count, folders) = (cases.len(), Arc::new(folders));
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut running = JoinSet::new();
    for case in cases {
        let (strace, folders) = (strace.clone(), Arc::clone(&folders));
        let place = Arc::clone(&places).acquire_owned().await.unwrap();
        running.spawn(async move {
            let struck = Trial::new(act, &strace).await.strike(case, &folders).await;
            drop(place);
            struck.map_err(|why| format!("{act:?}, {case}: {why}"))
        });
    }
    let mut broken = Vec::new();
    let (mut struck, mut failed) = (0, 0);
    while let Some(ended) = running.join_next().await {
        match ended.unwrap() {
            Ok(end) => {
                struck += usize::from(end.struck);
                failed += usize::from(end.failed);
            }
            Err(why) => broken.push(why),
        }
    }
    tell(&format!(
        "{test}: {} calls, {count} cases, {struck} struck, {failed} of the processes failed, {} broken, {:.0} s",
        moments.len(),
        broken.len(),
        begin.elapsed().as_secs_f64()
    ));
    assert!(broken.is_empty(), "{} broken:\n{}", broken.len(), broken.join("\n"));
    // A process may make fewer calls than it did when it was watched; most it makes again.
    assert!(struck * 2 > count, "only {struck} of {count} were struck");
}

/// All cases, or every kill and some errors.
fn draw(test: &str, moments: &[Moment]) -> Vec<Case> {
    let all = |fault: Fault| moments.iter().map(move |&moment| Case { moment, fault });
    let cases = Fault::ALL.into_iter().flat_map(all).filter(|case| case.is_about_the_queue());
    let (mut kills, errors): (Vec<Case>, Vec<Case>) =
        cases.partition(|case| case.fault == Fault::Kill);
    if is_long() {
        return [kills, errors].concat();
    }
    // A kill before a call that changes nothing is one before the next that does.
    kills.retain(|case| case.moment.changes());
    let given = std::env::var("SENDMAIL_KERNEL_SEED").ok();
    let seed = given.map_or_else(|| fastrand::u64(..), |seed| seed.parse().unwrap());
    tell(&format!("{test}: SENDMAIL_KERNEL_SEED={seed}"));
    let drawn = fastrand::Rng::with_seed(seed).choose_multiple(errors, DRAWN);
    [kills, drawn].concat()
}

/// What became of a process that was struck.
#[derive(Default)]
struct End {
    struck: bool,
    failed: bool,
}

/// One process, and all that belongs to it.
struct Trial {
    act: Act,
    strace: PathBuf,
    folder: tempfile::TempDir,
    scene: Scene,
}

impl Trial {
    async fn new(act: Act, strace: &Path) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let scene = Scene::below(folder.path()).await;
        let mut trial = Self { act, strace: strace.to_owned(), folder, scene };
        trial.prepare().await;
        trial
    }

    async fn prepare(&mut self) {
        let Self { act, scene, .. } = self;
        if !matches!(act, Act::Send { exists: false }) {
            scene.queue.counts().await.unwrap();
        }
        match act {
            Act::Send { .. } => {
                scene.ledger.plan(plan(TRANSACTION, vec![mail("sent")], Ending::Commit));
            }
            Act::Several(ending) => {
                scene.ledger.plan(plan(TRANSACTION, several("p"), *ending));
            }
            Act::Deliver => {
                let mails = vec![
                    mail_to("all", &["a@example.net"]),
                    mail_to("some", &["a@example.net", LATER, NEVER]),
                    mail_to("none", &[LATER, "b@example.net"]),
                ];
                fill::commit(&scene.queue.path, &mails, 3).await.unwrap();
                scene.ledger.plan(plan(TRANSACTION, mails, Ending::Commit));
                scene.ledger.progress(TRANSACTION, Progress::Committed);
                scene.ledger.begins("first", 3);
            }
            Act::Recover => {
                self.leave(2, "fchmod", None, "u").await;
                self.leave(3, "renameat2", Some("new"), "d").await;
            }
        }
    }

    /// Leaves a transaction as a producer does that is killed at the first such call, or the first about
    /// that directory.
    async fn leave(&mut self, number: u64, call: &str, directory: Option<&str>, prefix: &str) {
        let plan = plan(number, several(prefix), Ending::Commit);
        self.scene.ledger.plan(plan.clone());
        let mut command = Command::new(&self.strace);
        command.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
        command.args(["-e", &format!("inject={call}:signal=SIGKILL:when=1")]);
        if let Some(directory) = directory {
            command.arg("-P").arg(self.scene.queue.path.join(directory));
        }
        command.arg(PRODUCER).arg("producer").arg(&self.scene.queue.path).arg("--one-thread");
        let output = finish(command, &told(&[plan])).await;
        assert!(!output.status.success(), "it was not killed: {output:?}");
        self.scene.hear(&output.stdout);
    }

    /// The process, and what it is told.
    fn command(&self) -> (Command, Vec<u8>) {
        let Scene { queue, .. } = &self.scene;
        match self.act {
            Act::Send { .. } => {
                let Mail { recipients, .. } = mail("sent");
                let mut command = queue.command(["send", "-f", "shop@example.org"]);
                command.args(recipients);
                (command, mail("sent").bytes())
            }
            Act::Several(ending) => {
                let mut command = Command::new(PRODUCER);
                command.arg("producer").arg(&queue.path).arg("--one-thread");
                (command, told(&[plan(TRANSACTION, several("p"), ending)]))
            }
            Act::Deliver => {
                let mut command = queue.processor(&self.scene.processor("first")).unwrap();
                command.arg("--once");
                (command, Vec::new())
            }
            Act::Recover => (queue.command(["recover"]), Vec::new()),
        }
    }

    /// Lets it live, and returns the calls that it makes and the directories that it uses.
    async fn watch(self) -> (Vec<Moment>, Vec<PathBuf>) {
        let (command, input) = self.command();
        let (log, queue) = (self.folder.path().join("strace"), &self.scene.queue.path);
        let output = finish(watched(&self.strace, &log, &command), &input).await;
        let code = output.status.code();
        // Something is deferred.
        let expected = if matches!(self.act, Act::Deliver) { 75 } else { 0 };
        assert_eq!(code, Some(expected), "{output:?}");
        (moments(&log, queue), folders(queue))
    }

    /// Strikes it, and looks what became of all.
    async fn strike(mut self, case: Case, folders: &[PathBuf]) -> Result<End, String> {
        let (command, input) = self.command();
        let (log, queue) = (self.folder.path().join("strace"), self.scene.queue.path.clone());
        let command = with_fault(&self.strace, &log, &queue, folders, case, &command);
        let output = match finish_within(command, &input, LONGEST).await {
            Ok(output) => output,
            Err(_) if !struck_the_queue(&log, &queue) => return Ok(End::default()),
            Err(command) => return Err(format!("it hangs: {command:?}")),
        };
        let failed = self.judge(&output)?;
        let end = End { struck: has_struck(&log), failed };
        if !end.struck && failed {
            return Err(format!("nothing was done to it, and it failed: {output:?}"));
        }
        self.scene.end().await.map_err(|why| format!("{why}\nit had said: {output:?}"))?;
        Ok(end)
    }

    /// Enters into the books what it said. Returns whether it failed.
    fn judge(&mut self, output: &std::process::Output) -> Result<bool, String> {
        let Scene { ledger, .. } = &mut self.scene;
        let (code, said) = (output.status.code(), String::from_utf8_lossy(&output.stderr));
        let mut failed = code != Some(0);
        // A pass that leaves something for later needs not say more than its summary.
        let is_told = !said.trim().is_empty() || !output.stdout.is_empty();
        if code.is_some() && failed && !is_told {
            return Err(format!("it failed and did not say why: {output:?}"));
        }
        match self.act {
            Act::Send { .. } => ledger.progress(TRANSACTION, verdict(output)),
            Act::Several(_) => self.scene.hear(&output.stdout),
            Act::Deliver => {
                failed = !matches!(code, Some(0 | 75));
                // It ended in order and recorded everything, or something is open.
                if failed || said.contains("trouble") || said.contains("recorded") {
                    ledger.is_killed("first", now_ms());
                }
            }
            Act::Recover => {}
        }
        Ok(failed)
    }
}

/// What `send` says about its mail.
fn verdict(output: &std::process::Output) -> Progress {
    let said = String::from_utf8_lossy(&output.stderr);
    match output.status.code() {
        Some(0) => Progress::Committed,
        None => Progress::Committing,
        // Its standard output failed, not its queue; or it says itself that it cannot know.
        Some(_) if said.contains("cannot print") || said.contains("either outcome") => {
            Progress::Uncertain
        }
        Some(_) => Progress::RolledBack,
    }
}

fn several(prefix: &str) -> Vec<Mail> {
    let mail = |index| Mail { undone: index == 1, ..mail(&format!("{prefix}{index}")) };
    (0..4).map(mail).collect()
}

// Proves: I4, F-write-kill, F-publish-kill
#[tokio::test(flavor = "multi_thread")]
async fn the_first_mail_of_a_queue() {
    check(Act::Send { exists: false }).await;
}

// Proves: I4, I17, F-write-kill, F-publish-kill
#[tokio::test(flavor = "multi_thread")]
async fn a_mail_that_is_sent() {
    check(Act::Send { exists: true }).await;
}

// Proves: I1, I4, F-prepare-kill, F-decide-kill
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_three_mails_is_all_or_none() {
    check(Act::Several(Ending::Commit)).await;
}

// Proves: I2, F-prepare-kill
#[tokio::test(flavor = "multi_thread")]
async fn an_abort_after_prepare_sends_nothing() {
    check(Act::Several(Ending::AbortPrepared)).await;
}

// Proves: I8, I9, I17, F-claim-kill, F-record-kill, F-unlink-kill
#[tokio::test(flavor = "multi_thread")]
async fn a_processor_announces_every_second_copy() {
    check(Act::Deliver).await;
}

// Proves: I20
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_that_fails_half_way_harms_nothing() {
    check(Act::Recover).await;
}
