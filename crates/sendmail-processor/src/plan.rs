//! What is to be done, decided from what was seen: no I/O, no clock, no chance of its own.

use sendmail_core::{
    AmbiguousPolicy, Attempted, DeliveryOptions, DeliveryReport, Envelope, Error, ErrorKind,
    Outcome, Recipient, RecipientResult, Reply, Timestamp, Verdict,
};

use crate::ProcessorConfig;

/// How the mailer's call ended.
#[derive(Debug)]
pub(crate) enum Sent {
    /// It returned.
    Returned(Result<DeliveryReport, Error>),
    /// It panicked.
    Panicked,
}

/// Whether the handover was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handed {
    /// The mailer did not come to it.
    No,
    /// The record could not be written, for a reason of this kind.
    Refused(ErrorKind),
    /// It was recorded: the message may have been sent.
    Yes,
}

/// What an attempt amounts to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    /// There was an attempt; one outcome for each recipient, in order.
    Attempted(Vec<(Recipient, Outcome)>),
    /// Nobody was attempted: the relay is in trouble, and why.
    RelayTrouble(String),
    /// Nobody was attempted: the store is in trouble, and why.
    StoreTrouble(String),
    /// The claim is somebody else's.
    Forget,
}

/// What an attempt says about the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Sign {
    /// It did what a relay does.
    Usable,
    /// It refused all recipients of a message for good.
    Refusing(Reply),
    /// It is in trouble, and why.
    Trouble(String),
    /// Nothing.
    None,
}

/// Tells what an attempt amounts to, and what it says about the relay.
pub(crate) fn ending(envelope: &Envelope, sent: Sent, handed: Handed) -> (Ending, Sign) {
    if handed == Handed::Refused(ErrorKind::LeaseLost) {
        return (Ending::Forget, Sign::None);
    }
    match sent {
        Sent::Returned(Ok(report)) if answers_for(&report, envelope) => {
            reported(report.outcomes().to_vec(), handed)
        }
        Sent::Returned(Ok(_)) => {
            (broken(envelope, handed, "the mailer reported for other recipients"), Sign::None)
        }
        Sent::Panicked => (broken(envelope, handed, "the mailer panicked"), Sign::None),
        Sent::Returned(Err(error)) => failed(envelope, &error, handed),
    }
}

fn answers_for(report: &DeliveryReport, envelope: &Envelope) -> bool {
    report.outcomes().iter().map(|(recipient, _)| recipient).eq(envelope.recipients())
}

fn reported(outcomes: Vec<(Recipient, Outcome)>, handed: Handed) -> (Ending, Sign) {
    let all_deferred = outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Deferred(_)));
    if let (Handed::Refused(kind), true) = (handed, all_deferred) {
        let text = format!("the handover could not be recorded: {}", kind.as_str());
        return (Ending::StoreTrouble(text), Sign::None);
    }
    let all_refused = outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Refused(_)));
    let sign = match outcomes.first() {
        Some((_, outcome)) if all_refused => Sign::Refusing(outcome.reply().clone()),
        _ => Sign::Usable,
    };
    (Ending::Attempted(outcomes), sign)
}

/// The mailer broke its contract: in doubt if it was handed over, and later if not.
fn broken(envelope: &Envelope, handed: Handed, why: &str) -> Ending {
    let reply = Reply::local(451, "4.3.0", why);
    let outcome =
        if handed == Handed::Yes { Outcome::Unknown(reply) } else { Outcome::Deferred(reply) };
    Ending::Attempted(for_all(envelope, &outcome))
}

fn failed(envelope: &Envelope, error: &Error, handed: Handed) -> (Ending, Sign) {
    let why = error.to_string();
    match handed {
        Handed::No => (Ending::RelayTrouble(why.clone()), Sign::Trouble(why)),
        Handed::Refused(_) => (Ending::StoreTrouble(why), Sign::None),
        // It says that nobody was attempted, after the message was handed over: who is to believe it?
        Handed::Yes => {
            let outcome = Outcome::Unknown(Reply::local(451, "4.4.2", &why));
            (Ending::Attempted(for_all(envelope, &outcome)), Sign::Trouble(why))
        }
    }
}

/// What becomes of everybody when the mailer's `check` says that it cannot be sent.
pub(crate) fn unsendable(envelope: &Envelope, error: &Error) -> Vec<(Recipient, Outcome)> {
    for_all(envelope, &Outcome::Refused(Reply::local(554, "5.6.0", error.to_string())))
}

