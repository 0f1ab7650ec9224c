//! Cases for [`QueueStore`](sendmail_core::QueueStore).

mod claiming;
mod dying;
mod knowing;
mod publishing;
mod settling;
mod waking;

pub use claiming::*;
pub use dying::*;
pub use knowing::*;
pub use publishing::*;
pub use settling::*;
pub use waking::*;

use super::{Case, QueueHarness};

/// One test per case of the contract of [`QueueStore`](sendmail_core::QueueStore), on a
/// [`QueueHarness`](crate::suite::QueueHarness): `queue_store_suite!(path::to::Harness)`.
#[macro_export]
macro_rules! queue_store_suite {
    ($harness:ty) => {
        $crate::__queue_store_cases! {
            __suite_tests; $harness, <$harness as $crate::suite::QueueHarness>::new
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __queue_store_cases {
    ($callback:ident; $($args:tt)*) => {
        $crate::$callback! { $($args)*; store; [
            written_is_invisible,
            staged_is_invisible,
            write_is_idempotent,
            another_message_under_the_same_id_is_refused,
            a_message_over_the_limit_is_refused,
            stage_is_idempotent,
            published_is_claimed_once,
            staged_and_published_is_claimed_once,
            publish_is_idempotent,
            publish_after_somebody_else_published,
            publish_again_brings_nothing_back,
            stage_never_takes_back_what_is_published,
            discarded_is_gone,
            discard_never_touches_published,
            discard_fenced_reports_once,
            discard_aborted_reports_nothing,
            undecided_lists_written_and_staged_with_resource,
            undecided_tells_whether_the_owner_lives,
            undecided_outlives_its_process,
            published_outlives_its_process,
            the_same_message_in_two_envelopes_both_come_through,
            odd_bytes_come_back_exactly,
            a_large_message_comes_back_exactly,
            many_recipients_come_back_in_order,
            the_envelope_comes_back_with_its_options,
            an_empty_claim_when_nothing_is_due,
            a_claim_brings_at_most_max,
            claims_are_exclusive_between_processes,
            claim_of_many_never_doubles,
            attempts_are_counted,
            release_costs_no_attempt,
            tokens_are_checked,
            queued_event_comes_with_first_claim,
            not_before_is_respected,
            a_damaged_entry_is_set_aside_and_others_go_on,
            a_newer_format_is_put_back_untouched,
            settle_delivered_is_gone_for_good,
            settle_tells_each_recipients_fate,
            partial_settlement_keeps_only_the_remaining,
            failed_recipient_is_kept_in_failed,
            failed_is_kept_also_when_others_were_delivered,
            expired_is_kept_in_failed,
            retry_waits_for_its_time,
            retry_not_earlier,
            clamped_when_the_clock_jumps_back,
            hold_verdict_keeps_until_released,
            retry_beside_hold_loses_nobody,
            an_unknown_end_that_is_retried_is_a_possible_duplicate,
            settle_twice_counts_once,
            a_dead_workers_claims_are_free,
            a_live_workers_claims_are_not_free,
            handover_then_death_is_announced_before_the_next_claim,
            a_death_is_announced_once,
            only_the_remaining_are_announced,
            no_announcement_without_handover,
            settled_then_death_is_not_sent_again,
            ambiguous_policy_hold_after_death,
            ambiguous_policy_drop_after_death,
            killed_three_workers_is_held,
            deaths_before_the_attempt_hold_nothing,
            lease_lost_does_nothing,
            renew_prolongs_a_lease,
            sweep_is_harmless,
            a_frozen_queue_brings_nothing,
            a_frozen_queue_decides_nothing,
            what_goes_on_in_a_frozen_queue,
            known_is_what_was_published,
            work_published_before_the_wait_is_not_missed,
            publishing_wakes_a_waiter,
            waiting_ends_at_its_timeout,
        ] }
    };
}

/// The cases as a table.
#[must_use]
pub fn cases<H: QueueHarness>() -> Vec<Case<H>> {
    crate::__queue_store_cases!(__suite_table;)
}
