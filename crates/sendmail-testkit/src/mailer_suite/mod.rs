//! The conformance suite for every [`Mailer`]: named cases, each of which catches one mistake.
//!
//! The author of a mailer implements [`MailerHarness`], which makes a fresh mailer whose other end
//! behaves in a given way and says what arrived there, and writes
//!
//! ```text
//! sendmail_testkit::mailer_suite!(MyHarness);
//! ```
//!
//! which becomes one `#[tokio::test]` for each case (so the crate needs tokio with `macros` and `rt`
//! among its dev-dependencies). A behaviour that the mailer's other end cannot have is declined with a
//! reason ([`Declined`]); the case then says so on standard error, past the capture of test output.
//! [`Behaviour::AcceptAll`] cannot be declined.

mod cases;
mod support;
#[cfg(test)]
mod wrong;

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_core::{Envelope, Mailer};

pub use cases::*;

/// How the other end of a mailer behaves in a case.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Behaviour {
    /// It takes every message for every recipient.
    AcceptAll,
    /// It takes every message, but not for these recipients.
    Except {
        /// These are deferred.
        deferred: Vec<String>,
        /// These are refused.
        refused: Vec<String>,
    },
    /// Every recipient of every message is deferred.
    DeferAll,
    /// Every recipient of every message is refused.
    RefuseAll,
    /// It is not there at all.
    Unreachable,
    /// It goes away in the middle of the first message, before that could have been taken; later ones
    /// are taken.
    LostOnceBeforeHandover,
    /// It goes away after the first message was handed over, without a word; later ones are taken.
    LostOnceAfterHandover,
    /// It takes every message, and goes away after each, so that no connection outlives its message.
    LeavesAfterEach,
}

/// A behaviour that the other end of this mailer cannot have, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declined(pub String);

/// A message as it arrived at the other end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// The reverse-path, without angle brackets; empty if it is null.
    pub reverse_path: String,
    /// The recipients, without angle brackets.
    pub recipients: Vec<String>,
    /// The message, exactly.
    pub bytes: Vec<u8>,
}

/// What the author of a mailer provides for the suite.
#[async_trait]
pub trait MailerHarness: Sized + Send + Sync + 'static {
    /// A fresh mailer, and the other end of it.
    ///
    /// # Errors
    ///
    /// The other end cannot behave like that; the case is declined.
    async fn start(behaviour: Behaviour) -> Result<Self, Declined>;

    /// The mailer, always the same one.
    fn mailer(&self) -> Arc<dyn Mailer>;

    /// What the other end has taken so far, in any order, whether or not it said so.
    async fn delivered(&self) -> Vec<Delivered>;

    /// A credential that the mailer was given; it must not be seen anywhere.
    fn secret(&self) -> Option<String> {
        None
    }

    /// An envelope that the mailer can tell to be unsendable without its other end, if there are such.
    fn unsendable() -> Option<Envelope> {
        None
    }
}

/// Makes one `#[tokio::test]` for each case of the suite, against the given [`MailerHarness`].
#[macro_export]
macro_rules! mailer_suite {
    ($harness:ty) => {
        $crate::mailer_suite!(@each tests $harness);
    };
    (@each $mode:ident $harness:ty) => {
        $crate::mailer_suite! { @$mode $harness,
            one_outcome_per_recipient_in_envelope_order
            a_refused_recipient_stops_nobody_else
            deferred_is_not_refused
            all_refused_is_an_outcome_for_each
            all_deferred_is_an_outcome_for_each
            bytes_arrive_exactly_dots_included
            eight_bit_bytes_arrive_or_are_refused
            a_large_message_arrives_whole
            the_null_reverse_path_stays_null
            many_recipients_are_all_served
            handover_comes_before_the_message_is_out_and_once
            refused_handover_sends_nothing
            unreachable_is_an_error_and_not_an_outcome
            unknown_only_after_the_handover
            lost_after_the_handover_is_unknown
            usable_after_a_broken_connection
            usable_after_the_other_end_left
            usable_after_a_dropped_future
            usable_after_close
            many_at_once
            the_same_message_twice_is_delivered_twice
            check_refuses_without_network
            probe_tells_and_sends_nothing
            the_relay_is_named_without_credentials
        }
    };
    (@tests $harness:ty, $($case:ident)*) => {
        $(
            #[::tokio::test]
            async fn $case() {
                $crate::mailer_suite::$case::<$harness>().await;
            }
        )*
    };
    (@table $harness:ty, $($case:ident)*) => {
        [$((stringify!($case), ::std::boxed::Box::pin($crate::mailer_suite::$case::<$harness>()) as _)),*]
    };
}
