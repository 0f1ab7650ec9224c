//! For programs: objects, one a line.

use serde_json::{Value, json};

use crate::figures::{median, range};
use crate::row::{Against, Goal, Row};
use crate::run::{Entry, Outcome};

/// A line for each figure and one for each row.
pub(crate) fn lines(outcome: &Outcome) -> Vec<String> {
    let figures = outcome.entries.iter().flat_map(|entry| figures(outcome.work, entry));
    let rows = outcome.rows.iter().map(|row| goal(outcome, row));
    figures.chain(rows).map(|value| value.to_string()).collect()
}

fn figures(work: &str, entry: &Entry) -> Vec<Value> {
    let absent = || {
        let why = entry.absent.as_ref()?;
        Some(json!({ "kind": "absent", "work": work, "who": entry.name, "why": why }))
    };
    let figure = |(metric, samples): (crate::figures::Metric, &[f64])| {
        let (low, high) = range(samples).unzip();
        json!({
            "kind": "figure",
            "work": work,
            "who": entry.name,
            "metric": metric.name(),
            "unit": metric.unit().trim(),
            "median": median(samples),
            "low": low,
            "high": high,
            "samples": samples,
        })
    };
    entry.figures.iter().map(figure).chain(absent()).collect()
}

fn goal(outcome: &Outcome, row: &Row) -> Value {
    let value = outcome.value(row);
    let (is, target, least) = match row.goal {
        Goal::AtLeast(goal, least) => ("at least", Some(goal), Some(least)),
        Goal::AtMost(goal) => ("at most", Some(goal), None),
        Goal::Told => ("none", None, None),
    };
    json!({
        "kind": "row",
        "name": row.name,
        "work": outcome.work,
        "metric": row.metric.name(),
        "ours": row.ours.name(),
        "against": row.against.words(),
        "ratio": !matches!(row.against, Against::Nobody),
        "theirs": outcome.theirs(row),
        "value": value,
        "goal": is,
        "target": target,
        "least": least,
        "verdict": row.goal.judge(value).word(),
    })
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use async_trait::async_trait;
    use sendmail_tests::Result;

    use super::*;
    use crate::figures::{Figures, Metric, Sample};
    use crate::row::{Contestant, Shared};
    use crate::scale::Scale;

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

    /// What came of a work with one who was faster, and one who was not there.
    pub(in crate::report) fn outcome() -> Outcome {
        let named = |name| -> Shared { Arc::new(Named(name)) };
        let row = |name, against, goal| Row {
            name,
            work: "work",
            metric: Metric::Rate,
            ours: named("ours"),
            against: Against::One(named(against)),
            goal,
        };
        let entry = |name: &str, rates: &[f64], absent: Option<&str>| {
            let mut figures = Figures::default();
            rates.iter().for_each(|rate| figures.add(Sample::default().with(Metric::Rate, *rate)));
            Entry { name: name.to_owned(), figures, absent: absent.map(str::to_owned) }
        };
        Outcome {
            work: "work",
            rows: vec![
                row("one", "theirs", Goal::AtLeast(10.0, 4.0)),
                row("two", "gone", Goal::AtMost(2.0)),
            ],
            entries: vec![
                entry("ours", &[100.0, 25.0, 50.0], None),
                entry("theirs", &[10.0], None),
                entry("gone", &[], Some("not installed")),
            ],
        }
    }

    #[test]
    fn each_line_is_an_object() {
        let lines = lines(&outcome());
        let values: Vec<Value> =
            lines.iter().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let kinds: Vec<_> = values.iter().filter_map(|value| value["kind"].as_str()).collect();
        assert_eq!(kinds, ["figure", "figure", "absent", "row", "row"]);
        assert_eq!(values[0]["median"], 50.0);
        assert_eq!(values[0]["low"], 25.0);
        assert_eq!(values[0]["samples"], json!([100.0, 25.0, 50.0]));
        assert_eq!(values[2]["why"], "not installed");
        assert_eq!(values[3]["value"], 5.0);
        assert_eq!(values[3]["theirs"], 10.0);
        assert_eq!(values[3]["verdict"], "missed, but counts");
        assert_eq!(values[4]["value"], Value::Null);
    }
}
