//! `stats`: numbers and ages.

use sendmail_core::{EntryState, QueueAdmin as _, StateCount};
use serde_json::{Value, json};

use crate::commands::list::tell_frozen;
use crate::exit::{Code, OK, Result};
use crate::in_doubt::{InDoubt, in_doubt};
use crate::output::Output;
use crate::setup::Setup;
use crate::units::show_duration;

pub(crate) async fn stats(setup: &Setup, output: Output) -> Result<Code> {
    let store = setup.store().await?;
    let statistics = store.statistics().await?;
    let in_doubt = in_doubt(&store).await?;
    for count in &statistics.states {
        output.line(|| text(count, &in_doubt), || json(count, &in_doubt))?;
    }
    tell_frozen(&statistics, output);
    for note in &statistics.set_aside {
        output.remark("set_aside", &format!("left alone: {note}"));
    }
    Ok(OK)
}

/// A line for each state; below the staged messages, who decides them.
fn text(count: &StateCount, in_doubt: &[InDoubt]) -> String {
    let line = |name: &str, count: u64, oldest: Option<std::time::Duration>| {
        let oldest =
            oldest.map_or_else(String::new, |age| format!("  oldest {}", show_duration(age)));
        format!("{name:<9} {count:>8}{oldest}")
    };
    let mut lines = vec![line(count.state.as_str(), count.count, count.oldest)];
    if count.state == EntryState::Staged {
        let each = |doubt: &InDoubt| {
            format!("{}  decided by {}", line("", doubt.count, Some(doubt.oldest)), doubt.resource)
        };
        lines.extend(in_doubt.iter().map(each));
    }
    lines.join("\n")
}

fn json(count: &StateCount, in_doubt: &[InDoubt]) -> Value {
    let mut line = json!({
        "state": count.state.as_str(),
        "count": count.count,
        "oldest_seconds": count.oldest.map(|age| age.as_secs()),
    });
    if count.state == EntryState::Staged {
        let each = |doubt: &InDoubt| {
            json!({
                "resource": doubt.resource.as_str(),
                "count": doubt.count,
                "oldest_seconds": doubt.oldest.as_secs(),
            })
        };
        let in_doubt = in_doubt.iter().map(each).collect();
        line.as_object_mut().map(|line| line.insert("in_doubt".to_owned(), in_doubt));
    }
    line
}
