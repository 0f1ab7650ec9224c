//! What the cases of the queue's suites have in common: messages, claims, attempts, deaths.

use std::sync::Arc;
use std::time::Duration;

use sendmail_core::{
    Attempted, Claim, Clock, Cursor, Entry, Envelope, Error, ErrorKind, EventLog, Filter, Loaded,
    MailEvent, MailEventKind, Message, NewMessage, Outcome, QueueId, QueueStore, Recipient,
    RecipientResult, Release, Reply, ResourceId, Settlement, Step, Verdict,
};

use super::QueueHarness;

/// What [`QueueStore::fence`](sendmail_core::DecisionStore::fence) may wait in a case.
pub(crate) const PATIENCE: Duration = Duration::from_millis(200);

pub(crate) fn envelope(to: &[&str]) -> Envelope {
    Envelope::parse("sender@example.org", to).expect("the case's own addresses are valid")
}

pub(crate) fn message(subject: &str) -> Message {
    let raw = format!(
        "From: sender@example.org\r\nSubject: {subject}\r\nDate: Thu, 1 Jan 2026 00:00:00 +0000\r\n\
         \r\n.\r\nHello.\r\n"
    );
    let now = sendmail_core::Timestamp::from_millis(1_767_225_600_000);
    Message::from_raw(raw.as_bytes(), now, "example.org").expect("the case's own message is valid")
}

/// A message to `to` in a transaction that the store itself decides.
pub(crate) fn mail<H: QueueHarness>(h: &H, store: &Arc<dyn QueueStore>, to: &[&str]) -> NewMessage {
    NewMessage {
        id: QueueId::mint(h.clock().now()),
        envelope: envelope(to),
        message: message("a case"),
        resource: store.resource_id().clone(),
    }
}

/// A resource that is not the store.
pub(crate) fn elsewhere() -> ResourceId {
    "elsewhere".parse().expect("a resource id")
}

pub(crate) async fn write(store: &Arc<dyn QueueStore>, new: &NewMessage) {
    store.write(new).await.expect("a message can be written");
}

pub(crate) async fn publish(store: &Arc<dyn QueueStore>, id: QueueId) {
    store.publish(&[id]).await.expect("a written message can be published");
}

/// Writes and publishes a message to `to`.
pub(crate) async fn queue<H: QueueHarness>(
    h: &H,
    store: &Arc<dyn QueueStore>,
    to: &[&str],
) -> NewMessage {
    let new = mail(h, store, to);
    write(store, &new).await;
    publish(store, new.id).await;
    new
}

/// Claims what is due, with the events that came along.
pub(crate) async fn claim_due(store: &Arc<dyn QueueStore>) -> (Vec<Claim>, Vec<MailEvent>) {
    let claimed = store.claim(100).await.expect("a claim brings what is due, or nothing");
    (claimed.claims, claimed.events)
}

/// The one message that is due.
pub(crate) async fn claim_one(store: &Arc<dyn QueueStore>, why: &str) -> Claim {
    claim_one_with_events(store, why).await.0
}

pub(crate) async fn claim_one_with_events(
    store: &Arc<dyn QueueStore>,
    why: &str,
) -> (Claim, Vec<MailEvent>) {
    let (mut claims, events) = claim_due(store).await;
    assert_eq!(claims.len(), 1, "one message is due, and a claim must bring it: {why}");
    (claims.remove(0), events)
}

/// Checks that one message is due, and claims it for as long as the process lives.
pub(crate) async fn is_due(store: &Arc<dyn QueueStore>, why: &str) {
    let _kept = claim_one(store, why).await;
}

pub(crate) async fn claim_none(store: &Arc<dyn QueueStore>, why: &str) {
    let (claims, _) = claim_due(store).await;
    assert!(claims.is_empty(), "nothing may be claimed: {why}; got {claims:?}");
}

pub(crate) async fn load(store: &Arc<dyn QueueStore>, claim: &Claim) -> Loaded {
    store.load(claim).await.expect("a claimed message can be loaded")
}

/// Who is still to be served of a claimed message.
pub(crate) async fn remaining(store: &Arc<dyn QueueStore>, claim: &Claim) -> Vec<String> {
    let loaded = load(store, claim).await;
    loaded.envelope.recipients().iter().map(ToString::to_string).collect()
}

pub(crate) async fn record(store: &Arc<dyn QueueStore>, claim: &Claim, step: Step) {
    store.record(claim, step).await.expect("a step of a held claim can be recorded");
}

/// An attempt up to the final dot: loads, begins, hands over.
pub(crate) async fn attempt(store: &Arc<dyn QueueStore>, claim: &Claim) -> Loaded {
    let loaded = load(store, claim).await;
    record(store, claim, Step::Begin).await;
    record(store, claim, Step::Handover).await;
    loaded
}

pub(crate) fn accepted() -> (Outcome, Verdict) {
    (Outcome::Accepted(Reply::new(250, "2.0.0 ok")), Verdict::Done)
}

pub(crate) fn deferred() -> (Outcome, Verdict) {
    (Outcome::Deferred(Reply::new(450, "4.2.1 not now")), Verdict::Retry)
}

pub(crate) fn refused() -> (Outcome, Verdict) {
    (Outcome::Refused(Reply::new(571, "5.7.1 never")), Verdict::Fail)
}

