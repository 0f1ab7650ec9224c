//! A mailer with mistakes that can be switched on, and the proof that the suite names each.

use std::collections::BTreeSet;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use sendmail_core::{
    DeliveryReport, Envelope, Error, ErrorKind, Handover, Mailer, Message, Outcome, Reply, Result,
};

use super::{Behaviour, Declined, Delivered, MailerHarness};

/// What it does wrong.
const NOTHING: u8 = 0;
const STOPS_AT_THE_FIRST_REFUSED: u8 = 1;
const ANNOUNCES_NOTHING: u8 = 2;
const ANNOUNCES_AFTERWARDS: u8 = 3;
const ANNOUNCES_EACH_RECIPIENT: u8 = 4;
const IGNORES_A_REFUSED_HANDOVER: u8 = 5;
const DEFERS_AN_OUTAGE: u8 = 6;
const REFUSES_FOR_GOOD: u8 = 7;
const LOSES_DOTS: u8 = 8;
const ADDS_AN_EMPTY_LINE: u8 = 9;
const WEDGED_BY_A_LOSS: u8 = 10;
const CALLS_IT_UNKNOWN_TOO_EARLY: u8 = 11;
const ACCEPTS_WHAT_NOBODY_KNOWS: u8 = 12;
const HAS_ONE_PLACE_AND_LEAKS_IT: u8 = 13;
const SENDS_EACH_MESSAGE_ID_ONCE: u8 = 14;
const REPORTS_BACKWARDS: u8 = 15;
const PROBES_NOTHING: u8 = 16;
const CHECK_ASKS_THE_NETWORK: u8 = 17;
const SHOWS_ITS_PASSWORD: u8 = 18;

/// Mailer and other end in one.
struct Wrong<const MISTAKE: u8> {
    behaviour: Behaviour,
    delivered: Mutex<Vec<Delivered>>,
    losses_left: AtomicUsize,
    wedged: AtomicUsize,
}

impl<const MISTAKE: u8> Wrong<MISTAKE> {
    fn judge(&self, recipient: &str) -> Outcome {
        let deferred = Outcome::Deferred(Reply::new(450, "later"));
        let refused = Outcome::Refused(Reply::new(550, "never"));
        let negative =
            |outcome| if MISTAKE == REFUSES_FOR_GOOD { refused.clone() } else { outcome };
        match &self.behaviour {
            Behaviour::DeferAll => negative(deferred),
            Behaviour::RefuseAll => refused.clone(),
            Behaviour::Except { deferred: later, .. } if later.iter().any(|r| r == recipient) => {
                negative(deferred)
            }
            Behaviour::Except { refused: never, .. } if never.iter().any(|r| r == recipient) => {
                refused.clone()
            }
            _ => Outcome::Accepted(Reply::new(250, "ok")),
        }
    }

    fn deliver(&self, envelope: &Envelope, message: &Message, recipients: Vec<String>) {
        let mut bytes = message.as_bytes().to_vec();
        match MISTAKE {
            LOSES_DOTS => bytes = String::from_utf8_lossy(&bytes).replace("\r\n.", "\r\n").into(),
            ADDS_AN_EMPTY_LINE => bytes.extend_from_slice(b"\r\n"),
            _ => {}
        }
        let reverse_path = envelope.reverse_path().to_string();
        let mut delivered = self.delivered.lock().unwrap();
        let known = delivered.iter().any(|one| one.bytes == bytes);
        if !(MISTAKE == SENDS_EACH_MESSAGE_ID_ONCE && known) {
            delivered.push(Delivered { reverse_path, recipients, bytes });
        }
    }

    fn outage(&self) -> Result<()> {
        let text = if MISTAKE == SHOWS_ITS_PASSWORD { "hunter2@host is down" } else { "down" };
        match self.behaviour {
            Behaviour::Unreachable => Err(Error::new(ErrorKind::Unreachable, "connect", text)),
            _ => Ok(()),
        }
    }

    fn loses_this_one(&self) -> bool {
        let lost = self.losses_left.swap(0, Ordering::SeqCst) > 0;
        if lost && MISTAKE == WEDGED_BY_A_LOSS {
            self.wedged.store(1, Ordering::SeqCst);
        }
        lost
    }
}

