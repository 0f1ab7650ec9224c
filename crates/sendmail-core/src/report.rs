//! What became of one attempt: one outcome for each recipient.

use std::collections::HashSet;

use crate::{Envelope, Recipient, Reply};

/// What became of one recipient in one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The relay took responsibility for the message to this recipient.
    Accepted(Reply),
    /// Not now: to be tried again.
    Deferred(Reply),
    /// Never: not to be tried again.
    Refused(Reply),
    /// The connection was lost after the final dot: it may or may not have been accepted.
    Unknown(Reply),
}

impl Outcome {
    /// The reply that decided it; for [`Outcome::Unknown`] and for what ended without an answer, our
    /// own words in its place.
    #[must_use]
    pub fn reply(&self) -> &Reply {
        match self {
            Self::Accepted(reply)
            | Self::Deferred(reply)
            | Self::Refused(reply)
            | Self::Unknown(reply) => reply,
        }
    }
}

/// Exactly one outcome for each recipient of an envelope, in the envelope's order.
///
/// What a relay answers for many may name them all. One recipient's outcome is not to tell of another,
/// who may have got a blind copy: their addresses are taken out of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryReport {
    outcomes: Vec<(Recipient, Outcome)>,
}

impl DeliveryReport {
    /// A report with `outcomes[i]` for recipient `i` of `envelope`; nothing unless there are exactly
    /// as many outcomes as recipients.
    #[must_use]
    pub fn new(envelope: &Envelope, outcomes: Vec<Outcome>) -> Option<Self> {
        let recipients = envelope.recipients();
        (recipients.len() == outcomes.len()).then(|| {
            let mut outcomes: Vec<_> = recipients.iter().cloned().zip(outcomes).collect();
            keep_discretion(&mut outcomes);
            Self { outcomes }
        })
    }

    /// A report with the same outcome for all.
    #[must_use]
    pub fn same(envelope: &Envelope, outcome: &Outcome) -> Self {
        let each = |recipient: &Recipient| (recipient.clone(), outcome.clone());
        let mut outcomes: Vec<_> = envelope.recipients().iter().map(each).collect();
        keep_discretion(&mut outcomes);
        Self { outcomes }
    }

    /// Recipient and outcome, in the envelope's order.
    #[must_use]
    pub fn outcomes(&self) -> &[(Recipient, Outcome)] {
        &self.outcomes
    }
}

impl Outcome {
    fn reply_mut(&mut self) -> &mut Reply {
        match self {
            Self::Accepted(reply)
            | Self::Deferred(reply)
            | Self::Refused(reply)
            | Self::Unknown(reply) => reply,
        }
    }
}

/// Takes the addresses of the others out of each recipient's reply.
fn keep_discretion(outcomes: &mut [(Recipient, Outcome)]) {
    let names_somebody = |(_, outcome): &(_, Outcome)| outcome.reply().text().contains('@');
    if outcomes.len() < 2 || !outcomes.iter().any(names_somebody) {
        return;
    }
    let all: HashSet<String> =
        outcomes.iter().map(|(recipient, _)| recipient.as_str().to_ascii_lowercase()).collect();
    for (recipient, outcome) in outcomes {
        let own = recipient.as_str().to_ascii_lowercase();
        let is_other = |address: &str| address != own && all.contains(address);
        let reply = outcome.reply_mut();
        if let Some(text) = without_addresses(reply.text(), is_other) {
            *reply = reply.with_text(&text);
        }
    }
}

