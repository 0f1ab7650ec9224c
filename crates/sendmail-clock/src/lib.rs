//! The system's clock as a [`Clock`], on tokio's timers.
//!
//! `sendmail-core` has no clock of its own, and every layer takes the one it is given; this is the one
//! that a program gives them. It is a crate by itself because the layers do not depend on each other.

// No panic that input can reach: the rule is the same in each library, and `cargo xtask tidy` wants it.
#![cfg_attr(
    not(test),
    deny(
        clippy::allow_attributes_without_reason,
        clippy::expect_used,
        clippy::get_unwrap,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::string_slice,
        clippy::todo,
        clippy::unreachable,
        clippy::unwrap_in_result,
        clippy::unwrap_used
    )
)]

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use sendmail_core::{Clock, Timestamp};

/// The wall clock of the operating system.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let millis = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_millis()).map_or(i64::MIN, |millis| -millis)
            }
        };
        Timestamp::from_millis(millis)
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_tells_a_time_of_this_century() {
        assert!(SystemClock.now().to_string().starts_with("20"));
    }

    #[tokio::test(start_paused = true)]
    async fn it_sleeps_on_the_runtime() {
        let before = tokio::time::Instant::now();
        SystemClock.sleep(Duration::from_secs(5)).await;
        assert!(before.elapsed() >= Duration::from_secs(5));
    }
}
