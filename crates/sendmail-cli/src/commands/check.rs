//! `check`: configuration, queue, databases and relay, and what was found.

mod databases;

use std::ops::ControlFlow;
use std::time::Duration;

use sendmail_core::{Filter, QueueAdmin as _};
use serde_json::{Value, json};

use crate::commands::list::tell_set_aside;
use crate::exit::{Code, Failure, OK, Result};
use crate::in_doubt::in_doubt;
use crate::output::Output;
use crate::setup::Setup;
use crate::units::show_duration;

/// When messages in doubt are worth a warning.
const IN_DOUBT_TOO_LONG: Duration = Duration::from_secs(60);

pub(crate) async fn check(setup: &Setup, output: Output) -> Result<Code> {
    let values = effective(setup);
    output.line(
        || values_text(&values),
        || json!({ "check": "configuration", "ok": true, "values": values }),
    )?;
    let queue = check_queue(setup, output).await;
    report(output, "queue", &queue)?;
    let databases = databases::check(setup, output).await;
    let relay = check_relay(setup).await;
    report(output, "relay", &relay)?;
    // All are looked at before any ends the command.
    queue?;
    databases?;
    relay?;
    Ok(OK)
}

/// What counts, from defaults, configuration file, environment and command line; secrets masked.
fn effective(setup: &Setup) -> Value {
    let (queue, processor) = (setup.queue_options(), setup.processor());
    let relay = &setup.config.relay;
    let path = |path: &std::path::PathBuf| path.display().to_string();
    let databases = setup.config.databases.iter().map(|(name, section)| {
        let password_file = section.password_file.as_ref().map(|file| path(file.get_ref()));
        let value = json!({
            "url": section.url.get_ref().shown(),
            "password_file": password_file,
            "require_durable": section.require_durable,
        });
        (name.to_string(), value)
    });
    json!({
        "databases": databases.collect::<serde_json::Map<_, _>>(),
        "queue": {
            "path": setup.queue_path().ok().as_ref().map(path),
            "domain": setup.domain(),
            "max_message_size": queue.max_message_len,
            "max_messages": queue.max_messages,
            "reserved_space": queue.reserved_space,
            "reserved_inodes": queue.reserved_inodes,
            "history": show_duration(queue.history),
            "keep_discarded": show_duration(queue.keep_discarded),
        },
        "relay": {
            "url": setup.relay_url(),
            "user": relay.user,
            "password": relay.password.as_ref().map(|_| "***"),
            "password_file": relay.password_file.as_ref().map(path),
            "hello_name": relay.hello_name,
            "ca_file": relay.ca_file.as_ref().map(path),
            "max_connections": setup.max_connections(),
        },
        "delivery": {
            "max_in_flight": processor.max_in_flight,
            "first_retry": show_duration(processor.backoff.first),
            "max_retry": show_duration(processor.backoff.max),
            "lifetime": show_duration(processor.lifetime),
            "poll_interval": show_duration(processor.poll_interval),
            "max_refusals_in_a_row": processor.max_refusals_in_a_row,
        },
    })
}

/// The same as lines; what is not set is left out.
fn values_text(values: &Value) -> String {
    let mut lines = vec!["configuration:".to_owned()];
    collect_values("", values, &mut lines);
    lines.join("\n")
}

fn collect_values(key: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Null => {}
        Value::Object(keys) => {
            let dot = if key.is_empty() { "" } else { "." };
            keys.iter().for_each(|(each, value)| {
                collect_values(&format!("{key}{dot}{each}"), value, lines);
            });
        }
        Value::String(text) => lines.push(format!("  {key} = {text}")),
        other => lines.push(format!("  {key} = {other}")),
    }
}

fn report(output: Output, what: &str, result: &Result<String>) -> Result<()> {
    let (ok, text) = match result {
        Ok(text) => (true, text.clone()),
        Err(failure) => (false, failure.to_string()),
    };
    output.line(
        || format!("{what}: {}{text}", if ok { "" } else { "NOT OK: " }),
        || json!({ "check": what, "ok": ok, "text": text }),
    )
}

async fn check_queue(setup: &Setup, output: Output) -> Result<String> {
    let store = setup.store().await?;
    for warning in store.warnings() {
        output.remark("warning", warning);
    }
    let mut messages = 0;
    let mut unreadable = 0;
    let mut count = |entry: sendmail_core::Entry| {
        messages += 1;
        unreadable += u64::from(entry.message_id.is_none());
        ControlFlow::Continue(())
    };
    store.list(&Filter::default(), &mut count).await?;
    let aside = tell_set_aside(&store, output).await?;
    let doubts = in_doubt(&store).await?;
    for doubt in doubts.iter().filter(|doubt| doubt.oldest > IN_DOUBT_TOO_LONG) {
        let text = format!(
            "{} in doubt, the oldest since {}, decided by {}; `recover` says why",
            doubt.count,
            show_duration(doubt.oldest),
            doubt.resource
        );
        output.remark("warning", &text);
    }
    let in_doubt: u64 = doubts.iter().map(|doubt| doubt.count).sum();
    Ok(format!(
        "{}: {messages} messages, {in_doubt} of them in doubt, {unreadable} unreadable, {aside} other \
         things left alone",
        store.path().display()
    ))
}

async fn check_relay(setup: &Setup) -> Result<String> {
    let mailer = setup.mailer()?;
    let shown = setup.relay_url().unwrap_or_else(|| mailer.relay().to_owned());
    let probed = mailer.probe().await;
    mailer.close().await;
    match probed {
        Ok(()) => Ok(format!("{shown}: can be used")),
        Err(error) => Err(Failure::from(error)),
    }
}
