//! A store that makes mistakes on demand, and the proof that the suite finds each of them in the case
//! that names it.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use sendmail_core::{
    Attempted, Capabilities, Claim, ClaimToken, Claimed, DecisionLog, DecisionStore, Discard,
    EventLog, Loaded, MailEvent, MailEventKind, Message, NewMessage, Outcome, QueueAdmin, QueueId,
    QueueStore, Recipient, RecipientResult, Release, Reply, ResourceId, Result, Settlement, Step,
    SweepReport, Undecided, Unsettled, Verdict,
};
use sendmail_testkit::suite::{self, QueueHarness, run_case};
use sendmail_testkit::{ManualClock, MemoryStore};

use crate::harness::Memory;

/// What a store may get wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mistake {
    None,
    PublishesAtWrite,
    PublishesAtStage,
    DiscardsPublished,
    ForgetsAttempts,
    HandsOutTwice,
    ChecksNoTokens,
    ReleaseCostsAnAttempt,
    RetriesAtOnce,
    IgnoresNotBefore,
    LosesTheFailedRecipient,
    SendsTheDeliveredAgain,
    AnnouncesNoPossibleDuplicate,
    TellsNothingOfTheQueued,
    EatsDots,
    CutsRecipients,
    SweepsAwayTheUndecided,
    SleepsForEver,
    ClaimsWhileFrozen,
    DecidesWhileFrozen,
    HidesThatItIsFrozen,
    KnowsTheUndecided,
    ForgetsWhatIsGone,
}

/// The mistake, the case that names it, and how many other cases it may fail besides.
const MISTAKES: [(Mistake, &str, usize); 22] = [
    (Mistake::PublishesAtWrite, "written_is_invisible", 10),
    (Mistake::PublishesAtStage, "staged_is_invisible", 8),
    (Mistake::DiscardsPublished, "discard_never_touches_published", 0),
    (Mistake::ForgetsAttempts, "attempts_are_counted", 1),
    (Mistake::HandsOutTwice, "claims_are_exclusive_between_processes", 14),
    (Mistake::ChecksNoTokens, "tokens_are_checked", 1),
    (Mistake::ReleaseCostsAnAttempt, "release_costs_no_attempt", 0),
    (Mistake::RetriesAtOnce, "retry_not_earlier", 1),
    (Mistake::IgnoresNotBefore, "not_before_is_respected", 0),
    (Mistake::LosesTheFailedRecipient, "failed_is_kept_also_when_others_were_delivered", 2),
    (Mistake::SendsTheDeliveredAgain, "settle_delivered_is_gone_for_good", 17),
    (
        Mistake::AnnouncesNoPossibleDuplicate,
        "handover_then_death_is_announced_before_the_next_claim",
        0,
    ),
    (Mistake::TellsNothingOfTheQueued, "queued_event_comes_with_first_claim", 0),
    (Mistake::EatsDots, "odd_bytes_come_back_exactly", 5),
    (Mistake::CutsRecipients, "many_recipients_come_back_in_order", 0),
    (Mistake::SweepsAwayTheUndecided, "sweep_is_harmless", 2),
    (Mistake::SleepsForEver, "publishing_wakes_a_waiter", 2),
    (Mistake::ClaimsWhileFrozen, "a_frozen_queue_brings_nothing", 1),
    (Mistake::DecidesWhileFrozen, "a_frozen_queue_decides_nothing", 0),
    (Mistake::HidesThatItIsFrozen, "a_frozen_queue_brings_nothing", 1),
    (Mistake::KnowsTheUndecided, "known_is_what_was_published", 0),
    (Mistake::ForgetsWhatIsGone, "known_is_what_was_published", 0),
];

#[test]
fn the_suite_finds_each_mistake_in_the_case_that_names_it() {
    for (mistake, case, others) in MISTAKES {
        let failed = failures(mistake);
        assert!(failed.contains(&case), "{mistake:?} is not found by {case}: {failed:?}");
        assert!(failed.len() <= others + 1, "{mistake:?} fails more than it explains: {failed:?}");
    }
}

#[test]
fn without_a_mistake_the_suite_passes() {
    assert_eq!(failures(Mistake::None), Vec::<&str>::new());
}

/// The cases that fail.
fn failures(mistake: Mistake) -> Vec<&'static str> {
    let cases = suite::store::cases::<Harness>();
    let fails = |case: &suite::Case<Harness>| {
        let harness = move || async move { Harness::with(mistake).await };
        // A case that waits for what never comes is stopped earlier than the watchdog would.
        let run =
            AssertUnwindSafe(|| run_case(case.name, harness, case.run, Duration::from_secs(5)));
        catch_unwind(run).is_err()
    };
    cases.iter().filter(|case| fails(case)).map(|case| case.name).collect()
}

/// What the processes of one wrong queue share: the mistakes need a memory of their own.
#[derive(Default)]
struct Memo {
    written: HashMap<QueueId, NewMessage>,
    /// The last claim of each message.
    claimed: HashMap<QueueId, ClaimToken>,
    /// Those that are claimed and not settled.
    open: Vec<(QueueId, ClaimToken)>,
}

