//! What can be set about a Maildir queue.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use sendmail_clock::SystemClock;
use sendmail_core::{Clock, Message};

/// How a Maildir queue behaves. The default suits a queue on a local disk.
#[derive(Clone)]
#[non_exhaustive]
pub struct MaildirOptions {
    /// The source of time. Default: the system's clock.
    pub clock: Arc<dyn Clock>,
    /// The largest message that is taken, in bytes. Default: 50 MiB.
    pub max_message_len: usize,
    /// The most messages that may wait at once; beyond it new ones are refused as "queue full".
    /// Counted now and then, so it is kept only roughly. Default: no limit.
    pub max_messages: Option<u64>,
    /// How much free space, in bytes, is left to the processor: below it no new message is taken.
    /// Default: 16 MiB.
    pub reserved_space: u64,
    /// How many free inodes are left to the processor. Default: 1,000.
    pub reserved_inodes: u64,
    /// How long events are kept after a worker's journal ended. Default: 30 days.
    pub history: Duration,
    /// How long messages are kept that were fenced off as rolled back. Default: 7 days.
    pub keep_discarded: Duration,
    /// After how many workers died in an attempt at a message it is held. Default: 3.
    pub max_kills: u32,
}

impl MaildirOptions {
    /// The same options with another source of time.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// The same options with other reserves: bytes of space and number of inodes.
    #[must_use]
    pub fn with_reserve(mut self, space: u64, inodes: u64) -> Self {
        self.reserved_space = space;
        self.reserved_inodes = inodes;
        self
    }
}

impl Default for MaildirOptions {
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self {
            clock: Arc::new(SystemClock),
            max_message_len: (50 << 20).min(Message::MAX_LEN),
            max_messages: None,
            reserved_space: 16 << 20,
            reserved_inodes: 1000,
            history: 30 * day,
            keep_discarded: 7 * day,
            max_kills: 3,
        }
    }
}

impl fmt::Debug for MaildirOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MaildirOptions")
            .field("max_message_len", &self.max_message_len)
            .field("max_messages", &self.max_messages)
            .field("reserved_space", &self.reserved_space)
            .field("reserved_inodes", &self.reserved_inodes)
            .field("history", &self.history)
            .field("keep_discarded", &self.keep_discarded)
            .field("max_kills", &self.max_kills)
            .finish_non_exhaustive()
    }
}
