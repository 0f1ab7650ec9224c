//! `recover`: decides messages whose transaction was cut short, and tells what was found of each.

use std::sync::Arc;

use sendmail_core::{AdminOutcome, QueueAdmin as _, QueueStore};
use sendmail_maildir::MaildirStore;
use sendmail_txn::{Action, Finding, Recovered, Recovery, Ruling};
use serde_json::json;

use crate::args::{Decide, Recover};
use crate::databases::{Database, connect_all};
use crate::exit::{Code, NO_INPUT, OK, Result, TEMPORARY};
use crate::output::Output;
use crate::recovery::Known;
use crate::setup::{Setup, resolve};

pub(crate) async fn recover(setup: &Setup, output: Output, recover: &Recover) -> Result<Code> {
    let maildir = Arc::new(setup.store().await?);
    let mut ids = Vec::new();
    for text in &recover.ids {
        ids.extend(resolve(&maildir, text).await?);
    }
    let store: Arc<dyn QueueStore> = maildir.clone();
    let known = Known::new(setup.config.databases.keys());
    let (recovery, unasked) = with_databases(setup, output, &store, &known).await?;
    let report = match recover.decide {
        None => recovery.run().await?,
        Some(Decide::Committed) => recovery.decide(&ids, Ruling::Committed).await?,
        Some(Decide::Aborted) => recovery.decide(&ids, Ruling::Aborted).await?,
    };
    let mut told: Vec<Told> = report.messages.iter().map(Told::of).collect();
    if let Some(Decide::Committed) = recover.decide {
        put_back(&maildir, &mut told).await?;
    }
    let swept = store.sweep().await?;

    told.iter().try_for_each(|told| told.print(output, &known))?;
    for (resource, error) in &report.trouble {
        output.remark("warning", &format!("{}: {error}", known.named(resource)));
    }
    let in_doubt = told.iter().filter(|told| told.in_doubt).count();
    let missing = told.iter().filter(|told| told.missing).count();
    output.line(
        || {
            format!(
                "{} looked at, {in_doubt} in doubt, {missing} missing; {} old records removed; \
                 sweep: {} published, {} left-overs removed",
                told.len(),
                report.forgotten + report.swept,
                swept.published,
                swept.removed
            )
        },
        || {
            json!({
                "messages": told.len(),
                "in_doubt": in_doubt,
                "missing": missing,
                "records_removed": report.forgotten + report.swept,
                "swept_published": swept.published,
                "swept_removed": swept.removed,
            })
        },
    )?;
    hint(output, &told, &known);
    // An operator decides because somebody cannot be asked: that is no trouble then.
    let unasked = recover.decide.is_none() && (unasked > 0 || !report.trouble.is_empty());
    Ok(match () {
        () if missing > 0 => NO_INPUT,
        () if in_doubt > 0 || unasked => TEMPORARY,
        () => OK,
    })
}

/// A recovery with all configured databases that can be asked, and how many cannot.
async fn with_databases(
    setup: &Setup,
    output: Output,
    store: &Arc<dyn QueueStore>,
    known: &Known,
) -> Result<(Recovery, usize)> {
    let mut recovery = Recovery::new(store.clone(), Setup::clock());
    let mut unasked = 0;
    for (database, connected) in connect_all(Database::all(setup)?, store.resource_id()).await {
        match connected {
            Ok(connected) => {
                let resource = connected.decisions.resource_id().clone();
                // A database with two names is asked once.
                if known.name_of(&resource).is_none() {
                    recovery = recovery.with_decision_store(connected.decisions)?;
                }
                known.learn(&database.name, resource);
            }
            Err(error) => {
                unasked += 1;
                output.remark("warning", &format!("database {}: {error}", database.name));
            }
        }
    }
    Ok((recovery, unasked))
}

/// Puts those back that are not undecided because they were discarded.
async fn put_back(store: &MaildirStore, all: &mut [Told]) -> Result<()> {
    for told in all.iter_mut().filter(|told| told.finding.0 == NOT_UNDECIDED) {
        match store.put_back(told.id).await? {
            AdminOutcome::Done(_) => {
                told.finding = ("discarded", "it had been discarded".to_owned());
                told.action = ("put-back", "put back into the queue".to_owned());
            }
            AdminOutcome::NotFound if store.known(&[told.id]).await?.is_empty() => {
                told.finding =
                    ("missing", "it is neither in the queue nor in its history".to_owned());
                told.missing = true;
            }
            _ => {}
        }
    }
    Ok(())
}