/// The text without the addresses that `is_unwanted`, which are shown to it in lower case. Nothing if it
/// has none of them.
fn without_addresses(text: &str, is_unwanted: impl Fn(&str) -> bool) -> Option<String> {
    let in_local = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-/=?^_`{|}~.".contains(c);
    let in_domain = |c: char| c.is_ascii_alphanumeric() || "-._[]:".contains(c);
    let part = |from: usize, to: usize| text.get(from..to).unwrap_or_default();
    let mut kept = String::new();
    let mut copied = 0;
    for (at, _) in text.match_indices('@') {
        // What stands right before an address may be no part of it: `rcpt=a@b`. The longest counts.
        let before = part(copied, at).char_indices().rev().take_while(|(_, c)| in_local(*c));
        let mut starts: Vec<usize> = before.map(|(index, _)| copied + index).collect();
        starts.reverse();
        let domain: String =
            part(at + 1, text.len()).chars().take_while(|c| in_domain(*c)).collect();
        let bare = domain.trim_end_matches(['.', ':', '-', ']']);
        // `a@b:unknown` names `a@b`, where `a@[IPv6:::1]` is one address.
        let before_colon = domain.split(':').next().unwrap_or_default();
        let found = starts.into_iter().find_map(|start| {
            let ends = [&*domain, bare, before_colon];
            let mut ends = ends.into_iter().map(|domain| at + 1 + domain.len());
            let is_found = |end: &usize| is_unwanted(&part(start, *end).to_ascii_lowercase());
            Some((start, ends.find(is_found)?))
        });
        if let Some((start, end)) = found {
            kept.push_str(part(copied, start));
            kept.push_str("[another recipient]");
            copied = end;
        }
    }
    (copied > 0).then(|| kept + part(copied, text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Proves: I16
    #[test]
    fn one_recipients_outcome_does_not_tell_of_another() {
        let envelope =
            Envelope::parse("s@x", ["a@b.example", "Hidden@b.example", "h@[192.0.2.1]"]).unwrap();
        let check = |text: &str, told: [&str; 3]| {
            let report = DeliveryReport::same(&envelope, &Outcome::Accepted(Reply::new(250, text)));
            let texts = report.outcomes().iter().map(|(_, outcome)| outcome.reply().text());
            assert_eq!(texts.collect::<Vec<_>>(), told, "{text}");
        };
        let other = "[another recipient]";
        check("2.0.0 queued as 1@host", ["queued as 1@host"; 3]);
        check(
            "for <a@b.example>, <hidden@B.example>.",
            [
                &format!("for <a@b.example>, <{other}>."),
                &format!("for <{other}>, <hidden@B.example>."),
                &format!("for <{other}>, <{other}>."),
            ],
        );
        check(
            "rcpt=a@b.example: ok, x@y h@[192.0.2.1]",
            [
                &format!("rcpt=a@b.example: ok, x@y {other}"),
                &format!("rcpt={other}: ok, x@y {other}"),
                &format!("rcpt={other}: ok, x@y h@[192.0.2.1]"),
            ],
        );
        check(
            "hidden@b.example.",
            [&format!("{other}."), "hidden@b.example.", &format!("{other}.")],
        );
        check(
            "hidden@b.example:unknown",
            [&format!("{other}:unknown"), "hidden@b.example:unknown", &format!("{other}:unknown")],
        );
        check("@ a@ @b @@ a@b", ["@ a@ @b @@ a@b"; 3]);
        let outcomes = ["a@b.example full", "no", "hidden@b.example"]
            .map(|text| Outcome::Deferred(Reply::new(450, &format!("4.2.2 {text}"))));
        let report = DeliveryReport::new(&envelope, outcomes.to_vec()).unwrap();
        let told: Vec<String> =
            report.outcomes().iter().map(|(_, outcome)| outcome.reply().to_string()).collect();
        assert_eq!(
            told,
            ["450 4.2.2 a@b.example full", "450 4.2.2 no", &format!("450 4.2.2 {other}")]
        );
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_looked_through(text in "([a-c]{0,2}[@.= <>\\[\\]:é-]{0,2}){0,12}") {
            let told = without_addresses(&text, |address| address == "a@b" || address == "c@c");
            let told = told.unwrap_or(text);
            proptest::prop_assert!(!told.split([' ', '<', '>']).any(|word| word == "a@b"));
        }
    }

    #[test]
    fn a_report_answers_for_every_recipient() {
        let envelope = Envelope::parse("a@b", ["c@d", "e@f"]).unwrap();
        let ok = Outcome::Accepted(Reply::new(250, "ok"));
        assert!(DeliveryReport::new(&envelope, vec![ok.clone()]).is_none());
        let report = DeliveryReport::new(&envelope, vec![ok.clone(), ok.clone()]).unwrap();
        assert_eq!(report, DeliveryReport::same(&envelope, &ok));
        assert_eq!(report.outcomes()[1].0.as_str(), "e@f");
        assert_eq!(report.outcomes()[1].1.reply().code(), 250);
    }
}
