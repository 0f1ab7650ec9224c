//! The benchmarks measure what they are asked for, and what they print can be drawn. How fast anything is
//! does not matter here.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_sendmail-bench")).args(words).output().unwrap()
}

#[test]
fn a_row_is_measured_beside_its_contestant_and_drawn() {
    let output = bench(&["enqueue-one", "--quick", "--rounds", "2", "--json"]);
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines: Vec<Value> =
        printed.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let kinds: Vec<_> = lines.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["machine", "figure", "figure", "row"]);
    assert!(lines[0]["cores"].as_u64() > Some(0) && lines[0]["quick"] == true);
    for figure in &lines[1..3] {
        assert_eq!(figure["samples"].as_array().map(Vec::len), Some(2), "{figure}");
    }
    let row = &lines[3];
    assert_eq!((row["name"].as_str(), row["target"].as_f64()), (Some("enqueue-one"), Some(0.8)));
    let ratio = lines[1]["median"].as_f64().unwrap() / lines[2]["median"].as_f64().unwrap();
    assert!((row["value"].as_f64().unwrap() - ratio).abs() < 1e-6, "{printed}");

    let folder = tempfile::tempdir().unwrap();
    let (file, plots) = (folder.path().join("run.json"), folder.path().join("plots"));
    std::fs::write(&file, &printed).unwrap();
    let words = ["--plot", file.to_str().unwrap(), "--plots", plots.to_str().unwrap()];
    assert!(bench(&words).status.success());
    for name in ["enqueue.svg", "goals.svg"] {
        let svg = std::fs::read_to_string(plots.join(name)).unwrap();
        assert!(svg.starts_with("<svg "), "{name}");
    }
}

#[test]
fn a_name_that_nobody_has_is_refused_with_those_that_there_are() {
    let output = bench(&["enqueue-none"]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success());
    assert!(told.contains("enqueue-none") && told.contains("enqueue-one"), "{told}");
}