struct Harness {
    memory: Memory,
    mistake: Mistake,
    memo: Arc<Mutex<Memo>>,
}

impl Harness {
    async fn with(mistake: Mistake) -> Self {
        Self { memory: Memory::new().await, mistake, memo: Arc::default() }
    }
}

#[async_trait]
impl QueueHarness for Harness {
    async fn new() -> Self {
        Self::with(Mistake::None).await
    }

    async fn open(&self) -> Arc<dyn QueueStore> {
        let (mistake, memo) = (self.mistake, Arc::clone(&self.memo));
        self.memory.open_as(|inner| Arc::new(WrongStore { inner, mistake, memo }))
    }

    async fn kill(&self, store: Arc<dyn QueueStore>) {
        self.memory.kill(store).await;
    }

    async fn admin(&self) -> Arc<dyn QueueAdmin> {
        self.memory.admin().await
    }

    async fn log(&self) -> Arc<dyn EventLog> {
        self.memory.log().await
    }

    fn clock(&self) -> &ManualClock {
        self.memory.clock()
    }
}

/// A [`MemoryStore`] with a mistake in it.
struct WrongStore {
    inner: MemoryStore,
    mistake: Mistake,
    memo: Arc<Mutex<Memo>>,
}

impl WrongStore {
    fn makes(&self, mistake: Mistake) -> bool {
        self.mistake == mistake
    }

    /// The claim with the token that is right, whatever token it has.
    fn trusted(&self, claim: &Claim) -> Claim {
        let token = match self.memo.lock().unwrap().claimed.get(&claim.id) {
            Some(token) if self.makes(Mistake::ChecksNoTokens) => token.clone(),
            _ => claim.token.clone(),
        };
        Claim { id: claim.id, attempt: claim.attempt, token }
    }

    /// Releases with an attempt on the message's account.
    async fn charge(&self, claim: &Claim) -> Result<Settlement> {
        self.inner.record(claim, Step::Begin).await?;
        let loaded = self.inner.load(claim).await?;
        let deferred = |recipient: &Recipient| RecipientResult {
            recipient: recipient.clone(),
            outcome: Outcome::Deferred(Reply::new(450, "released")),
            verdict: Verdict::Retry,
        };
        let results = loaded.envelope.recipients().iter().map(deferred).collect();
        Ok(Settlement::Attempted(Attempted { results, retry_after: Duration::ZERO }))
    }
}

