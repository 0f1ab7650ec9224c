//! Cases for [`QueueAdmin`](sendmail_core::QueueAdmin).

use std::ops::ControlFlow;
use std::time::Duration;

use sendmail_core::{
    AdminOutcome, Clock, Discard, EntryState, ErrorKind, Filter, MailEvent, MailEventKind,
    NewMessage, QueueId, Verdict,
};

use super::support::*;
use super::{Case, QueueHarness};

const MINUTE: Duration = Duration::from_secs(60);

/// One test per case of the contract of [`QueueAdmin`](sendmail_core::QueueAdmin), on a
/// [`QueueHarness`](crate::suite::QueueHarness): `queue_admin_suite!(path::to::Harness)`.
#[macro_export]
macro_rules! queue_admin_suite {
    ($harness:ty) => {
        $crate::__queue_admin_cases! {
            __suite_tests; $harness, <$harness as $crate::suite::QueueHarness>::new
        }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __queue_admin_cases {
    ($callback:ident; $($args:tt)*) => {
        $crate::$callback! { $($args)*; admin; [
            a_list_shows_every_state,
            a_list_shows_what_is_known,
            a_list_obeys_its_filter,
            a_list_stops_when_told,
            a_queued_message_can_be_shown,
            a_delivered_message_can_be_shown,
            an_unknown_message_is_not_found,
            held_is_not_sent_until_released,
            holding_twice_changes_nothing,
            a_deferred_message_can_be_held,
            released_is_due_at_once,
            retry_now_makes_a_deferred_message_due,
            retry_now_brings_a_failed_message_back,
            removed_is_gone_for_good,
            a_failed_message_can_be_removed,
            a_claimed_message_is_not_taken_from_its_worker,
            a_hold_on_a_claimed_message_is_honoured,
            a_remove_of_a_claimed_message_is_honoured,
            a_retry_of_a_claimed_message_is_honoured,
            a_retry_of_a_claimed_message_frees_none_that_is_to_be_held,
            a_wish_about_a_delivered_message_is_void,
            nothing_is_known_of_no_message,
            numbers_add_up,
            a_frozen_queue_is_told,
            a_discarded_message_is_shown_only_if_asked_for,
            a_discarded_message_can_be_put_back,
            only_a_discarded_message_is_put_back,
        ] }
    };
}

/// The cases as a table.
#[must_use]
pub fn cases<H: QueueHarness>() -> Vec<Case<H>> {
    crate::__queue_admin_cases!(__suite_table;)
}

/// One message in each state, in the order of [`EntryState::ALL`].
async fn one_in_each_state<H: QueueHarness>(h: &H) -> Vec<QueueId> {
    let store = h.open().await;
    let staged = mail(h, &store, &["staged@example.net"]);
    write(&store, &staged).await;
    store.stage(&[staged.id]).await.expect("a written message can be staged");
    let mut ids = vec![staged.id];
    let failed = queue(h, &store, &["failed@example.net"]).await.id;
    let claim = claim_one(&store, "it is published").await;
    try_once(&store, claim, vec![refused()], MINUTE).await;
    let held = queue(h, &store, &["held@example.net"]).await.id;
    h.admin().await.hold(held).await.expect("a hold");
    let deferred_one = queue(h, &store, &["deferred@example.net"]).await.id;
    let claim = claim_one(&store, "it is published").await;
    try_once(&store, claim, vec![deferred()], MINUTE).await;
    let claimed = queue(h, &store, &["claimed@example.net"]).await.id;
    let _kept = claim_one(&store, "it is published").await;
    let queued = queue(h, &store, &["queued@example.net"]).await.id;
    let thrown = discarded_mail(h, &store).await.id;
    // The claim lives as long as its process.
    std::mem::forget(store);
    ids.extend([queued, claimed, deferred_one, held, failed, thrown]);
    ids
}

/// Catches a list that leaves a state out, or shows one message in another's place.
pub async fn a_list_shows_every_state<H: QueueHarness>(h: &H) {
    let ids = one_in_each_state(h).await;
    let mut filter = Filter::default();
    filter.states = EntryState::ALL.to_vec();
    let mut entries = list(h, &filter).await;
    entries.sort_by_key(|entry| entry.state);
    let shown: Vec<_> = entries.iter().map(|entry| (entry.state, entry.id)).collect();
    let expected: Vec<_> = EntryState::ALL.into_iter().zip(ids).collect();
    assert_eq!(shown, expected);
}

/// Catches a list with empty columns.
pub async fn a_list_shows_what_is_known<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let before = h.clock().now();
    let new = queue(h, &store, &["a@example.net", "b@example.net"]).await;
    h.clock().advance(MINUTE);
    let entry = entries_of(h, new.id).await.remove(0);
    assert_eq!(entry.message_id.as_ref(), Some(new.message.message_id()));
    assert_eq!(entry.reverse_path, *new.envelope.reverse_path());
    assert_eq!(entry.recipients, new.envelope.recipients());
    assert_eq!((entry.attempts, entry.queued_at), (0, before));
    assert!(entry.size >= new.message.as_bytes().len() as u64, "its size in bytes");
    let staged = mail(h, &store, &["c@example.net"]);
    write(&store, &staged).await;
    store.stage(&[staged.id]).await.expect("a written message can be staged");
    let entry = entries_of(h, staged.id).await.remove(0);
    assert_eq!(entry.resource.as_ref(), Some(store.resource_id()), "who decides about it");
}

/// Catches a list that shows what was not asked for.
pub async fn a_list_obeys_its_filter<H: QueueHarness>(h: &H) {
    let ids = one_in_each_state(h).await;
    let mut filter = Filter::default();
    filter.states = vec![EntryState::Held, EntryState::Failed];
    let mut shown: Vec<_> = list(h, &filter).await.iter().map(|entry| entry.id).collect();
    shown.sort();
    let mut expected = vec![ids[4], ids[5]];
    expected.sort();
    assert_eq!(shown, expected);
    let mut filter = Filter::default();
    filter.recipient = Some("deferred@example.net".to_owned());
    let shown: Vec<_> = list(h, &filter).await.iter().map(|entry| entry.id).collect();
    assert_eq!(shown, [ids[3]]);
}

/// Catches a list that goes on after it was told to stop.
pub async fn a_list_stops_when_told<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    for _ in 0..5 {
        queue(h, &store, &["a@example.net"]).await;
    }
    let mut shown = 0;
    let mut visit = |_| {
        shown += 1;
        if shown == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    h.admin().await.list(&Filter::default(), &mut visit).await.expect("a list");
    assert_eq!(shown, 2);
}

/// Catches a store that shows other bytes than it would send.
pub async fn a_queued_message_can_be_shown<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let detail = h.admin().await.show(new.id).await.expect("it is there");
    assert_eq!(detail.content.as_deref(), Some(new.message.as_bytes()));
    assert_eq!(detail.entry.expect("it is there").state, EntryState::Queued);
}