fn for_all(envelope: &Envelope, outcome: &Outcome) -> Vec<(Recipient, Outcome)> {
    let each = |recipient: &Recipient| (recipient.clone(), outcome.clone());
    envelope.recipients().iter().map(each).collect()
}

/// What is known about a message when its attempt has ended.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts<'a> {
    pub(crate) options: &'a DeliveryOptions,
    pub(crate) queued_at: Timestamp,
    /// The number of the attempt, counted from 1.
    pub(crate) attempt: u32,
    pub(crate) now: Timestamp,
    /// Whether the relay refuses everything: its refusals are not believed.
    pub(crate) suspect: bool,
    /// From -1 to 1.
    pub(crate) luck: f64,
}

/// Decides what is to happen to each recipient.
pub(crate) fn settlement(
    outcomes: Vec<(Recipient, Outcome)>,
    facts: Facts<'_>,
    config: &ProcessorConfig,
) -> Attempted {
    let of_its_own = facts.queued_at.saturating_add(config.lifetime);
    let deadline = facts.options.expires.unwrap_or(of_its_own);
    let left = deadline.saturating_since(facts.now);
    let backoff = config.backoff.delay(facts.attempt, facts.luck);
    // The last attempt comes when the time is over, so that it is told in time.
    let retry_after = if left.is_zero() { backoff } else { backoff.min(left) };
    let result = |(recipient, outcome): (Recipient, Outcome)| {
        let verdict = verdict(&outcome, facts, left.is_zero());
        RecipientResult { recipient, outcome, verdict }
    };
    Attempted { results: outcomes.into_iter().map(result).collect(), retry_after }
}

