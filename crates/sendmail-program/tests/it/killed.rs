//! Our process is killed while the program reads: the message arrives whole all the same.

use std::process::Command;

use sendmail_core::{Mailer, Message};
use sendmail_program::ProgramMailer;

use crate::support::{Count, Script, envelope, eventually, message, wait_for};

/// Names the program to the process that is to be killed.
const PROGRAM: &str = "SENDMAIL_PROGRAM_TEST_PROGRAM";

/// More than any pipe holds.
fn large() -> Message {
    message(&".A line of a message that is longer than a pipe.\n".repeat(40_000))
}

/// The part of the process that is killed; does nothing unless it was started as such.
#[tokio::test]
async fn part_of_the_process_that_is_killed() {
    let Some(program) = std::env::var_os(PROGRAM) else { return };
    let mailer = ProgramMailer::new(program).unwrap();
    let report = mailer.send(&envelope("a@b", &["c@d"]), &large(), &Count::default()).await;
    panic!("killed before the program could end, and yet: {report:?}");
}

#[test]
fn kill_9_cuts_no_message_short() {
    // It reads a part, waits until its parent is dead, says something, which must not kill it, and
    // reads the rest.
    let script = Script::new(&format!(
        "head -c 1000 > \"$dir/begin\"\n: > \"$dir/reading\"\n{}\n\
         echo one; echo two >&2\ncat > \"$dir/rest\"\n: > \"$dir/done\"",
        wait_for("parent-is-dead")
    ));
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "killed::part_of_the_process_that_is_killed"])
        .env(PROGRAM, script.program())
        .spawn()
        .unwrap();
    eventually("the program reads", || script.has("reading"));
    parent.kill().unwrap();
    let status = parent.wait().unwrap();
    assert_eq!(status.code(), None, "it must have been killed, not ended: {status}");
    script.signal("parent-is-dead");

    eventually("the program ends", || script.has("done"));
    let arrived = script.read("begin") + &script.read("rest");
    let sent = String::from_utf8(large().as_bytes().to_vec()).unwrap().replace("\r\n", "\n");
    assert!(arrived == sent, "{} of {} bytes arrived", arrived.len(), sent.len());
}
