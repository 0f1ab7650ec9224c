//! The programs for tokio-postgres, diesel-async and sea-orm, each with every end of its transaction.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::scene::{Left, Scene};

/// The same tests for the program of each driver.
macro_rules! programs {
    ($($driver:ident: $program:literal),* $(,)?) => {$(
        mod $driver {
            const PROGRAM: &str = env!(concat!("CARGO_BIN_EXE_", $program));

            #[tokio::test]
            async fn a_commit_keeps_order_and_mail() {
                super::commits(PROGRAM, concat!(stringify!($driver), "_commits")).await;
            }

            #[tokio::test]
            async fn a_rollback_leaves_neither() {
                super::rolls_back(PROGRAM, concat!(stringify!($driver), "_rolls_back")).await;
            }

            #[tokio::test]
            async fn killed_before_the_commit_it_leaves_neither() {
                super::dies_before(PROGRAM, concat!(stringify!($driver), "_dies_before")).await;
            }

            #[tokio::test]
            async fn killed_after_the_commit_it_keeps_both_once() {
                super::dies_after(PROGRAM, concat!(stringify!($driver), "_dies_after")).await;
            }
        }
    )*};
}

programs! {
    diesel_async: "orders-diesel-async",
    sea_orm: "orders-sea-orm",
    tokio_postgres: "orders-tokio-postgres",
}

async fn commits(program: &str, test: &'static str) {
    let Some(scene) = Scene::new(test) else { return };
    let told = ends(&scene, program, "commit").await;
    let [attached, last] = &told[..] else { panic!("{told:?}") };
    assert_eq!(last, "committed");
    let mails = vec![message_id(attached)];
    assert_eq!(scene.left().await, Left { orders: 1, mails });
}

async fn rolls_back(program: &str, test: &'static str) {
    let Some(scene) = Scene::new(test) else { return };
    let told = ends(&scene, program, "rollback").await;
    assert_eq!(told.last().unwrap(), "rolled back");
    assert_eq!(scene.left().await, Left { orders: 0, mails: vec![] });
}

async fn dies_before(program: &str, test: &'static str) {
    let Some(scene) = Scene::new(test) else { return };
    let told = is_killed(&scene, program, "wait-before-commit").await;
    assert_eq!(told.len(), 1, "it attached its mail, and no more: {told:?}");
    assert_eq!(scene.left().await, Left { orders: 0, mails: vec![] });
}

async fn dies_after(program: &str, test: &'static str) {
    let Some(scene) = Scene::new(test) else { return };
    let told = is_killed(&scene, program, "wait-after-commit").await;
    let mails = vec![message_id(&told[0])];
    assert_eq!(scene.left().await, Left { orders: 1, mails });
}

/// Runs the program to its end, and gives what it told.
async fn ends(scene: &Scene, program: &str, end: &str) -> Vec<String> {
    let output = scene.program(program, end).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Runs the program until it is ready, kills it, and gives what it told before.
async fn is_killed(scene: &Scene, program: &str, end: &str) -> Vec<String> {
    let mut command = scene.program(program, end);
    // It reads its standard input, which stays open until it is dead.
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let mut told = Vec::new();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    loop {
        let line = lines.next_line().await.unwrap().expect("the program died by itself");
        if line == "ready" {
            break;
        }
        told.push(line);
    }
    child.kill().await.unwrap();
    told
}

fn message_id(line: &str) -> String {
    line.strip_prefix("attached ").unwrap().to_owned()
}