#[async_trait]
impl<const MISTAKE: u8> Mailer for Wrong<MISTAKE> {
    fn relay(&self) -> &str {
        "wrong"
    }

    async fn send(
        &self,
        envelope: &Envelope,
        message: &Message,
        handover: &dyn Handover,
    ) -> Result<DeliveryReport> {
        let same = |outcome: Outcome| Ok(DeliveryReport::same(envelope, &outcome));
        let reply = Reply::new(451, "lost");
        if let Err(error) = self.outage() {
            let outcome = Outcome::Deferred(reply);
            return if MISTAKE == DEFERS_AN_OUTAGE { same(outcome) } else { Err(error) };
        }
        if self.wedged.load(Ordering::SeqCst) > 0 {
            return same(Outcome::Deferred(reply));
        }
        if self.behaviour == Behaviour::LostOnceBeforeHandover && self.loses_this_one() {
            let early = MISTAKE == CALLS_IT_UNKNOWN_TOO_EARLY;
            return same(if early { Outcome::Unknown(reply) } else { Outcome::Deferred(reply) });
        }
        if MISTAKE == HAS_ONE_PLACE_AND_LEAKS_IT {
            self.wedged.store(1, Ordering::SeqCst);
        }
        let mut outcomes: Vec<_> =
            envelope.recipients().iter().map(|recipient| self.judge(recipient.as_str())).collect();
        if MISTAKE == STOPS_AT_THE_FIRST_REFUSED
            && let Some(first) = outcomes.iter().find(|o| matches!(o, Outcome::Refused(_)))
        {
            return same(first.clone());
        }
        let accepted =
            |pair: &(&sendmail_core::Recipient, &Outcome)| matches!(pair.1, Outcome::Accepted(_));
        let pairs = envelope.recipients().iter().zip(&outcomes);
        let taken: Vec<String> = pairs.filter(accepted).map(|(r, _)| r.to_string()).collect();
        let announcements = match MISTAKE {
            ANNOUNCES_NOTHING | ANNOUNCES_AFTERWARDS => 0,
            ANNOUNCES_EACH_RECIPIENT => taken.len(),
            _ => taken.len().min(1),
        };
        for _ in 0..announcements {
            let consent = handover.before_handover().await;
            if consent.is_err() && MISTAKE != IGNORES_A_REFUSED_HANDOVER {
                return same(Outcome::Deferred(reply));
            }
        }
        if self.behaviour == Behaviour::LostOnceAfterHandover && self.loses_this_one() {
            let known = MISTAKE == ACCEPTS_WHAT_NOBODY_KNOWS;
            return same(if known { Outcome::Accepted(reply) } else { Outcome::Unknown(reply) });
        }
        if !taken.is_empty() {
            self.deliver(envelope, message, taken);
        }
        if MISTAKE == ANNOUNCES_AFTERWARDS {
            handover.before_handover().await?;
        }
        if MISTAKE == HAS_ONE_PLACE_AND_LEAKS_IT {
            self.wedged.store(0, Ordering::SeqCst);
        }
        if MISTAKE == REPORTS_BACKWARDS {
            outcomes.rotate_left(1);
        }
        Ok(DeliveryReport::new(envelope, outcomes).unwrap())
    }

    fn check(&self, _: &Envelope) -> Result<()> {
        if MISTAKE == CHECK_ASKS_THE_NETWORK { self.outage() } else { Ok(()) }
    }

    async fn probe(&self) -> Result<()> {
        if MISTAKE == PROBES_NOTHING { Ok(()) } else { self.outage() }
    }

    async fn close(&self) {}
}

struct WrongHarness<const MISTAKE: u8>(Arc<Wrong<MISTAKE>>);

#[async_trait]
impl<const MISTAKE: u8> MailerHarness for WrongHarness<MISTAKE> {
    async fn start(behaviour: Behaviour) -> Result<Self, Declined> {
        Ok(Self(Arc::new(Wrong {
            behaviour,
            delivered: Mutex::default(),
            losses_left: AtomicUsize::new(1),
            wedged: AtomicUsize::new(0),
        })))
    }

