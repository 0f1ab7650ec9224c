//! Random histories of several processes on one queue, checked against a ledger.
//!
//! A history is a list of steps of up to three processes: they write, decide, claim, hand over, settle,
//! sweep and die; an operator and the clock interfere. The ledger knows what was committed, and counts
//! every copy that the imagined relay took. At the end everything that can be delivered is delivered,
//! and the ledger must balance. The same histories run on the reference store, so that a mistake in the
//! ledger shows as well.

mod books;
mod deeds;
mod history;
mod worlds;

use std::sync::Arc;

use proptest::prelude::*;
use sendmail_testkit::{ManualClock, MemoryStore};

use self::deeds::{Deed, any_deed};
use self::history::{Checked, History};
use self::worlds::{InMemory, OnDisk, World};

async fn check<W: World>(world: &W, clock: ManualClock, deeds: &[Deed], kill: bool) -> Checked {
    let mut history = History::new(world, clock).await;
    for deed in deeds {
        history.act(*deed).await?;
    }
    history.finish(kill).await
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

/// A few seconds' worth of histories, unless `PROPTEST_CASES` asks for more.
fn config() -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig {
        cases: asked.unwrap_or(24),
        max_shrink_iters: 400,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn a_maildir_keeps_the_books(deeds in prop::collection::vec(any_deed(), 1..70), kill: bool) {
        let clock = ManualClock::default();
        let world = OnDisk { directory: tempfile::tempdir().unwrap(), clock: clock.clone() };
        block_on(check(&world, clock, &deeds, kill))?;
    }

    #[test]
    fn the_reference_keeps_the_books(deeds in prop::collection::vec(any_deed(), 1..70), kill: bool) {
        let clock = ManualClock::default();
        let world = InMemory(MemoryStore::new(Arc::new(clock.clone())));
        block_on(check(&world, clock, &deeds, kill))?;
    }
}
