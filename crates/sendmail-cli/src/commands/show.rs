//! `show`: one message with what happened to it.

use sendmail_core::{EntryDetail, QueueAdmin as _, QueueId};
use serde_json::{Value, json};

use crate::args::Show;
use crate::exit::{Code, Failure, NO_INPUT, OK, Result};
use crate::output::{Output, entry_json, event_json, event_text, time};
use crate::setup::{Setup, resolve};
use crate::units::show_duration;

pub(crate) async fn show(setup: &Setup, output: Output, show: &Show) -> Result<Code> {
    let store = setup.store().await?;
    for id in resolve(&store, &show.id).await? {
        let detail = store.show(id).await?;
        if show.raw {
            let content = detail.content.as_deref().ok_or_else(|| {
                Failure::new(NO_INPUT, format!("{id} has left the queue; its content is gone"))
            })?;
            output.bytes(content)?;
        } else {
            output.line(|| detail_text(id, &detail), || detail_json(id, &detail))?;
        }
    }
    Ok(OK)
}

fn detail_json(id: QueueId, detail: &EntryDetail) -> Value {
    let history: Vec<Value> = detail.history.iter().map(|event| event_json(None, event)).collect();
    json!({
        "id": id.to_string(),
        "entry": detail.entry.as_ref().map(entry_json),
        "history": history,
    })
}

fn detail_text(id: QueueId, detail: &EntryDetail) -> String {
    let mut lines = vec![format!("queue id     {id}")];
    let mut line = |key: &str, value: &str| lines.push(format!("{key:<12} {value}"));
    match &detail.entry {
        None => line("state", "has left the queue"),
        Some(entry) => {
            let age = Setup::now().saturating_since(entry.queued_at);
            line("message-id", entry.message_id.as_ref().map_or("(unreadable)", |id| id.as_str()));
            line("state", entry.state.as_str());
            line("attempts", &entry.attempts.to_string());
            line("queued", &format!("{} ({} ago)", time(entry.queued_at), show_duration(age)));
            if let Some(at) = entry.next_attempt {
                line("next attempt", &time(at));
            }
            if let Some(resource) = &entry.resource {
                line("decided by", resource.as_str());
            }
            line("from", &format!("<{}>", entry.reverse_path));
            for recipient in &entry.recipients {
                line("to", &format!("<{recipient}>"));
            }
            line("size", &format!("{} bytes", entry.size));
        }
    }
    lines.push("history".to_owned());
    if detail.history.is_empty() {
        lines.push("  nothing yet".to_owned());
    }
    lines.extend(detail.history.iter().map(|event| format!("  {}", event_text(event))));
    lines.join("\n")
}
