//! `events`: what became of which mail, by cursor.

use std::time::Duration;

use sendmail_core::{Clock as _, EventLog as _};

use crate::args::Events;
use crate::exit::{Code, OK, Result};
use crate::output::{Output, event_json, event_text};
use crate::setup::Setup;

/// How many events are read at once.
const PAGE: usize = 500;
/// How often the log is looked at while nothing happens.
const PAUSE: Duration = Duration::from_millis(250);

pub(crate) async fn events(setup: &Setup, output: Output, events: Events) -> Result<Code> {
    let store = setup.store().await?;
    let mut cursor = events.after;
    let mut left = events.limit.unwrap_or(usize::MAX);
    while left > 0 && output.is_read() {
        let page = store.read(cursor.clone(), left.min(PAGE)).await?;
        for (at, event) in &page.events {
            output
                .line(|| format!("{at} {}", event_text(event)), || event_json(Some(at), event))?;
        }
        left -= page.events.len();
        match page.events.into_iter().next_back() {
            Some((last, _)) => cursor = Some(last),
            None if events.follow => sendmail_clock::SystemClock.sleep(PAUSE).await,
            None => break,
        }
    }
    Ok(OK)
}