/// Catches a store that knows nothing of what it has delivered.
pub async fn a_delivered_message_can_be_shown<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    deliver(&store, claim_one(&store, "it is published").await).await;
    let detail = h.admin().await.show(new.id).await.expect("its history is there");
    assert!(detail.entry.is_none() && detail.content.is_none(), "it has left the queue");
    assert_eq!(detail.history, history_of(h, new.id).await, "what happened to it");
    assert_eq!(detail.history.last().expect("an event").kind, MailEventKind::Sent);
}

/// Catches a store that invents messages.
pub async fn an_unknown_message_is_not_found<H: QueueHarness>(h: &H) {
    let id = QueueId::mint(h.clock().now());
    let error = h.admin().await.show(id).await.expect_err("there is none");
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

/// Catches a store that sends what an operator holds.
pub async fn held_is_not_sent_until_released<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let admin = h.admin().await;
    let held = done(admin.hold(new.id).await.expect("a hold"));
    assert_eq!((held.kind, held.queue_id), (MailEventKind::Held, Some(new.id)));
    h.clock().advance(Duration::from_secs(7 * 86_400));
    store.sweep().await.expect("a sweep");
    claim_none(&store, "an operator holds it").await;
    let released = done(admin.release(new.id).await.expect("a release"));
    assert_eq!(released.kind, MailEventKind::Released);
    let claim = claim_one(&store, "it was released").await;
    assert_eq!((claim.id, claim.attempt), (new.id, 1));
    let told = history_of(h, new.id).await;
    assert!(told.contains(&held) && told.contains(&released), "both are in the history");
}

/// Catches a store that tells of a hold that was there already.
pub async fn holding_twice_changes_nothing<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let admin = h.admin().await;
    done(admin.hold(new.id).await.expect("a hold"));
    assert_eq!(admin.hold(new.id).await.expect("a hold"), AdminOutcome::Unchanged);
    done(admin.release(new.id).await.expect("a release"));
    assert_eq!(admin.release(new.id).await.expect("a release"), AdminOutcome::Unchanged);
    assert_eq!(told(h, new.id, MailEventKind::Held).await.len(), 1);
}