#[async_trait]
impl QueueStore for WrongStore {
    fn resource_id(&self) -> &ResourceId {
        QueueStore::resource_id(&self.inner)
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn decision_log(&self) -> Option<Arc<dyn DecisionLog>> {
        self.inner.decision_log()
    }

    fn decision_store(&self) -> Option<Arc<dyn DecisionStore>> {
        self.inner.decision_store()
    }

    async fn write(&self, new: &NewMessage) -> Result<()> {
        let mut new = new.clone();
        if self.makes(Mistake::IgnoresNotBefore) {
            let mut options = new.envelope.options().clone();
            options.not_before = None;
            new.envelope = new.envelope.with_options(options);
        }
        self.inner.write(&new).await?;
        self.memo.lock().unwrap().written.insert(new.id, new.clone());
        if self.makes(Mistake::PublishesAtWrite) {
            self.inner.publish(&[new.id]).await?;
        }
        Ok(())
    }

    async fn stage(&self, ids: &[QueueId]) -> Result<()> {
        self.inner.stage(ids).await?;
        if self.makes(Mistake::PublishesAtStage) {
            self.inner.publish(ids).await?;
        }
        Ok(())
    }

    async fn publish(&self, ids: &[QueueId]) -> Result<()> {
        self.inner.publish(ids).await
    }

    async fn discard(&self, ids: &[QueueId], why: Discard) -> Result<Vec<MailEvent>> {
        let events = self.inner.discard(ids, why).await?;
        if self.makes(Mistake::DiscardsPublished) {
            for id in ids {
                self.inner.remove(*id).await?;
            }
        }
        Ok(events)
    }

    async fn undecided(&self) -> Result<Vec<Undecided>> {
        self.inner.undecided().await
    }

    async fn known(&self, ids: &[QueueId]) -> Result<Vec<QueueId>> {
        let mut known = self.inner.known(ids).await?;
        if self.makes(Mistake::KnowsTheUndecided) {
            known = ids.to_vec();
        }
        if self.makes(Mistake::ForgetsWhatIsGone) {
            let gone: Vec<QueueId> = known.clone();
            known.clear();
            for id in gone {
                if self.inner.show(id).await?.entry.is_some() {
                    known.push(id);
                }
            }
        }
        Ok(known)
    }

    async fn is_frozen(&self) -> Result<bool> {
        Ok(self.inner.is_frozen().await? && !self.makes(Mistake::HidesThatItIsFrozen))
    }

    async fn claim(&self, max: usize) -> Result<Claimed> {
        let thawed = self.makes(Mistake::ClaimsWhileFrozen) && self.inner.set_frozen(false).await?;
        let mut claimed = self.inner.claim(max).await?;
        if thawed {
            self.inner.set_frozen(true).await?;
        }
        for claim in &mut claimed.claims {
            if self.makes(Mistake::ForgetsAttempts) {
                claim.attempt = 1;
            }
            let mut memo = self.memo.lock().unwrap();
            memo.claimed.insert(claim.id, claim.token.clone());
            memo.open.push((claim.id, claim.token.clone()));
        }
        if self.makes(Mistake::HandsOutTwice) && claimed.claims.is_empty() && max > 0 {
            let again = self.memo.lock().unwrap().open.pop();
            claimed.claims.extend(again.map(|(id, token)| Claim { id, attempt: 1, token }));
        }
        let hidden = match self.mistake {
            Mistake::AnnouncesNoPossibleDuplicate => Some(MailEventKind::PossibleDuplicate),
            Mistake::TellsNothingOfTheQueued => Some(MailEventKind::Queued),
            _ => None,
        };
        claimed.events.retain(|event| Some(event.kind) != hidden);
        Ok(claimed)
    }

    async fn load(&self, claim: &Claim) -> Result<Loaded> {
        let mut loaded = self.inner.load(&self.trusted(claim)).await?;
        if self.makes(Mistake::EatsDots) {
            let text = String::from_utf8_lossy(loaded.message.as_bytes()).replace("\r\n.", "\r\n");
            loaded.message = Message::from_wire(text.into_bytes(), 0).unwrap();
        }
        if self.makes(Mistake::CutsRecipients) {
            let some: Vec<Recipient> =
                loaded.envelope.recipients().iter().take(100).cloned().collect();
            loaded.envelope = loaded.envelope.with_recipients(some).unwrap();
        }
        Ok(loaded)
    }

    async fn renew(&self, claim: &Claim) -> Result<()> {
        self.inner.renew(&self.trusted(claim)).await
    }

    async fn record(&self, claim: &Claim, step: Step) -> Result<()> {
        self.inner.record(&self.trusted(claim), step).await
    }

    async fn settle(
        &self,
        claim: Claim,
        settlement: Settlement,
    ) -> std::result::Result<Vec<MailEvent>, Unsettled> {
        let claim = self.trusted(&claim);
        let id = claim.id;
        self.memo.lock().unwrap().open.retain(|(open, _)| *open != id);
        let settlement = match settlement {
            Settlement::Release(Release::NotAttempted)
                if self.makes(Mistake::ReleaseCostsAnAttempt) =>
            {
                match self.charge(&claim).await {
                    Ok(settlement) => settlement,
                    Err(error) => return Err(Unsettled { claim, error }),
                }
            }
            Settlement::Attempted(mut attempted) if self.makes(Mistake::RetriesAtOnce) => {
                attempted.retry_after = Duration::ZERO;
                Settlement::Attempted(attempted)
            }
            settlement => settlement,
        };
        let has = |verdict: Verdict| match &settlement {
            Settlement::Attempted(attempted) => {
                attempted.results.iter().any(|result| result.verdict == verdict)
            }
            Settlement::Release(_) => false,
        };
        let delivered = has(Verdict::Done);
        let lost = delivered && has(Verdict::Fail);
        let events = self.inner.settle(claim, settlement).await?;
        if self.makes(Mistake::LosesTheFailedRecipient) && lost {
            self.inner.remove(id).await.unwrap();
        }
        if self.makes(Mistake::SendsTheDeliveredAgain) && delivered {
            let mut again = self.memo.lock().unwrap().written[&id].clone();
            again.id = QueueId::from_bytes(id.as_bytes().map(|byte| !byte));
            self.inner.write(&again).await.unwrap();
            self.inner.publish(&[again.id]).await.unwrap();
        }
        Ok(events)
    }

    async fn announce(&self, event: &MailEvent) -> Result<()> {
        self.inner.announce(event).await
    }

    async fn wait_for_work(&self, timeout: Duration) {
        if self.makes(Mistake::SleepsForEver) {
            std::future::pending::<()>().await;
        }
        self.inner.wait_for_work(timeout).await;
    }

    async fn sweep(&self) -> Result<SweepReport> {
        if self.makes(Mistake::SweepsAwayTheUndecided) {
            let undecided = self.inner.undecided().await?;
            let ids: Vec<QueueId> = undecided.iter().map(|undecided| undecided.id).collect();
            self.inner.discard(&ids, Discard::Aborted).await?;
        }
        let thawed =
            self.makes(Mistake::DecidesWhileFrozen) && self.inner.set_frozen(false).await?;
        // In full: a store that is asked what it decides sweeps as well.
        let report = QueueStore::sweep(&self.inner).await;
        if thawed {
            self.inner.set_frozen(true).await?;
        }
        report
    }
}