pub(crate) fn unknown(verdict: Verdict) -> (Outcome, Verdict) {
    (Outcome::Unknown(Reply::local(451, "4.4.2", "cut after the final dot")), verdict)
}

/// A settlement with one result for each loaded recipient, in order; retried after `retry_after`.
pub(crate) fn attempted(
    loaded: &Loaded,
    results: Vec<(Outcome, Verdict)>,
    retry_after: Duration,
) -> Settlement {
    let recipients = loaded.envelope.recipients();
    assert_eq!(recipients.len(), results.len(), "other recipients were loaded than are queued");
    let result = |(recipient, (outcome, verdict)): (&Recipient, (Outcome, Verdict))| {
        RecipientResult { recipient: recipient.clone(), outcome, verdict }
    };
    let results = recipients.iter().zip(results).map(result).collect();
    Settlement::Attempted(Attempted { results, retry_after })
}

pub(crate) async fn settle(
    store: &Arc<dyn QueueStore>,
    claim: Claim,
    settlement: Settlement,
) -> Vec<MailEvent> {
    match store.settle(claim, settlement).await {
        Ok(events) => events,
        Err(unsettled) => panic!("a held claim can be settled: {}", unsettled.error),
    }
}

/// A whole attempt: load, begin, hand over, settle.
pub(crate) async fn try_once(
    store: &Arc<dyn QueueStore>,
    claim: Claim,
    results: Vec<(Outcome, Verdict)>,
    retry_after: Duration,
) -> Vec<MailEvent> {
    let loaded = attempt(store, &claim).await;
    settle(store, claim, attempted(&loaded, results, retry_after)).await
}

pub(crate) async fn deliver(store: &Arc<dyn QueueStore>, claim: Claim) -> Vec<MailEvent> {
    let loaded = attempt(store, &claim).await;
    let results = loaded.envelope.recipients().iter().map(|_| accepted()).collect();
    settle(store, claim, attempted(&loaded, results, Duration::ZERO)).await
}

pub(crate) async fn release(store: &Arc<dyn QueueStore>, claim: Claim) {
    settle(store, claim, Settlement::Release(Release::NotAttempted)).await;
}

/// The same claim once more, as a caller has it whose first answer was lost.
pub(crate) fn copy(claim: &Claim) -> Claim {
    Claim { id: claim.id, attempt: claim.attempt, token: claim.token.clone() }
}

/// Lets the process of `store` die, and its leases end where it has leases.
pub(crate) async fn die<H: QueueHarness>(h: &H, store: Arc<dyn QueueStore>) {
    let lease = store.capabilities().lease;
    h.kill(store).await;
    if let Some(lease) = lease {
        h.clock().advance(lease + Duration::from_millis(1));
    }
}

pub(crate) fn of_kind(events: &[MailEvent], kind: MailEventKind) -> Vec<MailEvent> {
    events.iter().filter(|event| event.kind == kind).cloned().collect()
}

pub(crate) fn recipients(events: &[MailEvent]) -> Vec<String> {
    let mut all: Vec<String> =
        events.iter().flat_map(|event| event.recipient.as_ref().map(ToString::to_string)).collect();
    all.sort();
    all
}

/// The whole history, read in pages.
pub(crate) async fn history(log: &Arc<dyn EventLog>) -> Vec<MailEvent> {
    read_from(log, None, 10).await.into_iter().map(|(_, event)| event).collect()
}

/// Everything behind `cursor`, read in pages of `page`.
pub(crate) async fn read_from(
    log: &Arc<dyn EventLog>,
    mut cursor: Option<Cursor>,
    page: usize,
) -> Vec<(Cursor, MailEvent)> {
    let mut all = Vec::new();
    loop {
        let read = log.read(cursor.clone(), page).await.expect("a log can be read");
        assert!(read.events.len() <= page, "a page has at most as many events as were asked for");
        let Some((last, _)) = read.events.last() else { return all };
        cursor = Some(last.clone());
        all.extend(read.events);
    }
}

/// What the history says about one message.
pub(crate) async fn history_of<H: QueueHarness>(h: &H, id: QueueId) -> Vec<MailEvent> {
    let events = history(&h.log().await).await;
    events.into_iter().filter(|event| event.queue_id == Some(id)).collect()
}

/// The events about `id` of one kind that the history has.
pub(crate) async fn told<H: QueueHarness>(
    h: &H,
    id: QueueId,
    kind: MailEventKind,
) -> Vec<MailEvent> {
    of_kind(&history_of(h, id).await, kind)
}

/// What a list shows.
pub(crate) async fn list<H: QueueHarness>(h: &H, filter: &Filter) -> Vec<Entry> {
    let mut entries = Vec::new();
    let admin = h.admin().await;
    let mut visit = |entry| {
        entries.push(entry);
        std::ops::ControlFlow::Continue(())
    };
    admin.list(filter, &mut visit).await.expect("a queue can be listed");
    entries
}

/// The entries of one message.
pub(crate) async fn entries_of<H: QueueHarness>(h: &H, id: QueueId) -> Vec<Entry> {
    let mut filter = Filter::default();
    filter.ids = vec![id];
    list(h, &filter).await
}

#[track_caller]
pub(crate) fn is_lease_lost<T>(result: Result<T, Error>, what: &str) {
    match result {
        Ok(_) => panic!("{what} must be refused: the claim is somebody else's"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::LeaseLost, "{what}: {error}"),
    }
}