    fn mailer(&self) -> Arc<dyn Mailer> {
        self.0.clone()
    }

    async fn delivered(&self) -> Vec<Delivered> {
        self.0.delivered.lock().unwrap().clone()
    }

    fn secret(&self) -> Option<String> {
        Some("hunter2".to_owned())
    }
}

type Case = (&'static str, Pin<Box<dyn Future<Output = ()> + Send>>);

/// The names of the cases that fail.
async fn failing<const MISTAKE: u8>() -> BTreeSet<&'static str> {
    let cases: Vec<Case> = crate::mailer_suite!(@each table WrongHarness<MISTAKE>).into();
    let mut failed = BTreeSet::new();
    for (name, case) in cases {
        if tokio::spawn(AssertUnwindSafe(case)).await.is_err() {
            failed.insert(name);
        }
    }
    failed
}

async fn check<const MISTAKE: u8>(case: &str) {
    let failed = failing::<MISTAKE>().await;
    assert!(failed.contains(case), "mistake {MISTAKE} should fail {case}, and fails {failed:?}");
}

#[tokio::test]
async fn a_mailer_without_mistakes_passes() {
    assert_eq!(failing::<NOTHING>().await, BTreeSet::new());
}

#[tokio::test]
async fn each_mistake_fails_the_case_that_names_it() {
    check::<STOPS_AT_THE_FIRST_REFUSED>("a_refused_recipient_stops_nobody_else").await;
    let handover = "handover_comes_before_the_message_is_out_and_once";
    check::<ANNOUNCES_NOTHING>(handover).await;
    check::<ANNOUNCES_AFTERWARDS>(handover).await;
    check::<ANNOUNCES_EACH_RECIPIENT>(handover).await;
    check::<IGNORES_A_REFUSED_HANDOVER>("refused_handover_sends_nothing").await;
    check::<DEFERS_AN_OUTAGE>("unreachable_is_an_error_and_not_an_outcome").await;
    check::<REFUSES_FOR_GOOD>("deferred_is_not_refused").await;
    check::<REFUSES_FOR_GOOD>("all_deferred_is_an_outcome_for_each").await;
    check::<LOSES_DOTS>("bytes_arrive_exactly_dots_included").await;
    check::<LOSES_DOTS>("a_large_message_arrives_whole").await;
    check::<LOSES_DOTS>("eight_bit_bytes_arrive_or_are_refused").await;
    check::<ADDS_AN_EMPTY_LINE>("bytes_arrive_exactly_dots_included").await;
    check::<WEDGED_BY_A_LOSS>("usable_after_a_broken_connection").await;
    check::<CALLS_IT_UNKNOWN_TOO_EARLY>("unknown_only_after_the_handover").await;
    check::<ACCEPTS_WHAT_NOBODY_KNOWS>("lost_after_the_handover_is_unknown").await;
    check::<HAS_ONE_PLACE_AND_LEAKS_IT>("usable_after_a_dropped_future").await;
    check::<SENDS_EACH_MESSAGE_ID_ONCE>("the_same_message_twice_is_delivered_twice").await;
    check::<REPORTS_BACKWARDS>("one_outcome_per_recipient_in_envelope_order").await;
    check::<PROBES_NOTHING>("probe_tells_and_sends_nothing").await;
    check::<CHECK_ASKS_THE_NETWORK>("check_refuses_without_network").await;
    check::<SHOWS_ITS_PASSWORD>("the_relay_is_named_without_credentials").await;
}

struct Declining;

#[async_trait]
impl MailerHarness for Declining {
    async fn start(_: Behaviour) -> Result<Self, Declined> {
        Err(Declined("it can do nothing".to_owned()))
    }

    fn mailer(&self) -> Arc<dyn Mailer> {
        unreachable!("it never starts")
    }

    async fn delivered(&self) -> Vec<Delivered> {
        Vec::new()
    }
}

#[tokio::test]
async fn accepting_all_cannot_be_declined_and_the_rest_can() {
    let basic = tokio::spawn(super::many_at_once::<Declining>()).await;
    assert!(basic.is_err(), "a harness that cannot accept all must fail");
    super::all_refused_is_an_outcome_for_each::<Declining>().await;
}
