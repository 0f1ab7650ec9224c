//! `list`: what is in the queue.

use std::ops::ControlFlow;

use sendmail_core::{Entry, Filter, QueueAdmin as _, Statistics};
use sendmail_maildir::MaildirStore;

use crate::args::List;
use crate::exit::{Code, Failure, OK, Result};
use crate::output::{Output, entry_json, time};
use crate::setup::Setup;

pub(crate) async fn list(setup: &Setup, output: Output, list: &List) -> Result<Code> {
    let store = setup.store().await?;
    let filter = filter(list)?;
    let limit = list.limit.unwrap_or(usize::MAX);
    let mut shown = 0;
    let mut failed = None;
    let mut show = |entry: Entry| {
        if shown == limit || !output.is_read() {
            return ControlFlow::Break(());
        }
        shown += 1;
        match output.line(|| entry_text(&entry), || entry_json(&entry)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(failure) => {
                failed = Some(failure);
                ControlFlow::Break(())
            }
        }
    };
    store.list(&filter, &mut show).await?;
    if let Some(failure) = failed {
        return Err(failure);
    }
    tell_set_aside(&store, output).await?;
    Ok(OK)
}

/// Says what is in the queue and cannot be a message, or not yet.
pub(crate) async fn tell_set_aside(store: &MaildirStore, output: Output) -> Result<usize> {
    let statistics = store.statistics().await?;
    tell_frozen(&statistics, output);
    let notes = statistics.set_aside;
    notes.iter().for_each(|note| output.remark("set_aside", &format!("left alone: {note}")));
    Ok(notes.len())
}

/// Says that the queue is frozen, if it is.
pub(crate) fn tell_frozen(statistics: &Statistics, output: Output) {
    if statistics.frozen {
        output.remark("frozen", FROZEN);
    }
}

/// What a frozen queue is told with.
pub(crate) const FROZEN: &str =
    "the queue is frozen: nobody claims or decides messages until `freeze --off`";

fn filter(list: &List) -> Result<Filter> {
    let mut filter = Filter::default();
    filter.states.clone_from(&list.state);
    filter.recipient.clone_from(&list.to);
    if let Some(from) = &list.from {
        let parsed = from.parse();
        filter.reverse_path =
            Some(parsed.map_err(|error| Failure::usage(format!("--from {from:?}: {error}")))?);
    }
    Ok(filter)
}

fn entry_text(entry: &Entry) -> String {
    let recipients: Vec<&str> = entry.recipients.iter().map(|to| to.as_str()).collect();
    let next = entry.next_attempt.map_or_else(String::new, |at| format!(" next={}", time(at)));
    let resource = entry.resource.as_ref().map_or_else(String::new, |it| format!(" resource={it}"));
    let message_id = entry.message_id.as_ref().map_or("(unreadable)", |id| id.as_str());
    format!(
        "{} {:<8} attempts={}{next}{resource} from=<{}> to={} {} bytes {message_id}",
        entry.id,
        entry.state.as_str(),
        entry.attempts,
        entry.reverse_path,
        recipients.join(","),
        entry.size,
    )
}
