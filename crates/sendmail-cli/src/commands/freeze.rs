//! `freeze`: stops claims and decisions, so that a backup can be restored, and lets them go on.

use std::ops::ControlFlow;
use std::time::Duration;

use sendmail_core::{Clock as _, EntryState, Filter, QueueAdmin as _};
use sendmail_maildir::MaildirStore;
use sendmail_txn::Recovery;
use serde_json::json;

use crate::args::Freeze;
use crate::exit::{Code, OK, Result, TEMPORARY};
use crate::output::Output;
use crate::setup::Setup;

/// How long it waits if nothing is said: longer than a relay may be silent after the final dot.
const PATIENCE: Duration = Duration::from_secs(15 * 60);
/// How often it looks whether workers still have messages.
const PAUSE: Duration = Duration::from_millis(100);
/// Who looked before the queue was frozen acts after it: only when no worker has had a message for
/// this long, which is longer than a recovery waits for a fence, has everybody seen it.
const QUIET: Duration = Recovery::FENCE_TIMEOUT.saturating_add(Duration::from_secs(1));

pub(crate) async fn freeze(setup: &Setup, output: Output, freeze: &Freeze) -> Result<Code> {
    let store = setup.store().await?;
    let changed = store.set_frozen(!freeze.off).await?;
    if freeze.off {
        output.line(
            || if changed { "thawed: the queue goes on" } else { "it was not frozen" }.to_owned(),
            || json!({ "frozen": false, "changed": changed }),
        )?;
        return Ok(OK);
    }
    let left = claimed(&store).await?;
    tell(output, changed, left, false)?;
    if !freeze.wait {
        return Ok(OK);
    }
    let timeout = freeze.timeout.unwrap_or(PATIENCE);
    // Bounded like this the clock of the system may be set meanwhile.
    match tokio::time::timeout(timeout, wait_until_quiet(&store)).await {
        Ok(quiet) => quiet?,
        Err(_) => {
            let left = claimed(&store).await?;
            output.remark("warning", &still_with_workers(left));
            return Ok(TEMPORARY);
        }
    }
    tell(output, changed, 0, true)?;
    Ok(OK)
}

fn tell(output: Output, changed: bool, claimed: u64, safe: bool) -> Result<()> {
    let text = || match safe {
        true => {
            "no message is with a worker: it is safe to restore; then `freeze --off`".to_owned()
        }
        false => {
            let frozen = if changed { "frozen" } else { "it was frozen already" };
            format!("{frozen}: nobody claims or decides; {}", still_with_workers(claimed))
        }
    };
    output.line(
        text,
        || json!({ "frozen": true, "changed": changed, "claimed": claimed, "safe_to_restore": safe }),
    )
}

fn still_with_workers(claimed: u64) -> String {
    let messages = if claimed == 1 { "message is" } else { "messages are" };
    format!(
        "{claimed} {messages} still with workers; `freeze --wait` says when it is safe to restore"
    )
}

async fn wait_until_quiet(store: &MaildirStore) -> Result<()> {
    let mut quiet = Duration::ZERO;
    while quiet < QUIET {
        sendmail_clock::SystemClock.sleep(PAUSE).await;
        quiet = if claimed(store).await? == 0 { quiet + PAUSE } else { Duration::ZERO };
    }
    Ok(())
}

/// How many messages workers have.
async fn claimed(store: &MaildirStore) -> Result<u64> {
    let mut filter = Filter::default();
    filter.states = vec![EntryState::Claimed];
    let mut count = 0;
    let mut visit = |_| {
        count += 1;
        ControlFlow::Continue(())
    };
    store.list(&filter, &mut visit).await?;
    Ok(count)
}
