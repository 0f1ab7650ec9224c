//! `demo`: the whole promise as a small story, on embedded parts.
//!
//! A queue in a temporary directory, an SMTP server on loopback, and a shop whose transactions commit,
//! roll back, and are cut short by kill -9 at the two worst moments. What arrives is compared with
//! what should, and a mismatch fails.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};

use sendmail_core::{
    DataManager as _, Envelope, Error, ErrorKind, MailDelivery as _, Message, PrepareContext,
    QueueId, QueueStore, TransactionId,
};
use sendmail_maildir::{MaildirOptions, MaildirStore};
use sendmail_processor::QueueProcessor;
use sendmail_smtp::{SmtpConfig, SmtpMailer};
use sendmail_txn::{Action, MailDataManager, QueuedDelivery, Recovery, TransactionManager};

use crate::args::Until;
use crate::exit::{Code, Failure, OK, Result, SOFTWARE};
use crate::output::Output;
use crate::setup::{Setup, TransactionRecovery};
use crate::smtp_sink::{Captured, OnMessage, SmtpSink};

/// What a transaction of the story writes: to whom, and about what.
type Mail = (&'static str, &'static str);

const ORDER: [Mail; 2] = [
    ("alice@example.net", "Your order 1001 is on its way"),
    ("warehouse@example.net", "Pack order 1001"),
];
const DECLINED: [Mail; 1] = [("bob@example.net", "Your order 1002 is on its way")];
const CUT_BEFORE: [Mail; 2] = [
    ("carol@example.net", "Your order 1003 is on its way"),
    ("warehouse@example.net", "Pack order 1003"),
];
const CUT_AFTER: [Mail; 2] = [
    ("dave@example.net", "Your order 1004 is on its way"),
    ("warehouse@example.net", "Pack order 1004"),
];

pub(crate) async fn demo(output: Output) -> Result<Code> {
    let temp = tempfile::tempdir().map_err(|error| Failure::system("make a directory", &error))?;
    let queue = temp.path().join("queue");
    let story = Story { output };
    story.tell("A shop takes orders. Each order writes mail in its transaction.")?;
    story.tell(&format!("The queue is an empty Maildir at {}.", queue.display()))?;

    let store = MaildirStore::open(&queue, MaildirOptions::default()).await?;
    let store: Arc<dyn QueueStore> = Arc::new(store);
    story.chapter("1. Order 1001: the transaction commits")?;
    let committed = shop(&store, &ORDER, false).await?;
    story.tell(&format!("   COMMIT succeeded; {committed} messages are in the queue."))?;

    story.chapter("2. Order 1002: the card is declined, the transaction rolls back")?;
    let refused = shop(&store, &DECLINED, true).await;
    let why = refused.err().map_or_else(String::new, |error| format!(": {}", error.message()));
    story.tell(&format!("   ROLLBACK{why}."))?;

    story.chapter("3. Order 1003: the process is killed (kill -9) between prepare and COMMIT")?;
    kill_when_ready(Until::Prepared, &queue).await?;
    story.tell("   Its two messages are on the disk, whole, and nobody has decided about them.")?;

    story.chapter("4. Order 1004: the process is killed just after COMMIT, before it publishes")?;
    kill_when_ready(Until::Decided, &queue).await?;
    story.tell("   Its two messages are decided, and not yet in the queue.")?;

    story.chapter("5. Recovery looks at what the dead left behind")?;
    recover(&story, &store).await?;

    story.chapter("6. The processor delivers over SMTP")?;
    let captured = deliver(&story, store).await?;
    story.chapter("7. What arrived")?;
    for message in &captured {
        story.tell(&format!("   {:<24} {}", message.to.join(","), subject(message)))?;
    }
    compare(&story, &captured)
}

/// Prints the story for people; with `--json` there is only the verdict.
struct Story {
    output: Output,
}

impl Story {
    fn tell(&self, line: &str) -> Result<()> {
        if self.output.is_json() { Ok(()) } else { self.output.text(line) }
    }

    fn chapter(&self, title: &str) -> Result<()> {
        self.tell("")?;
        self.tell(title)
    }
}

fn mail((to, subject): Mail) -> Result<(Envelope, Message)> {
    let raw = format!("From: shop@example.org\nTo: {to}\nSubject: {subject}\n\nThank you.\n");
    let message = Message::from_raw(raw.as_bytes(), Setup::now(), "example.org");
    let envelope = Envelope::parse("shop@example.org", [to]);
    match (envelope, message) {
        (Ok(envelope), Ok(message)) => Ok((envelope, message)),
        _ => Err(Failure::new(SOFTWARE, "the demo's own mail is not well-formed")),
    }
}

/// One transaction of the shop, which commits unless the card is declined.
async fn shop(
    store: &Arc<dyn QueueStore>,
    mails: &[Mail],
    declined: bool,
) -> std::result::Result<usize, Error> {
    let delivery = QueuedDelivery::new(store.clone(), Setup::clock());
    let manager = TransactionManager::new(Setup::clock());
    let mut transaction = manager.begin();
    for each in mails {
        let (envelope, message) = mail(*each).map_err(|failure| {
            Error::new(ErrorKind::InvalidInput, "write the mail", failure.to_string())
        })?;
        delivery.send(&mut transaction, envelope, message).await?;
    }
    if declined {
        manager.abort(transaction).await;
        return Err(Error::new(ErrorKind::Aborted, "take the order", "the card was declined"));
    }
    manager.commit(transaction).await.into_result()?;
    Ok(mails.len())
}