/// Catches a store whose hold ends when the message's time comes.
pub async fn a_deferred_message_can_be_held<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = deferred_mail(h, &store).await;
    done(h.admin().await.hold(new.id).await.expect("a hold"));
    h.clock().advance(2 * MINUTE);
    claim_none(&store, "an operator holds it").await;
    done(h.admin().await.release(new.id).await.expect("a release"));
    let claim = claim_one(&store, "it was released").await;
    assert_eq!(claim.attempt, 2, "its attempts are not forgotten");
    assert_eq!(remaining(&store, &claim).await, ["b@example.net"], "nor who was served");
}

/// Catches a store whose released mail waits for something.
pub async fn released_is_due_at_once<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = deferred_mail(h, &store).await;
    let admin = h.admin().await;
    done(admin.hold(new.id).await.expect("a hold"));
    done(admin.release(new.id).await.expect("a release"));
    is_due(&store, "a released message is due at once").await;
}

/// Catches a store whose deferred mail cannot be hurried.
pub async fn retry_now_makes_a_deferred_message_due<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = deferred_mail(h, &store).await;
    claim_none(&store, "it was just deferred").await;
    done(h.admin().await.retry_now(new.id).await.expect("a retry"));
    let claim = claim_one(&store, "an operator wants it tried now").await;
    assert_eq!(remaining(&store, &claim).await, ["b@example.net"]);
}

/// Catches a store whose failed mail is lost to the operator, or sent to those who have it.
pub async fn retry_now_brings_a_failed_message_back<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net", "b@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    try_once(&store, claim, vec![accepted(), refused()], MINUTE).await;
    done(h.admin().await.retry_now(new.id).await.expect("a retry"));
    let claim = claim_one(&store, "an operator wants it tried now").await;
    assert_eq!(remaining(&store, &claim).await, ["b@example.net"], "only who was given up");
    let loaded = load(&store, &claim).await;
    assert_eq!(loaded.message, new.message);
    deliver(&store, claim).await;
    assert!(entries_of(h, new.id).await.is_empty(), "it was delivered after all");
}

/// Catches a store that sends what an operator removed.
pub async fn removed_is_gone_for_good<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let admin = h.admin().await;
    let removed = done(admin.remove(new.id).await.expect("a removal"));
    assert_eq!(removed.kind, MailEventKind::Removed);
    assert_eq!(admin.remove(new.id).await.expect("a removal"), AdminOutcome::NotFound);
    h.kill(store).await;
    let again = h.open().await;
    again.sweep().await.expect("a sweep");
    claim_none(&again, "an operator removed it").await;
    assert!(entries_of(h, new.id).await.is_empty());
    let detail = admin.show(new.id).await.expect("its history is there");
    assert!(detail.history.contains(&removed), "that it was removed is in its history");
}

/// Catches a store whose failed mail piles up.
pub async fn a_failed_message_can_be_removed<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    try_once(&store, claim, vec![refused()], MINUTE).await;
    done(h.admin().await.remove(new.id).await.expect("a removal"));
    assert!(entries_of(h, new.id).await.is_empty(), "it was removed");
}

/// Catches a store in which an operator and a worker both have a message.
pub async fn a_claimed_message_is_not_taken_from_its_worker<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let loaded = attempt(&store, &claim).await;
    let admin = h.admin().await;
    assert_eq!(admin.remove(new.id).await.expect("a removal"), AdminOutcome::Claimed);
    assert_eq!(admin.hold(new.id).await.expect("a hold"), AdminOutcome::Claimed);
    assert_eq!(entries_of(h, new.id).await[0].state, EntryState::Claimed);
    store.renew(&claim).await.expect("the claim is still its claimer's");
    let events = settle(&store, claim, attempted(&loaded, vec![accepted()], MINUTE)).await;
    assert_eq!(events[0].kind, MailEventKind::Sent, "it was sent, whatever was wished");
}

/// Catches a store that forgets a wish to hold.
pub async fn a_hold_on_a_claimed_message_is_honoured<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net", "b@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let admin = h.admin().await;
    assert_eq!(admin.hold(new.id).await.expect("a hold"), AdminOutcome::Claimed);
    let events = try_once(&store, claim, vec![accepted(), deferred()], MINUTE).await;
    assert_eq!(events[0].kind, MailEventKind::Sent);
    h.clock().advance(2 * MINUTE);
    claim_none(&store, "an operator wished to hold it while a worker had it").await;
    assert_eq!(told(h, new.id, MailEventKind::Held).await.len(), 1, "and is told that it is");
    done(admin.release(new.id).await.expect("a release"));
    let claim = claim_one(&store, "it was released").await;
    assert_eq!(remaining(&store, &claim).await, ["b@example.net"]);
}

