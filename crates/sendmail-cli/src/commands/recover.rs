//! `recover`: decides messages whose transaction was cut short.

use std::sync::Arc;

use sendmail_core::{QueueStore, SweepReport};
use sendmail_txn::{Action, Finding, Recovered, Recovery, RecoveryReport, Ruling};
use serde_json::json;

use crate::args::{Decide, Recover};
use crate::exit::{Code, OK, Result, TEMPORARY};
use crate::output::Output;
use crate::setup::{Setup, resolve};

pub(crate) async fn recover(setup: &Setup, output: Output, recover: &Recover) -> Result<Code> {
    let maildir = setup.store().await?;
    let mut ids = Vec::new();
    for text in &recover.ids {
        ids.extend(resolve(&maildir, text).await?);
    }
    let store: Arc<dyn QueueStore> = Arc::new(maildir);
    let recovery = Recovery::new(store.clone(), Setup::clock());
    let report = match recover.decide {
        Some(Decide::Committed) => recovery.decide(&ids, Ruling::Committed).await?,
        Some(Decide::Aborted) => recovery.decide(&ids, Ruling::Aborted).await?,
        None => recovery.run().await?,
    };
    let swept = store.sweep().await?;
    tell(output, &report, &swept)?;
    Ok(if report.kept() > 0 { TEMPORARY } else { OK })
}

fn tell(output: Output, report: &RecoveryReport, swept: &SweepReport) -> Result<()> {
    for message in &report.messages {
        let (found, done) = (finding(&message.finding), action(&message.action));
        output.line(
            || format!("{}{}: {found}; {done}", message.id, resource(message)),
            || {
                json!({
                    "id": message.id.to_string(),
                    "resource": message.resource.as_ref().map(|resource| resource.as_str()),
                    "found": found,
                    "done": done,
                })
            },
        )?;
    }
    output.line(
        || {
            format!(
                "{} looked at, {} in doubt; sweep: {} published, {} left-overs removed",
                report.messages.len(),
                report.kept(),
                swept.published,
                swept.removed
            )
        },
        || {
            json!({
                "messages": report.messages.len(),
                "in_doubt": report.kept(),
                "swept_published": swept.published,
                "swept_removed": swept.removed,
            })
        },
    )
}

fn resource(message: &Recovered) -> String {
    message.resource.as_ref().map_or_else(String::new, |resource| format!(" ({resource})"))
}

fn finding(finding: &Finding) -> String {
    match finding {
        Finding::Committed => "its transaction committed".to_owned(),
        Finding::Aborted => "its transaction rolled back".to_owned(),
        Finding::Unfinished => "its transaction is not finished".to_owned(),
        Finding::InProgress => "its transaction is in progress".to_owned(),
        Finding::UnknownResource => {
            "who decides it is not configured here; --decide settles it by hand".to_owned()
        }
        Finding::NoAnswer(error) => format!("who decides it could not be asked: {error}"),
        Finding::Frozen => "the queue is frozen".to_owned(),
        Finding::Missing => {
            "its transaction committed, and it is neither in the queue nor in its history"
                .to_owned()
        }
        Finding::NotUndecided => "it is not undecided".to_owned(),
        _ => "something this program does not know".to_owned(),
    }
}

fn action(action: &Action) -> String {
    match action {
        Action::Published => "published".to_owned(),
        Action::Discarded => "discarded, kept for some days".to_owned(),
        Action::Kept => "kept".to_owned(),
        Action::Failed(error) => format!("failed: {error}"),
        Action::Nothing => "nothing to do".to_owned(),
        _ => "done".to_owned(),
    }
}
