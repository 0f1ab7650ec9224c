//! `stats`: numbers and ages.

use sendmail_core::{QueueAdmin as _, StateCount};
use serde_json::json;

use crate::exit::{Code, OK, Result};
use crate::output::Output;
use crate::setup::Setup;
use crate::units::show_duration;

pub(crate) async fn stats(setup: &Setup, output: Output) -> Result<Code> {
    let statistics = setup.store().await?.statistics().await?;
    for count in &statistics.states {
        output.line(
            || text(count),
            || {
                json!({
                    "state": count.state.as_str(),
                    "count": count.count,
                    "oldest_seconds": count.oldest.map(|age| age.as_secs()),
                })
            },
        )?;
    }
    for note in &statistics.set_aside {
        output.remark("set_aside", &format!("left alone: {note}"));
    }
    Ok(OK)
}

fn text(count: &StateCount) -> String {
    let oldest =
        count.oldest.map_or_else(String::new, |age| format!("  oldest {}", show_duration(age)));
    format!("{:<9} {:>8}{oldest}", count.state.as_str(), count.count)
}