fn verdict(outcome: &Outcome, facts: Facts<'_>, out_of_time: bool) -> Verdict {
    match outcome {
        Outcome::Accepted(_) => Verdict::Done,
        Outcome::Refused(_) if facts.suspect => Verdict::Retry,
        Outcome::Refused(_) => Verdict::Fail,
        Outcome::Unknown(_) if facts.options.ambiguous == AmbiguousPolicy::Hold => Verdict::Hold,
        Outcome::Unknown(_) if facts.options.ambiguous == AmbiguousPolicy::Drop => Verdict::Fail,
        Outcome::Deferred(_) | Outcome::Unknown(_) if out_of_time => Verdict::Expire,
        Outcome::Deferred(_) | Outcome::Unknown(_) => Verdict::Retry,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::Duration;

    fn envelope(count: usize) -> Envelope {
        Envelope::parse("a@b", (0..count).map(|i| format!("r{i}@b"))).unwrap()
    }

    fn ok() -> Outcome {
        Outcome::Accepted(Reply::new(250, "ok"))
    }

    fn down() -> Error {
        Error::new(ErrorKind::Unreachable, "connect", "refused")
    }

    fn returned(outcome: Outcome) -> Sent {
        Sent::Returned(Ok(DeliveryReport::same(&envelope(1), &outcome)))
    }

    #[test]
    fn trouble_with_the_relay_is_no_attempt() {
        let (ending, sign) = ending(&envelope(1), Sent::Returned(Err(down())), Handed::No);
        assert!(matches!(ending, Ending::RelayTrouble(_)));
        assert!(matches!(sign, Sign::Trouble(_)));
    }

    #[test]
    fn an_error_after_the_handover_is_in_doubt() {
        for sent in [Sent::Returned(Err(down())), Sent::Panicked] {
            let (ending, _) = ending(&envelope(2), sent, Handed::Yes);
            let Ending::Attempted(outcomes) = ending else { panic!("{ending:?}") };
            assert_eq!(outcomes.len(), 2);
            assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Unknown(_))));
        }
    }

    #[test]
    fn a_refused_handover_is_the_stores_trouble_and_a_lost_lease_nobodys() {
        let later = || Outcome::Deferred(Reply::new(451, "given up"));
        let io = Handed::Refused(ErrorKind::Io);
        for sent in [returned(later()), Sent::Returned(Err(down()))] {
            let (ending, sign) = ending(&envelope(1), sent, io);
            assert!(matches!(ending, Ending::StoreTrouble(_)), "{ending:?}");
            assert_eq!(sign, Sign::None);
        }
        let lost = Handed::Refused(ErrorKind::LeaseLost);
        assert_eq!(ending(&envelope(1), returned(later()), lost), (Ending::Forget, Sign::None));
    }

    #[test]
    fn a_report_for_others_is_not_believed() {
        let report = Sent::Returned(Ok(DeliveryReport::same(&envelope(1), &ok())));
        let (ending, _) = ending(&envelope(2), report, Handed::Yes);
        let Ending::Attempted(outcomes) = ending else { panic!("{ending:?}") };
        assert!(outcomes.iter().all(|(_, outcome)| matches!(outcome, Outcome::Unknown(_))));
    }

    #[test]
    fn refused_by_all_is_a_sign_and_refused_by_one_is_none() {
        let never = Outcome::Refused(Reply::new(550, "no"));
        let (_, sign) = ending(&envelope(1), returned(never.clone()), Handed::No);
        assert!(matches!(sign, Sign::Refusing(_)));
        let mixed = DeliveryReport::new(&envelope(2), vec![never, ok()]).unwrap();
        let (_, sign) = ending(&envelope(2), Sent::Returned(Ok(mixed)), Handed::Yes);
        assert_eq!(sign, Sign::Usable);
    }

    fn any_outcome() -> impl Strategy<Value = Outcome> {
        (200u16..600, 0..4u8).prop_map(|(code, kind)| {
            let reply = Reply::new(code, "text");
            match kind {
                0 => Outcome::Accepted(reply),
                1 => Outcome::Deferred(reply),
                2 => Outcome::Refused(reply),
                _ => Outcome::Unknown(reply),
            }
        })
    }

    fn any_policy() -> impl Strategy<Value = AmbiguousPolicy> {
        prop_oneof![
            Just(AmbiguousPolicy::Retry),
            Just(AmbiguousPolicy::Hold),
            Just(AmbiguousPolicy::Drop)
        ]
    }

    proptest! {
        #[test]
        fn every_recipient_gets_the_verdict_that_its_outcome_allows(
            outcomes in proptest::collection::vec(any_outcome(), 1..20),
            policy in any_policy(),
            attempt in 1u32..1000,
            queued_at in -1_000_000_000i64..1_000_000_000,
            age in -1_000_000_000i64..10_000_000_000,
            expires in proptest::option::of(0i64..1_000_000_000),
            suspect: bool,
            luck in -1.0..1.0f64,
        ) {
            let mut options = DeliveryOptions::default();
            options.ambiguous = policy;
            options.expires = expires.map(Timestamp::from_millis);
            let config = ProcessorConfig::default();
            let queued_at = Timestamp::from_millis(queued_at);
            let now = Timestamp::from_millis(queued_at.as_millis() + age);
            let facts = Facts { options: &options, queued_at, attempt, now, suspect, luck };
            let envelope = envelope(outcomes.len());
            let told: Vec<_> =
                envelope.recipients().iter().cloned().zip(outcomes.clone()).collect();
            let plan = settlement(told, facts, &config);
            let out_of_time = match options.expires {
                Some(expires) => now >= expires,
                None => now >= queued_at.saturating_add(config.lifetime),
            };
            prop_assert!(plan.retry_after > Duration::ZERO);
            prop_assert!(plan.retry_after <= config.backoff.max * 2);
            prop_assert_eq!(plan.results.len(), outcomes.len());
            for (result, recipient) in plan.results.iter().zip(envelope.recipients()) {
                prop_assert_eq!(&result.recipient, recipient);
                let allowed: &[Verdict] = match (&result.outcome, policy) {
                    (Outcome::Accepted(_), _) => &[Verdict::Done],
                    (Outcome::Refused(_), _) if suspect => &[Verdict::Retry],
                    (Outcome::Refused(_), _) | (Outcome::Unknown(_), AmbiguousPolicy::Drop) => {
                        &[Verdict::Fail]
                    }
                    (Outcome::Unknown(_), AmbiguousPolicy::Hold) => &[Verdict::Hold],
                    _ if out_of_time => &[Verdict::Expire],
                    _ => &[Verdict::Retry],
                };
                prop_assert!(allowed.contains(&result.verdict), "{:?}", result);
            }
        }
    }

    #[test]
    fn the_last_attempt_comes_when_the_time_is_over() {
        let mut options = DeliveryOptions::default();
        options.expires = Some(Timestamp::from_millis(10_000));
        let facts = Facts {
            options: &options,
            queued_at: Timestamp::EPOCH,
            attempt: 1,
            now: Timestamp::from_millis(4_000),
            suspect: false,
            luck: 0.0,
        };
        let outcomes = vec![("c@d".parse().unwrap(), Outcome::Deferred(Reply::new(450, "later")))];
        let config = ProcessorConfig::default();
        let plan = settlement(outcomes.clone(), facts, &config);
        assert_eq!(plan.retry_after, Duration::from_secs(6));
        let over = Facts { now: Timestamp::from_millis(10_000), ..facts };
        assert_eq!(settlement(outcomes, over, &config).results[0].verdict, Verdict::Expire);
    }
}
