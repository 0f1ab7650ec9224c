//! The vocabulary of a transactional mail queue: traits, types, events and errors.
//!
//! An application hands a message to a [`MailDelivery`] and gets a [`MessageId`] back. The delivery
//! joins the application's [`Transaction`] with a [`DataManager`], which puts the message into a
//! [`QueueStore`] if and only if the transaction commits. A queue processor claims messages from the
//! store and gives them to a [`Mailer`]; [`MailEvent`]s tell an [`EventSink`] what became of each.
//!
//! The layers that do the work (a Maildir store, an SMTP mailer, a transaction manager, a processor)
//! are crates of their own. They depend on this crate and not on each other, and meet only through
//! the traits defined here, so that each can be replaced.
//!
//! What exists is valid: it was checked when it was made.
//!
//! ```
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! use sendmail_core::{Envelope, Message, Timestamp};
//!
//! let envelope = Envelope::parse("shop@example.org", ["alice@example.net"])?;
//! let message = Message::from_raw(b"Subject: Hello\n\nHello.", Timestamp::EPOCH, "example.org")?;
//! assert!(message.as_bytes().starts_with(b"Subject: Hello\r\n"));
//! assert!(Envelope::parse("shop@example.org", ["alice@example.net\r\nDATA"]).is_err());
//! # drop(envelope);
//! # Ok(())
//! # }
//! ```
//!
//! **What is absent.** This crate does no I/O, starts no task, needs no runtime and reads no clock:
//! whoever needs the time is given a [`Clock`].
//!
//! # Features
//!
//! * `mock`: a [mockall](https://docs.rs/mockall) mock of every trait, in `mock`.

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

mod address;
mod admin;
mod attach;
mod clock;
mod data_manager;
mod decision;
mod delivery;
mod discretion;
mod envelope;
mod error;
mod event;
mod id;
mod mailer;
mod message;
mod message_id;
mod reply;
mod report;
mod store;
mod transaction;

#[cfg(feature = "mock")]
pub mod mock;

pub use address::{AddressError, Recipient, ReversePath};
pub use admin::{
    AdminOutcome, Entry, EntryDetail, EntryState, Filter, QueueAdmin, StateCount, Statistics,
};
pub use attach::{Attach, Dialect, MarkerSink};
pub use clock::{Clock, Timestamp};
pub use data_manager::{DataManager, Order, PrepareContext, SavepointMark, Vote};
pub use decision::{Decision, DecisionLog, DecisionStore};
pub use delivery::MailDelivery;
pub use envelope::{
    AmbiguousPolicy, DeliveryOptions, Envelope, EnvelopeError, MAX_RECIPIENTS, Priority, Tenant,
};
pub use error::{Error, ErrorKind, Result};
pub use event::{Cursor, EventLog, EventPage, EventSink, MailEvent, MailEventKind};
pub use id::{EventId, IdError, QueueId, ResourceId, TransactionId};
pub use mailer::{Handover, Mailer};
pub use message::{MAX_LINE, Message, MessageError};
pub use message_id::{MessageId, MessageIdError};
pub use reply::{EnhancedStatus, Reply, ReplyClass};
pub use report::{DeliveryReport, Outcome};
pub use store::{
    Attempted, Capabilities, Claim, ClaimToken, Claimed, Discard, Loaded, NewMessage, QueueStore,
    RecipientResult, Release, Settlement, Step, SweepReport, Undecided, Unsettled, Verdict,
};
pub use transaction::{Transaction, TransactionStatus};
