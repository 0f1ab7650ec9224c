//! What became of one attempt: one outcome for each recipient.

use crate::{Envelope, Recipient, Reply, discretion};

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
            discretion::keep(&mut outcomes);
            Self { outcomes }
        })
    }

    /// A report with the same outcome for all.
    #[must_use]
    pub fn same(envelope: &Envelope, outcome: &Outcome) -> Self {
        let each = |recipient: &Recipient| (recipient.clone(), outcome.clone());
        let mut outcomes: Vec<_> = envelope.recipients().iter().map(each).collect();
        discretion::keep(&mut outcomes);
        Self { outcomes }
    }

    /// Recipient and outcome, in the envelope's order.
    #[must_use]
    pub fn outcomes(&self) -> &[(Recipient, Outcome)] {
        &self.outcomes
    }
}

impl Outcome {
    pub(crate) fn reply_mut(&mut self) -> &mut Reply {
        match self {
            Self::Accepted(reply)
            | Self::Deferred(reply)
            | Self::Refused(reply)
            | Self::Unknown(reply) => reply,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
