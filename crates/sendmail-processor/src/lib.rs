//! The queue processor (zope's `IMailQueueProcessor`): claims messages from a
//! [`QueueStore`](sendmail_core::QueueStore), gives them to a [`Mailer`](sendmail_core::Mailer),
//! settles what became of each recipient, and tells [`EventSink`](sendmail_core::EventSink)s.
//!
//! * Trouble with the relay pauses the relay and costs no message anything. Trouble with a recipient
//!   defers or fails that recipient only.
//! * What may have been sent is recorded before it is sent, and what became of it before anybody is
//!   told. An outcome that cannot be recorded is kept in memory, and nothing else is sent meanwhile.
//! * Any number of processors may work on one queue.
//!
//! It knows no concrete store, mailer or clock, and nothing of transactions: what else is to be done
//! beside the queue comes as a [`Recovery`].
//!
//! ```
//! # use std::sync::Arc;
//! # use sendmail_core::*;
//! # use sendmail_testkit::{ManualClock, MemoryStore, TestMailer};
//! # async fn example() -> Result<()> {
//! # let clock = Arc::new(ManualClock::default());
//! # let store = Arc::new(MemoryStore::new(clock.clone()));
//! # let mailer = Arc::new(TestMailer::new());
//! use sendmail_processor::QueueProcessor;
//!
//! let processor = QueueProcessor::builder(store, mailer, clock).build()?;
//! let summary = processor.run_once().await?;
//! println!("{summary}");
//!
//! let running = processor.spawn();
//! running.stop();
//! running.join().await?;
//! # Ok(())
//! # }
//! ```

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

mod attempt;
mod caught;
mod config;
mod context;
mod engine;
mod plan;
mod processor;
mod recovery;
mod relay;
mod rounds;
mod summary;

pub use config::{Backoff, ProcessorConfig};
pub use processor::{Health, ProcessorBuilder, ProcessorHandle, QueueProcessor};
pub use recovery::{Recovered, Recovery};
pub use summary::RunSummary;