/// Catches a store that forgets a wish to remove, also when the worker only gives the message back.
pub async fn a_remove_of_a_claimed_message_is_honoured<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let admin = h.admin().await;
    assert_eq!(admin.remove(new.id).await.expect("a removal"), AdminOutcome::Claimed);
    release(&store, claim).await;
    claim_none(&store, "an operator wished to remove it while a worker had it").await;
    assert!(entries_of(h, new.id).await.is_empty());
    assert_eq!(told(h, new.id, MailEventKind::Removed).await.len(), 1, "and is told that it is");
}

/// Catches a store that forgets a wish to try a message at once.
pub async fn a_retry_of_a_claimed_message_is_honoured<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net", "b@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let admin = h.admin().await;
    assert_eq!(admin.retry_now(new.id).await.expect("a retry"), AdminOutcome::Claimed);
    try_once(&store, claim, vec![accepted(), deferred()], MINUTE).await;
    let claim = claim_one(&store, "an operator wished to have it tried at once").await;
    assert_eq!(remaining(&store, &claim).await, ["b@example.net"]);
    // It was honoured once: the next delay counts.
    try_once(&store, claim, vec![deferred()], MINUTE).await;
    claim_none(&store, "it was tried at once, and deferred again").await;
}

/// Catches a store that lets a wish to try a message free one that is to be held.
pub async fn a_retry_of_a_claimed_message_frees_none_that_is_to_be_held<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let admin = h.admin().await;
    assert_eq!(admin.retry_now(new.id).await.expect("a retry"), AdminOutcome::Claimed);
    try_once(&store, claim, vec![unknown(Verdict::Hold)], MINUTE).await;
    claim_none(&store, "only a release frees a message that is held").await;
    assert_eq!(entries_of(h, new.id).await[0].state, EntryState::Held);
}

/// Catches a store that removes or holds what was delivered meanwhile.
pub async fn a_wish_about_a_delivered_message_is_void<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = queue(h, &store, &["a@example.net"]).await;
    let claim = claim_one(&store, "it is published").await;
    let admin = h.admin().await;
    assert_eq!(admin.hold(new.id).await.expect("a hold"), AdminOutcome::Claimed);
    deliver(&store, claim).await;
    assert!(entries_of(h, new.id).await.is_empty(), "it was delivered");
    assert!(told(h, new.id, MailEventKind::Held).await.is_empty(), "nothing is left to hold");
}

/// Catches a store that says "done" to wishes about nothing.
pub async fn nothing_is_known_of_no_message<H: QueueHarness>(h: &H) {
    let admin = h.admin().await;
    let id = QueueId::mint(h.clock().now());
    for outcome in [
        admin.hold(id).await,
        admin.release(id).await,
        admin.retry_now(id).await,
        admin.remove(id).await,
        admin.put_back(id).await,
    ] {
        assert_eq!(outcome.expect("an answer"), AdminOutcome::NotFound);
    }
}

/// Catches a store that cannot count.
pub async fn numbers_add_up<H: QueueHarness>(h: &H) {
    one_in_each_state(h).await;
    let store = h.open().await;
    queue(h, &store, &["another@example.net"]).await;
    h.clock().advance(Duration::from_secs(10));
    let numbers = h.admin().await.statistics().await.expect("numbers");
    let states: Vec<_> = numbers.states.iter().map(|count| count.state).collect();
    assert_eq!(states, EntryState::ALL, "one number for each state, in their order");
    let counts: Vec<_> = numbers.states.iter().map(|count| count.count).collect();
    assert_eq!(counts, [1, 2, 1, 1, 1, 1, 1]);
    for count in &numbers.states {
        assert_eq!(count.oldest, Some(Duration::from_secs(10)), "{:?}", count.state);
    }
}

/// Catches a store whose operator cannot see that nothing is sent, or is told of no change twice.
pub async fn a_frozen_queue_is_told<H: QueueHarness>(h: &H) {
    let admin = h.admin().await;
    for frozen in [true, false, true] {
        for changed in [true, false] {
            let answer = admin.set_frozen(frozen).await.expect("a freeze or a thaw");
            assert_eq!(answer, changed, "whether that changed anything");
            assert_eq!(admin.statistics().await.expect("numbers").frozen, frozen);
        }
    }
    h.kill(h.open().await).await;
    assert!(h.admin().await.statistics().await.expect("numbers").frozen, "nobody thawed it");
}