/// The process that is killed: takes its transaction as far as it is told, says so, and waits.
pub(crate) async fn victim(setup: &Setup, until: Until) -> Result<Code> {
    let store: Arc<dyn QueueStore> = Arc::new(setup.store().await?);
    let transaction = TransactionId::mint(Setup::now());
    let mut manager = MailDataManager::new(store.clone());
    for each in if until == Until::Prepared { CUT_BEFORE } else { CUT_AFTER } {
        let (envelope, message) = mail(each)?;
        manager.hand_over(QueueId::mint(Setup::now()), envelope, message);
    }
    let mut context = PrepareContext::new(transaction, Some(store.resource_id().clone()));
    manager.prepare(&mut context).await?;
    if until == Until::Decided {
        let log = store.decision_log().ok_or_else(|| Failure::new(SOFTWARE, "nobody decides"))?;
        log.decide(transaction).await?;
    }
    Output::new(false).text("ready")?;
    std::future::pending().await
}

/// Starts the victim, waits until it is as far as it should be, and kills it.
async fn kill_when_ready(until: Until, queue: &Path) -> Result<()> {
    let system = |error: &std::io::Error| Failure::system("run the process that is killed", error);
    let program = std::env::current_exe().map_err(|error| system(&error))?;
    let word = if until == Until::Prepared { "prepared" } else { "decided" };
    let mut command = std::process::Command::new(program);
    command.arg("--queue").arg(queue).args(["demo-victim", word]).stdout(Stdio::piped());
    command.env_remove("SENDMAIL_CONFIG");
    let mut child = command.spawn().map_err(|error| system(&error))?;
    let ended = tokio::task::spawn_blocking(move || wait_and_kill(&mut child)).await;
    match ended {
        Ok(Ok(true)) => Ok(()),
        Ok(Ok(false)) => Err(Failure::new(SOFTWARE, "the process ended before it could be killed")),
        Ok(Err(error)) => Err(system(&error)),
        Err(error) => Err(Failure::new(SOFTWARE, error.to_string())),
    }
}

fn wait_and_kill(child: &mut Child) -> std::io::Result<bool> {
    let mut line = String::new();
    if let Some(stdout) = child.stdout.take() {
        BufReader::new(stdout).read_line(&mut line)?;
    }
    // SIGKILL: the process gets no chance to do anything about it.
    child.kill()?;
    child.wait()?;
    Ok(line.trim() == "ready")
}

async fn recover(story: &Story, store: &Arc<dyn QueueStore>) -> Result<()> {
    let report = Recovery::new(store.clone(), Setup::clock()).run().await?;
    for message in &report.messages {
        let done = match &message.action {
            Action::Published => "its transaction committed: published",
            Action::Discarded => "its transaction did not commit: discarded",
            _ => "left as it is",
        };
        story.tell(&format!("   {} {done}", message.id))?;
    }
    Ok(())
}

/// Delivers everything to an SMTP server of our own, and returns what that got.
async fn deliver(story: &Story, store: Arc<dyn QueueStore>) -> Result<Vec<Captured>> {
    let captured = Arc::new(Mutex::new(Vec::new()));
    let keep = captured.clone();
    let on_message: OnMessage = Arc::new(move |message| {
        let mut kept = keep.lock().map_err(|_| std::io::Error::other("the demo panicked"))?;
        kept.push(message);
        Ok(())
    });
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let listening = SmtpSink::bind(address, on_message).await;
    let sink = listening.map_err(|error| Failure::system("listen on loopback", &error))?;
    let address = sink.address().map_err(|error| Failure::system("listen on loopback", &error))?;
    let serving = tokio::spawn(sink.serve());
    let mailer = SmtpMailer::new(SmtpConfig::from_url(&format!("smtp://{address}"))?)?;
    let recovery = Recovery::new(store.clone(), Setup::clock());
    let processor = QueueProcessor::builder(store, Arc::new(mailer), Setup::clock())
        .recovery(Arc::new(TransactionRecovery(recovery)))
        .build()?;
    let summary = processor.run_once().await?;
    serving.abort();
    story.tell(&format!("   smtp://{address}: {summary}."))?;
    let kept = captured.lock().map_err(|_| Failure::new(SOFTWARE, "the demo panicked"))?;
    Ok(kept.clone())
}

fn subject(message: &Captured) -> String {
    let text = String::from_utf8_lossy(&message.bytes);
    let line = text.lines().find_map(|line| line.strip_prefix("Subject: "));
    line.unwrap_or_default().to_owned()
}

/// Compares what arrived with what should have.
fn compare(story: &Story, captured: &[Captured]) -> Result<Code> {
    let mut arrived: Vec<(String, String)> =
        captured.iter().map(|message| (message.to.join(","), subject(message))).collect();
    let mut wanted: Vec<(String, String)> = ORDER
        .iter()
        .chain(&CUT_AFTER)
        .map(|(to, subject)| ((*to).to_owned(), (*subject).to_owned()))
        .collect();
    arrived.sort_unstable();
    wanted.sort_unstable();
    let as_promised = arrived == wanted;
    let verdict =
        "The two committed orders' mail arrived, each once; the other two orders' never will.";
    story.tell("")?;
    if !as_promised {
        let message =
            format!("the demo failed: {arrived:?} arrived, and should have been {wanted:?}");
        return Err(Failure::new(SOFTWARE, message));
    }
    story.output.line(
        || verdict.to_owned(),
        || serde_json::json!({ "as_promised": as_promised, "arrived": arrived.len() }),
    )?;
    Ok(OK)
}
