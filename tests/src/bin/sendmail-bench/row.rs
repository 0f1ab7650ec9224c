//! A row of the table: who is compared with whom on which work, and what is to come of it.

use std::sync::Arc;

use async_trait::async_trait;
use sendmail_tests::Result;

use crate::figures::{Metric, Sample};
use crate::scale::Scale;

/// Somebody who does the work.
#[async_trait]
pub(crate) trait Contestant: Send + Sync {
    /// Its name, by which contestants of the same work are told apart.
    fn name(&self) -> String;

    /// Why it cannot take part, if it cannot.
    fn missing(&self) -> Option<String> {
        None
    }

    /// Does the work once, from a fresh start.
    ///
    /// # Errors
    ///
    /// It failed, or did not do all of it.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe; nobody does.
    async fn round(&self, scale: &Scale) -> Result<Sample>;
}

/// A contestant that several rows may have.
pub(crate) type Shared = Arc<dyn Contestant>;

/// One row.
pub(crate) struct Row {
    /// By which name it is asked for.
    pub(crate) name: &'static str,
    /// The work. Rows of the same work are measured together, and those who take part in several of them
    /// only once.
    pub(crate) work: &'static str,
    /// What is looked at.
    pub(crate) metric: Metric,
    /// Ours.
    pub(crate) ours: Shared,
    /// Whom it is compared with.
    pub(crate) against: Against,
    /// What is to come of it.
    pub(crate) goal: Goal,
}

/// Whom one is compared with.
#[derive(Clone)]
pub(crate) enum Against {
    /// Nobody: the figure speaks for itself.
    Nobody,
    /// One other.
    One(Shared),
    /// Two that each do a part, one after the other: their rates become 1/(1/a + 1/b).
    Both(Shared, Shared),
}

/// What is to come of a comparison. All ratios are ours to theirs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Goal {
    /// The ratio is at least this; the second figure is the least that counts.
    AtLeast(f64, f64),
    /// The ratio, or the figure if there is nobody to compare with, is at most this.
    AtMost(f64),
    /// No goal; it is told.
    Told,
}

/// Whether a goal is met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is.
    Met,
    /// It is not, and it counts.
    Counts,
    /// It is not.
    Missed,
    /// There was no goal.
    NoGoal,
    /// Somebody was missing.
    NotMeasured,
}

impl Goal {
    /// A ratio of at least this, and nothing below counts.
    pub(crate) const fn at_least(ratio: f64) -> Self {
        Self::AtLeast(ratio, ratio)
    }

    /// What a figure or ratio is to it.
    pub(crate) fn judge(self, value: Option<f64>) -> Verdict {
        match (self, value) {
            (_, None) => Verdict::NotMeasured,
            (Self::Told, _) => Verdict::NoGoal,
            (Self::AtLeast(goal, _), Some(value)) if value >= goal => Verdict::Met,
            (Self::AtLeast(_, least), Some(value)) if value >= least => Verdict::Counts,
            (Self::AtMost(goal), Some(value)) if value <= goal => Verdict::Met,
            _ => Verdict::Missed,
        }
    }
}

impl Verdict {
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::Counts => "missed, but counts",
            Self::Missed => "missed",
            Self::NoGoal => "no goal",
            Self::NotMeasured => "not measured",
        }
    }
}

impl Against {
    pub(crate) fn contestants(&self) -> Vec<Shared> {
        match self {
            Self::Nobody => Vec::new(),
            Self::One(one) => vec![Arc::clone(one)],
            Self::Both(one, other) => vec![Arc::clone(one), Arc::clone(other)],
        }
    }

    /// What they come to, if there is anybody. `figure` is the median of the contestant with this name.
    pub(crate) fn figure(&self, figure: impl Fn(&str) -> Option<f64>) -> Option<f64> {
        match self {
            Self::Nobody => None,
            Self::One(one) => figure(&one.name()),
            Self::Both(one, other) => Some(in_turn(figure(&one.name())?, figure(&other.name())?)),
        }
    }

    /// What ours comes to beside theirs: a ratio, or ours itself beside nobody.
    pub(crate) fn compare(&self, ours: f64, figure: impl Fn(&str) -> Option<f64>) -> Option<f64> {
        if matches!(self, Self::Nobody) {
            return Some(ours);
        }
        let theirs = self.figure(figure)?;
        (theirs > 0.0).then(|| ours / theirs)
    }

    /// Who that is, in words.
    pub(crate) fn words(&self) -> String {
        let names: Vec<String> = self.contestants().iter().map(|one| one.name()).collect();
        names.join(", then ")
    }
}

/// The rate of one part of the work and then the other.
fn in_turn(one: f64, other: f64) -> f64 {
    1.0 / (1.0 / one + 1.0 / other)
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Named(&'static str);

    #[async_trait]
    impl Contestant for Named {
        fn name(&self) -> String {
            self.0.to_owned()
        }

        async fn round(&self, _: &Scale) -> Result<Sample> {
            Ok(Sample::default())
        }
    }

    #[test]
    fn goals_are_judged_as_they_are_stated() {
        let goal = Goal::AtLeast(10.0, 6.0);
        assert_eq!(goal.judge(Some(10.0)), Verdict::Met);
        assert_eq!(goal.judge(Some(9.9)), Verdict::Counts);
        assert_eq!(goal.judge(Some(5.9)), Verdict::Missed);
        assert_eq!(goal.judge(None), Verdict::NotMeasured);
        assert_eq!(Goal::at_least(2.0).judge(Some(1.9)), Verdict::Missed);
        assert_eq!(Goal::AtMost(3.0).judge(Some(3.0)), Verdict::Met);
        assert_eq!(Goal::AtMost(3.0).judge(Some(3.1)), Verdict::Missed);
        assert_eq!(Goal::AtMost(0.0).judge(Some(0.0)), Verdict::Met);
        assert_eq!(Goal::Told.judge(Some(1.0)), Verdict::NoGoal);
    }

    #[test]
    fn ratios_are_ours_to_theirs() {
        let figure = |name: &str| match name {
            "fast" => Some(6000.0),
            "faster" => Some(12_000.0),
            "stopped" => Some(0.0),
            _ => None,
        };
        let named = |name| -> Shared { Arc::new(Named(name)) };
        assert_eq!(Against::One(named("fast")).compare(3000.0, figure), Some(0.5));
        let both = Against::Both(named("fast"), named("faster"));
        assert_eq!(both.compare(2000.0, figure), Some(0.5));
        assert_eq!(both.words(), "fast, then faster");
        assert_eq!(Against::One(named("absent")).compare(1.0, figure), None);
        assert_eq!(Against::One(named("stopped")).compare(1.0, figure), None);
        assert_eq!(Against::Nobody.compare(7.0, figure), Some(7.0));
    }
}