/// What to do about messages that nobody here can decide, and about those that are gone.
fn hint(output: Output, all: &[Told], known: &Known) {
    let mut unknown: Vec<_> = all
        .iter()
        .filter(|told| told.finding.0 == UNKNOWN_RESOURCE)
        .filter_map(|told| told.resource.as_ref())
        .collect();
    unknown.sort_unstable();
    unknown.dedup();
    unknown.into_iter().for_each(|resource| output.remark("hint", &known.hint(resource)));
    if all.iter().any(|told| told.missing) {
        output.remark("alarm", MISSING);
    }
}

const MISSING: &str = "committed mail is missing: its file was removed, or the queue was restored from \
                       an older backup; look for it in backups and in `list --state discarded` (`recover \
                       --decide committed ID` puts it back), or write it again";

const NOT_UNDECIDED: &str = "not-undecided";
const UNKNOWN_RESOURCE: &str = "unknown-resource";

/// What is told of one message: words for programs, which stay as they are, and sentences for people.
struct Told {
    id: sendmail_core::QueueId,
    resource: Option<sendmail_core::ResourceId>,
    finding: (&'static str, String),
    action: (&'static str, String),
    in_doubt: bool,
    missing: bool,
}

impl Told {
    fn of(message: &Recovered) -> Self {
        let missing = matches!(message.finding, Finding::Missing);
        let open = matches!(message.action, Action::Kept | Action::Failed(_));
        Self {
            id: message.id,
            resource: message.resource.clone(),
            finding: finding(&message.finding),
            action: action(&message.action),
            in_doubt: open && !missing,
            missing,
        }
    }

    fn print(&self, output: Output, known: &Known) -> Result<()> {
        let ((finding, found), (action, done)) = (&self.finding, &self.action);
        let database = self.resource.as_ref().and_then(|resource| known.name_of(resource));
        output.line(
            || {
                let resource = self.resource.as_ref().map(|resource| known.named(resource));
                let resource = resource.map_or_else(String::new, |it| format!(" ({it})"));
                format!("{}{resource}: {found}; {done}", self.id)
            },
            || {
                json!({
                    "id": self.id.to_string(),
                    "resource": self.resource.as_ref().map(|resource| resource.as_str()),
                    "database": database.as_ref().map(ToString::to_string),
                    "finding": finding,
                    "action": action,
                    "found": found,
                    "done": done,
                })
            },
        )
    }
}

fn finding(finding: &Finding) -> (&'static str, String) {
    let (word, text) = match finding {
        Finding::Committed => ("committed", "its transaction committed"),
        Finding::Aborted => ("aborted", "its transaction rolled back"),
        Finding::Unfinished => ("unfinished", "its transaction is not finished"),
        Finding::InProgress => ("in-progress", "its transaction is in progress"),
        Finding::UnknownResource => {
            (UNKNOWN_RESOURCE, "none of those that could be asked decides it")
        }
        Finding::NoAnswer(error) => {
            return ("no-answer", format!("who decides it could not be asked: {error}"));
        }
        Finding::Frozen => ("frozen", "the queue is frozen: nothing is decided"),
        Finding::Missing => (
            "missing",
            "ALARM: its transaction committed, and it is neither in the queue nor in its history",
        ),
        Finding::NotUndecided => (NOT_UNDECIDED, "it is not undecided"),
        _ => ("other", "something this program does not know"),
    };
    (word, text.to_owned())
}

fn action(action: &Action) -> (&'static str, String) {
    let (word, text) = match action {
        Action::Published => ("published", "published"),
        Action::Discarded => ("discarded", "discarded, and kept for some days"),
        Action::Kept => ("kept", "kept"),
        Action::Failed(error) => return ("failed", format!("failed: {error}")),
        Action::Nothing => ("nothing", "nothing to do"),
        _ => ("other", "done"),
    };
    (word, text.to_owned())
}
