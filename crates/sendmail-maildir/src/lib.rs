//! A transactional mail queue in a Maildir, on a local disk, safe against every crash.
//!
//! [`MaildirStore`] implements `QueueStore`, `QueueAdmin`, `EventLog` and `DecisionLog` of
//! `sendmail-core`. Any number of processes may write to one queue and work on it at once; when one
//! of them dies, whatever it had is free for the others at their next look.
//!
//! ```no_run
//! # async fn example() -> sendmail_core::Result<()> {
//! use sendmail_maildir::{MaildirOptions, MaildirStore};
//!
//! let store = MaildirStore::open("/var/spool/shop", MaildirOptions::default()).await?;
//! for warning in store.warnings() {
//!     eprintln!("{warning}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! The directory is an ordinary Maildir that every mail reader opens, and zope.sendmail and
//! repoze.sendmail may fill. Beside `tmp/`, `new/` and `cur/` it has these directories:
//!
//! | directory | what is in it |
//! |---|---|
//! | `.owners/` | a file for each process, on which it holds a lock while it lives |
//! | `.staged/<resource>/` | messages of transactions that are not decided, manifests of those this queue decides |
//! | `.lanes/<lane>/` | due messages with a priority or a tenant |
//! | `.claimed/<worker>/` | messages that a worker is sending |
//! | `.deferred/<minute>/` | messages that wait for a time, by the minute in which they are due |
//! | `.held/` | messages that wait for somebody to release them |
//! | `.failed/` | a Maildir of what was given up, for people |
//! | `.discarded/` | messages whose transaction was rolled back, kept for some days |
//! | `.journal/` | what workers did: recovery and event log |
//! | `.wishes/` | what an operator wants of claimed messages |
//!
//! The file `.frozen` is there while an operator has frozen the queue, and `.queue` says what the queue is
//! called.
//!
//! **What is absent.** This crate knows nothing of SMTP or SQL, and decides nothing about retries: it
//! does what the settlement says.

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

mod admin;
mod claim;
mod claim_foreign;
mod content;
#[cfg(test)]
mod counts;
mod disk;
#[cfg(test)]
mod faults;
mod foreign;
mod format;
mod freeze;
#[cfg(fuzzing)]
pub mod fuzz;
mod held;
mod journal;
mod known;
mod layout;
mod manifest;
#[cfg(test)]
mod manifest_cases;
mod name;
mod old_names;
mod options;
mod owner;
mod pending;
#[cfg(test)]
mod power;
mod queue;
mod reading;
mod scan;
#[cfg(shuttle)]
pub mod schedules;
mod settle;
mod store;
mod sweep;
mod sync;
mod takeover;
mod undecided;
mod wake;
mod wishes;

pub use options::MaildirOptions;
pub use store::MaildirStore;
