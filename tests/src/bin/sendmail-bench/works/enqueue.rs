//! Queueing 5,000 messages of 1 KiB durably.

use std::sync::Arc;

use crate::contestants::{KIB, bare, enqueue};
use crate::row::Shared;

pub(crate) const NAME: &str = "enqueue";

/// Messages, and how many if it is quick.
const MESSAGES: (usize, usize) = (5000, 300);

pub(crate) fn ours(tasks: usize, at_once: usize) -> Shared {
    Arc::new(enqueue::Enqueue { tasks, at_once, messages: MESSAGES, length: KIB })
}

pub(crate) fn bare(threads: usize) -> Shared {
    Arc::new(bare::Enqueue { threads, messages: MESSAGES, length: KIB })
}
