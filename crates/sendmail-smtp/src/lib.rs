//! A [`Mailer`](sendmail_core::Mailer) that hands messages to an SMTP relay: [`SmtpMailer`].
//!
//! ```no_run
//! # async fn example() -> sendmail_core::Result<()> {
//! use sendmail_core::Mailer;
//! use sendmail_smtp::{SmtpConfig, SmtpMailer};
//!
//! let config = SmtpConfig::from_url("smtp://shop:s3cret%21@relay.example.net?tls=required")?;
//! let mailer = SmtpMailer::new(config)?;
//! mailer.probe().await?;
//! # Ok(())
//! # }
//! ```
//!
//! It speaks SMTP on [lettre](https://docs.rs/lettre)'s connection, over a stream of its own that
//! bounds and times whatever the relay sends. Every recipient gets an outcome of its own; MAIL, RCPT
//! and DATA go out in one piece if the relay offers PIPELINING; a body arrives byte for byte.
//!
//! # What counts as what
//!
//! | the relay's trouble: `Err` of `send` | the message's: an outcome for each recipient |
//! |---|---|
//! | it cannot be reached, does not greet, refuses EHLO and HELO | MAIL, RCPT, DATA or the final dot answered with 4yz: deferred; with 5yz: refused |
//! | TLS cannot be set up, or is required and not offered | the connection is lost, silent or garbled before the final dot: deferred |
//! | AUTH fails, or MAIL is answered with 530, 534, 535 or 538 | the same, a 421 or a 3yz after the final dot: unknown |
//!
//! A 452 or 552 in reply to RCPT, after other recipients were accepted, means that they are too many:
//! the others follow in a further transaction. To an only recipient a 5yz with the status 5.5.3 is
//! final. What needs an extension that the relay does not offer (8BITMIME, SMTPUTF8, SIZE) is refused
//! without a word to the relay.
//!
//! # TLS
//!
//! STARTTLS is required unless the relay is on this host, where clear text is the default: nothing
//! leaves the host, and a mail server's certificate is hardly ever valid for `localhost`. Certificates
//! are checked against the operating system's roots and those that were added, in every mode.
//!
//! **What is absent.** This crate knows of no queue and no transaction, and it logs nothing.

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

mod auth;
mod capabilities;
mod classify;
mod config;
mod connection;
#[cfg(fuzzing)]
pub mod fuzz;
mod guard;
mod load;
mod mailer;
mod opening;
mod overlap;
mod plan;
mod pool;
mod relay_url;
mod reply;
mod stuffing;
mod tls;
mod transaction;
mod trouble;
mod wire;

pub use config::{Credentials, Mechanism, SmtpConfig, Timeouts, TlsMode};
pub use mailer::SmtpMailer;
#[doc(hidden)]
pub use reply::{ReplyError, WireReply, read_reply};
