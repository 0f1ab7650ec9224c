//! Futures of unknown code, whose panics are caught.

use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::pin;
use std::task::Poll;

/// The code panicked; it may have left its own state half changed, and is dropped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Panicked;

/// Runs `future`, and catches its panic.
///
/// Asserting unwind safety is sound here: the future is dropped after a panic, and what it shares with
/// us (a store, a claim) it only borrows through methods that keep their own state whole.
pub(crate) async fn caught<F: Future>(future: F) -> Result<F::Output, Panicked> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(Poll::Pending) => Poll::Pending,
        Ok(Poll::Ready(output)) => Poll::Ready(Ok(output)),
        Err(_) => Poll::Ready(Err(Panicked)),
    })
    .await
}

/// Runs `call`, and catches its panic.
pub(crate) fn caught_now<T>(call: impl FnOnce() -> T) -> Result<T, Panicked> {
    catch_unwind(AssertUnwindSafe(call)).map_err(|_| Panicked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_panic_before_or_after_an_await_is_caught() {
        assert_eq!(caught(async { 7 }).await, Ok(7));
        let after = caught(async {
            tokio::task::yield_now().await;
            panic!("after an await")
        });
        assert_eq!(after.await, Err::<(), _>(Panicked));
        assert_eq!(caught_now(|| panic!("at once")), Err::<(), _>(Panicked));
    }
}
