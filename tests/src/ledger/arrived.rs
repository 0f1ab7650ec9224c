//! What a relay received and what the log tells, by mail and recipient.

use std::collections::HashMap;

use super::{Account, Life, Mistake};
use crate::plan::{Mail, marker_of};
use crate::queue::Event;
use crate::relay::{Copy, NEVER, digest};

/// What is known of one mail and one recipient.
#[derive(Default)]
struct Trace<'a> {
    copies: Vec<&'a Copy>,
    /// When a second copy was announced.
    announced: Vec<i64>,
    /// How often the log says that it was sent.
    sent: usize,
    /// How often the log says that it failed.
    failed: usize,
}

/// Copies and events, by marker and recipient.
pub(super) struct Arrived<'a> {
    traces: HashMap<&'a str, HashMap<&'a str, Trace<'a>>>,
}

impl<'a> Arrived<'a> {
    pub(super) fn sort(copies: &'a [Copy], events: &'a [Event], account: &mut Account) -> Self {
        let mut traces: HashMap<&str, HashMap<&str, Trace<'_>>> = HashMap::new();
        for copy in copies {
            let Some(marker) = copy.marker.as_deref() else { continue };
            for recipient in &copy.recipients {
                let trace = traces.entry(marker).or_default().entry(recipient).or_default();
                trace.copies.push(copy);
                account.copies += 1;
                account.second_copies += usize::from(trace.copies.len() > 1);
            }
        }
        for event in events {
            let Some(marker) = marker_of(&event.message_id) else { continue };
            if !["possible-duplicate", "sent", "failed"].contains(&event.kind.as_str()) {
                continue;
            }
            let recipient = event.recipient.as_str();
            let trace = traces.entry(marker).or_default().entry(recipient).or_default();
            match event.kind.as_str() {
                "sent" => trace.sent += 1,
                "failed" => trace.failed += 1,
                _ => trace.announced.push(event.at_ms),
            }
        }
        for trace in traces.values_mut().flat_map(HashMap::values_mut) {
            trace.copies.sort_by_key(|copy| copy.at_ms);
            trace.announced.sort_unstable();
        }
        Self { traces }
    }

    /// Whether anybody got a mail.
    pub(super) fn has(&self, marker: &str) -> bool {
        let traces = self.traces.get(marker);
        traces.is_some_and(|traces| traces.values().any(|trace| !trace.copies.is_empty()))
    }

    /// Checks each copy of a mail, and what the log tells of it.
    pub(super) fn check(
        &self,
        mail: &Mail,
        processors: &HashMap<String, Life>,
        account: &mut Account,
    ) {
        let Some(traces) = self.traces.get(mail.marker.as_str()) else { return };
        let right = digest(&mail.bytes());
        for (recipient, trace) in traces {
            let place = format!("{} to {recipient}", mail.marker);
            if !mail.recipients.iter().any(|other| other == recipient) {
                account.mistake(Mistake::Damaged, format!("{place}: who is no recipient of it"));
            }
            if trace.copies.iter().any(|copy| copy.digest != right) {
                account.mistake(Mistake::Damaged, format!("{place}: its bytes are not the same"));
            }
            if trace.copies.is_empty() {
                continue;
            }
            if trace.sent != 1 {
                let text = format!("{place}: {} sent-events", trace.sent);
                account.mistake(Mistake::BadLog, text);
            }
            trace.check_order(&place, processors, account);
        }
        if !self.has(&mail.marker) {
            // Whether it should have come is for its transaction to say.
            return;
        }
        for recipient in &mail.recipients {
            let trace = traces.get(recipient.as_str());
            if recipient == NEVER {
                let failed = trace.map_or(0, |trace| trace.failed);
                if failed != 1 {
                    let text = format!("{} to {recipient}: {failed} failed-events", mail.marker);
                    account.mistake(Mistake::BadLog, text);
                }
            } else if trace.is_none_or(|trace| trace.copies.is_empty()) {
                account.mistake(Mistake::Lost, format!("{} to {recipient}", mail.marker));
            }
        }
    }
}

impl Trace<'_> {
    /// Each copy after the first needs an event of its own before it, and the death of a sender.
    fn check_order(&self, place: &str, processors: &HashMap<String, Life>, account: &mut Account) {
        for (index, copy) in self.copies.iter().enumerate().skip(1) {
            let announced = self.announced.get(index - 1).is_some_and(|at| *at <= copy.at_ms);
            if !announced {
                let text = format!("{place}: {:?}, announced {:?}", self.copies, self.announced);
                account.mistake(Mistake::Unannounced, text);
            }
        }
        let lives = |copy: &&&Copy| {
            let life = processors.get(&copy.client);
            life.is_none_or(|life| life.killed_at_ms.is_none())
        };
        let mut clients: Vec<_> = self.copies.iter().map(|copy| &copy.client).collect();
        clients.sort_unstable();
        clients.dedup();
        let by_the_living = self.copies.iter().filter(lives).count();
        if by_the_living > 1 || clients.len() < self.copies.len() {
            account.mistake(Mistake::Double, format!("{place}: {:?}", self.copies));
        }
    }
}
