//! `check`: configuration, queue and relay, and what was found.

use std::ops::ControlFlow;

use sendmail_core::{Filter, QueueAdmin as _};
use serde_json::json;

use crate::commands::list::tell_set_aside;
use crate::config::mask_url;
use crate::exit::{Code, Failure, OK, Result};
use crate::output::Output;
use crate::setup::Setup;

pub(crate) async fn check(setup: &Setup, output: Output) -> Result<Code> {
    let effective = setup.config.effective();
    output.line(
        || format!("configuration: {effective}"),
        || json!({ "check": "configuration", "ok": true, "values": effective }),
    )?;
    let queue = check_queue(setup, output).await;
    report(output, "queue", &queue)?;
    let relay = check_relay(setup).await;
    report(output, "relay", &relay)?;
    // Both are looked at before either ends the command.
    queue?;
    relay?;
    Ok(OK)
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
    Ok(format!(
        "{}: {messages} messages, {unreadable} of them unreadable, {aside} other things left alone",
        store.path().display()
    ))
}

async fn check_relay(setup: &Setup) -> Result<String> {
    let mailer = setup.mailer()?;
    let shown = setup.relay_url().map_or_else(|| mailer.relay().to_owned(), mask_url);
    let probed = mailer.probe().await;
    mailer.close().await;
    match probed {
        Ok(()) => Ok(format!("{shown}: can be used")),
        Err(error) => Err(Failure::from(error)),
    }
}
