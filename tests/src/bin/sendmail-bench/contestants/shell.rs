//! Programs that a shell starts for each message.

use std::fs;
use std::process::Command;

use async_trait::async_trait;
use sendmail_tests::Result;
use sendmail_tests::peers::nullmailer::{self, Nullmailer};
use sendmail_tests::peers::postfix::{self, Postfix, Settings};
use sendmail_tests::peers::{self, place};

use super::{KIB, mail, processor};
use crate::figures::Sample;
use crate::row::Contestant;
use crate::scale::Scale;

/// How many messages, and how many if it is quick.
const MESSAGES: (usize, usize) = (500, 50);
/// From whom to whom.
const ADDRESSES: &str = "-f shop@example.org customer@example.net";

/// Starts a program for each message, and counts the seconds until all have ended.
fn run(program: &str, scale: &Scale) -> Result<Sample> {
    let messages = scale.of(MESSAGES.0, MESSAGES.1);
    let folder = place::folder()?;
    let file = folder.path().join("message");
    fs::write(&file, mail(KIB)?.1.as_bytes())?;
    let script = format!(
        "n=0; while [ $n -lt {messages} ]; do {program} <'{}' >/dev/null || exit 1; \
         n=$((n+1)); done",
        file.display()
    );
    let ran = peers::run(Command::new("sh").args(["-c", &script]))?;
    Ok(Sample::rate(messages, ran.seconds).with_cpu(ran.cpu, messages))
}

/// `sendmail-queue send`.
pub(crate) struct Ours;

#[async_trait]
impl Contestant for Ours {
    fn name(&self) -> String {
        "sendmail-queue send".to_owned()
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let folder = place::folder()?;
        let (program, queue) = (processor::program()?, folder.path().join("queue"));
        let place = format!("--queue '{}'", queue.display());
        run(&format!("'{}' {place} send {ADDRESSES}", program.display()), scale)
    }
}

/// nullmailer's `sendmail`.
pub(crate) struct OfNullmailer;

#[async_trait]
impl Contestant for OfNullmailer {
    fn name(&self) -> String {
        "nullmailer's sendmail".to_owned()
    }

    fn missing(&self) -> Option<String> {
        nullmailer::missing()
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        let nullmailer = Nullmailer::new()?;
        let sample = run(&format!("{} {ADDRESSES}", nullmailer.sendmail()), scale)?;
        let (there, sent) = (nullmailer.count(), scale.of(MESSAGES.0, MESSAGES.1));
        if there == sent {
            return Ok(sample);
        }
        Err(format!("nullmailer has queued {there} of {sent} messages").into())
    }
}

/// Postfix's `sendmail`.
pub(crate) struct OfPostfix;

#[async_trait]
impl Contestant for OfPostfix {
    fn name(&self) -> String {
        "Postfix's sendmail".to_owned()
    }

    fn missing(&self) -> Option<String> {
        postfix::missing()
    }

    async fn round(&self, scale: &Scale) -> Result<Sample> {
        // Nothing is delivered, so nobody needs to listen.
        let settings = Settings { concurrency: 1, keeps_connections: true };
        let postfix = Postfix::start(place::free_address()?, settings)?;
        run(&format!("{} {ADDRESSES}", postfix.sendmail()?), scale)
    }
}
