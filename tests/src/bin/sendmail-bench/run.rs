//! Runs the rows: those of the same work together, whoever takes part in turn, round by round.

use std::collections::BTreeMap;

use sendmail_tests::Result;
use sendmail_tests::peers::place;

use crate::figures::{Figures, Sample};
use crate::row::{Row, Shared};
use crate::scale::Scale;

/// What came of one work.
pub(crate) struct Outcome {
    /// The work.
    pub(crate) work: &'static str,
    /// Its rows.
    pub(crate) rows: Vec<Row>,
    /// Who took part, in the order in which they did.
    pub(crate) entries: Vec<Entry>,
}

/// What came of one contestant.
pub(crate) struct Entry {
    /// Its name.
    pub(crate) name: String,
    /// What was measured.
    pub(crate) figures: Figures,
    /// Why it is out, if it is.
    pub(crate) absent: Option<String>,
}

impl Outcome {
    /// The median of a contestant.
    pub(crate) fn median(&self, name: &str, metric: crate::figures::Metric) -> Option<f64> {
        self.entries.iter().find(|entry| entry.name == name)?.figures.median(metric)
    }

    /// What those come to whom ours is compared with in a row of this work.
    pub(crate) fn theirs(&self, row: &Row) -> Option<f64> {
        row.against.figure(|name| self.median(name, row.metric))
    }

    /// What ours comes to in a row of this work: a ratio, or the figure itself.
    pub(crate) fn value(&self, row: &Row) -> Option<f64> {
        let ours = self.median(&row.ours.name(), row.metric)?;
        row.against.compare(ours, |name| self.median(name, row.metric))
    }
}

/// Groups rows by their work, in the order in which the works come.
pub(crate) fn by_work(rows: Vec<Row>) -> Vec<(&'static str, Vec<Row>)> {
    let mut works: Vec<(&'static str, Vec<Row>)> = Vec::new();
    for row in rows {
        match works.iter_mut().find(|(work, _)| *work == row.work) {
            Some((_, rows)) => rows.push(row),
            None => works.push((row.work, vec![row])),
        }
    }
    works
}

/// Measures one work. Who fails once is out, and the others go on.
pub(crate) async fn measure(
    work: &'static str,
    rows: Vec<Row>,
    rounds: usize,
    scale: &Scale,
    tell: &impl Fn(&str),
) -> Outcome {
    let contestants = who_takes_part(&rows);
    let mut absent: BTreeMap<String, String> = BTreeMap::new();
    let mut figures: BTreeMap<String, Figures> = BTreeMap::new();
    for contestant in &contestants {
        if let Some(why) = contestant.missing() {
            tell(&format!("{work}: {} is left out: {why}", contestant.name()));
            absent.insert(contestant.name(), why);
        }
    }
    for round in 1..=rounds {
        for contestant in &contestants {
            let name = contestant.name();
            if absent.contains_key(&name) {
                continue;
            }
            tell(&format!("{work}: round {round} of {rounds}: {name}"));
            match turn(contestant, scale).await {
                Ok(sample) => figures.entry(name).or_default().add(sample),
                Err(error) => {
                    tell(&format!("{work}: {name} is out: {error}"));
                    absent.insert(name, error.to_string());
                }
            }
        }
    }
    let entry = |contestant: &Shared| {
        let name = contestant.name();
        Entry {
            figures: figures.remove(&name).unwrap_or_default(),
            absent: absent.remove(&name),
            name,
        }
    };
    let entries = contestants.iter().map(entry).collect();
    Outcome { work, rows, entries }
}

/// A turn, on a disk that has nothing left to do of the turn before.
async fn turn(contestant: &Shared, scale: &Scale) -> Result<Sample> {
    place::settle()?;
    contestant.round(scale).await
}

/// Everybody in these rows, each once; ours first.
fn who_takes_part(rows: &[Row]) -> Vec<Shared> {
    let mut contestants: Vec<Shared> = Vec::new();
    let ours = rows.iter().map(|row| row.ours.clone());
    let theirs = rows.iter().flat_map(|row| row.against.contestants());
    for contestant in ours.chain(theirs) {
        if !contestants.iter().any(|known| known.name() == contestant.name()) {
            contestants.push(contestant);
        }
    }
    contestants
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::figures::Metric;
    use crate::row::{Against, Contestant, Goal, Verdict};
    use async_trait::async_trait;

    /// One that is as fast as it says, and fails from some round on.
    struct Fake {
        name: &'static str,
        rate: f64,
        rounds: usize,
        log: Arc<Mutex<Vec<&'static str>>>,
    }

    #[async_trait]
    impl Contestant for Fake {
        fn name(&self) -> String {
            self.name.to_owned()
        }

        fn missing(&self) -> Option<String> {
            (self.rounds == 0).then(|| "not installed".to_owned())
        }

        async fn round(&self, _: &Scale) -> Result<Sample> {
            let mut log = self.log.lock().map_err(|_| "a test failed")?;
            log.push(self.name);
            if log.iter().filter(|name| **name == self.name).count() > self.rounds {
                return Err("it broke".into());
            }
            Ok(Sample::default().with(Metric::Rate, self.rate))
        }
    }

    #[tokio::test]
    async fn contestants_take_turns_and_who_fails_is_out() {
        let log = Arc::<Mutex<Vec<&'static str>>>::default();
        let fake = |name, rate, rounds| -> Shared {
            Arc::new(Fake { name, rate, rounds, log: Arc::clone(&log) })
        };
        let (ours, theirs) = (fake("ours", 50.0, 9), fake("theirs", 10.0, 9));
        let (breaks, missing) = (fake("breaks", 10.0, 1), fake("missing", 10.0, 0));
        let row = |name, against| Row {
            name,
            work: "work",
            metric: Metric::Rate,
            ours: ours.clone(),
            against: Against::One(against),
            goal: Goal::at_least(5.0),
        };
        let rows = vec![row("one", theirs), row("two", breaks), row("three", missing)];
        let works = by_work(rows);
        assert_eq!(works.len(), 1);
        let (work, rows) = works.into_iter().next().expect("one work");
        let outcome = measure(work, rows, 3, &Scale::new(true, None), &|_| {}).await;
        let turns = ["ours", "theirs", "breaks", "ours", "theirs", "breaks", "ours", "theirs"];
        assert_eq!(*log.lock().expect("a log"), turns);
        let values: Vec<_> = outcome.rows.iter().map(|row| outcome.value(row)).collect();
        assert_eq!(values, [Some(5.0), Some(5.0), None]);
        assert_eq!(outcome.rows[0].goal.judge(values[0]), Verdict::Met);
        let absent: Vec<_> = outcome.entries.iter().map(|entry| entry.absent.as_deref()).collect();
        assert_eq!(absent, [None, None, Some("it broke"), Some("not installed")]);
    }
}