/// Catches a store that mixes what was rolled back with the queue, or does not show it at all.
pub async fn a_discarded_message_is_shown_only_if_asked_for<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = discarded_mail(h, &store).await;
    assert!(list(h, &Filter::default()).await.is_empty(), "it is not part of the queue");
    assert!(entries_of(h, new.id).await.is_empty(), "nor if it is asked for by its id");
    let mut filter = Filter::default();
    filter.states = vec![EntryState::Discarded];
    let entries = list(h, &filter).await;
    assert_eq!(entries.len(), 1, "it was asked for");
    assert_eq!((entries[0].id, entries[0].state), (new.id, EntryState::Discarded));
    assert_eq!(entries[0].message_id.as_ref(), Some(new.message.message_id()));
    let admin = h.admin().await;
    let detail = admin.show(new.id).await.expect("it is kept");
    assert_eq!(detail.content.as_deref(), Some(new.message.as_bytes()));
    assert_eq!(detail.entry.expect("it is kept").state, EntryState::Discarded);
    for outcome in [admin.hold(new.id).await, admin.retry_now(new.id).await] {
        assert_eq!(outcome.expect("an answer"), AdminOutcome::NotFound, "not part of the queue");
    }
}

/// Catches a store in which mail that was discarded after a wrong restore is lost.
pub async fn a_discarded_message_can_be_put_back<H: QueueHarness>(h: &H) {
    let store = h.open().await;
    let new = discarded_mail(h, &store).await;
    claim_none(&store, "it was discarded").await;
    let admin = h.admin().await;
    let event = done(admin.put_back(new.id).await.expect("it can be put back"));
    assert_eq!((event.kind, event.queue_id), (MailEventKind::Released, Some(new.id)));
    assert!(event.detail.is_some(), "it says why");
    assert!(history_of(h, new.id).await.contains(&event), "it is in the history");
    h.kill(store).await;
    let other = h.open().await;
    let claim = claim_one(&other, "it was put back").await;
    let loaded = load(&other, &claim).await;
    assert_eq!((claim.id, &loaded.message), (new.id, &new.message));
    deliver(&other, claim).await;
    other.sweep().await.expect("a sweep");
    claim_none(&other, "it was delivered").await;
    let outcome = admin.put_back(new.id).await.expect("an answer");
    assert_eq!(outcome, AdminOutcome::NotFound, "nothing is left to put back");
}

/// Catches a store that publishes, or takes from its place, whatever is to be put back.
pub async fn only_a_discarded_message_is_put_back<H: QueueHarness>(h: &H) {
    let (store, admin) = (h.open().await, h.admin().await);
    let new = queue(h, &store, &["a@example.net"]).await;
    admin.hold(new.id).await.expect("a hold");
    let staged = mail(h, &store, &["b@example.net"]);
    write(&store, &staged).await;
    store.stage(&[staged.id]).await.expect("a written message can be staged");
    for id in [new.id, staged.id] {
        let outcome = admin.put_back(id).await.expect("an answer");
        assert_eq!(outcome, AdminOutcome::Unchanged);
    }
    claim_none(&store, "one is held and the other undecided").await;
    let thrown = discarded_mail(h, &store).await;
    done(admin.put_back(thrown.id).await.expect("it can be put back"));
    let again = admin.put_back(thrown.id).await.expect("an answer");
    assert_eq!(again, AdminOutcome::Unchanged, "it is in the queue already");
    is_due(&store, "it is there once").await;
}

/// A message whose transaction was found to be rolled back.
async fn discarded_mail<H: QueueHarness>(
    h: &H,
    store: &std::sync::Arc<dyn sendmail_core::QueueStore>,
) -> NewMessage {
    let new = NewMessage { resource: elsewhere(), ..mail(h, store, &["discarded@example.net"]) };
    write(store, &new).await;
    store.stage(&[new.id]).await.expect("a written message can be staged");
    store.discard(&[new.id], Discard::Fenced).await.expect("a discard");
    new
}

#[track_caller]
fn done(outcome: AdminOutcome) -> MailEvent {
    match outcome {
        AdminOutcome::Done(event) => *event,
        other => panic!("it can be done, and is said to be {other:?}"),
    }
}

/// A message of which the first recipient was served and the second was deferred.
async fn deferred_mail<H: QueueHarness>(
    h: &H,
    store: &std::sync::Arc<dyn sendmail_core::QueueStore>,
) -> NewMessage {
    let new = queue(h, store, &["a@example.net", "b@example.net"]).await;
    let claim = claim_one(store, "it is published").await;
    let results = vec![accepted(), (deferred().0, Verdict::Retry)];
    try_once(store, claim, results, MINUTE).await;
    new
}
