//! Transactions with mail in them.
//!
//! A [`TransactionManager`] begins a transaction; a [`QueuedDelivery`] (zope's
//! `IQueuedMailDelivery`) or a [`DirectDelivery`] (`IDirectMailDelivery`) joins it with a data manager
//! of its own; the commit is a two-phase commit over all that joined. Queued mail goes out if and only
//! if the transaction committed. What a crash leaves undecided is settled by [`Recovery`].
//!
//! ```
//! # use std::sync::Arc;
//! # use sendmail_core::{Clock, Envelope, MailDelivery, Message, QueueStore};
//! use sendmail_txn::{QueuedDelivery, TransactionManager};
//!
//! # async fn example(
//! #     store: Arc<dyn QueueStore>,
//! #     clock: Arc<dyn Clock>,
//! #     envelope: Envelope,
//! #     message: Message,
//! # ) -> sendmail_core::Result<()> {
//! let manager = TransactionManager::new(clock.clone());
//! let delivery = QueuedDelivery::new(store, clock);
//!
//! let mut transaction = manager.begin();
//! let message_id = delivery.send(&mut transaction, envelope, message).await?;
//! let pending = manager.commit(transaction).await.into_result()?;
//! assert!(pending.is_empty(), "{message_id} is committed, and recovery will publish it");
//! # Ok(())
//! # }
//! ```
//!
//! # Who decides
//!
//! Exactly one participant's commit is the decision: the [last resource] if there is one (a database),
//! otherwise the first one that can be asked later what it decided (with mail only, the first queue).
//! Before the decision, any failure aborts everything; after it, whatever fails is finished by
//! [`Recovery`] and reported as [pending]. If the one that decides cannot say whether it did, nothing is
//! undone and nothing is sent: the outcome is [uncertain] until recovery knows.
//!
//! # Cancellation
//!
//! A commit runs in a task of its own when there is a tokio runtime, so that it goes on if its caller
//! stops waiting. Without one, or when the runtime shuts down, dropping it is like `kill -9`: recovery
//! decides. Dropping a [`Transaction`](sendmail_core::Transaction) commits nothing.
//!
//! **What is absent.** This crate knows no concrete store, mailer or database, and reads no clock but
//! the one it is given.
//!
//! [last resource]: sendmail_core::Order::LastResource
//! [pending]: CommitOutcome::CommittedFinishPending
//! [uncertain]: CommitOutcome::Uncertain

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

mod consumer;
mod direct;
mod handler;
mod lent;
mod mail_manager;
mod manager;
mod outbox;
mod outcome;
mod panics;
mod plan;
mod queued;
mod recovery;
mod registry;
mod savepoint;
mod sinks;
mod two_phase;

pub use consumer::{Consumed, CursorStore, EventConsumer};
pub use direct::DirectDelivery;
pub use handler::{EventHandler, FailureHook, HandlerSink};
pub use lent::LentTransaction;
pub use mail_manager::MailDataManager;
pub use manager::{Completed, TransactionManager};
pub use outcome::{CommitOutcome, Pending};
pub use queued::{Limits, QueuedDelivery};
pub use recovery::{Action, Finding, Recovered, Recovery, RecoveryReport, Ruling};
pub use registry::DeliveryRegistry;
pub use savepoint::Savepoint;
