//! Several processes claim from one queue.

use std::path::Path;

use sendmail_tests::race::{self, Owner};

const MESSAGES: usize = 2000;

async fn check(owner: Owner) {
    let folder = tempfile::tempdir().unwrap();
    let program = Path::new(env!("CARGO_BIN_EXE_crash-test"));
    let outcome = race::run(program, folder.path(), MESSAGES, owner).await.unwrap();
    assert!(outcome.is_clean(), "{outcome}");
    assert!(outcome.winners > 1, "there was no race: {outcome}");
}

// Proves: I7
#[tokio::test]
async fn four_processes_never_claim_the_same_message() {
    check(Owner::None).await;
}

// Proves: I12, F-claim-kill, I7
#[tokio::test]
async fn four_processes_take_over_from_a_dead_one_and_each_message_is_claimed_once() {
    check(Owner::Killed).await;
}

// Proves: I7
#[tokio::test]
async fn nobody_takes_what_a_stopped_process_has() {
    check(Owner::Stopped).await;
}
