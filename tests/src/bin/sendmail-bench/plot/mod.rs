//! The plots of `docs/benchmarks.md`, from the JSON of a run: a bar chart for each work and figure by which
//! anybody is compared, and one that shows how far each goal is.

mod svg;

use std::fs;
use std::path::{Path, PathBuf};

use sendmail_tests::Result;
use serde_json::Value;

use svg::{Bar, Chart, Scale};

/// How far from a goal is shown at the most.
const FARTHEST: f64 = 16.0;

/// Draws all plots of a run into a folder; which files it has written.
pub(crate) fn draw(json: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let text = fs::read_to_string(json)?;
    fs::create_dir_all(folder)?;
    let mut written = Vec::new();
    for (name, svg) in plots(&text)? {
        let file = folder.join(format!("{name}.svg"));
        fs::write(&file, svg)?;
        written.push(file);
    }
    Ok(written)
}

/// The name and the text of each plot.
fn plots(text: &str) -> Result<Vec<(String, String)>> {
    // What was printed before the first object, by cargo or apt, is none.
    let objects = text.lines().filter(|line| line.starts_with('{'));
    let objects: Vec<Value> = objects.map(serde_json::from_str).collect::<Result<_, _>>()?;
    let of_kind = |kind: &'static str| objects.iter().filter(move |object| object["kind"] == kind);
    let mut plots = Vec::new();
    let mut charts: Vec<(String, Chart)> = Vec::new();
    for figure in of_kind("figure") {
        let (Some(work), Some(metric)) = (figure["work"].as_str(), figure["metric"].as_str())
        else {
            continue;
        };
        let is_compared =
            |row: &Value| row["work"] == work && row["metric"] == metric && row["ratio"] == true;
        if !of_kind("row").any(is_compared) {
            continue;
        }
        // Everybody is compared by the rate, where there is one; otherwise by each figure.
        let name =
            if metric == "per_second" { work.to_owned() } else { format!("{work}-{metric}") };
        let name = name.replace('_', "-");
        if !charts.iter().any(|(known, _)| *known == name) {
            let unit = figure["unit"].as_str().unwrap_or_default();
            let unit = if unit == "/s" { "per second" } else { unit };
            let title = format!("{work}: {unit}, median and range");
            charts.push((name.clone(), Chart { title, scale: Scale::FromZero, bars: Vec::new() }));
        }
        let chart = charts.iter_mut().find(|(known, _)| *known == name);
        if let (Some((_, chart)), Some(bar)) = (chart, bar(figure)) {
            chart.bars.push(bar);
        }
    }
    // What stands alone needs no picture.
    charts.retain(|(_, chart)| chart.bars.len() > 1);
    plots.extend(charts.into_iter().map(|(name, chart)| (name, chart.svg())));
    let goals: Vec<Bar> = of_kind("row").filter_map(goal).collect();
    if !goals.is_empty() {
        let title = "how far each goal is: 1 is met, more is better".to_owned();
        let chart = Chart { title, scale: Scale::AroundOne(FARTHEST), bars: goals };
        plots.push(("goals".to_owned(), chart.svg()));
    }
    Ok(plots)
}

fn bar(figure: &Value) -> Option<Bar> {
    let who = figure["who"].as_str()?;
    Some(Bar {
        label: who.to_owned(),
        value: figure["median"].as_f64()?,
        range: Some((figure["low"].as_f64()?, figure["high"].as_f64()?)),
        ours: who.contains("sendmail-queue")
            || who.contains("sendmail-rs")
            || who.contains("attached"),
    })
}

fn goal(row: &Value) -> Option<Bar> {
    let (value, target) = (row["value"].as_f64()?, row["target"].as_f64()?);
    let share = achieved(value, target, row["goal"] == "at least");
    let label = row["name"].as_str()?.to_owned();
    Some(Bar { label, value: share, range: None, ours: share >= 1.0 })
}

/// How many times a goal is met: less than one if it is missed.
fn achieved(value: f64, target: f64, at_least: bool) -> f64 {
    let share = match at_least {
        true => value / target,
        // Nothing at all meets every "at most".
        false if value <= target && value <= 0.0 => FARTHEST,
        false => target / value,
    };
    share.clamp(1.0 / FARTHEST, FARTHEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RUN: &str = r#"$ apt-get install
{"kind":"machine","cores":2}
{"kind":"figure","work":"drain","who":"sendmail-queue run","metric":"per_second","unit":"/s","median":50.0,"low":25.0,"high":100.0}
{"kind":"figure","work":"drain","who":"a < b","metric":"per_second","unit":"/s","median":10.0,"low":9.0,"high":11.0}
{"kind":"figure","work":"drain","who":"sendmail-queue run","metric":"memory_mib","unit":"MiB","median":5.0,"low":5.0,"high":5.0}
{"kind":"absent","work":"drain","who":"nobody","why":"x"}
{"kind":"row","name":"drain-zope","work":"drain","metric":"per_second","ratio":true,"value":5.0,"target":10.0,"goal":"at least"}
{"kind":"row","name":"told","work":"drain","metric":"memory_mib","ratio":false,"value":5.0,"target":null,"goal":"none"}
"#;

    #[test]
    fn a_run_has_a_plot_for_each_work_and_one_of_goals() {
        let plots = plots(RUN).expect("a run");
        let names: Vec<&str> = plots.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["drain", "goals"]);
        assert!(plots[0].1.contains("a &lt; b") && !plots[0].1.contains("nobody"));
        assert!(plots[1].1.contains("drain-zope") && !plots[1].1.contains("told"));
    }

    #[test]
    fn goals_are_as_far_as_they_are() {
        assert!((achieved(5.0, 10.0, true) - 0.5).abs() < 1e-9);
        assert!((achieved(5.0, 10.0, false) - 2.0).abs() < 1e-9);
        assert!((achieved(0.0, 0.0, false) - FARTHEST).abs() < 1e-9);
        assert!((achieved(3.0, 0.0, false) - 1.0 / FARTHEST).abs() < 1e-9);
        assert!((achieved(1e9, 1.0, true) - FARTHEST).abs() < 1e-9);
    }

    #[test]
    fn what_is_no_object_is_no_run() {
        assert!(plots("{\"kind\":").is_err());
        assert_eq!(plots("nothing\n").expect("an empty run").len(), 0);
    }

    #[test]
    fn plots_are_written_to_files() {
        let folder = tempfile::tempdir().expect("a folder");
        let json = folder.path().join("run.json");
        fs::write(&json, RUN).expect("a file");
        let written = draw(&json, &folder.path().join("plots")).expect("plots");
        assert_eq!(written.len(), 2);
        assert!(written.iter().all(|file| file.is_file()));
    }
}
