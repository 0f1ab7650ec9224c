//! The long run goes on where it stopped, however it was stopped.

use std::path::Path;
use std::process::Stdio;

use sendmail_tests::long::record::Line;
use sendmail_tests::long::state::State;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

fn long_run(state: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crash-test"));
    command.args(["--long", "--rounds", "2", "--kills", "6", "--mails", "60", "--races", "0"]);
    command.arg("--state").arg(state).kill_on_drop(true);
    command
}

#[tokio::test]
async fn a_long_run_that_is_killed_goes_on_with_the_round_that_it_lacks() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("long.jsonl");
    let mut first = long_run(&state).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(first.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("it ended before its first round did");
        if line.starts_with("round 1 of 2") {
            break;
        }
    }
    first.kill().await.unwrap();

    let second = long_run(&state).output().await.unwrap();
    let said = String::from_utf8_lossy(&second.stdout);
    assert!(second.status.success(), "{said}");
    assert!(said.contains("2 of 2 rounds"), "{said}");
    let lines = State::read(&state).unwrap();
    let runs = lines.iter().filter(|line| matches!(line, Line::Run(_)));
    assert_eq!(runs.count(), 1, "it began anew: {lines:?}");
    let rounds = lines.iter().filter_map(|line| match line {
        Line::Fight(fight) => Some(fight.round),
        _ => None,
    });
    assert_eq!(rounds.collect::<Vec<_>>(), [0, 1]);
}
