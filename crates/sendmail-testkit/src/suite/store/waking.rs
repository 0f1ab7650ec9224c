//! Waiting for work.

use std::sync::Arc;
use std::time::Duration;

use crate::suite::QueueHarness;
use crate::suite::support::*;

/// Long enough that no case sees it pass: nobody moves the clock so far.
const FOREVER: Duration = Duration::from_secs(86_400);

/// Catches a store that sleeps through what was published between a claim and the wait.
pub async fn work_published_before_the_wait_is_not_missed<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    for _ in 0..3 {
        claim_none(&store, "nothing is published").await;
        // A wait that is dropped forgets no wake-up either.
        let _ = tokio::time::timeout(Duration::ZERO, store.wait_for_work(FOREVER)).await;
        queue(h, &store, &["a@example.net"]).await;
        store.wait_for_work(FOREVER).await;
        deliver(&store, claim_one(&store, "it is published").await).await;
    }
}

/// Catches a store that only polls, also for what its own process publishes.
pub async fn publishing_wakes_a_waiter<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    claim_none(&store, "nothing is published").await;
    let waiter = Arc::clone(&store);
    let waiting = tokio::spawn(async move {
        loop {
            waiter.wait_for_work(FOREVER).await;
            let claimed = waiter.claim(1).await.expect("a claim");
            if !claimed.claims.is_empty() {
                return claimed.claims.len();
            }
        }
    });
    tokio::task::yield_now().await;
    queue(h, &store, &["a@example.net"]).await;
    assert_eq!(waiting.await.expect("the waiter"), 1);
}

/// Catches a store that waits longer than it was told to.
pub async fn waiting_ends_at_its_timeout<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    claim_none(&store, "nothing is published").await;
    let second = Duration::from_secs(1);
    let waiting = tokio::spawn(async move { store.wait_for_work(second).await });
    while !waiting.is_finished() {
        h.clock().advance(second);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
